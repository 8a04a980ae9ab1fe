"""How runs on a real Slurm are ended by it: at any moment, and in every way."""
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import threading
import time

import pytest

from cli_world import FINAL, processes_of
from conftest import program, wait_for
from fault_proxy import Fault, Proxy, s3_error
from slurm_world import (LIMIT_S, LONG, cluster, needs_slurm, running, slurm, using, workflow,  # noqa: F401
                         workflows)

pytestmark = needs_slurm


# Counts to STEPS, one file for each; goes on behind what it finds.
COUNT = """
n=$(ls {path} | wc -l)
echo "up from $n attempt $DSTACK_RUN_ATTEMPT resumed ${{DSTACK_RESUMED:-0}}"
while [ $n -lt {steps} ]; do
    echo $n > {path}/.tmp && mv {path}/.tmp {path}/$(printf %04d $n)
    n=$((n + 1)); sleep 0.1
done
echo counted $n
"""


def count(name, path, mount, steps, **more):
    return workflow(name, COUNT.format(path=path, steps=steps), [(path, mount)],
                    resources="{cpu: 2, interruptible: true}", **more)


# So many runs that count to so far, while jobs preempt them for so long.
RUNS, FAR, SECONDS, PAUSE_S = (20, 150, 300, 12) if LONG else (6, 20, 6, 3)


def test_many_runs_preempted_at_any_moment(cluster, slurm):
    cluster.write(workflows(*(count(f"run{i}", "out", i % 2 == 0, FAR) for i in range(RUNS))))
    names = [cluster.submit(f"run{i}") for i in range(RUNS)]
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        time.sleep(random.uniform(0, PAUSE_S))
        slurm.preempt(random.choice(["n1", "n2"]), 1)
    attempts = [assert_counted(cluster, name) for name in names]
    print(f"{RUNS} runs ended after {sum(attempts)} attempts ({attempts})")
    assert sum(attempts) > RUNS, "nobody was preempted"
    cluster.assert_nothing_left()
    wait_for(slurm.idle, LIMIT_S, "Slurm has no job left")


def assert_counted(cluster, name):
    """Every number is there, and right; how many attempts that took."""
    state = cluster.wait_state(name, *FINAL, seconds=900 if LONG else LIMIT_S)
    assert state["status"] == "done", (name, state, cluster.output(name))
    assert f"counted {FAR}" in cluster.output(name)
    keys = [key for key in cluster.remote.keys("artifacts/")
            if f"/{name}/out/" in key and "/.dstack-" not in key and not key.endswith("/")]
    found = {key.rsplit("/", 1)[1]: cluster.remote.read(key) for key in keys}
    assert found == {f"{n:04}": f"{n}\n".encode() for n in range(FAR)}, name
    return state["attempt"]


# A mount's file that is written behind SIGTERM, in the grace.
LATE = """
trap 'echo late > live/late; exit 1' TERM
echo up
while :; do sleep 90 & wait $! || true; done"""


def test_a_cancelled_run_saves_what_its_commands_still_write(cluster, slurm):
    """Slurm tells all processes of the job at once, the mount too."""
    cluster.write(workflows(workflow("late", LATE, [("live", True)])))
    name = cluster.begin("late")
    slurm.run("scancel", cluster.number(name))
    assert cluster.wait_state(name, *FINAL)["status"] == "stopped"
    assert "cancelled in Slurm" in cluster.state(name)["reason"]
    assert cluster.artifact(name, "live/late") == b"late\n"
    cluster.assert_nothing_left()


def test_a_node_that_fails_under_a_run_that_does_not_begin_again(cluster, slurm):
    cluster.write(workflows(workflow("late", LATE, [("live", True)])))
    name = cluster.begin("late")
    node = slurm.job(cluster.number(name))["NodeList"]
    slurm.run("scontrol", "update", f"nodename={node}", "state=DOWN", "reason=power")
    try:
        state = cluster.wait_state(name, *FINAL)
    finally:
        slurm.resume(node)
    assert state["status"] == "failed" and "its node failed" in state["reason"], state
    cluster.assert_nothing_left()


