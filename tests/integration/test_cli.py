"""The command line as people use it: the real programs in a directory and a DSTACK_HOME of their own,
on this machine, on the embedded remote, and on the S3 server that scripts/test started."""
import concurrent.futures
import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import time
import uuid

import pytest

from conftest import S3Store, is_mounted, program, wait_for

LIMIT_S = 30
FINAL = {"done", "failed", "stopped", "aborted"}
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
    """Everything that was started with this DSTACK_HOME."""
    entry = f"DSTACK_HOME={home}".encode()
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if entry in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:
            pass
    return found


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, world, *arguments):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
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
        self.home, self.repo = directory / "home", directory / "repo"
        self.remote = None
        (self.repo / ".dstack" / "workflows").mkdir(parents=True)
        (self.repo / "artifacts").mkdir()
        (self.repo / "artifacts" / "hello.sh").write_text(HELLO_SH)
        self.write(HELLO)
        self.environment = {k: v for k, v in os.environ.items()
                            if not k.startswith(("AWS_", "DSTACK_"))}
        self.environment.update(DSTACK_HOME=str(self.home), HOME=str(directory),
                                AWS_EC2_METADATA_DISABLED="true")

    def write(self, text, name="workflows/all.yaml"):
        (self.repo / ".dstack" / name).write_text(text)

    def start(self, *arguments, prefix=(), cwd=None, **more):
        return subprocess.Popen([*prefix, program("dstack"), *arguments], cwd=cwd or self.repo,
                                env=self.environment, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)

    def run(self, *arguments, limit=LIMIT_S, **more):
        process = self.start(*arguments, **more)
        try:
            process.out, process.err = process.communicate(timeout=limit)
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
        wait_for(lambda: not processes_of(self.home), 10, f"the end of {processes_of(self.home)}")
        assert mounts_below(self.home) == []
        assert not list((self.home / "work").glob("*"))

    def assert_nothing_made(self):
        """As before the command: no run, no tag, no code, no process."""
        left = [p for p in self.home.rglob("*") if p.is_file() and ".dstack-tmp" not in p.parts
                and p.name != "config.yaml"]
        assert left == []
        assert processes_of(self.home) == []

    def clear(self):
        for pid in processes_of(self.home):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for line in mounts_below(self.home):
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


# --- the examples as typed ---

def test_hello_txt(anywhere):
    world, options = anywhere
    done = world.run("run", "hello-txt", *options)
    assert done.returncode == 0 and done.err.splitlines()[-1] == "done"
    run = world.last()
    assert (run["workflow"], run["status"], run["exit_code"]) == ("hello-txt", "done", 0)
    assert world.ok("ls", "-r", run["run"]).splitlines() == [
        "PATH    FILE       SIZE", "output  hello.txt  12B"]
    world.ok("tags", "add", run["run"], "awesome-tag")
    assert world.ok("ls", ":awesome-tag").splitlines()[1].split() == ["output", "hello.txt", "12B"]
    world.ok("pull" if options else "push", run["run"])
    world.ok("pull" if options else "push", ":awesome-tag")
    (copy,) = (world.home / ("." if options else "remote")).glob("artifacts/*/*/output/hello.txt")
    assert copy.read_text() == "Hello world\n"
    assert [r["run"] for r in world.runs()] == [run["run"]]
    world.assert_nothing_left()


def test_hello_sh(anywhere):
    world, options = anywhere
    done = world.run("run", "hello-sh", *options)
    assert done.returncode == 0, done.err
    assert done.out.splitlines()[2:] == [f"Wrote output/{i:03}.txt" for i in range(3)]
    name = world.last()["run"]
    assert world.files(name) == [f"output/{i:03}.txt" for i in range(3)]
    assert world.ok("logs", name) == "".join(f"Wrote output/{i:03}.txt\n" for i in range(3))
    if options:
        world.ok("pull", name)
        assert len(list(world.home.glob("artifacts/*/*/output/00?.txt"))) == 3
    world.assert_nothing_left()


def test_mounts_are_there_when_the_commands_start(anywhere):
    world, options = anywhere
    world.write(HELLO.replace("path: output", "path: output\n        mount: true"))
    name = world.begin("wait", *options)
    (mount,) = mounts_below(world.home)
    assert " - fuse" in mount and "/code/output " in mount
    world.ok("stop", name)
    world.wait_status(name, "stopped")
    assert world.files(name) == ["output/a"]
    world.assert_nothing_left()


