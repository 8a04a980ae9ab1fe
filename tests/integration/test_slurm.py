"""Runs on a real Slurm: two emulated nodes, and a partition whose jobs preempt those of the other."""
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

from cli_world import FINAL, World, mounts_below, processes_of
from conftest import S3Store, program, wait_for

TOP = pathlib.Path(__file__).resolve().parents[2]
LONG = bool(os.environ.get("DSTACK_TEST_LONG"))
LIMIT_S = 120 if LONG else 60

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's daemons run as root here"),
    pytest.mark.skipif(not shutil.which("slurmctld"), reason="Slurm is not installed"),
    pytest.mark.skipif(bool(os.environ.get("DSTACK_TEST_CHROOT")), reason="Slurm's daemons do not start in a chroot"),
]


class Slurm:
    def __init__(self, directory):
        self.directory = directory
        port = subprocess.run([TOP / "scripts/servers/free-ports", "1", "3"], capture_output=True,
                              text=True, check=True).stdout.strip()
        self.environment = {"SLURM_CONF": str(directory / "slurm.conf")}
        subprocess.run([TOP / "scripts/servers/slurm", directory, port], check=True, timeout=60)

    def run(self, *arguments):
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=30,
                              env={**os.environ, **self.environment})
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout.strip()

    def job(self, number):
        text = self.run("scontrol", "show", "job", "-o", str(number))
        return dict(re.findall(r"(\S+?)=(\S*)", text))

    def preempt(self, node, seconds=1):
        """A job that takes all of NODE."""
        return self.run("sbatch", "--parsable", "-p", "hi", "-w", node, "-c2", "-o", "/dev/null",
                        "--wrap", f"sleep {seconds}")

    def resume(self, node):
        """Slurm may have done so by itself: the node answers."""
        wait_for(lambda: "DOWN" not in self.run("sinfo", "-h", "-p", "hi", "-n", node, "-o", "%T").upper()
                 or not self.run("scontrol", "update", f"nodename={node}", "state=RESUME"), 10,
                 f"{node} is up")

    def idle(self):
        return not self.run("squeue", "-h", "-o", "%i")

    def stop(self):
        subprocess.run(["scancel", "-u", "root"], env={**os.environ, **self.environment}, timeout=30)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and not self.idle():
            time.sleep(0.1)
        subprocess.run([TOP / "scripts/servers/stop", self.directory], check=True, timeout=60)


@pytest.fixture(scope="module")
def slurm():
    directory = pathlib.Path(tempfile.mkdtemp(prefix="dsl", dir="/tmp"))
    cluster = None
    try:
        cluster = Slurm(directory)
        yield cluster
    finally:
        if cluster:
            cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)


class Cluster(World):
    """The command line with a default remote on the S3 server whose jobs run on Slurm."""

    def __init__(self, directory, slurm):
        super().__init__(directory)
        self.slurm, self.remote = slurm, S3Store()
        self.environment.update(self.remote.environment)
        self.environment.update(slurm.environment)
        self.configure()

    def configure(self, *options):
        self.ok("config", "--storage", self.remote.url, *self.remote.arguments, "--engine", "slurm",
                "--slurm-partition", "hi", "--slurm-interruptible-partition", "spot", *options)

    def document(self, name):
        key = next(k for k in self.remote.keys("runs/") if k.endswith(f"/{name}.json"))
        return json.loads(self.remote.read(key))

    def state(self, name):
        return self.document(name)["state"]

    def wait_state(self, name, *statuses, seconds=LIMIT_S):
        wait_for(lambda: self.state(name)["status"] in statuses, seconds,
                 f"{name} is {statuses}")
        return self.state(name)

    def number(self, name):
        return self.state(name)["engine_job"].split()[0]

    def submit(self, workflow, *options):
        return self.ok("run", workflow, "-d", "--remote", *options).splitlines()[1].split()[0]

    def begin(self, workflow, *options):
        name = self.submit(workflow, *options)
        wait_for(lambda: "up" in self.ok("logs", name) or self.state(name)["status"] in FINAL, LIMIT_S,
                 f"{name} is up")
        assert "up" in self.output(name), self.state(name)
        return name

    def output(self, name):
        return self.ok("logs", name)

    def artifact(self, name, path):
        key = next(k for k in self.remote.keys("artifacts/") if k.endswith(f"/{name}/{path}"))
        return self.remote.read(key)

    def assert_nothing_left(self):
        def remains():
            keys = [k for k in self.remote.keys()
                    if k.endswith((".beat", ".stop")) or "/.dstack-mount/" in k]
            return (processes_of(self.home), mounts_below(self.home),
                    list((self.home / "work").glob("*")), keys)
        wait_for(lambda: not any(remains()), 20, f"the end of {remains()}")


