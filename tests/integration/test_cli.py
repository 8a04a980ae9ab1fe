"""The command line as people use it: what works, and what is said of what does not."""
import concurrent.futures
import json
import os
import pathlib
import re
import resource
import subprocess
import time
import uuid

import pytest

from cli_world import (HELLO, HELLO_SH, LIMIT_S, UNSHARE_MOUNTS, anywhere, mounts_below, needs_root, processes_of, rgw,
                       world)
from conftest import S3Store, is_mounted, program, wait_for

LONG = os.environ.get("DSTACK_TEST_LONG") == "1"

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
    for prefix in ("d", "out/d", "./out/d/"):
        assert [line.split() for line in world.ok("ls", "-r", name, prefix).splitlines()[1:]] == [
            ["out", "d/b", "3B"], ["d/e/c", "4B"]], prefix
    assert len(world.ok("ls", "-r", name, "ou").splitlines()) == 4
    assert world.ok("ls", "-r", name, "none").splitlines() == ["PATH  FILE  SIZE"]


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
    resources: {cpu: 1, memory: 16MB, shm_size: 1MB, interruptible: true, local: true}
    ports: [29871, "80:29872"]
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


@needs_root
def test_a_full_disk_gets_room_again_when_the_work_directory_goes(small_disk):
    begin = time.monotonic()
    done = small_disk.run("run", "bash", "-c", "head -c 1M /dev/zero > x")
    assert done.returncode == 1 and "No space left" in done.out, (done.out, done.err)
    assert "exit status 1" in done.err and time.monotonic() - begin < 20, done.err
    assert not list((small_disk.home / "work").glob("*"))


@needs_root
def test_what_could_not_be_saved_is_kept_even_if_that_cannot_be_noted(small_disk):
    done = small_disk.run("run", "bash", "-c", "head -c 1M /dev/zero > out/x 2>/dev/null", "-a", "out")
    assert done.returncode == 1 and "kept in" in done.err, done.err
    directory = pathlib.Path(done.err.split("kept in ")[1].strip())
    size = (directory / "code/out/x").stat().st_size
    assert size > 100000
    subprocess.run(["mount", "-o", "remount,size=1M", small_disk.home], check=True)
    assert str(directory) in small_disk.ok("ps", "-v") and str(directory) in small_disk.ok("ps", "-v")
    assert (directory / "code/out/x").stat().st_size == size


@needs_root
def test_a_mount_says_what_it_waits_for_at_the_end(small_disk):
    """The store is full: the commands are told, the log says what is not saved yet, and with room it is."""
    subprocess.run(["mount", "-o", "remount,size=4M", small_disk.home], check=True)
    small_disk.write(workflow("artifacts: [{path: output, mount: true}]", "provider: bash\n    commands: "
                              "['head -c 8M /dev/zero > output/big || echo told']"))
    name = small_disk.ok("run", "bad", "-d").splitlines()[1].split()[0]
    line = "dstack: a mount is waiting for 1 to be saved: big; for "
    wait_for(lambda: line in small_disk.ok("logs", name), LIMIT_S, line)
    log = small_disk.ok("logs", name)
    assert "told" in log and re.search(r"s more \(.*big: No space left on device", log), log
    subprocess.run(["mount", "-o", "remount,size=64M", small_disk.home], check=True)
    small_disk.wait_status(name, "done", "failed")
    assert small_disk.files(name) == ["output/big"]
    wait_for(lambda: not processes_of(small_disk.home), LIMIT_S, "no process")


def test_a_mountpoint_that_is_not_empty(world):
    world.write(workflow("artifacts: [{path: artifacts, mount: true}]"))
    done = world.run("run", "bad")
    assert done.returncode == 1 and done.err.count("\n") == 1
    assert "artifacts" in done.err and "not empty" in done.err
    world.assert_nothing_left()