def test_a_mounted_file_is_listed_while_the_run_goes_on(rgw):
    rgw.write(HELLO.replace("{000..002}", "{000..100}"), "workflows.yaml")
    (rgw.repo / ".dstack/workflows/all.yaml").unlink()
    (rgw.repo / "artifacts/hello.sh").write_text(HELLO_SH.replace("002", "500"))
    name = rgw.ok("run", "hello-sh", "--remote", "-d").splitlines()[1].split()[0]
    wait_for(lambda: "output/000.txt" in rgw.files(name), LIMIT_S, "the first file")
    assert rgw.last()["status"] == "running"
    rgw.ok("stop", name, "-x")
    rgw.wait_status(name, "aborted")
    assert "output/000.txt" in rgw.files(name)
    rgw.assert_nothing_left()


def test_without_a_remote_the_embedded_one_is_said_once(world):
    done = world.run("run", "hello-txt", "--remote")
    (line,) = [l for l in done.err.splitlines() if "remote" in l]
    assert f"{world.home}/remote" in line and "dstack config" in line


# --- arguments ---

def test_arguments_replace_the_variable(world):
    assert world.ok("run", "hello", "Hello, world!").splitlines()[2:] == ["Hello, world!"]
    assert world.ok("run", "hello", "--epochs", "3", "-x", "a;b").splitlines()[2:] == [
        "--epochs 3 -x a;b"]
    assert world.ok("run", "hello", "--", "-d", "$HOME").splitlines()[2:] == ["-d $HOME"]
    done = world.ok("run", "bash", "-c", "echo '${{ run.name }}' $RUN_NAME '$$HOME $${{ x }}'")
    name = world.last()["run"]
    assert done.splitlines()[2:] == [f"{name} {name} $HOME ${{{{ x }}}}"]


def test_words_are_utf_8_in_any_locale(world):
    world.environment.update(LANG="C", LC_ALL="C")
    assert world.ok("run", "bash", "-c", "echo é $X ${{ run.args }}", "-e", "X=ü", "ß").splitlines()[
        2:] == ["é ü ß"]


def test_bash_runs_without_a_file(world):
    (world.repo / ".dstack/workflows/all.yaml").unlink()
    done = world.run("run", "bash", "-c", "echo hi; exit 7")
    assert (done.returncode, done.out.splitlines()[2:]) == (7, ["hi"])
    assert "exit status 7" in done.err


@pytest.mark.parametrize("arguments, code, parts", [
    (["run", "hello-txt", "--detatch"], 1, ["--detatch", "hello-txt", "run.args"]),
    (["run", "--detatch", "hello-txt"], 2, ["--detatch", "dstack run --help"]),
    (["run", "hello-txt", "-c", "x"], 2, ["-c", "bash"]),
    (["run", "bash", "-c", "echo ${{ run.nam }}"], 1, ["run.nam", "run.name"]),
    (["run", "bash", "-c", "echo ${{ run.name"], 1, ["}}"]),
    (["run", "bash"], 1, ["bash", "-c"]),
    (["run"], 2, ["workflow", "dstack run --help"]),
    (["run", "nope"], 1, ["nope", "hello-txt, hello-sh, hello"]),
    (["run", "hello", "-e", "1X=2"], 1, ["1X=2", "--env"]),
    (["run", "hello", "-e", "NO_SUCH_VARIABLE"], 1, ["NO_SUCH_VARIABLE"]),
    (["run", "hello", "-a", "../x"], 1, ["../x"]),
    (["run", "hello", "-t", "a/b"], 1, ["a/b", "tag"]),
    (["run", "hello", "--remote=nope"], 1, ["nope", "dstack config"]),
    (["logs", "no-run-1"], 1, ["no-run-1", "dstack ps -a"]),
    (["ps", "no-run-1"], 1, ["no-run-1", "dstack ps -a"]),
    (["stop", "no-run-1"], 1, ["no-run-1", "dstack ps -a"]),
    (["ls", "no-run-1"], 1, ["no-run-1", "dstack ps -a"]),
    (["ls", ":no-tag"], 1, ["no-tag", "dstack tags"]),
    (["push", "no-run-1"], 1, ["no-run-1"]),
    (["rm", "no-run-1", "-y"], 1, ["no-run-1"]),
    (["tags", "add", "no-run-1", "x"], 1, ["no-run-1"]),
    (["config"], 2, ["--storage"]),
    (["config", "--storage", "foo"], 1, ["foo", "s3://"]),
    (["config", "--storage", "file:///x", "--engine", "slurmy"], 1, ["slurmy", "local"]),
    (["config", "--storage", "file:///x", "--name", "a b"], 1, ["a b"]),
    (["run", "bash", "-c", b"echo \xff"], 1, ["UTF-8"]),
    (["run", "hello", b"\xff"], 1, ["UTF-8"]),
    (["run", "a\x1b[31m\nb"], 1, ["a?[31m?b"]),
    (["frobnicate"], 2, ["frobnicate", "dstack --help"]),
    (["ps", "--frob"], 2, ["--frob", "dstack ps --help"]),
])
def test_what_cannot_be_done_is_one_line(world, arguments, code, parts):
    line = world.refuses(*arguments, code=code)
    assert all(part in line for part in parts), line
    world.assert_nothing_made()


