"""Completion: what `dstack completion` offers, and that bash, zsh and fish show it."""
import os
import shutil
import socket
import subprocess
import time

import pytest


from conftest import program
from cli_world import World, world  # noqa: F401

TAGS = 10_000
SHELLS = ["bash", "fish", "zsh"]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A world with a run, a tag and a remote that does not answer."""
    world = World(tmp_path_factory.mktemp("completion"))
    world.run_name = world.ok("run", "hello", "-t", "best").splitlines()[1].split()[0]
    world.ok("config", "--name", "near", "--storage", f"file://{world.home}/near")
    world.ok("secrets", "add", "TOKEN", "x")
    yield world
    world.clear()


def offered(world, *words):
    done = world.run("completion", "--", *words)
    assert done.err == ""
    return done.returncode, [line.split("\t")[0] for line in done.out.splitlines()]


@pytest.mark.parametrize("words, expected", [
    (["p"], ["ps", "push", "pull", "prune"]),
    (["--v"], ["--version"]),
    (["no-such-command", ""], []),
    (["run", "hello-"], ["hello-txt", "hello-sh"]),
    (["run", "-d", "ba"], ["bash"]),
    (["run", "--remote", "ne"], ["near"]),
    (["run", "--remote=n"], ["--remote=near"]),
    (["run", "--dep", ":"], [":best"]),
    (["run", "-dt", ""], ["best"]),
    (["run", "--det"], ["--detach"]),
    (["ls", ":b"], [":best"]),
    (["tags", "d"], ["delete"]),
    (["tags", "delete", ""], ["best"]),
    (["secrets", "update", ""], ["TOKEN"]),
    (["secrets", "update", "TOKEN", ""], []),
    (["prune", ""], ["cache"]),
    (["prune", "cache", "w"], ["wait"]),
    (["completion", ""], SHELLS),
    (["logs", "no-such-run"], []),
    (["init", ""], []),
])
def test_candidates(filled, words, expected):
    assert offered(filled, *words) == (0, expected)


def test_names_of_runs(filled):
    assert offered(filled, "logs", "") == (0, [filled.run_name])
    assert offered(filled, "tags", "add", "") == (0, [filled.run_name, "best"])
    assert offered(filled, "rm", filled.run_name, "") == (0, [])


@pytest.mark.parametrize("words", [["cp", ":best", "output", ""], ["run", "-w", ""],
                                   ["config", "--cacert=/etc/"], ["run", "hello", ""]])
def test_files(filled, words):
    assert offered(filled, *words) == (3, [])


def test_every_option_of_every_command(filled):
    for command in offered(filled, "")[1]:
        text = filled.ok(command, "--help")
        for option in offered(filled, command, "--")[1]:
            assert option in text, (command, option)


def test_nothing_is_said_where_nothing_works(filled, tmp_path):
    (filled.home / "config.yaml").rename(tmp_path / "kept")
    try:
        for broken in ("remotes: [", "remotes:\n  - name: x\n    storage: s3://none/x\n"
                       "    endpoint: http://127.0.0.1:9\n    region: r\n"):
            (filled.home / "config.yaml").write_text(broken)
            assert offered(filled, "run", "ba")[0] == 0
            assert offered(filled, "ls", "")[0] == 0
            assert offered(filled, "run", "--det") == (0, ["--detach"])
    finally:
        (tmp_path / "kept").rename(filled.home / "config.yaml")


def test_a_remote_that_is_silent_costs_a_second(world):
    world.ok("run", "hello", "-t", "best")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (world.home / "config.yaml").write_text(
            "remotes:\n  - name: x\n    storage: s3://none/x\n    region: r\n"
            f"    endpoint: http://127.0.0.1:{silent.getsockname()[1]}\n")
        world.environment.update(AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b")
        start = time.monotonic()
        assert offered(world, "tags", "delete", "") == (0, ["best"])
        assert time.monotonic() - start < 5


def test_ten_thousand_tags(world):
    world.ok("run", "hello", "-t", "best")
    first = next(world.home.glob("tags/*/best.json"))
    for i in range(TAGS):
        os.link(first, first.with_name(f"t{i}.json"))
    start = time.monotonic()
    assert len(offered(world, "ls", ":t")[1]) == TAGS
    assert len(world.ok("tags").splitlines()) == TAGS + 2
    assert time.monotonic() - start < 20


def complete_in_bash(world, line):
    script = """eval "$(dstack completion bash)"; COMP_LINE=$1; COMP_POINT=${#1}
_dstack; printf '%s\\n' "${COMPREPLY[@]}" """
    return ["bash", "--norc", "-c", script, "bash", line]


def complete_in_zsh(world, line):
    script = """compdef() { :; }; compadd() { print -rl -- "${(@)names}"; }; _files() { print FILES; }
eval "$(dstack completion zsh)"; words=("${(@s: :)1}"); CURRENT=$#words; PREFIX=$words[-1]; _dstack"""
    return ["zsh", "-f", "-c", script, "zsh", line]


def complete_in_fish(world, line):
    return ["fish", "--no-config", "-c", "dstack completion fish | source; complete -C $argv[1]", line]


@pytest.mark.parametrize("shell, command", [("bash", complete_in_bash), ("zsh", complete_in_zsh),
                                            ("fish", complete_in_fish)])
@pytest.mark.parametrize("line, expected", [
    ("dstack ru", ["run"]),
    ("dstack run hello-", ["hello-sh", "hello-txt"]),
    ("dstack run --det", ["--detach"]),
    ("dstack ls ", None),
    ("dstack no-such-command ", []),
])
def test_shells(filled, shell, command, line, expected):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    path = os.path.dirname(program("dstack")) + ":" + os.environ["PATH"]
    done = subprocess.run(command(filled, line), cwd=filled.repo, text=True, timeout=30,
                          capture_output=True, env={**filled.environment, "PATH": path})
    assert done.stderr == ""
    found = sorted(text.split("\t")[0] for text in done.stdout.splitlines() if text)
    assert found == (sorted([filled.run_name, ":best"]) if expected is None else expected)


def test_bash_completes_behind_a_colon(filled):
    path = os.path.dirname(program("dstack")) + ":" + os.environ["PATH"]
    done = subprocess.run(complete_in_bash(filled, "dstack ls :b"), cwd=filled.repo, text=True,
                          capture_output=True, timeout=30, env={**filled.environment, "PATH": path})
    assert done.stdout.split() == ["best"]  # ":" stays where it stands


def test_a_shell_that_is_none(filled):
    assert "bash, zsh and fish" in filled.refuses("completion", "tcsh", code=2)
