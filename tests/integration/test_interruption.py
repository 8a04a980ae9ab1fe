"""Interruption where nobody requeues: a cloud takes the machine away, and `dstack run` starts again."""
import contextlib
import copy
import http.server
import json
import os
import re
import shutil
import signal
import threading
import time

import pytest

from cli_world import FINAL, LIMIT_S, needs_root, processes_of, rgw, world  # noqa: F401
from conftest import wait_for

UNSAVABLE = "$(printf 'a\\377b')"  # a name that no key can have
HELLO = "  - name: hello\n    provider: bash\n    commands: [echo hello]\n"
COUNT = """workflows:
  - name: count
    provider: bash
    commands: |
      trap 'echo told; exit 0' USR1
      n=$(ls live | wc -l)
      m=$(ls saved | wc -l)
      echo "up from $n and $m, attempt $DSTACK_RUN_ATTEMPT resumed ${DSTACK_RESUMED:-0}"
      if [ -z "$DSTACK_RESUMED" ]; then touch saved/scratch; else rm -f saved/scratch; fi
      while [ $n -lt 8 ]; do
          echo $n > live/$n; echo $n > saved/$n
          n=$((n + 1)); sleep 0.2
          if [ $n = 4 -a -z "$DSTACK_RESUMED" ]; then echo half-way; sleep 60 & wait $!; fi
      done
      echo counted $n
    artifacts:
      - path: live
        mount: true
      - path: saved
    stop_signal: USR1
    retry: {retry}
"""


class Google(http.server.ThreadingHTTPServer):
    """A metadata server as Google's, which answers when something changes."""
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.changed = threading.Event()
        self.taken = False
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def serve(self, world):
        world.environment.update(DSTACK_CLOUD="gcp", DSTACK_METADATA_URL=self.url())

    def preempt(self):
        """Once: the machine of the next attempt is another one."""
        self.changed.set()

    def again(self):
        self.changed.clear()
        self.taken = False


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        assert self.headers["Metadata-Flavor"] == "Google"
        text, etag = "FALSE", "1"
        if "last_etag=1" in self.path:
            if self.server.changed.wait(30) and not self.server.taken:
                self.server.taken = True
                text, etag = "TRUE", "2"
        self.send_response(200)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def google():
    server = Google()
    yield server
    server.changed.set()
    server.shutdown()
    server.server_close()


def begin(world, google, retry):
    google.serve(world)
    world.write(COUNT.replace("{retry}", retry))


@needs_root
def test_a_cloud_takes_the_machine_away(rgw, google):
    begin(rgw, google, "{attempts: 3}")
    process = rgw.start("run", "count", "--remote")
    wait_for(lambda: rgw.runs() and "half-way" in rgw.ok("logs", rgw.last()["run"]), LIMIT_S,
             "it is half-way")
    google.preempt()
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, (out, err)
    assert "up from 0 and 0, attempt 1 resumed 0" in out, out
    assert "up from 4 and 5, attempt 2 resumed 1" in out, out
    assert "told\n" in out, "the stop signal was not the one that was asked for"
    assert "dstack: gcp takes the machine away: " in out
    for step in ("the commands have ended", "mounts are saved", "artifacts are saved"):
        assert f"dstack: {step}, after " in out, out
    assert "dstack: --- attempt 2, on " in out
    assert "counted 8" in out
    assert rgw.last()["status"] == "done"
    assert rgw.files(rgw.last()["run"]) == sorted(
        f"{path}/{n}" for path in ("live", "saved") for n in range(8))
    rgw.assert_nothing_left()


@needs_root
def test_attempts_are_bounded_and_a_run_is_resumed_by_name(rgw, google):
    """Without retry there is no second attempt; with it, a run that nobody follows waits for one."""
    begin(rgw, google, "{attempts: 1}")
    name = rgw.begin("count", "--remote")
    google.preempt()
    rgw.wait_status(name, *FINAL)
    run = json.loads(rgw.ok("ps", name, "-v", "--json"))[0]
    assert run["status"] == "failed" and "gcp takes the machine away" in run["reason"], run
    google.again()
    begin(rgw, google, "{duration: 1h}")
    name = rgw.begin("count", "--remote")
    wait_for(lambda: "half-way" in rgw.ok("logs", name), LIMIT_S, "it is half-way")
    google.preempt()
    rgw.wait_status(name, "interrupted")
    wait_for(lambda: rgw.run("run", "--resume", name).returncode == 0, LIMIT_S, "it is resumed")
    assert "attempt 2 resumed 1" in rgw.ok("logs", name)
    assert "finished already: done" in rgw.refuses("run", "--resume", name)
    rgw.assert_nothing_left()


def elsewhere(world, directory):
    """Another machine of the same person: the same repo and remote, another home."""
    there = copy.copy(world)
    there.home = directory / "elsewhere"
    there.home.mkdir()
    shutil.copy(world.home / "config.yaml", there.home)
    there.environment = {**world.environment, "DSTACK_HOME": str(there.home)}
    return there