def test_remote_takes_a_name_only_if_there_is_one(rgw, tmp_path):
    rgw.ok("config", "--storage", f"file://{tmp_path}/other", "--name", "other")
    for arguments in (["hello", "--remote", "other", "x"], ["--remote=other", "hello", "x"],
                      ["--remote", "other", "hello", "x"]):
        assert rgw.ok("run", *arguments).splitlines()[2:] == ["x"]
    assert len(list((tmp_path / "other").glob("runs/*/*.json"))) == 3
    assert rgw.ok("run", "--remote", "hello", "y").splitlines()[2:] == ["y"]
    assert len(list((tmp_path / "other").glob("runs/*/*.json"))) == 3
    assert {r["status"] for r in rgw.runs()} == {"done"} and len(rgw.runs()) == 4
    name = rgw.begin("wait", "--remote", "other")
    rgw.ok("stop", name)  # found on a remote that is not the default one
    rgw.wait_status(name, "stopped")


def test_a_relative_home(world):
    world.environment["DSTACK_HOME"] = "../home"
    assert world.ok("run", "hello", "x").splitlines()[2:] == ["x"]
    assert world.last()["status"] == "done"


def test_ls_shows_groups_and_totals(world):
    world.ok("run", "bash", "-c", "cd out; mkdir -p d/e; echo 1 > a; echo 22 > d/b; echo 333 > d/e/c",
             "-a", "out", "-a", "other/dir")
    name = world.last()["run"]
    assert [line.split() for line in world.ok("ls", name).splitlines()] == [
        ["PATH", "FILE", "SIZE"], ["out", "a", "2B"], ["d/"]]
    assert [line.split() for line in world.ok("ls", "-t", name).splitlines()[1:]] == [
        ["out", "a", "2B"], ["d/", "7B"]]
    assert [line.split() for line in world.ok("ls", "-r", name, "d").splitlines()[1:]] == [
        ["out", "d/b", "3B"], ["d/e/c", "4B"]]


# --- workflows that cannot be ---

def workflow(body, head="provider: bash\n    commands: [echo x]"):
    return f"workflows:\n  - name: bad\n    {head}\n    {body}\n"


@pytest.mark.parametrize("text, place, parts", [
    ("workflows:\n  - name: bad\n    provider: [bash\n", ":4:1:", ["',' or ']'"]),
    ("workflows:\n  - name: bad\n    provider: bash\n", ":2:5:", ["commands"]),
    (workflow("comands: [x]"), ":5:5:", ["comands", "\"commands\""]),
    (workflow("artifacts: [/]"), ":5:17:", ["\"/\""]),
    (workflow("artifacts: [a/../../b]"), ":5:17:", ["a/../../b"]),
    (workflow("working_dir: ../x"), ":5:18:", ["../x", "working_dir"]),
    (workflow("working_dir: /x"), ":5:18:", ["/x", "working_dir"]),
    (workflow("env: [\"=x\"]"), ":5:11:", ["=x", "NAME=VALUE"]),
    (workflow("env: {A: 1}"), ":5:10:", ["env", "list"]),
    (workflow("env: [AWS_SECRET_ACCESS_KEY=abc]"), ":5:11:", ["AWS_SECRET_ACCESS_KEY", "alone"]),
    (workflow("resources: 4"), ":5:16:", ["resources", "map"]),
    (workflow("resources: {cpus: 4}"), ":5:17:", ["cpus", "\"cpu\""]),
    (workflow("resources: {cpu: two}"), ":5:22:", ["cpu", "two"]),
    (workflow("resources: {cpu: 0}"), ":5:22:", ["cpu", "0"]),
    (workflow("resources: {memory: 16XB}"), ":5:25:", ["memory", "16XB", "16GB"]),
    (workflow("resources: {shm_size: []}"), ":5:27:", ["shm_size"]),
    (workflow("resources: {gpu: {count: x}}"), ":5:30:", ["count", "x"]),
    (workflow("resources: {interruptible: maybe}"), ":5:32:", ["interruptible", "true or false"]),
    (workflow("resources: {local: true, remote: true}"), ":5:16:", ["local", "remote"]),
    (workflow("ports: [http]"), ":5:13:", ["http", "65535"]),
    (workflow("ports: [\"80:99999\"]"), ":5:13:", ["80:99999"]),
    (workflow("cache: [../x]"), ":5:13:", ["../x"]),
    (workflow("cache: [{paht: x}]"), ":5:14:", ["paht", "\"path\""]),
    (workflow("ssh: 7"), ":5:10:", ["ssh", "true or false"]),
    (workflow("deps: [{tag: a, run: b}]"), ":5:12:", ["exactly one"]),
])
def test_a_wrong_workflow_is_one_line_with_its_place(world, text, place, parts):
    world.write(text)
    line = world.refuses("run", "bad")
    assert line.startswith(f"dstack: .dstack/workflows/all.yaml{place} "), line
    assert all(part in line for part in parts), line
    world.assert_nothing_made()


