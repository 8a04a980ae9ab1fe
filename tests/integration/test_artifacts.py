"""What a run keeps and what the next one finds: artifacts and deps, of each kind, here and on S3."""
import os
import pathlib
import stat
import subprocess
import time

import pytest

from cli_world import Terminal, World, both, rgw, world

LONG = os.environ.get("DSTACK_TEST_LONG") == "1"
SMALL_FILES = 25000 if LONG else 3000


def yaml(*workflows):
    """Each: (name, commands, more lines)."""
    text = "workflows:\n"
    for name, commands, more in workflows:
        text += f"  - name: {name}\n    provider: bash\n    commands:\n"
        text += "".join(f"      - |\n        {line}\n" for line in commands)
        text += "".join(f"    {line}\n" for line in more)
    return text


def tree(top):
    """{path: (kind, mode, content)} of everything below TOP."""
    found = {}
    for path in sorted(pathlib.Path(top).rglob("*")):
        info = path.lstat()
        kind = stat.S_IFMT(info.st_mode)
        content = (os.readlink(path) if stat.S_ISLNK(info.st_mode) else
                   path.read_bytes() if stat.S_ISREG(info.st_mode) else None)
        mode = None if stat.S_ISLNK(info.st_mode) else stat.S_IMODE(info.st_mode)
        found[str(path.relative_to(top))] = (kind, mode, content)
    return found


MAKE = ["""(cd output; mkdir -p a/b empty 'name with space'; echo x > a/b/x; : > a/nothing; ln -s b/x a/link)""",
        """(cd output; ln -s nowhere dangling; echo '#!/bin/sh' > a/run.sh; chmod 755 a/run.sh)""",
        """(cd output; chmod 700 a; chmod 1777 a/b; chmod 750 empty; echo s > a/secret; chmod 600 a/secret)"""]


@pytest.mark.parametrize("mount", [False, True])
def test_everything_of_a_file_is_kept(both, tmp_path, mount):
    world, options = both
    seen = tmp_path / "seen"
    world.write(yaml(("make", MAKE, ["artifacts:", "  - path: ./output/", f"    mount: {str(mount).lower()}"]),
                     ("take", [f"cp -a output {seen}"], ["deps:", "  - workflow: make"])))
    world.ok("run", "make", *options)
    name = world.last()["run"]
    world.ok("run", "take", *options)
    local = tmp_path / "local"
    subprocess.run(["bash", "-ec", "\n".join(["mkdir output", *MAKE])], check=True,
                   cwd=world.repo)
    os.rename(world.repo / "output", local)
    expected = tree(local)
    expected["a/b"] = (stat.S_IFDIR, 0o777, None)  # no set-uid, set-gid or sticky bit from a store
    assert tree(seen) == expected
    world.ok("cp", name, "output", tmp_path / "copy")
    assert tree(tmp_path / "copy") == expected


def test_paths_of_every_kind(both, tmp_path):
    world, options = both
    absolute = tmp_path / "absolute" / "env"
    world.write(yaml(
        ("make", ["echo 1 > rel/f; echo 2 > ./dot/sub/f; echo 3 > ~/at-home/f", f"echo 4 > {absolute}/f"],
         ["artifacts:", "  - rel", "  - ./dot/sub", "  - path: ~/at-home", f"  - path: {absolute}"]),
        ("take", [f"cat rel/f dot/sub/f ~/at-home/f {absolute}/f"], ["deps:", "  - workflow: make"])))
    world.ok("run", "make", *options)
    name = world.last()["run"]
    lines = [line.split() for line in world.ok("ls", name).splitlines()[1:]]
    assert lines == [["rel", "f", "2B"], ["dot/sub", "f", "2B"], ["~/at-home", "f", "2B"],
                     [str(absolute), "f", "2B"]]
    (absolute / "f").unlink()
    (tmp_path / "at-home" / "f").unlink()
    assert world.ok("run", "take", *options).splitlines()[2:] == ["1", "2", "3", "4"]
    world.ok("cp", name, f"{absolute}/f", tmp_path / "copied")
    assert (tmp_path / "copied").read_text() == "4\n"


def test_an_artifact_without_files_is_one(both):
    world, options = both
    for made in ("false", "true"):
        world.write(yaml(("make", ["true"], ["artifacts:", "  - path: output", f"    mount: {made}"]),
                         ("copy", ["ls -A output; echo there"], ["deps: [{workflow: make}]"]),
                         ("mount", ["ls -A output; echo there"], ["deps: [{workflow: make, mount: true}]"])))
        world.ok("run", "make", *options)
        for take in ("copy", "mount")[made == "true":]:
            assert world.ok("run", take, *options).splitlines()[2:] == ["there"], (made, take)