def call_lost(store, name):
    """As its runner's machine had been away for an hour."""
    path = next(store.glob(f"runs/*/{name}.json"))
    document = json.loads(path.read_text())
    document["state"]["owner"]["machine"] = "elsewhere"
    document["state"]["engine_job"] = "7 7 elsewhere"
    path.write_text(json.dumps(document))
    for sign in store.glob(f"runs/*/{name}.*"):
        os.utime(sign, (time.time() - 3600,) * 2)


def signal_all(pids, number):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # a sleep of a moment
            os.kill(pid, number)


def test_an_attempt_that_comes_back_harms_nothing_of_its_successor(world, tmp_path):
    """Its machine stood still for an hour; meanwhile the run went on elsewhere, and ended."""
    store = tmp_path / "store"
    world.ok("config", "--storage", f"file://{store}")
    world.write("workflows:\n  - name: w\n    provider: bash\n    retry: {attempts: 3}\n    artifacts: [output]\n"
                "    commands:\n      - echo attempt $DSTACK_RUN_ATTEMPT | tee output/a; echo up\n"
                f"      - if [ -z \"$DSTACK_RESUMED\" ]; then while [ ! -e {tmp_path}/go ]; do sleep 0.1; done; fi\n"
                "      - seq -f \"$DSTACK_RUN_ATTEMPT says %g\" 1000\n")
    name = world.begin("w", "--remote")
    stopped = processes_of(world.home)
    signal_all(stopped, signal.SIGSTOP)
    try:
        there = elsewhere(world, tmp_path)
        call_lost(store, name)
        there.ok("run", "--resume", name)
        log = there.ok("logs", name)
        assert log.count("\n2 says ") == 1000 and "1 says" not in log
        (tmp_path / "go").touch()
    finally:
        signal_all(stopped, signal.SIGCONT)
    wait_for(lambda: not processes_of(world.home), LIMIT_S, "the first attempt ends")
    assert there.ok("logs", name) == log
    assert there.last()["status"] == "done"
    there.ok("cp", name, "output/a", tmp_path / "a")
    assert (tmp_path / "a").read_text() == "attempt 2\n"
    world.assert_nothing_left()


@pytest.mark.parametrize("where", ["here", "elsewhere", "unsavable"])
def test_what_there_was_no_time_to_save(world, google, tmp_path, where):
    """It stays where it is: the next attempt saves it, or takes over without it, and it goes. What that
    cannot save either stays for a person."""
    google.serve(world)
    world.ok("config", "--storage", f"file://{tmp_path}/store")
    world.write("workflows:\n  - name: w\n    provider: bash\n    artifacts: [output]\n    retry: {attempts: 3}\n"
                "    commands: |\n      echo \"had $(cat output/n)\"\n"
                "      if [ -z \"$DSTACK_RESUMED\" ]; then\n"
                f"        echo 1 > output/{UNSAVABLE}; echo up; sleep 60 & wait $!\n      fi\n" + HELLO)
    name = world.begin("w", "--remote")
    google.preempt()
    world.wait_status(name, "interrupted")
    kept, = (world.home / "work").iterdir()
    assert f"kept in {kept} for the next attempt" in world.ok("ps", "-v", name)
    for path in (kept / "code" / "output").iterdir():
        if where != "unsavable":
            path.rename(path.parent / "n")
    world.ok("run", "hello", "--remote")
    assert kept.exists()
    there = elsewhere(world, tmp_path) if where == "elsewhere" else world
    out = there.ok("run", "--resume", name)
    assert f"had {1 if where == 'here' else ''}\n" in out.split("--- attempt 2")[1]
    if where != "here":
        assert kept.exists()
        world.ok("run", "hello", "--remote")
    assert kept.exists() == (where == "unsavable")
    assert {run["status"] for run in world.runs()} == {"done"}
    assert world.files(name) == (["output/n"] if where == "here" else [])
    world.ok("rm", "-y", name)
    assert not kept.exists()
    world.assert_nothing_left()


@needs_root
def test_the_lease_of_another_machine(rgw):
    """A power cut: that machine's lease has to lapse, which the log says; then it goes on."""
    rgw.environment["DSTACK_CLOUD"] = "none"
    rgw.write(COUNT.replace("{retry}", "{attempts: 3}"))
    name = rgw.begin("count", "--remote")
    wait_for(lambda: "half-way" in rgw.ok("logs", name), LIMIT_S, "it is half-way")
    for pid in [*processes_of(rgw.home), *processes_of(rgw.home)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    rgw.wait_status(name, "interrupted")
    key = next(k for k in rgw.remote.keys("artifacts/") if k.endswith(f"/{name}/live/.dstack-mount/lease"))
    lease = {**json.loads(rgw.remote.read(key)), "host": "node-7", "machine": "another", "ttl_ms": 3000}
    rgw.remote.put(key, json.dumps(lease).encode())
    resumed = rgw.run("run", "--resume", name, limit=60)
    text = rgw.ok("logs", name)
    assert rgw.last()["status"] == "done", (resumed.err, text)
    assert re.search(r"^dstack: a mount is waiting up to \d s to see whether node-7 .* still writes here$", text, re.M)
    assert "up from 4 and 0, attempt 2 resumed 1" in text and "counted 8" in text
    rgw.assert_nothing_left()