def test_munged_dies_and_comes_back(cluster, slurm):
    """Runs work on, those that wait are not called lost, and nobody waits for Slurm once for each of them."""
    cluster.write(workflows(count("count", "out", False, 130), count("wait", "out", True, 10)))
    names = [cluster.begin("count"), cluster.begin("count")]
    waiting = [cluster.submit("wait") for _ in range(3)]
    with slurm.without_munge():
        began = time.monotonic()
        shows, stops, runs = (cluster.start(*arguments) for arguments in (
            ("ps", "--json"), ("stop", "-y", waiting[0]), ("run", "wait", "--remote")))
        out, err = shows.communicate(timeout=18)
        assert shows.returncode == 0 and err.count("\n") == 1 and "munge" in err, err
        assert {run["run"]: run["status"] for run in json.loads(out) if run["run"] != waiting[0]} == \
            {**dict.fromkeys(names, "running"), **dict.fromkeys(waiting[1:], "submitted")}
        err = stops.communicate(timeout=18)[1]
        assert stops.returncode == 0 and "the job ends as soon as it starts" in err, err
        err = runs.communicate(timeout=18)[1]
        assert runs.returncode == 1 and err.count("\n") == 1 and "munge" in err, err
        assert time.monotonic() - began < 18
        assert "counted 130" in cluster.run("logs", "-a", names[0]).out
        time.sleep(45 if LONG else 0)
    for name in [*names, *waiting[1:]]:
        state = cluster.wait_state(name, *FINAL)
        assert (state["status"], state["attempt"]) == ("done", 1), (state, cluster.output(name))
    assert cluster.state(waiting[0])["status"] == "stopped"
    for name in names:
        assert cluster.artifact(name, "out/0129") == b"129\n"
    cluster.assert_nothing_left()
    wait_for(slurm.idle, LIMIT_S, "Slurm has no job left")


@pytest.mark.skipif(not LONG, reason="Slurm looks at its time limits every 30 s")
def test_the_time_limit_is_reached(cluster, slurm):
    cluster.configure("--slurm-time", "1")
    cluster.write(workflows(workflow("late", LATE, [("live", True), ("saved", False)])))
    name = cluster.begin("late")
    state = cluster.wait_state(name, *FINAL)
    assert state["status"] == "failed" and "Slurm's time limit (00:01:00) was reached" in state["reason"], state
    assert cluster.artifact(name, "live/late") == b"late\n"
    cluster.assert_nothing_left()


@pytest.fixture
def with_cgroups(tmp_path):
    """A cluster that gives no more memory than was asked for."""
    memory = pathlib.Path("/sys/fs/cgroup/memory")
    if not os.access(memory, os.W_OK) or not (memory / "memory.limit_in_bytes").exists():
        pytest.skip("there is no memory controller of cgroup v1 here")
    try:
        with running("cgroup") as slurm, using(tmp_path, slurm) as cluster:
            yield cluster
    finally:
        for directory in sorted(memory.parent.glob("*/slurm_n[12]/**/"), reverse=True):
            directory.rmdir()


def test_out_of_memory(with_cgroups):
    cluster = with_cgroups
    cluster.write(workflows(workflow("fat", """
echo kept > live/kept
/usr/bin/python3 -c 'bytearray(500 << 20)'""", [("live", True)], resources="{memory: 200MB}",
                                     retry="{attempts: 3}")))
    name = cluster.submit("fat")
    state = cluster.wait_state(name, *FINAL)
    assert (state["status"], state["attempt"]) == ("failed", 1), state
    assert "exit status 137" in state["reason"] and "out of memory" in state["reason"], state
    wait_for(lambda: cluster.slurm.job(cluster.number(name))["JobState"] == "OUT_OF_MEMORY", LIMIT_S, "Slurm knows")
    assert cluster.artifact(name, "live/kept") == b"kept\n"
    cluster.assert_nothing_left()


