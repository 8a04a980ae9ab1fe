"""What is kept after a run, and what is not: tags, push and pull, cp, rm."""
import json
import os
import re
import subprocess
import time

import pytest

from cli_world import LIMIT_S, Terminal, both, needs_root, rgw, world
from conftest import program, wait_for
from test_artifacts import tree, yaml

LONG = os.environ.get("DSTACK_TEST_LONG") == "1"
MANY = ("many", ["mkdir out/d; for i in $(seq 20); do echo $i > out/d/$i; done; chmod 700 out/d/7"],
        ["artifacts: [out]"])


def objects(world, prefix, remote=False):
    """Keys below PREFIX in the root of local runs, or of the embedded remote."""
    top = world.home / ("remote" if remote else ".")
    return sorted(str(p.relative_to(top)) for p in top.glob(prefix + "/**/*")
                  if p.is_file() and ".dstack-tmp" not in p.parts)


# --- tags ---

def test_a_tag_keeps_artifacts_when_the_run_goes(both, tmp_path):
    world, options = both
    world.ok("run", "hello-txt", *options)
    name = world.last()["run"]
    world.ok("tags", "add", "first", name)
    world.ok("tags", "add", name, "second")
    done = world.run("rm", name, "-y")
    assert done.returncode == 0 and "tag" in done.err
    assert world.runs() == []
    rows = json.loads(world.ok("tags", "--json"))
    assert {(r["tag"], r["run"], r["owner"]) for r in rows} == {
        ("first", name, os.environ.get("USER", "root")), ("second", name, os.environ.get("USER", "root"))}
    assert world.ok("ls", ":first").splitlines()[1].split() == ["output", "hello.txt", "12B"]
    world.ok("cp", ":second", "output/hello.txt", tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "Hello world\n"
    world.write(yaml(("take", ["cat output/hello.txt"], ["deps: [{tag: second}]"])))
    assert world.ok("run", "take", *options).splitlines()[2:] == ["Hello world"]
    world.ok("pull" if options else "push", ":first")
    world.ok("tags", "delete", "second", "-y")
    assert world.ok("ls", ":first").splitlines()[1].split() == ["output", "hello.txt", "12B"]
    world.ok("tags", "delete", "first", "-y")  # here and on the remote
    world.refuses("ls", ":first")
    assert objects(world, "artifacts") == [] and objects(world, "artifacts", True) == []
    if world.remote:
        assert world.remote.keys("artifacts/") == []


def test_tags_of_folders(both, tmp_path):
    world, options = both
    (world.repo / "models" / "deep").mkdir(parents=True)
    (world.repo / "models" / "deep" / "w").write_text("w")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "m").write_text("m")
    world.ok("tags", "add", "base", "-a", "./models/", "-a", str(tmp_path / "more"))
    assert [l.split() for l in world.ok("ls", "-r", ":base").splitlines()[1:]] == [
        ["models", "deep/w", "1B"], [str(tmp_path / "more"), "m", "1B"]]
    assert world.ok("tags").splitlines()[1].split()[0] == "base" and world.runs() == []
    if options:
        world.ok("push", ":base")
    (world.repo / "models" / "deep" / "w").write_text("w2")
    (tmp_path / "more" / "m").unlink()
    world.write(yaml(("take", [f"cat models/deep/w {tmp_path}/more/m"], ["deps: [{tag: base}]"])))
    assert world.ok("run", "take", *options).splitlines()[2:] == ["wm"]
    assert "base" in world.refuses("tags", "add", "base", "-a", "models")
    world.ok("tags", "add", "base", "-a", "models", "-y")
    assert [l.split() for l in world.ok("ls", "-r", ":base").splitlines()[1:]] == [
        ["models", "deep/w", "2B"]]
    assert len(list((world.home / "artifacts").glob("*/TAG.*"))) == 1  # what it held before is gone


def test_a_tag_of_folders_that_fails_leaves_nothing(world):
    (world.repo / "models").mkdir()
    (world.repo / "models" / os.fsdecode(b"\xff")).write_text("")
    assert "not UTF-8" in world.run("tags", "add", "base", "-a", "models").err
    assert world.ok("tags").splitlines()[1:] == [] and objects(world, "artifacts") == []


