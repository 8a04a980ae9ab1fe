"""Where dstack is called: homes of every kind, directories below a repo, submodules."""
import json
import os
import pwd
import re
import subprocess

import pytest

from cli_world import HELLO, UNSHARE_MOUNTS, Terminal, World, needs_root, rgw, world  # noqa: F401
from fault_proxy import Proxy


def git(directory, *arguments):
    subprocess.run(["git", "-c", "user.name=u", "-c", "user.email=u@x", "-c",
                    "protocol.file.allow=always", *arguments], cwd=directory, check=True,
                   capture_output=True, timeout=30)


@pytest.mark.parametrize("name", ["a héim #?&", "100% 'of' \"", "x\ny"])
def test_homes_of_any_name(tmp_path, name):
    world = World(tmp_path / name)
    world.ok("run", "hello-txt", "-t", "best")
    world.ok("run", "hello-sh", "--remote")
    world.ok("push", ":best")
    world.ok("rm", "-a", "-y")
    assert world.files(":best") == ["output/hello.txt"]
    assert world.ok("run", "bash", "--dep", ":best", "-c", "cat output/*").endswith("world\n")
    world.assert_nothing_left()


@needs_root
@pytest.mark.parametrize("home", [None, ""])
def test_without_home_it_is_the_users(world, home):
    """In a mount namespace of its own, where the user's home is empty."""
    del world.environment["DSTACK_HOME"], world.environment["HOME"]
    if home is not None:
        world.environment["HOME"] = home
    real = pwd.getpwuid(os.geteuid()).pw_dir
    script = f'mount -t tmpfs none "{real}" && "$@" && test -d "{real}/.dstack"'
    prefix = [*UNSHARE_MOUNTS, "sh", "-ec", script, "sh"]
    world.ok("secrets", prefix=prefix)
    assert not (world.repo / ".dstack" / "artifacts").exists()


@needs_root
def test_a_home_that_is_read_only(world):
    world.home.mkdir()
    prefix = [*UNSHARE_MOUNTS, "sh", "-c",
              f'mount --bind "{world.home}" "{world.home}" && '
              f'mount -o remount,ro,bind "{world.home}" && exec "$@"', "sh"]
    for command in (["run", "hello"], ["tags", "add", "t", "-a", "artifacts"],
                    ["secrets", "add", "A", "x"]):
        assert "ead-only" in world.refuses(*command, prefix=prefix)
    world.ok("ps", "-a", prefix=prefix)
    world.ok("tags", prefix=prefix)
    world.assert_nothing_made()


def test_a_submodule_is_a_repo_of_its_own_and_its_files_are_code(world, tmp_path):
    library, top = tmp_path / "library", world.repo
    for directory in (library, top):
        directory.mkdir(exist_ok=True)
        git(directory, "init", "-q")
        git(directory, "remote", "add", "origin", f"https://example.com/u/{directory.name}.git")
    (library / "part.txt").write_text("from the library\n")
    git(library, "add", ".")
    git(library, "commit", "-qm", "x")
    git(top, "submodule", "add", "-q", str(library), "library")
    (top / "library/new.txt").write_text("not committed\n")
    world.write(HELLO + """  - name: cat
    provider: bash
    commands: ["cat library/part.txt library/new.txt"]
""")
    (top / "sub/deep").mkdir(parents=True)
    text = world.ok("run", "cat", cwd=top / "sub/deep")
    assert text.endswith("from the library\nnot committed\n"), text
    assert "no workflow" in world.run("run", "cat", cwd=top / "library").err


def test_a_directory_that_is_gone(world):
    gone = world.repo / "gone"
    gone.mkdir()
    done = world.run("ps", prefix=["sh", "-c", f'rmdir "{gone}" && exec "$@"', "sh"], cwd=gone)
    assert done.returncode == 1 and done.out == "" and done.err.count("\n") == 1, done.err


def test_two_terminals_at_once(world):
    """Each remote that is configured stays, and the file is whole at every moment."""
    names = [f"r{i}" for i in range(8)]
    started = [world.start("config", "--name", name, "--storage", f"file://{world.home}/{name}")
               for name in names]
    for process in started:
        assert process.communicate(timeout=30)[0] == "" and process.returncode == 0
    assert sorted(world.ok("completion", "--", "run", "--remote=").split()) == \
        [f"--remote={name}" for name in names]


def test_what_is_there_is_shown_when_one_of_two_remotes_is_away(world, tmp_path):
    """The default one is away: what the other has is shown all the same."""
    for name in ("away", "near"):
        world.ok("config", "--storage", f"file://{tmp_path}/{name}", "--name", name)
        world.ok("run", "bash", "-c", "echo x > o/a", "-a", "o", "-t", f"of-{name}", "--remote", name)
        world.ok("secrets", "add", f"OF_{name}", "value")
    world.ok("run", "hello")
    config = world.home / "config.yaml"
    config.write_text(re.sub("storage: .*away.*", "storage: s3://nowhere\n    endpoint: http://127.0.0.1:1",
                             config.read_text()))
    world.environment.update(AWS_ACCESS_KEY_ID="k", AWS_SECRET_ACCESS_KEY="s")

    def shows(*command):
        done = world.run(*command)
        assert done.returncode == 1, (command, done.out)
        assert re.match("dstack: remote away.*127.0.0.1:1", done.err) and done.err.count("dstack: ") == 1, done.err
        return done.out

    assert [r["workflow"] for r in json.loads(shows("ps", "-a", "--json"))] == ["hello", "bash"]
    assert [t["tag"] for t in json.loads(shows("tags", "--json"))] == ["of-near"]
    assert shows("secrets").split() == ["NAME", "OF_away", "OF_near"]
    run, = [r["run"] for r in json.loads(shows("ps", "-a", "--json")) if r["workflow"] == "bash"]
    for command in ("ls", "logs", "stop"):
        done = world.run(command, run)
        assert "remote away" in done.err and (command == "stop" or done.returncode == 0), (command, done.err)
    shows("ls", "no-such-run-1")
    shows("ls", ":of-near")  # the first remote's tag of that name would be meant
    assert len(shows("rm", "-a", "-y").split()) == 2


def test_ps_goes_on_watching_when_a_remote_goes_away(rgw):
    with Proxy(rgw.remote.endpoint) as proxy:
        rgw.ok("config", "--storage", rgw.remote.url, "--endpoint", proxy.url, "--region", "us-east-1")
        rgw.ok("run", "hello", "--remote")
        name = rgw.last()["run"]
        watching = Terminal(rgw, "ps", "-w")
        watching.expect(name)
        proxy.gone()
        watching.expect(" remote default at ")
        assert "default: remote" not in watching.text, watching.text
        watching.text = ""
        proxy.back()
        watching.expect(name)
        watching.send("\x03")
        assert watching.finish() == -2
        assert "no run none-1" in rgw.refuses("ps", "-w", "none-1")