def test_values_that_are_right_are_taken(world):
    world.write(workflow("""env: [A=b=c, HOME]
    resources: {cpu: 4, memory: 16GB, shm_size: 64MB, interruptible: true, gpu: {name: A100, count: 2, memory: 40GB}}
    ports: [8080, "80:8080"]
    cache: [~/.cache/pip, {path: data}]
    ssh: false
    working_dir: sub/dir
    help: A text"""))
    (world.repo / "sub/dir").mkdir(parents=True)
    (world.repo / "sub/dir/file").write_text("")
    assert world.ok("run", "bad").splitlines()[2:] == ["x"]


# --- stores that cannot be used ---

def remote_arguments(store, **changed):
    arguments = {"--storage": store.url, "--endpoint": store.endpoint, "--region": "us-east-1"}
    arguments.update({f"--{name}": value for name, value in changed.items()})
    return [part for pair in arguments.items() for part in pair]


@pytest.mark.parametrize("change, secret, parts", [
    ({"endpoint": "http://127.0.0.1:1"}, None, ["127.0.0.1", "endpoint"]),
    ({"storage": "s3://no-such-bucket/x"}, None, ["no-such-bucket", "NoSuchBucket", "bucket"]),
    ({}, "wrong", ["SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"]),
    ({"endpoint": "127.0.0.1"}, None, ["127.0.0.1", "http://"]),
])
def test_a_remote_that_does_not_work(world, change, secret, parts):
    store = S3Store()
    world.environment.update(store.environment)
    good = world.environment["AWS_SECRET_ACCESS_KEY"]
    world.environment["AWS_SECRET_ACCESS_KEY"] = secret or good
    arguments = remote_arguments(store, **change)
    line = world.refuses("config", *arguments)
    assert all(part in line for part in parts), line
    assert not (world.home / "config.yaml").exists()

    world.home.mkdir(exist_ok=True)  # and when it was written by hand, or stopped working
    values = dict(zip(arguments[::2], arguments[1::2]))
    (world.home / "config.yaml").write_text("remotes:\n  - name: r\n" + "".join(
        f"    {name[2:]}: '{value}'\n" for name, value in values.items()))
    begin = time.monotonic()
    for command in (["run", "hello-txt", "--remote"], ["logs", "calm-owl-1"], ["push", "calm-owl-1"]):
        line = world.refuses(*command)
        assert all(part in line for part in parts), line
    assert time.monotonic() - begin < 10
    world.assert_nothing_made()
    world.ok("run", "hello-txt")  # what is done here needs no remote
    shown = world.run("ps")
    assert "hello-txt" in shown.out and shown.returncode == 1 and shown.err.count("\n") == 1


@needs_root
def test_without_credentials_and_network_runs_here_go_on(rgw):
    for name in rgw.remote.environment:
        del rgw.environment[name]
    assert "AWS_ACCESS_KEY_ID" in rgw.refuses("run", "hello-txt", "--remote")
    assert rgw.ok("run", "hello", "x", prefix=["unshare", "-n"]).splitlines()[2:] == ["x"]


@needs_root
def test_no_network(rgw):
    line = rgw.refuses("run", "hello-txt", "--remote", prefix=["unshare", "-n"])
    assert rgw.remote.endpoint.split("/")[-1].split(":")[0] in line and "endpoint" in line
    rgw.assert_nothing_made()


@pytest.mark.parametrize("home", ["/etc/passwd/x", "/proc/x"])
def test_a_home_that_cannot_be_made(world, home):
    world.environment["DSTACK_HOME"] = home
    for command in (["run", "hello-txt"], ["ps"], ["config", "--storage", "file:///tmp/x"]):
        line = world.refuses(*command)
        assert home in line and "DSTACK_HOME" in line, line