def test_a_dep_whose_files_are_gone_fails_the_run(both):
    world, options = both
    world.write(yaml(("make", ["echo x > output/x"], ["artifacts: [output]"]),
                     ("take", ["true"], ["deps: [{workflow: make}]"])))
    world.ok("run", "make", *options)
    name = world.last()["run"]
    if world.remote:
        for key in world.remote.keys("artifacts/"):
            world.remote.client.delete_object(Bucket=world.remote.bucket, Key=world.remote.prefix + key)
    else:
        (world.home / "artifacts").rename(world.home / "elsewhere")
    done = world.run("run", "take", *options)
    assert done.returncode == 1 and name in done.err and "output" in done.err, done.err


def test_many_small_files_are_kept_whole(rgw, tmp_path):
    """As of a conda environment; "too many open files" once lost some silently."""
    make = (f"import os\nfor i in range({SMALL_FILES}):\n    d = f'env/{{i % 7}}/{{i % 13}}'\n"
            "    os.makedirs(d, exist_ok=True)\n    open(f'{d}/{i}', 'w').write(str(i))\n")
    (rgw.repo / "make.py").write_text(make)
    check = (f"import pathlib\nfiles = [p for p in pathlib.Path('env').rglob('*') if p.is_file()]\n"
             f"assert len(files) == {SMALL_FILES}, len(files)\n"
             "assert all(p.read_text() == p.name for p in files)\nprint('whole')\n")
    (rgw.repo / "check.py").write_text(check)
    rgw.write(yaml(("make", ["python3 make.py"], ["artifacts: [env]"]),
                   ("take", ["python3 check.py"], ["deps: [{workflow: make}]"])))
    times = [time.monotonic()]
    for workflow, label in (("make", "Uploading artifacts ["), ("take", "Downloading deps [")):
        terminal = Terminal(rgw, "run", workflow, "--remote", few_files=True)
        while terminal.read(60):
            pass
        assert terminal.finish() == 0, terminal.text[-2000:]
        assert label + "###" in terminal.text, terminal.text[-2000:]
        times.append(time.monotonic())
        assert rgw.last()["status"] == "done"
    assert terminal.text.rstrip().splitlines()[-2:] == ["whole", "done"], terminal.text[-2000:]
    name = rgw.runs()[1]["run"]
    print("saved, restored in", [b - a for a, b in zip(times, times[1:])])
    terminal = Terminal(rgw, "cp", name, "env/3", str(tmp_path / "copy"))
    end = time.monotonic() + 300
    while time.monotonic() < end and terminal.read(1):
        pass
    assert terminal.finish() == 0
    assert "[####" in terminal.text and " files, " in terminal.text, terminal.text[-500:]
    assert len([p for p in (tmp_path / "copy").rglob("*") if p.is_file()]) == len(range(3, SMALL_FILES, 7))


# --- caches ---

def test_a_cache_is_kept_between_runs_of_its_workflow(both):
    world, options = both
    grow = ["ls pip | wc -l; touch pip/$(ls pip | wc -l); test ! -e pip/gone || rm pip/gone",
            "cat ~/tool/v 2>/dev/null || echo none; echo v1 > ~/tool/v"]
    world.write(yaml(("w", grow, ["cache:", "  - pip", "  - path: ~/tool"]),
                     ("other", ["ls pip | wc -l"], ["cache: [pip]"]),
                     ("bad", ["ls pip | wc -l; echo x > pip/broken; exit 1"], ["cache: [pip]"])))
    home = pathlib.Path(world.environment["HOME"])
    assert world.ok("run", "w", *options).splitlines()[2:] == ["0", "none"]
    (home / "tool" / "v").unlink()
    assert world.ok("run", "w", *options).splitlines()[2:] == ["1", "v1"]
    assert world.ok("run", "w", *options).splitlines()[2:] == ["2", "v1"]
    assert world.ok("run", "other", *options).splitlines()[2:] == ["0"]  # each has its own
    for _ in range(2):
        assert world.run("run", "bad", *options).out.splitlines()[2:] == ["0"]  # nothing of failures
    assert world.files(world.last()["run"]) == []
    assert "4 files removed" in world.run("prune", "cache", "w").err
    assert world.ok("run", "w", *options).splitlines()[2] == "0"