def programs(tmp_path, before):
    """The three, in a directory of their own: the runner begins with BEFORE, in sh."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("dstack", "dstack-mount"):
        shutil.copy(program(name), tools)
    runner = tools / "dstack-runner"
    runner.write_text(f"#!/bin/sh\n{before}\nexec {program('dstack-runner')} \"$@\"\n")
    runner.chmod(0o755)
    return tools


def submit_from(cluster, tools, workflow):
    done = subprocess.run([tools / "dstack", "run", workflow, "--remote", "-d"], cwd=cluster.repo,
                          env=cluster.environment, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[1].split()[0]


@pytest.mark.skipif(not LONG or not shutil.which("faketime"), reason="long; test_slurm_job.c has its core")
def test_a_node_whose_clock_is_an_hour_off(cluster, slurm, tmp_path):
    """The store refuses its signatures at first, and the time that is left is Slurm's to tell."""
    tools = programs(tmp_path, "export LD_PRELOAD=$(echo /usr/lib/*/faketime/libfaketime.so.1)\n"
                     "export FAKETIME=-1h FAKETIME_DONT_FAKE_MONOTONIC=1")
    cluster.write(workflows(workflow("late", f"date +%s > live/clock; [ -z $DSTACK_RESUMED ] || exit 0{LATE}",
                                     [("live", True), ("saved", False)], resources="{cpu: 1, interruptible: true}")))
    name = submit_from(cluster, tools, "late")
    wait_for(lambda: "up" in cluster.output(name), LIMIT_S, "it is up")
    slurm.preempt(slurm.job(cluster.number(name))["NodeList"])
    state = cluster.wait_state(name, *FINAL)
    text = cluster.output(name)
    assert (state["status"], state["attempt"]) == ("done", 2), (state, text)
    assert re.search(r"^dstack: preempted: [0-5]\.\d s are left", text, re.M), text
    assert cluster.artifact(name, "live/late") == b"late\n"
    assert 3500 < time.time() - int(cluster.artifact(name, "live/clock")) < 3900
    cluster.assert_nothing_left()


def test_a_full_store(cluster):
    """What cannot be saved is kept on the node, and said; when there is room again, push saves it."""
    is_full = threading.Event()

    def choose(request):
        is_new = request.kind in ("put", "begin", "part") and "/artifacts/" in request.path
        full = Fault(answer=s3_error(403, "QuotaExceeded"), is_carried_out=False)
        return full if is_full.is_set() and is_new else None

    with Proxy(cluster.remote.endpoint, choose) as proxy:
        cluster.remote.arguments[1] = proxy.url
        cluster.configure()
        is_full.set()
        cluster.write(workflows(workflow("full", "echo kept > saved/a", [("saved", False)]),
                                workflow("mounted", "echo lost > live/a", [("live", True)])))
        names = [cluster.submit("full"), cluster.submit("mounted")]
        kept, refused = (cluster.wait_state(name, *FINAL) for name in names)
        for state in (kept, refused):
            assert state["status"] == "failed", state
        assert "QuotaExceeded" in kept["reason"] and f"dstack push {names[0]}" in kept["reason"], kept
        assert "it is kept in" in kept["reason"], kept
        assert "the mount of live ended" in refused["reason"] and "QuotaExceeded" in refused["reason"], refused
        is_full.clear()
        cluster.ok("push", names[0])
        assert cluster.artifact(names[0], "saved/a") == b"kept\n"
    cluster.assert_nothing_left()


