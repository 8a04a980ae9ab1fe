"""How runs on a real Slurm are ended by it: at any moment, and in every way."""
import os
import pathlib
import random
import time

import pytest

from cli_world import FINAL
from conftest import wait_for
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
RUNS, FAR, SECONDS, PAUSE_S = (20, 150, 300, 12) if LONG else (6, 25, 8, 4)


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
    keys = [key for key in cluster.remote.keys("artifacts/") if f"/{name}/out/" in key and "/.dstack-" not in key]
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