@pytest.fixture
def cluster(tmp_path, slurm):
    cluster = Cluster(tmp_path, slurm)
    yield cluster
    subprocess.run(["scancel", "-u", "root"], env=cluster.environment, timeout=30)
    wait_for(slurm.idle, 20, "the queue is empty")
    cluster.clear()
    cluster.remote.remove_all()


def workflow(name, commands, artifacts=(), **more):
    lines = "".join(f"      {line}\n" for line in commands.strip("\n").splitlines())
    text = f"  - name: {name}\n    provider: bash\n    commands: |\n{lines}"
    if artifacts:
        text += "    artifacts:\n" + "".join(
            f"      - path: {path}\n        mount: {str(mount).lower()}\n" for path, mount in artifacts)
    return text + "".join(f"    {key}: {value}\n" for key, value in more.items())


def workflows(*texts):
    return "workflows:\n" + "".join(texts)


def test_a_job_runs_on_a_node_and_is_done(cluster):
    cluster.write(workflows(workflow("hello", """
echo "on $SLURMD_NODENAME, attempt $DSTACK_RUN_ATTEMPT$DSTACK_RESUMED"
echo 1 > output/a; echo 2 > live/b""", [("output", False), ("live", True)],
                                     resources="{cpu: 2, memory: 100MB}")))
    done = cluster.run("run", "hello", "--remote", "-t", "first", limit=LIMIT_S)
    assert done.returncode == 0, done.err + done.out
    assert re.search(r"^on n[12], attempt 1$", done.out, re.M), done.out
    name = cluster.last()["run"]
    assert cluster.artifact(name, "output/a") == b"1\n" and cluster.artifact(name, "live/b") == b"2\n"
    job = cluster.slurm.job(cluster.number(name))
    assert (job["Partition"], job["MinMemoryNode"], job["CPUs/Task"]) == ("hi", "100M", "2")
    assert len(cluster.remote.keys("bin/")) == 2
    cluster.assert_nothing_left()


TRAIN = """
import hashlib, os, sys, time
import torch

steps, every = int(sys.argv[1]), int(sys.argv[2])
torch.manual_seed(7)
torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
last = "checkpoints/last.pt"
first = 0
if os.path.exists(last):
    saved = torch.load(last)
    model.load_state_dict(saved["model"])
    optimiser.load_state_dict(saved["optimiser"])
    torch.set_rng_state(saved["rng"])
    first = saved["step"]
print(f"up at step {first}", flush=True)
for step in range(first, steps):
    x = torch.randn(32, 8)
    loss = ((model(x) - x.pow(2).sum(1, keepdim=True)) ** 2).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    print(f"step {step}", flush=True)
    if (step + 1) % every == 0:
        torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(),
                    "rng": torch.get_rng_state(), "step": step + 1}, last + ".tmp")
        os.rename(last + ".tmp", last)
    time.sleep(0.1)
weights = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
print("final", loss.item().hex(), hashlib.sha256(weights).hexdigest())
"""
TIMES = 3 if LONG else 1
STEPS, EVERY = (400, 10) if LONG else (120, 10)


def train(name, mount):
    return workflow(name, f"/usr/bin/python3 train.py {STEPS} {EVERY}", [("checkpoints", mount)],
                    resources="{cpu: 1, interruptible: true}")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """What the training says at its end when nobody disturbs it."""
    directory = tmp_path_factory.mktemp("uninterrupted")
    (directory / "checkpoints").mkdir()
    (directory / "train.py").write_text(TRAIN.replace("time.sleep(0.1)", ""))
    done = subprocess.run(["/usr/bin/python3", "train.py", str(STEPS), str(EVERY)], cwd=directory,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def assert_same_end(cluster, name, uninterrupted, times):
    state = cluster.wait_state(name, *FINAL)
    text = cluster.output(name)
    assert state["status"] == "done", (state, text)
    assert state["attempt"] == times + 1, (state, text)
    assert re.findall(r"^final .*$", text, re.M) == [uninterrupted], text
    repeated = len(re.findall(r"^step \d+$", text, re.M)) - STEPS
    # the last second of a log goes with a machine that goes without a warning
    assert -EVERY <= repeated <= times * EVERY, f"{repeated} steps were repeated: {text}"


def wait_steps(cluster, name, attempt):
    """Until the attempt has saved a checkpoint of its own."""
    def reached():
        parts = cluster.output(name).split("up at step ")
        return len(parts) > attempt and len(re.findall(r"^step ", parts[attempt], re.M)) > EVERY + 1
    wait_for(reached, LIMIT_S, f"{name}, attempt {attempt} trains")


def kill_all(cluster, name):
    """The runner, its keeper, the mount and the commands, at once: a power cut."""
    for _ in range(3):
        for pid in processes_of(cluster.home):
            try:
                process = pathlib.Path(f"/proc/{pid}")
                if name.encode() in (process / "cmdline").read_bytes() + \
                        (process / "environ").read_bytes():
                    os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, FileNotFoundError):
                pass


