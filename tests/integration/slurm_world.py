"""A real Slurm for tests: two emulated nodes, and a partition whose jobs preempt those of the other."""
import contextlib
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

needs_slurm = [
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's daemons run as root here"),
    pytest.mark.skipif(not shutil.which("slurmctld"), reason="Slurm is not installed"),
    pytest.mark.skipif(bool(os.environ.get("DSTACK_TEST_CHROOT")), reason="Slurm's daemons do not start in a chroot"),
]


class Slurm:
    def __init__(self, directory, *options):
        self.directory = directory
        port = subprocess.run([TOP / "scripts/servers/free-ports", "1", "3"], capture_output=True,
                              text=True, check=True).stdout.strip()
        self.environment = {"SLURM_CONF": str(directory / "slurm.conf")}
        subprocess.run([TOP / "scripts/servers/slurm", directory, port, *options], check=True, timeout=60)

    def run(self, *arguments):
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=30,
                              env={**os.environ, **self.environment})
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout.strip()

    def job(self, number):
        text = self.run("scontrol", "show", "job", "-o", str(number))
        return dict(re.findall(r"(\S+?)=(\S*)", text))

    def preempt(self, node, seconds=1, cpus=2):
        """A job that takes NODE, of which 2 CPUs are all."""
        return self.run("sbatch", "--parsable", "-p", "hi", "-w", node, f"-c{cpus}", "-o", "/dev/null",
                        "--wrap", f"sleep {seconds}")

    @contextlib.contextmanager
    def filled(self, node, cpus=2):
        """Nothing else gets these CPUs of NODE."""
        number = self.preempt(node, 600, cpus)
        try:
            wait_for(lambda: self.job(number)["JobState"] == "RUNNING", LIMIT_S, f"{node} is filled")
            yield
        finally:
            self.run("scancel", number)

    def resume(self, node):
        """Slurm may have done so by itself: the node answers."""
        wait_for(lambda: "DOWN" not in self.run("sinfo", "-h", "-p", "hi", "-n", node, "-o", "%T").upper()
                 or not self.run("scontrol", "update", f"nodename={node}", "state=RESUME"), 10,
                 f"{node} is up")

    def pid(self, node):
        """Of its slurmd."""
        return int((self.directory / f"{node}.pid").read_text())

    @contextlib.contextmanager
    def without_munge(self):
        """Nobody can prove who he is: Slurm's commands and daemons fail, after a long while."""
        pids = self.directory / "pids"
        munged, *others = pids.read_text().split()
        command = (pathlib.Path("/proc") / munged / "cmdline").read_bytes().split(b"\0")[:-1]
        assert command[0].endswith(b"munged"), command
        os.kill(int(munged), signal.SIGKILL)
        try:
            yield
        finally:
            again = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL,
                                     stderr=open(self.directory / "log/munged.out", "a"))
            pids.write_text("\n".join([str(again.pid), *others]) + "\n")

    def idle(self):
        return not self.run("squeue", "-h", "-o", "%i")

    def stop(self):
        subprocess.run(["scancel", "-u", "root"], env={**os.environ, **self.environment}, timeout=30)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and not self.idle():
            time.sleep(0.1)
        subprocess.run([TOP / "scripts/servers/stop", self.directory], check=True, timeout=60)


@contextlib.contextmanager
def running(*options):
    directory = pathlib.Path(tempfile.mkdtemp(prefix="dsl", dir="/tmp"))
    cluster = None
    try:
        cluster = Slurm(directory, *options)
        yield cluster
    finally:
        if cluster:
            cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def slurm():
    with running() as cluster:
        yield cluster


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
                    if k.endswith((".beat", ".stop")) or ".rank-" in k or "/.dstack-mount/" in k]
            return (processes_of(self.home), mounts_below(self.home),
                    list((self.home / "work").glob("*")), keys, self.remote.uploads())
        wait_for(lambda: not any(remains()), 20, f"the end of {remains()}")


@contextlib.contextmanager
def using(tmp_path, slurm):
    cluster = Cluster(tmp_path, slurm)
    yield cluster
    subprocess.run(["scancel", "-u", "root"], env=cluster.environment, timeout=30)
    wait_for(slurm.idle, 20, "the queue is empty")
    cluster.clear()
    cluster.remote.remove_all()


@pytest.fixture
def cluster(tmp_path, slurm):
    with using(tmp_path, slurm) as cluster:
        yield cluster


def workflow(name, commands, artifacts=(), **more):
    lines = "".join(f"      {line}\n" for line in commands.strip("\n").splitlines())
    text = f"  - name: {name}\n    provider: bash\n    commands: |\n{lines}"
    if artifacts:
        text += "    artifacts:\n" + "".join(
            f"      - path: {path}\n        mount: {str(mount).lower()}\n" for path, mount in artifacts)
    return text + "".join(f"    {key}: {value}\n" for key, value in more.items())


def workflows(*texts):
    return "workflows:\n" + "".join(texts)


def kill_all(cluster, name, rank=None):
    """The runner, its keeper, the mount and the commands (of one rank), at once: a power cut."""
    for _ in range(3):
        for pid in processes_of(cluster.home):
            try:
                process = pathlib.Path(f"/proc/{pid}")
                environment = (process / "environ").read_bytes()
                mine = rank is None or {f"SLURM_PROCID={rank}".encode(), b"SLURM_STEP_ID=0"} <= \
                    set(environment.split(b"\0"))
                if mine and name.encode() in (process / "cmdline").read_bytes() + environment:
                    os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, FileNotFoundError):
                pass