def test_a_cache_forgets_what_is_gone(world):
    world.write(yaml(("w", ["ls pip; rm -f pip/a; touch pip/$NAME"], ["cache: [pip]", "env: [NAME]"])))
    for name, seen in (("a", []), ("b", ["a"]), ("c", ["b"])):
        world.environment["NAME"] = name
        assert world.ok("run", "w").splitlines()[2:] == seen


def test_a_cache_that_did_not_come_down_stays_as_it_is(world):
    world.write(yaml(("w", ["mkdir -p pip/a; touch pip/a/b pip/c"], ["cache: [pip]"]),))
    world.ok("run", "w")
    caches = world.home / "cache"
    before = tree(caches)
    (world.repo / "pip").mkdir()
    (world.repo / "pip" / "a").write_text("in the way")
    world.write(yaml(("w", ["rm -f pip/c; touch pip/d"], ["cache: [pip]"]),))
    assert "cache pip was not restored, and will not be saved: " in world.ok("run", "w")
    assert tree(caches) == before
    (world.repo / "pip" / "a").unlink()
    assert "not restored" not in world.ok("run", "w")
    assert {p.name for p in caches.rglob("*") if p.is_file()} == {"b", "d"}


def test_a_cache_that_cannot_be_kept_fails_nothing(world):
    world.write(yaml(("w", ["rmdir pip; echo file > pip"], ["cache: [pip]"])))
    done = world.run("run", "w")
    assert done.returncode == 0 and "cache pip was not saved" in done.out
    assert "usage" in world.refuses("prune", "cache", code=2)
    assert "cache" in world.refuses("prune", "x", "w", code=2)
    assert "a/b" in world.refuses("prune", "cache", "a/b")
    assert "0 files" in world.run("prune", "cache", "nope").err


# --- saved when, and when not ---

@pytest.mark.parametrize("mount", [False, True])
def test_a_failed_run_keeps_what_it_made(both, mount):
    world, options = both
    world.write(yaml(("bad", ["echo x > output/a; exit 3"],
                      ["artifacts:", "  - path: output", f"    mount: {str(mount).lower()}"])))
    assert world.run("run", "bad", *options).returncode == 3
    assert world.last()["status"] == "failed" and world.files(world.last()["run"]) == ["output/a"]


UNSAVABLE = "echo x > output/$(printf 'a\\377b')"  # a name that no key can have


def test_a_save_that_fails_is_failed_and_push_tries_again(both):
    world, options = both
    done = world.run("run", "bash", "-c", "echo good > output/good; " + UNSAVABLE, "-a", "output",
                     *options)
    name = world.last()["run"]
    assert done.returncode == 1 and world.last()["status"] == "failed"
    assert f"dstack push {name}" in done.err and "kept in" in done.err
    kept = pathlib.Path(done.err.split("kept in ")[1].strip())
    assert world.files(name) == ["output/good"]
    assert "not UTF-8" in world.run("push", name).err  # still not: nothing is lost, nothing changed
    assert kept.is_dir() and "kept in" in world.ok("ps", "-v")
    for path in (kept / "code" / "output").iterdir():
        if b"\xff" in os.fsencode(path):
            path.rename(path.parent / "renamed")
    world.ok("push", name)
    assert world.files(name) == ["output/good", "output/renamed"]
    assert not kept.exists()
    assert world.last()["status"] == "failed" and "saved later" in world.ok("ps", "-v")
    world.assert_nothing_left()


# --- deps ---

DATA = ("data", ["echo v1 > data/x; mkdir data/sub; echo y > data/sub/y"], ["artifacts: [data]"])


def test_deps_by_workflow_tag_and_run(both):
    world, options = both
    world.write(yaml(DATA, ("by-workflow", ["cat data/x"], ["deps: [{workflow: data}]"]),
                     ("by-tag", ["cat data/x"], ["deps: [{tag: best}]"])))
    world.ok("run", "data", *options)
    first = world.last()["run"]
    world.ok("tags", "add", first, "best")
    world.write(yaml(("data", ["echo v2 > data/x"], ["artifacts: [data]"])), "workflows/all.yaml")
    world.ok("run", "data", *options)
    world.write(yaml(("by-workflow", ["cat data/x"], ["deps: [{workflow: data}]"]),
                     ("by-tag", ["cat data/x"], ["deps: [{tag: best}]"]),
                     ("by-run", ["cat data/x"], [f"deps: [{{run: {first}}}]"])))
    world.ok("rm", first, "-y")
    assert world.ok("run", "by-workflow", *options).splitlines()[2:] == ["v2"]
    assert world.ok("run", "by-tag", *options).splitlines()[2:] == ["v1"]  # its run is gone
    line = world.refuses("run", "by-run", *options)
    assert first in line


