"""Runs from submitted to their end, by the real dstack-runner over a real store.

The document is written as the commands write it; everything else is the program's. The root is a file
store, and the S3 server.
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
import uuid

import pytest

from conftest import S3Store

TOP = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("DSTACK_BIN", TOP / "build" / "bin"))
LIMIT_S = 30
FINAL = {"done", "failed", "stopped", "aborted"}


class FileRoot:
    def __init__(self, path):
        self.path = path
        self.options = ["--root", f"file://{path}"]
        self.environment = {}

    def write(self, key, data):
        file = self.path / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def read(self, key):
        file = self.path / key
        return file.read_bytes() if file.is_file() else None

    def keys(self, prefix):
        """Without what the file driver keeps for itself."""
        files = (f for f in self.path.rglob("*")
                 if f.is_file() and f.name != "%" and ".dstack-tmp" not in f.parts)
        keys = (str(f.relative_to(self.path)) for f in files)
        return sorted(k for k in keys if k.startswith(prefix))

    def remove(self):
        pass


class S3Root(S3Store):
    """The same on the S3 server."""

    def __init__(self):
        super().__init__()
        self.options = ["--root", self.url.rstrip("/"), *self.arguments]

    write, remove = S3Store.put, S3Store.remove_all

    def keys(self, prefix=""):
        return sorted(super().keys(prefix))


class Run:
    def __init__(self, root, home, commands, artifacts=(), **spec):
        self.root, self.home, self.name, self.id = root, home, "calm-owl-1", str(uuid.uuid4())
        self.log = home / "runner.log"
        document = {
            "version": 1, "repo": "demo", "name": self.name,
            "spec": {"workflow": "w", "provider": "bash", "commands": commands,
                     "artifacts": [{"path": p, "mount": m} for p, m in artifacts],
                     "env": ["GREETING=hello world"], "grace_s": 2, **spec},
            "state": {"id": self.id, "status": "submitted", "attempt": 1, "revision": 2}}
        root.write(f"runs/demo/{self.name}.json", json.dumps(document).encode())
        environment = {**os.environ, **root.environment, "DSTACK_HOME": str(home)}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [BIN / "dstack-runner", *root.options, "demo", self.name], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=environment, start_new_session=True)

    def state(self):
        return json.loads(self.root.read(f"runs/demo/{self.name}.json"))["state"]

    def wait(self, check, what):
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            if check():
                return
            time.sleep(0.05)
        pytest.fail(f"{what}: not within {LIMIT_S} s; {self.state()}; {self.log.read_text()}")

    def wait_status(self, *statuses):
        self.wait(lambda: self.state()["status"] in statuses, f"status {statuses}")

    def finish(self):
        """The final state; nothing may be left on the machine then."""
        self.wait_status(*FINAL)
        self.process.wait(LIMIT_S)
        print(self.state(), self.log.read_text())
        self.assert_nothing_left()
        return self.state()

    def output(self):
        keys = self.root.keys(f"logs/demo/{self.name}/")
        return b"".join(self.root.read(k) for k in keys).decode()

    def stop(self, how):
        self.root.write(f"runs/demo/{self.name}.stop", how.encode())

    def artifacts(self):
        prefix = f"artifacts/demo/{self.name}/"
        """The files: a key that ends in '/' stands for a directory."""
        return [k[len(prefix):] for k in self.root.keys(prefix) if not k.endswith("/")]

    def processes(self):
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if self.id.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                pass
        return found

    def assert_nothing_left(self):
        assert self.processes() == []
        assert str(self.home) not in pathlib.Path("/proc/self/mountinfo").read_text()
        work = self.home / "work"
        assert not work.exists() or list(work.iterdir()) == []


@pytest.fixture
def home(tmp_path):
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture(params=["file", "s3"])
def root(request, tmp_path):
    if request.param == "file":
        yield FileRoot(tmp_path / "root")
        return
    root = S3Root()
    yield root
    root.remove()


@pytest.fixture
def start(root, home):
    runs = []

    def make(*arguments, **more):
        runs.append(Run(root, home, *arguments, **more))
        return runs[-1]
    (tmp_root := getattr(root, "path", None)) and tmp_root.mkdir()
    yield make
    for run in runs:
        if run.process.poll() is None:
            run.process.terminate()
            try:
                run.process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                run.process.kill()
        for pid in run.processes():
            os.kill(pid, signal.SIGKILL)


def test_done(start):
    run = start(["echo \"$GREETING\" > output/hello.txt", "echo said $GREETING"],
                [("output", False)])
    state = run.finish()
    assert state["status"] == "done" and state["exit_code"] == 0
    assert run.artifacts() == ["output/hello.txt"]
    assert run.root.read(f"artifacts/demo/{run.name}/output/hello.txt") == b"hello world\n"
    assert run.output() == "said hello world\n"


def test_environment(start):
    run = start(["echo $RUN_NAME $JOB_ID $PYTHONUNBUFFERED $DSTACK_RUN_ATTEMPT; test -n \"$HOSTNAME\""])
    assert run.finish()["status"] == "done"
    assert run.output() == f"{run.name} {run.id} 1 1\n"


def test_failure_stops_at_the_failing_command_and_saves(start):
    run = start(["echo 1 > output/a", "(exit 3)", "echo 2 > output/b"], [("output", False)])
    state = run.finish()
    assert (state["status"], state["exit_code"]) == ("failed", 3)
    assert "exit status 3" in state["reason"]
    assert run.artifacts() == ["output/a"]


def test_logs_are_there_while_it_runs(start):
    run = start(["echo early", "sleep 20"])
    run.wait(lambda: "early" in run.output(), "live output")
    assert run.state()["status"] == "running"
    run.stop("abort")
    assert run.finish()["status"] == "aborted"


def test_stop_lets_it_save(start):
    run = start(["trap 'echo saved > output/late; exit 0' TERM", "echo up",
                 "while :; do sleep 0.1; done"], [("output", False)])
    run.wait(lambda: "up" in run.output(), "started")
    run.stop("stop")
    assert run.finish()["status"] == "stopped"
    assert run.artifacts() == ["output/late"]


def test_stop_kills_what_ignores_it_after_the_grace(start):
    run = start(["trap '' TERM", "echo x > output/a", "echo up", "while :; do sleep 0.1; done"],
                [("output", False)])
    run.wait(lambda: "up" in run.output(), "started")
    begin = time.monotonic()
    run.stop("stop")
    state = run.finish()
    assert state["status"] == "stopped" and state["exit_code"] == 137
    assert 1.5 < time.monotonic() - begin < 15
    assert run.artifacts() == ["output/a"]


def test_abort_saves_nothing(start):
    run = start(["echo x > output/a", "echo up", "sleep 60"], [("output", False)])
    run.wait(lambda: "up" in run.output(), "started")
    run.stop("abort")
    assert run.finish()["status"] == "aborted"
    assert run.artifacts() == []


def test_background_processes_end_with_the_commands(start):
    seconds = f"300.{uuid.uuid4().int % 10**9:09}"  # other tests sleep too

    def asleep():
        return subprocess.run(["pgrep", "-f", f"^sleep {seconds}$"], capture_output=True).stdout.split()

    run = start([f"setsid sleep {seconds} >/dev/null 2>&1 &", f"env -i setsid sleep {seconds} &", "sleep 2"])
    run.wait(lambda: len(asleep()) == 2, "both are asleep")
    assert run.finish()["status"] == "done"
    assert asleep() == []


def test_an_artifact_that_cannot_be_saved_fails_the_run(start, home):
    run = start(["echo x > output/a", "rm -r output", "echo y > output"], [("output", False)])
    run.wait_status(*FINAL)
    run.process.wait(LIMIT_S)
    state = run.state()
    assert state["status"] == "failed" and "output" in state["reason"]
    shutil.rmtree(home / "work")


def test_a_missing_working_directory_is_said(start):
    state = start(["true"], working_dir="nowhere").finish()
    assert state["status"] == "failed" and "nowhere" in state["reason"]


def test_deps_are_where_the_producer_had_them(start, root):
    root.write("artifacts/demo/a-1/data/x.txt", b"from a-1")
    run = start(["cat data/x.txt"], deps=[{"run": "a-1", "path": "data"}])
    assert run.finish()["status"] == "done"
    assert run.output() == "from a-1"


def test_mounted_files_are_in_the_store_while_it_runs(start):
    run = start(["echo one > output/1.txt", "sleep 20"], [("output", True)])
    run.wait(lambda: run.root.read(f"artifacts/demo/{run.name}/output/1.txt") == b"one\n",
             "the file in the store")
    assert run.state()["status"] == "running"
    run.stop("stop")
    assert run.finish()["status"] == "stopped"


def mount_pids(run):
    return [p for p in run.processes()
            if b"dstack-mount" in pathlib.Path(f"/proc/{p}/cmdline").read_bytes()]


def test_a_dying_mount_fails_the_run(start):
    run = start(["echo up", "sleep 60"], [("output", True)])
    run.wait(lambda: "up" in run.output(), "started")
    for pid in mount_pids(run):
        os.kill(pid, signal.SIGKILL)
    state = run.finish()
    assert state["status"] == "failed"
    assert "mount of output" in state["reason"] and "killed by signal 9" in state["reason"]


def test_a_mount_that_cannot_start_fails_the_run(start, monkeypatch, root):
    code = start(["true"], [("/proc/dstack-cannot-be-here", True)]).finish()
    assert code["status"] == "failed" and "/proc/dstack-cannot-be-here" in code["reason"]


@pytest.mark.parametrize("mounted", [False, True])
def test_a_killed_runner_is_noticed_and_nothing_stays(start, mounted):
    run = start(["setsid sleep 302 & echo x > output/a", "echo up", "sleep 60"],
                [("output", mounted)])
    run.wait(lambda: "up" in run.output(), "started")
    os.kill(run.state()["owner"]["pid"], signal.SIGKILL)
    state = run.finish()
    assert (state["status"], state["reason"]) == ("failed", "runner lost")
    assert run.artifacts() == (["output/a"] if mounted else [])


WORKFLOW = """workflows:
  - name: long
    provider: bash
    commands:
      - setsid sleep 303 & echo x > output/a; sleep 60
    artifacts:
      - path: ./output
        mount: true
