"""Runs on a real Slurm: the training that survives, what is shown, what is refused."""
import pathlib
import re
import shutil
import subprocess

import pytest

from cli_world import FINAL
from conftest import program, wait_for
from slurm_world import LIMIT_S, TOP, cluster, kill_all, needs_slurm, slurm, workflow, workflows  # noqa: F401

pytestmark = needs_slurm


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


TRAIN = (TOP / "scripts/demo/train.py").read_text()
TIMES, STEPS, EVERY = 3, 400, 10


def train(name, mount, pause_s=0.1):
    return workflow(name, f"/usr/bin/python3 train.py {pause_s} {STEPS} {EVERY}", [("checkpoints", mount)],
                    resources="{cpu: 1, interruptible: true}")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """What the training says at its end when nobody disturbs it."""
    directory = tmp_path_factory.mktemp("uninterrupted")
    (directory / "checkpoints").mkdir()
    (directory / "train.py").write_text(TRAIN)
    done = subprocess.run(["/usr/bin/python3", "train.py", "0", str(STEPS), str(EVERY)], cwd=directory,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def assert_same_end(cluster, name, uninterrupted, times):
    state = cluster.wait_state(name, *FINAL)
    text = cluster.output(name)
    assert state["status"] == "done", (state, text)
    assert state["attempt"] == times + 1, (state, text)
    assert re.findall(r"^final .*$", text, re.M) == [uninterrupted], text
    repeated = len(re.findall(r"^step \d+ loss", text, re.M)) - STEPS
    # the last second of a log goes with a machine that goes without a warning
    assert -EVERY <= repeated <= times * EVERY, f"{repeated} steps were repeated: {text}"


def wait_steps(cluster, name, attempt):
    """Until the attempt has saved a checkpoint of its own."""
    def reached():
        parts = cluster.output(name).split("from step ")
        return len(parts) > attempt and len(re.findall(r"^step ", parts[attempt], re.M)) > EVERY + 1
    wait_for(reached, LIMIT_S, f"{name}, attempt {attempt} trains")


def assert_warned(text):
    """What an interruption with a warning leaves in the log."""
    assert re.search(r"^dstack: preempted: \d\.\d s are left", text, re.M), text
    for step in ("the commands have ended", "mounts are saved", "artifacts are saved"):
        assert re.search(rf"^dstack: {step}, after \d+\.\d\d s; \d\.\d s are left$", text, re.M), text
    assert re.search(r"^dstack: --- attempt 2, on ", text, re.M), text


def test_training_ends_as_if_nobody_had_preempted_it(cluster, slurm, uninterrupted):
    """Of two runs that share a node, one has an artifact that is not mounted."""
    (cluster.repo / "train.py").write_text(TRAIN)
    cluster.write(workflows(train("mounted", True), train("saved", False)))
    with slurm.filled("n2"):  # the runs come back to the node from which they were preempted
        names = [cluster.submit("mounted"), cluster.submit("saved")]
        for attempt in range(1, TIMES + 1):
            for name in names:
                wait_steps(cluster, name, attempt)
                assert slurm.job(cluster.number(name))["NodeList"] == "n1"
            slurm.preempt("n1", 0)
            for name in names:
                wait_for(lambda: cluster.state(name)["attempt"] > attempt, LIMIT_S, f"{name} goes on")
        for name in names:
            assert_same_end(cluster, name, uninterrupted, TIMES)
            assert_warned(cluster.output(name))
    cluster.assert_nothing_left()


def test_training_ends_as_if_nothing_had_died(cluster, slurm, uninterrupted):
    """Of one run, all processes are killed, and `dstack run` submits it again; the node of the other
    goes down, and Slurm does."""
    (cluster.repo / "train.py").write_text(TRAIN)
    cluster.write(workflows(train("mounted", True, 0.05)))
    with slurm.filled("n1"):
        down = cluster.submit("mounted")
        wait_steps(cluster, down, 1)
    with slurm.filled("n2", cpus=1):
        followed = cluster.start("run", "mounted", "--remote")
        wait_for(lambda: len(cluster.runs()) == 2, LIMIT_S, "both are submitted")
        killed = cluster.last()["run"]
        wait_steps(cluster, killed, 1)
    assert [slurm.job(cluster.number(name))["NodeList"] for name in (down, killed)] == ["n2", "n1"]
    kill_all(cluster, killed)
    slurm.run("scontrol", "update", "nodename=n2", "state=DOWN", "reason=power")
    try:
        out, err = followed.communicate(timeout=2 * LIMIT_S)
    finally:
        slurm.resume("n2")
    assert followed.returncode == 0 and "Interrupted (" in err, (out, err)
    for name in (down, killed):
        assert_same_end(cluster, name, uninterrupted, 1)
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
    for option, why in (("--job-name=x", "found by it"), ("-o/tmp/x", "dstack logs"), ("--requeue", "interruptible")):
        assert why in cluster.refuses("config", "--storage", cluster.remote.url, *cluster.remote.arguments,
                                      "--engine", "slurm", f"--slurm-option={option}")
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