@pytest.fixture
def small_disk(world):
    world.home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", world.home], check=True)
    yield world
    world.clear()
    assert not is_mounted(world.home)


@needs_root
def test_a_full_disk_when_submitting(small_disk):
    with open(small_disk.home / "fill", "wb", buffering=0) as fill:
        try:
            while True:
                fill.write(b"x" * 4096)
        except OSError:
            pass
    line = small_disk.refuses("run", "hello-txt")
    assert "No space left" in line and str(small_disk.home) in line, line
    (small_disk.home / "fill").unlink()
    small_disk.assert_nothing_made()


@needs_root
def test_a_full_disk_while_it_runs(small_disk):
    """The store is elsewhere, the work directory's disk fills up: the run says so and is over."""
    store = S3Store()
    small_disk.environment.update(store.environment)
    small_disk.ok("config", "--storage", store.url, *store.arguments)
    done = small_disk.run("run", "bash", "-c", "head -c 1M /dev/zero > out/x", "-a", "out",
                          "--remote")
    assert done.returncode == 1 and "No space left" in done.out
    with open(small_disk.home / "fill", "wb", buffering=0) as fill:
        try:
            while True:
                fill.write(b"x" * 1024)
        except OSError:
            pass
    (small_disk.repo / "large").write_bytes(os.urandom(100000))
    done = small_disk.run("run", "hello-txt", "--remote")
    assert done.returncode == 1 and "No space left" in done.err, done.err
    assert small_disk.last()["status"] == "failed"
    store.remove_all()


def test_a_mountpoint_that_is_not_empty(world):
    world.write(workflow("artifacts: [{path: artifacts, mount: true}]"))
    done = world.run("run", "bad")
    assert done.returncode == 1 and done.err.count("\n") == 1
    assert "artifacts" in done.err and "not empty" in done.err
    world.assert_nothing_left()


@needs_root
def test_no_fuse(world):
    hidden = ["unshare", "-m", "sh", "-c", "d=$DSTACK_HOME.dev; mkdir $d && mount -t tmpfs none $d && "
              "touch $d/null && mount --bind /dev/null $d/null && mount --move $d /dev && "
              "exec \"$@\"", "sh"]
    done = world.run("run", "hello-sh", prefix=hidden)
    assert done.returncode == 1 and "/dev/fuse" in done.err and done.err.count("\n") == 1, done.err
    world.assert_nothing_left()


# --- tags ---

def test_a_tag_is_not_taken_from_its_run(world):
    world.ok("run", "hello-txt", "-t", "best")
    first = world.last()["run"]
    line = world.refuses("run", "hello-txt", "-t", "best")
    assert "best" in line and first in line and "dstack tags" in line
    assert len(world.runs()) == 1
    world.ok("run", "hello-txt")
    second = world.last()["run"]
    line = world.refuses("tags", "add", second, "best")
    assert "best" in line and first in line and "-y" in line
    world.ok("tags", "add", first, "best")
    world.ok("tags", "add", second, "best", "-y")
    assert world.ok("tags").splitlines()[1].split()[-1] == second


def test_two_runs_at_once_do_not_share_a_tag(anywhere):
    world, options = anywhere
    started = [world.start("run", "hello-txt", "-t", "best", *options) for _ in range(4)]
    ends = [p.communicate(timeout=LIMIT_S) and p.returncode for p in started]
    assert sorted(ends) == [0, 1, 1, 1]
    (done,) = [r["run"] for r in world.runs() if r["status"] == "done"]
    assert world.ok("tags").splitlines()[1].split()[-1] == done
    assert {r["status"] for r in world.runs()} <= {"done", "failed"}


# --- push and pull ---

def test_an_unfinished_run_is_not_copied(world):
    name = world.begin("wait")
    line = world.refuses("push", name)
    assert name in line and "running" in line
    world.ok("stop", name, "-x")
    world.wait_status(name, "aborted")
    world.ok("push", name)


def test_another_run_of_the_same_name_is_not_mixed_in(world, tmp_path):
    world.ok("run", "hello-txt")
    name = world.last()["run"]
    world.ok("push", name)
    other = next((world.home / "remote").glob(f"runs/*/{name}.json"))
    other.write_text(other.read_text().replace(world.document(name)["state"]["id"], str(uuid.uuid4())))
    assert name in world.refuses("push", name)
    assert name in world.refuses("pull", name)