def assert_warned(text):
    """What an interruption with a warning leaves in the log."""
    assert re.search(r"^dstack: preempted: \d\.\d s are left", text, re.M), text
    for step in ("the commands have ended", "mounts are saved", "artifacts are saved"):
        assert re.search(rf"^dstack: {step}, after \d+\.\d\d s; \d\.\d s are left$", text, re.M), text
    assert re.search(r"^dstack: --- attempt 2, on ", text, re.M), text


def test_training_ends_as_if_nobody_had_disturbed_it(cluster, slurm, uninterrupted):
    """Of four runs, two are preempted (one with an artifact that is not mounted); of one, all
    processes are killed, and `dstack run` submits it again; the node of one goes down."""
    (cluster.repo / "train.py").write_text(TRAIN)
    cluster.write(workflows(train("mounted", True), train("saved", False)))
    preempted, down = [cluster.submit("mounted"), cluster.submit("saved")], cluster.submit("mounted")
    followed = cluster.start("run", "mounted", "--remote")
    wait_for(lambda: len(cluster.runs()) == 4, LIMIT_S, "all are submitted")
    killed = cluster.last()["run"]
    for name in (*preempted, down, killed):
        wait_steps(cluster, name, 1)
    node = slurm.job(cluster.number(down))["NodeList"]
    assert {slurm.job(cluster.number(name))["NodeList"] for name in preempted} == {"n1"}
    assert node == "n2"
    kill_all(cluster, killed)
    slurm.run("scontrol", "update", f"nodename={node}", "state=DOWN", "reason=power")
    try:
        for attempt in range(1, TIMES + 1):
            for name in preempted:
                wait_steps(cluster, name, attempt)
            slurm.preempt("n1", 0)
            for name in preempted:
                wait_for(lambda: cluster.state(name)["attempt"] > attempt, LIMIT_S, f"{name} goes on")
        out, err = followed.communicate(timeout=LIMIT_S)
    finally:
        slurm.resume(node)
    assert followed.returncode == 0 and "Interrupted (" in err, (out, err)
    for name in (down, killed):
        assert_same_end(cluster, name, uninterrupted, 1)
    for name in preempted:
        assert_same_end(cluster, name, uninterrupted, TIMES)
        assert_warned(cluster.output(name))
    cluster.assert_nothing_left()


# Counts to STEPS, one file for each; goes on behind what it finds.
COUNT = """
n=$(ls {path} | wc -l)
echo "up from $n attempt $DSTACK_RUN_ATTEMPT resumed ${{DSTACK_RESUMED:-0}}"
while [ $n -lt {steps} ]; do
    echo $n > {path}/.tmp && mv {path}/.tmp {path}/$(printf %04d $n)
    n=$((n + 1)); sleep 0.1
done
echo counted $n
"""


def count(name, path, mount, steps, **more):
    return workflow(name, COUNT.format(path=path, steps=steps), [(path, mount)],
                    resources="{cpu: 2, interruptible: true}", **more)




@pytest.mark.skipif(not LONG, reason="five minutes of preemptions")
def test_many_runs_preempted_at_any_moment(cluster, slurm):
    steps = 150
    cluster.write(workflows(*(count(f"run{i}", "out", i % 2 == 0, steps) for i in range(20))))
    names = [cluster.submit(f"run{i}") for i in range(20)]
    until = time.monotonic() + 300
    while time.monotonic() < until:
        time.sleep(random.uniform(0, 12))
        slurm.preempt(random.choice(["n1", "n2"]), 1)
    for name in names:
        state = cluster.wait_state(name, *FINAL, seconds=900)
        assert state["status"] == "done", (name, state, cluster.output(name))
        assert f"counted {steps}" in cluster.output(name)
        for step in (0, steps - 1):
            assert cluster.artifact(name, f"out/{step:04}") == f"{step}\n".encode()
    cluster.assert_nothing_left()


WAIT = """
echo up
sleep 60"""