@contextlib.contextmanager
def small_disk(path, mib):
    """PATH is a disk of so many MiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


FILL = """
echo before > live/before; echo saved > out/a
head -c 100000000 /dev/zero > filler || echo it is full
sleep 1.2
head -c 5000000 /dev/urandom > live/behind
{last}"""


def test_the_disk_of_a_node_is_full(cluster, slurm):
    """What is mounted goes on, what was written is saved, and a run that cannot begin says why."""
    artifacts = [("live", True), ("out", False)]
    cluster.write(workflows(workflow("goes-on", FILL.format(last="echo fine"), artifacts),
                            workflow("fails", FILL.format(last="echo lost > out/b"), artifacts)))
    with small_disk(cluster.home, 16):
        cluster.configure()
        names, states = [], []
        for name in "goes-on", "fails":
            names.append(cluster.submit(name))
            states.append(cluster.wait_state(names[-1], *FINAL))
        fine, failed = states
        assert fine["status"] == "done", fine
        assert failed["status"] == "failed", failed
        assert failed["reason"] == f"exit status 1; the disk of {cluster.home}/work is full", failed
        for name in names:
            assert "it is full" in cluster.output(name)
            assert cluster.artifact(name, "live/before") == b"before\n"
            assert cluster.artifact(name, "out/a") == b"saved\n"
            assert len(cluster.artifact(name, "live/behind")) == 5000000
        assert not list((cluster.home / "work").iterdir())
        (cluster.home / "filler").write_bytes(bytes(12 << 20))
        (cluster.repo / "big").write_bytes(os.urandom(6 << 20))
        unpacked = cluster.wait_state(cluster.submit("goes-on"), *FINAL)
        assert unpacked["status"] == "failed" and "No space left on device" in unpacked["reason"], unpacked
        assert not list((cluster.home / "work").iterdir())
    cluster.assert_nothing_left()


# Both attempts write the same file, over and over, and files of their own.
WRITES = """
echo up $DSTACK_RUN_ATTEMPT
for i in $(seq 250); do
    echo $DSTACK_RUN_ATTEMPT > live/.who && mv live/.who live/who || true
    echo x > live/$DSTACK_RUN_ATTEMPT-$i || true
    sleep 0.1
done"""


@pytest.mark.skipif(not LONG, reason="a lease has to lapse")
def test_a_node_that_is_cut_off_and_comes_back(cluster, slurm, tmp_path):
    """The first attempt lives on without store and Slurm; back again, it changes nothing of its successor's."""
    with Proxy(cluster.remote.endpoint) as proxy:
        tools = programs(tmp_path, f'[ "${{SLURM_RESTART_COUNT:-0}}" != 0 ] || set -- "$@" --endpoint {proxy.url}')
        cluster.write(workflows(workflow("writes", WRITES, [("live", True)], resources="{cpu: 2, interruptible: true}")))
        name = submit_from(cluster, tools, "writes")
        wait_for(lambda: live(cluster, name, "1-"), LIMIT_S, "it writes")
        node = slurm.job(cluster.number(name))["NodeList"]
        daemon, first = slurm.pid(node), set(processes_of(cluster.home))
        os.kill(daemon, signal.SIGSTOP)
        try:
            proxy.gone()
            slurm.run("scontrol", "update", f"nodename={node}", "state=DOWN", "reason=cut")
            wait_for(lambda: "up 2" in cluster.output(name), 2 * LIMIT_S, "its successor is up")
            before = live(cluster, name, "1-")
            assert before and first & set(processes_of(cluster.home)), "both live"
            proxy.back()
            until = time.monotonic() + 15
            while time.monotonic() < until:
                assert cluster.artifact(name, "live/who") == b"2\n"
                time.sleep(0.2)
            assert live(cluster, name, "1-") == before
            assert proxy.seen["head"] or proxy.seen["get"], "the first one came back"
            assert "as attempt 2: this one ends" in runner_log(cluster, name)
        finally:
            os.kill(daemon, signal.SIGCONT)
            slurm.resume(node)
        assert cluster.wait_state(name, *FINAL)["status"] == "done"
    assert len(live(cluster, name, "2-")) == 250 and cluster.artifact(name, "live/who") == b"2\n"
    cluster.assert_nothing_left()


def live(cluster, name, begin):
    return [key for key in cluster.remote.keys("artifacts/") if f"/{name}/live/{begin}" in key]


def runner_log(cluster, name):
    return next(cluster.home.glob(f"runners/*/{name}.log")).read_text()