@pytest.mark.parametrize("arguments, code, parts", [
    (["tags", "add", "x", "-a", "nowhere"], 1, ["nowhere", "no such directory"]),
    (["tags", "add", "x", "-a", ".."], 1, [".."]),
    (["tags", "add", "x", "-a", "/"], 1, ["/"]),
    (["tags", "add", "x", "-a", ".dstack", "-a", "./.dstack/"], 1, ["one place"]),
    (["tags", "add", "a/b", "-a", ".dstack"], 1, ["a/b"]),
    (["tags", "add", "x", "run-1", "-a", ".dstack"], 2, ["usage"]),
    (["tags", "add", "x"], 2, ["usage"]),
    (["tags", "delete", "no-tag"], 1, ["no-tag"]),
    (["tags", "frob"], 2, ["usage"]),
    (["cp", "no-run-1", "x", "y"], 1, ["no-run-1"]),
    (["cp", ":no-tag", "x", "y"], 1, ["no-tag"]),
    (["cp", "no-run-1", "x"], 2, ["usage"]),
    (["rm"], 2, ["-a"]),
    (["rm", "-a", "x"], 2, ["-a"]),
    (["rm", "../x", "-y"], 1, ["../x"]),
    (["push", ":no-tag"], 1, ["no-tag"]),
    (["pull", "no-run-1"], 1, ["no-run-1"]),
])
def test_what_cannot_be_is_one_line(world, arguments, code, parts):
    line = world.refuses(*arguments, code=code)
    assert all(part in line for part in parts), line
    world.assert_nothing_made()