@needs_root
def test_no_fuse(world):
    hidden = [*UNSHARE_MOUNTS, "sh", "-c", "d=$DSTACK_HOME.dev; mkdir $d && mount -t tmpfs none $d && "
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
    assert world.ok("tags").splitlines()[1].split()[-2] == second


def test_two_runs_at_once_do_not_share_a_tag(anywhere):
    world, options = anywhere
    started = [world.start("run", "hello-txt", "-t", "best", *options) for _ in range(4)]
    ends = [p.communicate(timeout=LIMIT_S) and p.returncode for p in started]
    assert sorted(ends) == [0, 1, 1, 1]
    (done,) = [r["run"] for r in world.runs() if r["status"] == "done"]
    assert world.ok("tags").splitlines()[1].split()[-2] == done
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
    assert not list(world.home.glob(f"remote/artifacts/*/{world.last()['run']}"))  # nothing was copied
    assert [json.loads(p.read_text())["run"] for p in world.home.glob("remote/tags/*/best.json")] == [
        theirs]


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
    for key, data in rgw.remote.texts().items():
        assert secret.encode() not in data, key
    for path in rgw.home.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def test_credentials_reach_a_job_that_asks_for_them_and_not_the_store(rgw):
    secret = rgw.environment["AWS_SECRET_ACCESS_KEY"]
    command = f"test \"$AWS_SECRET_ACCESS_KEY\" = {secret[::-1]} || echo ${{#AWS_SECRET_ACCESS_KEY}}"
    assert rgw.ok("run", "bash", "-c", command, "-e", "AWS_SECRET_ACCESS_KEY",
                  "--remote").splitlines()[2:] == [str(len(secret))]
    documents = rgw.remote.texts("runs/")
    assert any(key.endswith(".json") for key in documents)
    for key, data in documents.items():
        assert secret.encode() not in data, key


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

def processor_s():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_version_is_quick_and_every_help_helps(world):
    times = []
    for _ in range(10):  # of the processor: other work on the machine is not ours to measure
        begin = processor_s()
        assert world.ok("--version").startswith("dstack ")
        times.append(processor_s() - begin)
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


def test_ps_of_many_runs_is_quick(rgw):
    """What finished runs leave is written as the runner writes it. Twice as many keys: two pages."""
    count = 1000 if LONG else 510
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
        list(pool.map(add, range(1, count)))
    ratios = []
    for _ in range(3):  # beside the same listing by another client, in the same moment
        begin = time.monotonic()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        assert sum(len(page["Contents"]) for page in pages) == 2 * count
        between = time.monotonic()
        assert len(rgw.ok("ps", "-a").splitlines()) == count + 1
        ratios.append((time.monotonic() - between) / (between - begin))
    print(ratios)
    assert min(ratios) < 2


def test_data_among_the_code_is_said_before_it_is_packed(world):
    with open(world.repo / "data", "wb") as data:
        data.truncate(101 << 20)
    subprocess.run(["git", "init", "-q"], cwd=world.repo, check=True)
    done = world.run("run", "bash", "-c", "true")
    assert done.returncode == 0 and "101.0MiB" in done.err and "git ignore" in done.err, done.err
    (world.repo / ".gitignore").write_text("data")
    assert world.run("run", "bash", "-c", "true").err == "done\n"


def test_the_root_directory_is_no_code(world):
    line = world.refuses("run", "bash", "-c", "true", cwd="/")
    assert "all of /" in line
    world.assert_nothing_made()


def test_output_that_cannot_be_written_is_no_success(world):
    world.ok("run", "bash", "-c", "echo hi")
    name = world.last()["run"]
    for arguments in (["ps", "-a"], ["logs", name], ["ls", name], ["run", "bash", "-c", "echo hi"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run([program("dstack"), *arguments], cwd=world.repo, env=world.environment,
                                  stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE,
                                  text=True, timeout=30)
        assert done.returncode == 1 and "standard output" in done.stderr, (arguments, done)


def test_closed_standard_descriptors_are_no_files_of_ours(world):
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    assert world.run("run", "hello-txt", "-d", prefix=closed).returncode == 0
    name = world.last()["run"]
    world.wait_status(name, "done", "failed")
    assert world.last()["status"] == "done" and world.files(name) == ["output/hello.txt"]