"""


def test_ps_settles_what_even_the_keeper_could_not(tmp_path, home):
    """Both processes are killed: whoever lists the runs on this machine cleans up."""
    repo = tmp_path / "repo"
    (repo / ".dstack").mkdir(parents=True)
    (repo / ".dstack" / "workflows.yaml").write_text(WORKFLOW)

    def dstack(*arguments):
        done = subprocess.run([BIN / "dstack", *arguments], cwd=repo, capture_output=True, text=True,
                              timeout=LIMIT_S, env={**os.environ, "DSTACK_HOME": str(home)},
                              stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr
        return done.stdout

    dstack("run", "-d", "long")
    end = time.monotonic() + LIMIT_S
    while "running" not in dstack("ps", "-a") or not list(home.glob("artifacts/*/*/output/a")):
        assert time.monotonic() < end
        time.sleep(0.1)
    document = json.loads(next(home.glob("runs/*/*.json")).read_text())
    worker = document["state"]["owner"]["pid"]
    keeper = int(pathlib.Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(keeper, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    assert "failed" in dstack("ps", "-a")
    assert list((home / "work").iterdir()) == []
    assert str(home) not in pathlib.Path("/proc/self/mountinfo").read_text()
    assert subprocess.run(["pgrep", "-f", "sleep 303$"], capture_output=True).stdout == b""
    assert len(list(home.glob("artifacts/*/*/output/a"))) == 1