def test_mounted_deps_are_read_only_and_not_copied(both):
    world, options = both
    world.write(yaml(("data", ["head -c 20M /dev/zero > data/big; echo x > data/x"], ["artifacts: [data]"]),
                     ("take", ["cat data/x; stat -c %s data/big; ls data; ! touch data/new 2>/dev/null",
                               "grep \" $PWD/data fuse\" /proc/self/mounts | cut -d' ' -f3 | cut -c1-4"],
                      ["deps:", "  - workflow: data", "    mount: true"])))
    world.ok("run", "data", *options)
    begin = time.monotonic()
    assert world.ok("run", "take", *options).splitlines()[2:] == ["x", "20971520", "big", "x", "fuse"]
    print("run with a mounted dep:", time.monotonic() - begin)
    world.assert_nothing_left()


def test_deps_of_another_repo(world, tmp_path):
    other = tmp_path / "other"
    (other / ".dstack").mkdir(parents=True)
    for path, url in ((other, "https://example.com/acme/data.git"), (world.repo, "git@example.com:me/mine.git")):
        subprocess.run(["git", "init", "-q", path], check=True)
        subprocess.run(["git", "-C", path, "remote", "add", "origin", url], check=True)
    (other / ".dstack" / "workflows.yaml").write_text(yaml(DATA))
    world.ok("run", "data", "-t", "v1", cwd=other)
    name = world.ok("ps", "-a", cwd=other).splitlines()[1].split()[0]
    assert world.runs() == []
    world.write(yaml(("w", ["cat data/x"], ["deps: [{workflow: acme/data/data}]"]),
                     ("t", ["cat data/x"], ["deps: [{tag: acme/data/v1}]"]),
                     ("r", ["cat data/x"], [f"deps: [{{run: acme.data/{name}, mount: true}}]"]),
                     ("none", ["true"], ["deps: [{workflow: acme/other/data}]"]),
                     ("bad", ["true"], ["deps: [{tag: a/b/c/d}]"])))
    for workflow in "wtr":
        assert world.ok("run", workflow).splitlines()[2:] == ["v1"]
    assert "acme/other/data" in world.refuses("run", "none")
    assert "USER/REPO/NAME" in world.refuses("run", "bad")


@pytest.mark.parametrize("more, parts", [
    (["deps: [{workflow: one}, {workflow: two}]"], ["one place", "data"]),
    (["deps: [{workflow: one, mount: true}, {workflow: inner}]"], ["one place", "data/inner"]),
    (["deps: [{workflow: one, mount: true}]", "artifacts: [data/out]"], ["data/out", "mounted"]),
    (["deps: [{workflow: one}]", "artifacts: [{path: data, mount: true}]"], ["data", "mounted"]),
    (["deps: [{workflow: never}]"], ["never", "done", "run it first"]),
    (["deps: [{workflow: failing}]"], ["failing", "done"]),
    (["deps: [{tag: no-tag}]"], ["no-tag"]),
    (["deps: [{run: no-run-1}]"], ["no-run-1"]),
    (["deps: [{workflow: nothing}]"], ["nothing", "no artifacts"]),
    (["deps: [{workflow: ../x}]"], ["../x"]),
])
def test_deps_that_cannot_be(made, more, parts):
    made.write(yaml(("take", ["true"], more)), "workflows/take.yaml")
    line = made.refuses("run", "take")
    assert all(part in line for part in parts), line


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A world with some runs that deps may name."""
    world = World(tmp_path_factory.mktemp("made"))
    world.write(yaml(("one", ["true"], ["artifacts: [data]"]), ("two", ["true"], ["artifacts: [data]"]),
                     ("inner", ["true"], ["artifacts: [data/inner]"]), ("nothing", ["true"], []),
                     ("failing", ["exit 1"], ["artifacts: [other]"])))
    for workflow in ("one", "two", "inner", "nothing", "failing"):
        world.run("run", workflow)
    yield world
    world.clear()


def test_a_dep_that_is_not_finished(world):
    world.write(yaml(("slow", ["echo up; sleep 60"], ["artifacts: [data]"])))
    name = world.begin("slow")
    world.write(yaml(("take", ["true"], [f"deps: [{{run: {name}}}]"])))
    line = world.refuses("run", "take")
    assert name in line and "running" in line
    world.ok("stop", name, "-x")
    world.wait_status(name, "aborted")
