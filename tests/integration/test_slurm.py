"""Runs on a real Slurm: two emulated nodes, and a partition whose jobs preempt those of the other."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

from cli_world import FINAL, World, mounts_below, processes_of
from conftest import S3Store, wait_for

TOP = pathlib.Path(__file__).resolve().parents[2]
LONG = bool(os.environ.get("DSTACK_TEST_LONG"))
LIMIT_S = 120 if LONG else 60

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's daemons run as root here"),
    pytest.mark.skipif(not shutil.which("slurmctld"), reason="Slurm is not installed"),
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

    def begin(self, workflow, *options):
        name = self.ok("run", workflow, "-d", "--remote", *options).splitlines()[1].split()[0]
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


def test_preempted_runs_go_on_where_they_were(cluster, slurm):
    cluster.write(workflows(count("live", "out", True, 60), count("saved", "out", False, 60)))
    runs = {name: cluster.begin(name) for name in ("live", "saved")}
    time.sleep(1)
    for node in ("n1", "n2"):
        slurm.preempt(node)
    for name in runs.values():
        cluster.wait_state(name, "interrupted", "pending", "submitted")
    for kind, name in runs.items():
        state = cluster.wait_state(name, *FINAL)
        text = cluster.output(name)
        assert state["status"] == "done", (state, text)
        assert state["attempt"] == 2, text
        first, second = re.findall(r"^up from (\d+) attempt (\d) resumed (\d)$", text, re.M)
        assert first == ("0", "1", "0") and second[1:] == ("2", "1"), text
        assert int(second[0]) > 5, f"{kind}: began anew: {text}"
        assert "counted 60" in text
        assert re.search(r"^dstack: preempted: \d\.\d s are left", text, re.M), text
        assert re.search(r"^dstack: --- attempt 2, on ", text, re.M), text
    cluster.assert_nothing_left()