@needs_root
def test_dstack_mount_takes_runs_and_tags(both, tmp_path):
    world, options = both
    world.ok("run", "hello-txt", "-t", "best", *options)
    name = world.last()["run"]
    for what in (name, ":best"):
        if what == ":best":
            world.ok("rm", name, "-y")
        (tmp_path / "mnt").mkdir(exist_ok=True)
        done = subprocess.run([program("dstack-mount"), what, str(tmp_path / "mnt")], cwd=world.repo,
                              env=world.environment, capture_output=True, text=True, timeout=LIMIT_S)
        assert done.returncode == 0, done.stderr
        try:
            assert (tmp_path / "mnt/output/hello.txt").read_text() == "Hello world\n"
            with pytest.raises(OSError):
                (tmp_path / "mnt/output/new").write_text("")
        finally:
            subprocess.run(["fusermount3", "-u", str(tmp_path / "mnt")], check=True)
    done = subprocess.run([program("dstack-mount"), ":no-tag", str(tmp_path / "mnt")], cwd=world.repo,
                          env=world.environment, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 1 and ":no-tag" in done.stderr
    world.assert_nothing_left()


# --- push and pull ---

def test_a_second_push_copies_what_is_missing_or_different(world):
    world.write(yaml(MANY))
    world.ok("run", "many", "-t", "best")
    name = world.last()["run"]
    assert "20 files copied, 0 already there" in world.run("push", name).err
    (copy,) = world.home.glob("remote/artifacts/*/*/out/d")
    (original,) = world.home.glob("artifacts/*/*/out/d")
    assert tree(copy) == tree(original)
    (copy / "3").unlink()
    os.utime(copy / "5", (1, 1))
    (copy / "7").write_text("more than before")
    before = (copy / "9").stat().st_mtime_ns, (copy / "9").stat().st_ino
    assert re.search(r"\b([1-4]) files copied, 1\d already there", world.run("push", name).err)
    assert tree(copy) == tree(original)
    assert ((copy / "9").stat().st_mtime_ns, (copy / "9").stat().st_ino) == before
    assert "\n0 files copied, 20 already there" in world.run("push", ":best").err
    world.ok("rm", name, "-y")
    world.ok("pull", ":best")
    assert world.last()["run"] == name and world.ok("logs", name) == ""
    world.assert_nothing_left()


def test_what_a_mount_keeps_for_itself_stays_behind(rgw):
    """A directory of a mount that was listed has an index beside its files."""
    rgw.write(yaml(("listed", ["for i in $(seq 100); do echo $i > out/$i; done", "ls -l out >/dev/null"],
                    ["artifacts: [{path: out, mount: true}]"])))
    rgw.ok("run", "listed", "--remote")
    name = rgw.last()["run"]
    keys = rgw.remote.keys("artifacts/")
    assert len(keys) > 100 and any(".dstack-index/" in key for key in keys), keys[:3]
    rgw.ok("pull", name)
    rgw.ok("cp", name, "out", "back")
    assert sorted(os.listdir(rgw.repo / "back"), key=int) == [str(i) for i in range(1, 101)]


def test_a_push_that_is_cut_off_goes_on(rgw):
    # They go up side by side: the first one long before the others.
    rgw.write(yaml(("big", ["head -c 1M /dev/urandom > out/1",
                            "for i in 2 3 4 5 6; do head -c 40M /dev/urandom > out/$i; done"],
                    ["artifacts: [out]"])))
    rgw.ok("run", "big")
    name = rgw.last()["run"]
    process = rgw.start("push", name)
    wait_for(lambda: rgw.remote.keys("artifacts/"), LIMIT_S, "the first file")
    process.send_signal(2)
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert rgw.remote.keys("runs/") == []  # not to be seen before it is whole
    uploads = rgw.remote.client.list_multipart_uploads(Bucket=rgw.remote.bucket,
                                                       Prefix=rgw.remote.prefix)
    assert not uploads.get("Uploads")
    there = len(rgw.remote.keys("artifacts/"))
    done = rgw.run("push", name)
    assert f"{6 - there} files copied, {there} already there" in done.err and 0 < there < 6, done.err
    for i in "123456":
        (file,) = rgw.home.glob(f"artifacts/*/*/out/{i}")
        key = next(k for k in rgw.remote.keys("artifacts/") if k.endswith(f"/out/{i}"))
        assert rgw.remote.read(key) == file.read_bytes()


def test_push_says_when_there_is_nothing_to_do(world):
    world.ok("run", "hello-txt", "--remote")
    name = world.last()["run"]
    assert "already" in world.refuses("push", name)


# --- cp ---

def test_cp_of_files_and_directories(both, tmp_path):
    world, options = both
    world.write(yaml(("make", ["cd out; mkdir -p d/e; echo 1 > d/a; chmod 751 d/a; echo 2 > d/e/b; "
                               "ln -s a d/link"], ["artifacts: [out]"])))
    world.ok("run", "make", *options)
    name = world.last()["run"]
    target = tmp_path / "target"
    world.ok("cp", name, "out/d/a", target)
    assert target.read_text() == "1\n" and target.stat().st_mode & 0o777 == 0o751
    target.unlink()
    target.mkdir()
    world.ok("cp", name, "./out/d/a", target)
    world.ok("cp", name, "out/d/", target)
    assert (target / "a").read_text() == "1\n" and (target / "d/e/b").read_text() == "2\n"
    assert os.readlink(target / "d/link") == "a"
    world.ok("cp", name, "out", "relative")
    assert (world.repo / "relative/d/e/b").read_text() == "2\n"
    world.ok("cp", name, "out/d/link", tmp_path / "link")
    assert os.readlink(tmp_path / "link") == "a"
    for source, where, part in (("out/nope", target, "out/nope"), ("nope", target, "nope"),
                                ("../x", target, "../x"), ("/", target, "/"), ("out/d/a", target / "d/", None),
                                ("out/d", "", "copy to"),
                                ("out/d", target / "a", "is a file"), ("out/d/a", target / "no/", "no/")):
        done = world.run("cp", name, source, f"{where}/" if str(where).endswith("no") else str(where))
        assert done.returncode == (0 if part is None else 1) and (part or "") in done.err, done.err


def test_cp_never_leaves_its_target(world, tmp_path):
    """A store is foreign: its keys and what lies in the target may try."""
    world.ok("run", "hello-txt")
    name = world.last()["run"]
    (artifact,) = world.home.glob(f"artifacts/*/{name}/output")
    (artifact / "%2E%2E").mkdir()  # the file store's form of the key segment ".."
    (artifact / "%2E%2E" / "escaped").write_text("x")
    (artifact / "sub").mkdir()
    (artifact / "sub" / "f").write_text("x")
    done = world.run("cp", name, "output", tmp_path / "target" / "in")
    assert done.returncode == 1 and not (tmp_path / "target" / "escaped").exists(), done.err
    (artifact / "%2E%2E" / "escaped").unlink()
    (artifact / "%2E%2E").rmdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "output").symlink_to(outside)
    assert "symlink" in world.refuses("cp", name, "output", tmp_path / "planted")
    (tmp_path / "planted" / "output").unlink()
    (tmp_path / "planted" / "output").mkdir()
    (tmp_path / "planted" / "output" / "sub").symlink_to(outside)
    assert "symlink" in world.run("cp", name, "output", tmp_path / "planted").err
    assert list(outside.iterdir()) == []


# --- ls ---

def test_ls_needs_the_same_memory_for_any_number(world):
    world.ok("run", "bash", "-c", "true", "-a", "out")
    name = world.last()["run"]
    top = next(world.home.glob(f"artifacts/*/{name}/out"))
    peaks = []
    for i in range(50):
        (top / str(i)).mkdir()
    for first, end in ((0, 1000), (1000, 100000 if LONG else 10000)):
        for i in range(first, end):
            os.mknod(f"{top}/{i % 50}/{i}")
        with open(world.home.parent / "listing", "w") as listing:
            process = subprocess.Popen([program("dstack"), "ls", "-r", name], cwd=world.repo,
                                       env=world.environment, stdout=listing)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        assert len(open(listing.name).readlines()) == end + 1
        peaks.append(usage.ru_maxrss)
    assert peaks[1] < peaks[0] + 8 * 1024, peaks  # KiB


# --- rm ---

