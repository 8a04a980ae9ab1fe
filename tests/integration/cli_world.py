"""What the tests of the command line share: the real programs in a directory and a DSTACK_HOME of
their own, on this machine, on the embedded remote, and on the S3 server that scripts/test started."""
import json
import os
import pathlib
import pty
import resource
import select
import signal
import subprocess
import time

import pytest

from conftest import S3Store, program, wait_for

LIMIT_S = 30
FINAL = {"done", "failed", "stopped", "aborted"}
# In a chroot "/" is no mount, and unshare cannot make what is below it private: it has to be already.
UNSHARE_MOUNTS = ["unshare", "-m", *(["--propagation", "unchanged"] if os.environ.get("DSTACK_TEST_CHROOT") else [])]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount and unshare")
HELLO = """workflows:
  - name: hello-txt
    provider: bash
    commands:
      - echo "Hello world" > output/hello.txt
    artifacts:
      - path: ./output
  - name: hello-sh
    provider: bash
    commands:
      - bash artifacts/hello.sh
    artifacts:
      - path: ./output
        mount: true
  - name: hello
    provider: bash
    commands:
      - echo ${{ run.args }}
  - name: wait
    provider: bash
    commands:
      - echo "$DSTACK_JOB" > output/a; echo up; sleep 60
    artifacts:
      - path: output
"""
HELLO_SH = """for i in {000..002}
do
    sleep 0.2
    echo $i > "output/${i}.txt"
    echo "Wrote output/${i}.txt"
done
"""


def mounts_below(path):
    return [line for line in open("/proc/self/mountinfo") if str(path) in line]


def processes_of(home):
    """Everything that was started with this DSTACK_HOME, or one below it."""
    entry = f"DSTACK_HOME={home}/".encode()
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            values = (process / "environ").read_bytes().split(b"\0")
            if any((value + b"/").startswith(entry) for value in values):
                found.append(int(process.name))
        except OSError:
            pass
    return found


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, world, *arguments, few_files=False):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            if few_files:
                resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
            os.chdir(world.repo)
            os.execve(program("dstack"), ["dstack", *arguments], world.environment)
        self.text = ""

    def read(self, seconds):
        if select.select([self.fd], [], [], seconds)[0]:
            try:
                self.text += os.read(self.fd, 65536).decode()
                return True
            except OSError:  # the other side is closed
                pass
        return False

    def expect(self, part):
        end = time.monotonic() + LIMIT_S
        while part not in self.text:
            assert time.monotonic() < end, f"no {part!r} in {self.text!r}"
            self.read(0.1)

    def send(self, text):
        os.write(self.fd, text.encode())

    def finish(self):
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            self.read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                while self.read(0):
                    pass
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        pytest.fail(f"does not end: {self.text}")


class World:
    def __init__(self, directory):
        self.directory, self.home, self.repo = directory, directory / "home", directory / "repo"
        self.remote = None
        (self.repo / ".dstack" / "workflows").mkdir(parents=True)
        (self.repo / "artifacts").mkdir()
        (self.repo / "artifacts" / "hello.sh").write_text(HELLO_SH)
        self.write(HELLO)
        self.environment = {k: v for k, v in os.environ.items() if k == "DSTACK_JOURNAL_DIR"
                            or not k.startswith(("AWS_", "DSTACK_"))}
        self.environment.update(DSTACK_HOME=str(self.home), HOME=str(directory),
                                AWS_EC2_METADATA_DISABLED="true")

    def write(self, text, name="workflows/all.yaml"):
        (self.repo / ".dstack" / name).write_text(text)

    def start(self, *arguments, prefix=(), cwd=None, stdin=subprocess.DEVNULL, **more):
        return subprocess.Popen([*prefix, program("dstack"), *arguments], cwd=cwd or self.repo,
                                env=self.environment, stdin=stdin,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)

    def run(self, *arguments, limit=LIMIT_S, input=None, **more):
        if input is not None:
            more["stdin"] = subprocess.PIPE
        process = self.start(*arguments, **more)
        try:
            process.out, process.err = process.communicate(input, timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return process

    def ok(self, *arguments, **more):
        done = self.run(*arguments, **more)
        assert done.returncode == 0, done.err + done.out
        return done.out

    def refuses(self, *arguments, code=1, **more):
        """One line on stderr, nothing on stdout; the line."""
        done = self.run(*arguments, **more)
        assert done.returncode == code, (done.returncode, done.out, done.err)
        assert done.out == "" and done.err.endswith("\n") and done.err.count("\n") == 1, \
            (done.out, done.err)
        return done.err

    def runs(self):
        return json.loads(self.ok("ps", "-a", "--json"))

    def last(self):
        return self.runs()[0]

    def wait_status(self, name, *statuses):
        def reached():
            return [r for r in self.runs() if r["run"] == name and r["status"] in statuses]
        wait_for(reached, LIMIT_S, f"{name} is {statuses}")

    def begin(self, workflow, *options):
        """A detached run, once its commands have said "up"."""
        name = self.ok("run", workflow, "-d", *options).splitlines()[1].split()[0]
        wait_for(lambda: "up" in self.ok("logs", name), LIMIT_S, f"{name} is up")
        return name

    def files(self, name):
        rows = json.loads(self.ok("ls", "-r", "--json", name))
        return sorted(f"{row['path']}/{row['file']}" for row in rows)

    def document(self, name):
        return json.loads(next(self.home.glob(f"runs/*/{name}.json")).read_text())

    def assert_nothing_left(self):
        """A runner that starts late sees that its run has ended, and cleans up by itself."""
        def remains():
            return (processes_of(self.home), mounts_below(self.home),
                    list((self.home / "work").glob("*")))
        wait_for(lambda: not any(remains()), 10, f"the end of {remains()}")

    def assert_nothing_made(self):
        """As before the command: no run, no tag, no code, no process."""
        left = [p for p in self.home.rglob("*") if p.is_file() and ".dstack-tmp" not in p.parts
                and p.name != "config.yaml"]
        assert left == []
        assert processes_of(self.home) == []

    def clear(self):
        for pid in processes_of(self.directory):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for line in mounts_below(self.directory):
            subprocess.run(["umount", "-l", line.split()[4]], check=False)


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.clear()


@pytest.fixture
def rgw(world):
    """The same with a default remote on the S3 server."""
    world.remote = S3Store()
    world.environment.update(world.remote.environment)
    world.ok("config", "--storage", world.remote.url, *world.remote.arguments)
    yield world
    world.clear()
    world.remote.remove_all()


@pytest.fixture(params=["here", "embedded", "rgw"])
def anywhere(request, world):
    """(world, the options of `run` that make runs work there)"""
    if request.param == "rgw":
        yield request.getfixturevalue("rgw"), ["--remote"]
    else:
        yield world, ["--remote"] if request.param == "embedded" else []


@pytest.fixture(params=["here", "rgw"])
def both(request, world):
    """The same without the embedded remote, which is a second store of this machine."""
    if request.param == "rgw":
        yield request.getfixturevalue("rgw"), ["--remote"]
    else:
        yield world, []