def test_a_run_that_waits_and_one_that_is_cancelled(cluster, slurm):
    cluster.write(workflows(workflow("wait", WAIT, [("output", False)], resources="{cpu: 2}"),
                            workflow("go-on", WAIT, resources="{cpu: 1, interruptible: true}")))
    first, second = cluster.begin("wait"), cluster.begin("wait")
    queued = cluster.submit("wait")
    wait_for(lambda: "waiting: Resources" in cluster.ok("ps", "-v", queued), LIMIT_S, "the reason")
    job = cluster.number(queued)
    cluster.ok("stop", "-y", queued)
    assert cluster.state(queued)["status"] == "stopped"
    assert slurm.job(job)["JobState"] == "CANCELLED"
    slurm.run("scancel", cluster.number(first))
    assert cluster.wait_state(first, *FINAL)["status"] == "stopped"
    assert "cancelled in Slurm" in cluster.state(first)["reason"]
    cluster.ok("stop", "-x", "-y", second)
    assert cluster.wait_state(second, *FINAL)["status"] == "aborted"
    lost = cluster.begin("wait")
    kill_all(cluster, lost)
    wait_for(lambda: "failed" in cluster.ok("ps", lost), LIMIT_S, "the loss is found out")
    assert cluster.state(lost)["reason"] == "runner lost"
    cluster.assert_nothing_left()


def test_what_the_cluster_cannot_give_is_refused(cluster):
    cluster.write(workflows(workflow("cpus", "true", resources="{cpu: 64}"),
                            workflow("memory", "true", resources="{memory: 900GB}"),
                            workflow("gpu", "true", resources="{gpu: {name: A100, memory: 40GB}}"),
                            workflow("nodes", "true", nodes=9), workflow("one", "true")))
    before = len(cluster.remote.keys("runs/"))
    for name, asked in (("cpus", "64 CPUs"), ("memory", "900.0GiB of memory"), ("gpu", "1 GPU A100"),
                        ("nodes", "9 nodes")):
        message = cluster.refuses("run", name, "--remote")
        assert f"partition hi cannot give" in message and asked in message, message
        assert "2 CPUs, 4000 MB, no GPU" in message, message
    cluster.configure("--slurm-partition", "nowhere")
    assert "no partition nowhere; it has: spot, hi" in cluster.refuses("run", "one", "--remote")
    cluster.configure("--slurm-option", "--no-such-option")
    assert "no-such-option" in cluster.refuses("run", "one", "--remote")
    cluster.configure()
    path = cluster.environment["PATH"]
    empty = cluster.home / "bin"
    empty.mkdir()
    for tool in ("git", "fusermount3"):
        (empty / tool).symlink_to(shutil.which(tool))
    cluster.environment["PATH"] = str(empty)
    assert "no sinfo on this machine: install Slurm's" in cluster.refuses("run", "one", "--remote")
    cluster.environment["PATH"] = path
    conf = pathlib.Path(cluster.environment["SLURM_CONF"])
    broken = cluster.home / "slurm.conf"
    broken.write_text(conf.read_text().replace("munge.sock", "no-munge.sock"))
    cluster.environment["SLURM_CONF"] = str(broken)
    message = cluster.refuses("run", "one", "--remote")
    assert "munge" in message.lower(), message
    cluster.environment["SLURM_CONF"] = str(conf)
    failed = [k for k in cluster.remote.keys("runs/") if k.endswith(".json")]
    assert len(failed) <= 1 and before == 0, failed  # sbatch's own refusal alone left a document


MEET = """/usr/bin/python3 - <<'END'
import os
import socket
import time
place = os.environ["DSTACK_MASTER_ADDR"], int(os.environ["DSTACK_MASTER_PORT"])
if os.environ["DSTACK_NODE_RANK"] == "0":
    listener = socket.create_server(place)
    listener.accept()[0].sendall(b"here")
else:
    for _ in range(300):
        try:
            assert socket.create_connection(place).recv(4) == b"here"
            break
        except ConnectionRefusedError:
            time.sleep(0.1)
print("all are here")
END"""
MEET_BY_TORCH = """/usr/bin/python3 - <<'END'
import os
import torch.distributed as dist
dist.init_process_group("gloo", init_method="tcp://%s:%s" % (
    os.environ["DSTACK_MASTER_ADDR"], os.environ["DSTACK_MASTER_PORT"]),
    rank=int(os.environ["DSTACK_NODE_RANK"]), world_size=int(os.environ["DSTACK_NODES"]))
everybody = [None, None]
dist.all_gather_object(everybody, int(os.environ["DSTACK_NODE_RANK"]))
assert everybody == [0, 1]
print("all are here")
END"""
RANKS = """
echo "rank $DSTACK_NODE_RANK of $DSTACK_NODES at $DSTACK_MASTER_ADDR:$DSTACK_MASTER_PORT on $SLURMD_NODENAME"
echo $DSTACK_NODE_RANK > live/$DSTACK_NODE_RANK
echo $DSTACK_NODE_RANK > saved/$DSTACK_NODE_RANK
{meet}
[ $DSTACK_NODE_RANK = 0 ] || exit ${{ run.args }}"""