def test_rm_removes_what_nothing_refers_to(both):
    world, options = both
    keys = world.remote.keys if world.remote else lambda: [
        k for kind in ("artifacts", "runs", "logs", "code", "tags") for k in
        objects(world, kind, bool(options))]
    world.ok("run", "hello-txt", *options)
    world.ok("run", "hello-sh", *options)
    first, second = [r["run"] for r in world.runs()]
    assert any("/" + first + "/" in k for k in keys()) and len([k for k in keys() if "tar.zst" in k]) == 1
    world.ok("rm", first, "-y")
    assert not [k for k in keys() if first in k] and [k for k in keys() if "tar.zst" in k]
    assert not list(world.home.glob(f"runners/*/{first}.log"))
    world.ok("rm", second, "-y")
    assert keys() == []


def test_rm_all_passes_over_what_goes_on(world):
    world.ok("run", "hello-txt")
    world.run("run", "bash", "-c", "exit 3", "--remote")
    name = world.begin("wait")
    assert "running" in world.refuses("rm", name, "-y")
    assert len(world.ok("rm", "-a", "-y").split()) == 2
    assert [r["run"] for r in world.runs()] == [name]
    world.ok("stop", name, "-x")
    world.wait_status(name, "aborted")


def test_rm_asks_on_a_terminal(world):
    world.ok("run", "hello-txt")
    name = world.last()["run"]
    for answer, code, left in (("n", 1, 1), ("y", 0, 0)):
        terminal = Terminal(world, "rm", name)
        terminal.expect("[y/N]")
        terminal.send(answer + "\n")
        assert terminal.finish() == code and len(world.runs()) == left


def test_rm_can_be_repeated(world):
    """It was cut off behind the document, before the artifacts."""
    world.ok("run", "hello-txt")
    name = world.last()["run"]
    next(world.home.glob(f"runs/*/{name}.json")).unlink()
    world.ok("rm", name, "-y")
    assert objects(world, "artifacts") == []
    world.refuses("rm", name, "-y")


# --- ps, repos ---

def test_ps_has_the_columns_of_the_reference(world):
    world.ok("run", "hello-txt", "-t", "best")
    name = world.last()["run"]
    world.ok("tags", "add", name, "last")
    lines = world.ok("ps").splitlines()
    assert lines[0].split() == ["RUN", "WORKFLOW", "SUBMITTED", "OWNER", "STATUS", "TAG"]
    owner = world.last()["owner"]
    assert re.fullmatch(rf"{name} +hello-txt +(now|\d+ sec ago) +{owner} +done +best, last", lines[1])
    assert owner == subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()
    assert lines[0].split() + ["EXIT"] == world.ok("ps", "-v").splitlines()[0].split()[:7]
    watching = Terminal(world, "ps", "-w")
    watching.expect("best, last")
    first = len(watching.text)
    end = time.monotonic() + 6
    while watching.text[first:].count("best, last") < 1 and time.monotonic() < end:
        watching.read(0.2)
    assert watching.text[first:].count("best, last") >= 1
    watching.send("\x03")
    assert watching.finish() == -2


def test_repos_of_plain_directories_and_subdirectories(world, tmp_path):
    first = world.ok("init").strip()
    world.ok("run", "hello-txt")
    (world.repo / "sub" / "deep").mkdir(parents=True)
    world.ok("run", "hello", "x", cwd=world.repo / "sub" / "deep")
    assert len(world.runs()) == 2
    assert len(json.loads(world.ok("ps", "-a", "--json", cwd=world.repo / "sub"))) == 2
    world.repo.rename(tmp_path / "moved")
    world.repo = tmp_path / "moved"
    assert world.ok("init").strip() == first and len(world.runs()) == 2
    inner = world.ok("init", cwd=world.repo / "sub").strip()  # a repo of its own from now on
    assert inner != first and json.loads(world.ok("ps", "-a", "--json", cwd=world.repo / "sub/deep")) == []
    subprocess.run(["git", "init", "-q", world.repo], check=True)
    subprocess.run(["git", "-C", world.repo, "remote", "add", "origin", "git@example.com:me/mine.git"],
                   check=True)
    assert world.ok("init").strip() == "me.mine" and world.runs() == []


def test_many_runs_at_once(world):
    """The same workflow, submitted at the same moment: each has a name of its own, and all end done."""
    count = 50 if LONG else 12
    started = [world.start("run", "hello-txt") for _ in range(count)]
    ends = [(p.communicate(timeout=300), p.returncode) for p in started]
    assert {code for _, code in ends} == {0}, ends
    runs = world.runs()
    assert len({r["run"] for r in runs}) == count and {r["status"] for r in runs} == {"done"}
    for run in runs:
        assert world.files(run["run"]) == ["output/hello.txt"]
    world.assert_nothing_left()