def test_push_does_not_move_a_tag(world):
    world.ok("run", "hello-txt", "--remote", "-t", "best")
    theirs = world.last()["run"]
    world.ok("run", "hello-txt", "-t", "best")
    done = world.run("push", ":best")
    assert done.returncode == 1 and theirs in done.err.splitlines()[-1]
    assert [json.loads(p.read_text())["run"] for p in world.home.glob("remote/tags/*/best.json")] == [
        theirs]


# --- stop ---

@pytest.mark.parametrize("abort", [False, True])
def test_stop_saves_and_abort_does_not(anywhere, abort):
    world, options = anywhere
    name = world.begin("wait", *options)
    world.ok("stop", name, *(["-x"] if abort else []))
    world.wait_status(name, "aborted" if abort else "stopped")
    assert world.files(name) == ([] if abort else ["output/a"])
    line = world.refuses("stop", name)
    assert name in line and "finished" in line
    world.assert_nothing_left()


SAVING = r"""python3 -c '
import signal, sys, time
def save(*_):
    print("saving", flush=True)
    time.sleep(4)
    open("output/saved", "w").write("x")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("up", flush=True)
time.sleep(60)'
"""


def test_a_child_has_the_whole_grace_and_one_signal(world):
    name = world.ok("run", "bash", "-c", SAVING, "-a", "output", "-d").splitlines()[1].split()[0]
    wait_for(lambda: "up" in world.ok("logs", name), LIMIT_S, "up")
    world.ok("stop", name)
    world.wait_status(name, "stopped")
    assert world.files(name) == ["output/saved"]
    assert world.ok("logs", name) == "up\nsaving\n"
    world.assert_nothing_left()


def test_an_abort_during_the_grace_is_not_overwritten(world):
    name = world.ok("run", "bash", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done",
                    "-a", "output", "-d").splitlines()[1].split()[0]
    wait_for(lambda: "up" in world.ok("logs", name), LIMIT_S, "up")
    world.ok("stop", name)
    world.wait_status(name, "stopping")
    world.ok("stop", name, "-x")
    world.wait_status(name, *FINAL)
    assert world.last()["status"] == "aborted"
    world.assert_nothing_left()


def test_stop_all(world):
    names = {world.begin("wait"), world.begin("wait", "--remote")}
    assert set(world.ok("stop", "-a", "-x").split()) == names
    for name in names:
        world.wait_status(name, "aborted")
    world.assert_nothing_left()


# --- terminals ---

def test_ctrl_c_asks_and_no_detaches(world):
    terminal = Terminal(world, "run", "wait")
    terminal.expect("up")
    terminal.send("\x03")
    terminal.expect("[y/N]")
    terminal.send("n\n")
    assert terminal.finish() == 0
    name = world.last()["run"]
    assert world.last()["status"] == "running" and f"dstack logs -a {name}" in terminal.text
    world.ok("stop", name, "-x")
    world.wait_status(name, "aborted")


@pytest.mark.parametrize("answer, status", [("y\n", "stopped"), ("\x03", "aborted")])
def test_ctrl_c_asks_and_stops_or_aborts(world, answer, status):
    terminal = Terminal(world, "run", "wait")
    terminal.expect("up")
    terminal.send("\x03")
    terminal.expect("[y/N]")
    terminal.send(answer)
    assert terminal.finish() == 130
    assert world.last()["status"] == status and status in terminal.text
    assert world.files(world.last()["run"]) == (["output/a"] if status == "stopped" else [])
    world.assert_nothing_left()


def test_ctrl_c_is_heard_while_output_pours_in(world):
    terminal = Terminal(world, "run", "bash", "-c", "echo up; yes")
    terminal.expect("up")
    terminal.send("\x03")
    end = time.monotonic() + 10
    while "[y/N]" not in terminal.text:
        assert time.monotonic() < end
        terminal.read(0.1)
        terminal.text = terminal.text[-8192:]
    terminal.send("\x03")
    assert terminal.finish() == 130
    world.assert_nothing_left()


def test_the_terminal_may_close(world):
    terminal = Terminal(world, "run", "bash", "-c", "echo up; sleep 1; echo late")
    terminal.expect("up")
    os.close(terminal.fd)
    os.waitpid(terminal.pid, 0)
    name = world.last()["run"]
    world.wait_status(name, "done")
    assert world.ok("logs", "-a", name) == "up\nlate\n"


def test_stop_asks(world):
    name = world.begin("wait")
    for answer, code, status in (("n", 1, "running"), ("y", 0, "aborted")):
        terminal = Terminal(world, "stop", "-x", name)
        terminal.expect("[y/N]")
        terminal.send(answer + "\n")
        assert terminal.finish() == code
        world.wait_status(name, status)