def test_two_nodes(cluster, slurm):
    cluster.write(workflows(workflow("two", RANKS.replace("{meet}", MEET_BY_TORCH if LONG else MEET), [("live", True), ("saved", False)], nodes=2,
                                     resources="{cpu: 1}")))
    good, bad = cluster.submit("two", "0"), cluster.submit("two", "7")
    for name, status in ((good, "done"), (bad, "failed")):
        state = cluster.wait_state(name, *FINAL)
        first, second = cluster.output(name), cluster.ok("logs", name, "--rank", "1")
        assert state["status"] == status, (state, first, second)
        job = cluster.slurm.job(cluster.number(name))
        assert job["NumNodes"] == "2"
        for rank, text in ((0, first), (1, second)):
            assert re.search(rf"^rank {rank} of 2 at \S+:2\d{{4}} on n{rank + 1}$", text, re.M), text
            assert "all are here" in text
        for rank in b"0", b"1":
            for path in "live", "saved":
                assert cluster.artifact(name, f"{path}/{rank.decode()}") == rank + b"\n"
    assert "rank 1: exit status 7" in state["reason"]
    cluster.ok("rm", "-y", good)
    assert not [k for k in cluster.remote.keys() if good in k]
    cluster.assert_nothing_left()


SSH = """#!/bin/sh
# As the real one: another machine, whose environment is its own. Logs its arguments.
echo "$@" >> {log}
while [ "$1" != -- ]; do shift; done
exec env -i PATH={path} HOME={home} SLURM_CONF=$SLURM_CONF sh -c "$3"
"""


def test_a_submit_host_and_a_node_that_has_nothing(cluster, slurm, tmp_path):
    """sbatch is on another machine, and the programs are gone from where the submitter had them."""
    tools, there = tmp_path / "tools", tmp_path / "there"
    tools.mkdir()
    for name in ("dstack", "dstack-runner", "dstack-mount"):
        shutil.copy(program(name), tools)
    path = cluster.environment["PATH"]
    (tools / "ssh").write_text(SSH.format(log=tmp_path / "ssh.log", path=path, home=there))
    (tools / "ssh").chmod(0o755)
    cluster.environment["PATH"] = f"{tools}:{path}"
    cluster.configure("--slurm-submit-host", "me@login", "--slurm-option", "--hold")
    cluster.write(workflows(workflow("away", "echo here > live/a; echo done by $HOME, ${#WORD}", [("live", True)])))
    cluster.ok("secrets", "add", "WORD", "magic")

    def submit():
        return subprocess.run([tools / "dstack", "run", "away", "--remote", "-d"], cwd=cluster.repo,
                              env=cluster.environment, capture_output=True, text=True, timeout=LIMIT_S)

    refused = submit()
    assert refused.returncode == 1 and "no key for them on me@login" in refused.stderr, refused.stderr
    assert not cluster.runs()
    key = (cluster.home / "secrets.key").read_text().strip()
    cluster.environment["DSTACK_SECRETS_KEY"] = key
    done = submit()
    assert done.returncode == 0, done.stderr
    name = done.stdout.splitlines()[1].split()[0]
    assert cluster.state(name)["engine_job"].endswith(" test me@login")
    assert "waiting: JobHeldUser" in cluster.ok("ps", "-v")
    for program_file in tools.glob("dstack*"):
        program_file.unlink()
    slurm.run("scontrol", "release", cluster.number(name))
    state = cluster.wait_state(name, *FINAL)
    assert state["status"] == "done", (state, (there / ".dstack/runners").exists())
    assert f"done by {there}, 5" in cluster.output(name)
    assert cluster.artifact(name, "live/a") == b"here\n"
    fetched = [p.name for p in (there / ".dstack/bin").glob("*/*")]
    assert sorted(fetched) == ["dstack-mount", "dstack-runner"]
    log = (tmp_path / "ssh.log").read_text()
    assert "BatchMode=yes" in log and "-- me@login " in log
    assert cluster.remote.environment["AWS_SECRET_ACCESS_KEY"] not in log and key not in log
    cluster.assert_nothing_left()
