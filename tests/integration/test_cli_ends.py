"""How runs end: stopped, aborted, detached from a terminal, or by the death of their processes."""
import json
import os
import pathlib
import re
import signal
import subprocess
import time

import pytest

from cli_world import FINAL, HELLO, LIMIT_S, Terminal, anywhere, processes_of, rgw, world
from conftest import S3Store, wait_for

LONG = os.environ.get("DSTACK_TEST_LONG") == "1"

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
    for i in range(30 if LONG else 4):
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


@pytest.mark.skipif("os.geteuid() != 0", reason="mounts a small disk")
@pytest.mark.parametrize("options", [(), ("--remote",)])
def test_a_full_temporary_directory_is_said(world, tmp_path, options):
    """The code does not fit: nothing has begun, and nothing stays. With room it does."""
    small = tmp_path / "small"
    small.mkdir()
    (world.repo / "data").write_bytes(os.urandom(3_000_000))
    world.write("workflows:\n  - {name: a, provider: bash, commands: [ls data]}\n")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    try:
        world.environment["TMPDIR"] = str(small)
        message = world.refuses("run", "a", *options)
        assert "No space left on device" in message and str(small) in message
        world.assert_nothing_made()
        assert os.listdir(small) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)
    world.ok("run", "a", *options)