def test_config_asks_for_what_is_missing(world):
    store = S3Store()
    world.environment.update(store.environment)
    terminal = Terminal(world, "config")
    for question, answer in (("Storage", store.url), ("Endpoint", store.endpoint), ("Region", ""),
                             ("Profile", "")):
        terminal.expect(question)
        terminal.send(answer + "\n")
    assert terminal.finish() == 0, terminal.text
    text = (world.home / "config.yaml").read_text()
    assert store.url in text and store.endpoint in text
    assert Terminal(world, "config", "--storage", f"file://{world.home}/x").finish() == 0


# --- runners that die ---

def parent(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def test_a_killed_runner_is_shown_as_lost(rgw):
    rgw.write(HELLO.replace("path: output", "path: output\n        mount: true"))
    name = rgw.begin("wait", "--remote")
    document = json.loads(rgw.remote.read(next(
        o["Key"] for o in rgw.remote.client.list_objects_v2(
            Bucket=rgw.remote.bucket, Prefix=rgw.remote.prefix + "runs/")["Contents"]
        if o["Key"].endswith(".json"))[len(rgw.remote.prefix):]))
    worker = document["state"]["owner"]["pid"]
    keeper = parent(worker)
    os.kill(keeper, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    assert re.search(rf"{name} .*failed .*runner lost", rgw.ok("ps"))
    assert re.search(rf"{name} .*failed .*runner lost", rgw.ok("ps", "-av"))  # the second look too
    assert rgw.files(name) == ["output/a"]
    rgw.assert_nothing_left()


def test_a_runner_killed_before_it_took_the_run(world):
    """Its code cannot be had for a moment: the run is submitted and nobody's."""
    process = world.start("run", "hello-txt", "-d")
    wait_for(lambda: list(world.home.glob("runs/*/*.json")), LIMIT_S, "the document")
    for pid in processes_of(world.home):
        if pid != process.pid:
            os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=LIMIT_S)
    wait_for(lambda: world.last()["status"] in FINAL, LIMIT_S, "an end")
    world.assert_nothing_left()


def test_a_killed_mount_fails_the_run_with_the_reason(rgw):
    rgw.write(HELLO.replace("path: output", "path: output\n        mount: true"))
    name = rgw.begin("wait", "--remote")
    (mount,) = [p for p in processes_of(rgw.home) if b"dstack-mount" in
                pathlib.Path(f"/proc/{p}/cmdline").read_bytes()]
    os.kill(mount, signal.SIGKILL)
    rgw.wait_status(name, "failed")
    assert re.search(r"failed .*mount of output .*killed by signal 9", rgw.ok("ps", name))
    rgw.assert_nothing_left()


def test_a_run_stopped_at_any_moment_leaves_nothing(world):
    for i in range(6):
        name = world.ok("run", "wait", "-d").splitlines()[1].split()[0]
        time.sleep(i * 0.02)
        world.ok("stop", name, *(["-x"] if i % 2 else []))
        world.wait_status(name, *FINAL)
        assert world.last()["status"] == ("aborted" if i % 2 else "stopped")
    world.assert_nothing_left()


def test_an_abort_just_before_the_end_saves_nothing(world):
    name = world.ok("run", "bash", "-c", "echo x > out/a; sleep 0.5", "-a", "out",
                    "-d").splitlines()[1].split()[0]
    world.ok("stop", name, "-x")
    world.wait_status(name, *FINAL)
    assert world.last()["status"] == "aborted" and world.files(name) == []


def test_what_a_run_made_is_saved_though_it_was_called_lost(world):
    """As when the network was away for minutes and somebody looked from elsewhere."""
    name = world.ok("run", "bash", "-c", "echo up; sleep 1; echo x > out/a", "-a", "out",
                    "-d").splitlines()[1].split()[0]
    wait_for(lambda: "up" in world.ok("logs", name), LIMIT_S, "up")
    document = world.document(name)
    document["state"].update(status="failed", reason="runner lost", revision=99)
    next(world.home.glob(f"runs/*/{name}.json")).write_text(json.dumps(document))
    world.assert_nothing_left()
    assert world.files(name) == ["out/a"]
    assert world.document(name)["state"]["reason"] == "runner lost"


# --- hygiene ---

def test_the_job_has_no_files_of_ours(world):
    reading, writing = os.pipe()
    done = world.run("run", "bash", "-c", "ls /proc/self/fd | tr '\\n' ' '", pass_fds=[writing])
    os.close(writing)
    os.close(reading)
    assert done.out.splitlines()[2].split() == ["0", "1", "2", "3"]  # 3: the directory ls reads


def test_secrets_show_nowhere(rgw):
    secret = rgw.environment["AWS_SECRET_ACCESS_KEY"]
    rgw.write(HELLO.replace("echo \"$DSTACK_JOB\"", "env; echo \"$DSTACK_JOB\"").replace(
        "path: output", "path: output\n        mount: true"))
    name = rgw.begin("wait", "--remote")
    for pid in processes_of(rgw.home):
        assert secret.encode() not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    rgw.ok("stop", name)
    rgw.wait_status(name, "stopped")
    assert secret not in rgw.ok("logs", name) and "RUN_NAME=" in rgw.ok("logs", name)
    pages = rgw.remote.client.get_paginator("list_objects_v2").paginate(
        Bucket=rgw.remote.bucket, Prefix=rgw.remote.prefix)
    for key in [o["Key"] for page in pages for o in page["Contents"]]:
        assert secret.encode() not in rgw.remote.read(key[len(rgw.remote.prefix):]), key
    for path in rgw.home.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def test_credentials_reach_a_job_that_asks_for_them_and_not_the_store(rgw):
    secret = rgw.environment["AWS_SECRET_ACCESS_KEY"]
    command = f"test \"$AWS_SECRET_ACCESS_KEY\" = {secret[::-1]} || echo ${{#AWS_SECRET_ACCESS_KEY}}"
    assert rgw.ok("run", "bash", "-c", command, "-e", "AWS_SECRET_ACCESS_KEY",
                  "--remote").splitlines()[2:] == [str(len(secret))]
    keys = [o["Key"] for o in rgw.remote.client.list_objects_v2(
        Bucket=rgw.remote.bucket, Prefix=rgw.remote.prefix + "runs/")["Contents"]]
    for key in keys:
        assert secret.encode() not in rgw.remote.read(key[len(rgw.remote.prefix):])


def test_the_code_is_what_git_would_take_and_never_our_own_home(world):
    world.environment["DSTACK_HOME"] = str(world.repo / "state")
    world.home = world.repo / "state"
    (world.repo / "new.txt").write_text("")
    listing = "find . -type f | sort | tr '\\n' ' '"
    assert world.ok("run", "bash", "-c", listing).splitlines()[2].split() == [
        "./.dstack/workflows/all.yaml", "./artifacts/hello.sh", "./new.txt"]
    subprocess.run(["git", "init", "-q", world.repo], check=True)
    (world.repo / ".gitignore").write_text("*.o\n")
    (world.repo / "x.o").write_text("")
    assert world.ok("run", "bash", "-c", listing).splitlines()[2].split() == [
        "./.dstack/workflows/all.yaml", "./.gitignore", "./artifacts/hello.sh", "./new.txt"]


# --- time ---

def test_version_is_quick_and_every_help_helps(world):
    times = []
    for _ in range(5):
        begin = time.monotonic()
        assert world.ok("--version").startswith("dstack ")
        times.append(time.monotonic() - begin)
    assert min(times) < 0.02
    names = re.findall(r"^  (\w+) ", world.ok("--help").split("COMMAND", 1)[1], re.M)
    names = [n for n in names if n != "dstack"]
    assert len(names) >= 10
    for name in names:
        assert f"dstack {name}" in world.ok(name, "--help")
    for other in ("dstack-runner", "dstack-mount"):
        for option in ("--help", "--version"):
            done = subprocess.run([program(other), option], capture_output=True, text=True)
            assert done.returncode == 0 and other in done.stdout


def test_ps_of_a_thousand_runs_is_quick(rgw):
    """What finished runs leave is written as the runner writes it."""
    rgw.ok("run", "hello-txt", "--remote")
    name = rgw.last()["run"]
    client, bucket = rgw.remote.client, rgw.remote.bucket
    prefix = rgw.remote.prefix + "runs/"
    keys = [o["Key"] for o in client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]]
    assert len(keys) == 2  # the document and what ps reads
    bodies = [rgw.remote.read(key[len(rgw.remote.prefix):]) for key in keys]

    def add(i):
        for key, body in zip(keys, bodies):
            client.put_object(Bucket=bucket, Key=key.replace(name, f"calm-owl-{i}"), Body=body)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(1, 1000)))
    begin = time.monotonic()
    shown = rgw.ok("ps", "-a")
    took = time.monotonic() - begin
    assert len(shown.splitlines()) == 1001
    assert took < 0.5
