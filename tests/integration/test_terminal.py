"""What people see on a terminal, and through a pipe."""
import re
import signal
import subprocess
import termios

import pytest

from cli_world import HELLO, LIMIT_S, Terminal, world  # noqa: F401
from conftest import program

RED, GREEN = "\x1b[31m", "\x1b[32m"


def shown(world, *arguments, columns=80, **environment):
    world.environment.update({"TERM": "xterm", **environment})
    terminal = Terminal(world, *arguments)
    termios.tcsetwinsize(terminal.fd, (24, columns))
    code = terminal.finish()
    for name in environment:
        del world.environment[name]
    return code, terminal.text


def test_colours_are_for_terminals_that_want_them(world):
    world.environment.pop("NO_COLOR", None)
    world.ok("run", "hello")
    assert GREEN in shown(world, "ps")[1]
    assert RED in shown(world, "logs", "no-run-1")[1]
    for plain in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b[3" not in shown(world, "ps", **plain)[1]
        assert "\x1b[3" not in shown(world, "logs", "no-run-1", **plain)[1]
    assert GREEN in shown(world, "ps", NO_COLOR="")[1]
    world.environment["TERM"] = "xterm"
    assert "\x1b" not in world.ok("ps") + world.refuses("logs", "no-run-1")


def test_twenty_columns(world):
    world.ok("run", "hello-txt", "-t", "best")
    for command in (["ps"], ["tags"], ["ls", ":best"], ["push", ":best"], ["--help"]):
        code, text = shown(world, *command, columns=20)
        assert code == 0, text
        for bar in re.findall(r"\r([^\r\n]*)\x1b\[K", text):
            assert len(bar) < 20


def test_columns_of_any_script_are_straight(world):
    names = ["z", "ümlaut", "日本語", "e\u0301"]
    world.ok("run", "bash", "-a", "output", "-t", "best", "-c",
             "; ".join(f"echo x > 'output/{name}'" for name in names))
    rows = world.ok("ls", ":best").splitlines()
    assert len(rows) == 5
    width = {"z": 1, "ümlaut": 6, "日本語": 6, "e\u0301": 1}
    for row in rows[1:]:
        name = next(n for n in names if f" {n} " in row)
        assert row.index("2B") - len(name) + width[name] == rows[0].index("SIZE"), rows


def test_a_name_does_not_command_the_terminal(world):
    world.ok("run", "bash", "-a", "output", "-t", "best", "-c",
             r"echo x > output/$'a\x1b[31m\xc2\x9b31m'")
    assert "a?[31m??31m" in world.ok("ls", ":best")
    assert "\x1b" not in world.refuses("\x1b[31m", code=2)


# --- pipes ---

@pytest.mark.parametrize("command", ["logs", "logs -a", "ls -r"])
def test_a_closed_pipe_ends_it_quietly(world, command):
    world.ok("run", "bash", "-a", "output", "-t", "best", "-c",
             "seq 100000; cd output; touch {1..5000}")
    name = ":best" if command == "ls -r" else world.last()["run"]
    process = world.start(*command.split(), name)
    assert process.stdout.read(1)
    process.stdout.close()
    assert process.wait(LIMIT_S) == -signal.SIGPIPE
    assert process.stderr.read() == ""
    process.stderr.close()


def test_a_run_goes_on_when_its_reader_goes(world):
    process = world.start("run", "bash", "-c", "seq 100000; sleep 1; seq 100000")
    assert process.stdout.read(1)
    process.stdout.close()
    process.wait(LIMIT_S)
    world.wait_status(world.last()["run"], "done")
    process.stderr.close()


def test_one_after_the_other(world):
    world.write(HELLO + """  - name: second
    provider: bash
    deps: [{workflow: hello-txt}]
    commands: ["cat output/hello.txt"]
""")
    (world.repo / "sub").mkdir()
    done = subprocess.run([f"{program('dstack')} run hello-txt && {program('dstack')} run second"],
                          shell=True, cwd=world.repo / "sub", env=world.environment,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.endswith("Hello world\n"), done.stderr
