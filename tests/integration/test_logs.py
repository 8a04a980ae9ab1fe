"""A run's output: whole, in order, live, at any speed."""
import os
import subprocess
import time

from cli_world import LIMIT_S, Terminal, rgw, world
from conftest import S3Store, program, wait_for
from fault_proxy import Proxy

LONG = os.environ.get("DSTACK_TEST_LONG") == "1"
LINES = 2000000 if LONG else 200000
FLOOD = """
import sys
write = sys.stdout.write
for i in range({lines}):
    write(f"{{i:07}} of a line that is neither short nor long\\n")
sys.stderr.write("end\\n")
"""
WRITERS = """
import os, sys
for i in range(5000):
    os.write(1 + i % 2, f"{sys.argv[1]} {i:05} {'x' * (i % 200)}\\n".encode())
"""
BAR = "import sys, time\nfor i in range(0, 101, 10):\n    sys.stderr.write(f'\\r{i:3}%|{\"#\" * (i // 10):10}|')\n" \
      "    sys.stderr.flush()\n    time.sleep(0.1)\nsys.stderr.write('\\n')\nprint('after')\n"


def test_a_flood_of_lines_is_whole_and_in_order(rgw):
    (rgw.repo / "flood.py").write_text(FLOOD.format(lines=LINES))
    begin = time.monotonic()
    done = rgw.run("run", "bash", "-c", "python3 flood.py", "--remote", limit=600)
    took = time.monotonic() - begin
    print(f"{LINES / took:.0f} lines/s, shown as they come")
    expected = [f"{i:07} of a line that is neither short nor long" for i in range(LINES)] + ["end"]
    assert done.returncode == 0 and done.out.splitlines()[2:] == expected
    assert rgw.ok("logs", rgw.last()["run"], limit=300).splitlines() == expected


def test_lines_of_several_writers_are_not_mixed(world):
    (world.repo / "writers.py").write_text(WRITERS)
    out = world.ok("run", "bash", "-c", "for w in a b c d; do python3 writers.py $w & done; wait", limit=120)
    lines = out.splitlines()[2:]
    assert len(lines) == 20000
    for writer in "abcd":
        assert [l for l in lines if l[0] == writer] == [f"{writer} {i:05} {'x' * (i % 200)}"
                                                        for i in range(5000)]


def test_a_progress_bar_stays_a_bar(world):
    (world.repo / "bar.py").write_text(BAR)
    terminal = Terminal(world, "run", "bash", "-c", "python3 bar.py")
    terminal.expect("|")
    assert "100%" not in terminal.text  # it is shown while it moves
    assert terminal.finish() == 0
    bars = "".join(f"\r{i:3}%|{'#' * (i // 10):10}|" for i in range(0, 101, 10))
    assert bars + "\r\nafter\r\n" in terminal.text
    done = subprocess.run([program("dstack"), "logs", world.last()["run"]], cwd=world.repo,
                          env=world.environment, stdout=subprocess.PIPE, timeout=LIMIT_S, check=True)
    assert done.stdout == (bars + "\nafter\n").encode()


def test_bytes_are_kept_as_they_are(world):
    world.ok("run", "bash", "-c", r"printf '\033[31mred\033[0m \303\251 no newline'")
    assert world.ok("logs", world.last()["run"]) == "\033[31mred\033[0m é no newline"


def test_since_and_attach(world):
    name = world.ok("run", "bash", "-c", "echo old; sleep 2.5; echo new; sleep 0.6; echo last",
                    "-d").splitlines()[1].split()[0]
    wait_for(lambda: "new" in world.ok("logs", name), LIMIT_S, "the second line")
    assert world.ok("logs", name, "-s", "2s", "-a") == "new\nlast\n"
    assert world.ok("logs", name, "-s", "1h") == "old\nnew\nlast\n"
    assert world.ok("logs", name, "-s", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 9))) == ""
    assert world.ok("logs", name, "-s", str(int(time.time()) - 3600)) == "old\nnew\nlast\n"
    for wrong in ("soon", "-5", "9" * 30, ""):
        assert f"--since {wrong}" in world.refuses("logs", name, f"--since={wrong}")
    for rank in ("1", "-1"):
        assert f"has no rank {rank}: it is on 1 node" in world.refuses("logs", name, "-a", "-r", rank)


def test_commands_go_on_while_the_store_is_away(world, tmp_path):
    """They write more than memory may hold; when the store is back, all of it is there."""
    store = S3Store()
    world.environment.update(store.environment)
    lines = 300000
    (world.repo / "flood.py").write_text(FLOOD.format(lines=lines))
    try:
        with Proxy(store.endpoint) as proxy:
            world.ok("config", "--storage", store.url, "--endpoint", proxy.url, "--region", "us-east-1")
            name = world.begin("bash", "--remote", "-c", f"echo up; while [ ! -e {tmp_path}/go ]; do sleep 0.1; "
                               f"done; python3 flood.py; touch {tmp_path}/written; sleep 2")
            proxy.gone()
            (tmp_path / "go").touch()
            wait_for((tmp_path / "written").exists, LIMIT_S, "the commands have written it all")
            proxy.back()
            world.wait_status(name, "done")
            shown = world.ok("logs", name, limit=120).splitlines()
        assert shown == ["up"] + [f"{i:07} of a line that is neither short nor long" for i in range(lines)] + ["end"]
        world.assert_nothing_left()
    finally:
        store.remove_all()
