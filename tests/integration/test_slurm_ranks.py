"""Runs on several nodes of a real Slurm."""
import os
import pathlib
import re
import signal

import pytest

from cli_world import FINAL
from conftest import wait_for
from slurm_world import LIMIT_S, LONG, cluster, kill_all, needs_slurm, slurm, workflow, workflows  # noqa: F401

pytestmark = needs_slurm


MEET = """/usr/bin/python3 - <<'END'
import os
import socket
import time
place = os.environ["DSTACK_MASTER_ADDR"], int(os.environ["DSTACK_MASTER_PORT"])
if os.environ["DSTACK_NODE_RANK"] == "0":
    listener = socket.create_server(place)
    listener.accept()[0].sendall(b"here")
else:
    for _ in range(300):
        try:
            assert socket.create_connection(place).recv(4) == b"here"
            break
        except ConnectionRefusedError:
            time.sleep(0.1)
print("all are here")
END"""
MEET_BY_TORCH = """/usr/bin/python3 - <<'END'
import os
import torch.distributed as dist
dist.init_process_group("gloo", init_method="tcp://%s:%s" % (
    os.environ["DSTACK_MASTER_ADDR"], os.environ["DSTACK_MASTER_PORT"]),
    rank=int(os.environ["DSTACK_NODE_RANK"]), world_size=int(os.environ["DSTACK_NODES"]))
everybody = [None, None]
dist.all_gather_object(everybody, int(os.environ["DSTACK_NODE_RANK"]))
assert everybody == [0, 1]
print("all are here")
END"""
RANKS = """
echo "rank $DSTACK_NODE_RANK of $DSTACK_NODES at $DSTACK_MASTER_ADDR:$DSTACK_MASTER_PORT on $SLURMD_NODENAME"
echo $DSTACK_NODE_RANK > live/$DSTACK_NODE_RANK
echo $DSTACK_NODE_RANK > saved/$DSTACK_NODE_RANK
{meet}
[ $DSTACK_NODE_RANK = 0 ] || exit ${{ run.args }}"""


def test_two_nodes(cluster, slurm):
    cluster.write(workflows(workflow("two", RANKS.replace("{meet}", MEET_BY_TORCH if LONG else MEET), [("live", True), ("saved", False)], nodes=2,
                                     resources="{cpu: 1}")))
    good, bad = cluster.submit("two", "0"), cluster.submit("two", "7")
    for name, status in ((good, "done"), (bad, "failed")):
        state = cluster.wait_state(name, *FINAL)
        first, second = cluster.output(name), cluster.ok("logs", name, "--rank", "1")
        assert state["status"] == status, (state, first, second)
        job = cluster.slurm.job(cluster.number(name))
        assert job["NumNodes"] == "2"
        for rank, text in ((0, first), (1, second)):
            assert re.search(rf"^rank {rank} of 2 at \S+:2\d{{4}} on n{rank + 1}$", text, re.M), text
            assert "all are here" in text
        for rank in b"0", b"1":
            for path in "live", "saved":
                assert cluster.artifact(name, f"{path}/{rank.decode()}") == rank + b"\n"
    assert "rank 1: exit status 7" in state["reason"]
    cluster.ok("rm", "-y", good)
    assert not [k for k in cluster.remote.keys() if good in k]
    cluster.assert_nothing_left()


ENDS = """
rank=$DSTACK_NODE_RANK
trap 'sleep 0.5 || true; echo saved > live/$DSTACK_RUN_ATTEMPT-$rank; exit 1' TERM
[ -z "$DSTACK_RESUMED" ] || { echo "resumed $(ls live | tr '\\n' ' ')"; exit 0; }
echo up
while :; do sleep 60 & wait $! || true; done"""  # the signal may reach sleep first


def runners(name, rank):
    """The processes of dstack-runner that rank RANK of NAME has: the keeper, then the worker."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            mine = f"SLURM_PROCID={rank}".encode() in (process / "environ").read_bytes().split(b"\0")
            if words[0].endswith(b"/dstack-runner") and name.encode() in words and mine:
                found.append(int(process.name))
        except OSError:
            pass
    return sorted(found)


def wait_up(cluster, name):
    for rank in "0", "1":
        wait_for(lambda: "up" in cluster.ok("logs", name, "--rank", rank), LIMIT_S, f"rank {rank} is up")


def begin_ranks(cluster, *workflows):
    names = [cluster.submit(workflow) for workflow in workflows]
    for name in names:
        wait_up(cluster, name)
    return names


def saved_by(cluster, name):
    return sorted(key.rsplit("/", 1)[1] for key in cluster.remote.keys("artifacts/") if f"/{name}/" in key)


def test_no_rank_ends_alone(cluster, slurm):
    """One that is told to end, one whose runner dies, and one whose node is taken end the run; what
    the others hold is saved."""
    more = {"nodes": 2, "resources": "{cpu: 1}"}
    cluster.write(workflows(workflow("ends", ENDS, [("live", True)], **more),
                            workflow("again", ENDS, [("live", True)], retry="{attempts: 2}", **more),
                            workflow("taken", ENDS, [("live", True)], nodes=2,
                                     resources="{cpu: 1, interruptible: true}")))
    told, taken = begin_ranks(cluster, "ends", "taken")
    os.kill(runners(told, 1)[0], signal.SIGTERM)
    state = cluster.wait_state(told, *FINAL)
    assert state["status"] == "stopped" and state["reason"] == "rank 1: SIGTERM in its Slurm job", state
    assert saved_by(cluster, told) == ["1-0", "1-1"]
    assert "dstack: rank 1: SIGTERM in its Slurm job: it ends here, too" in cluster.output(told)
    (killed,) = begin_ranks(cluster, "again")
    os.kill(runners(killed, 1)[1], signal.SIGKILL)
    slurm.preempt("n2")
    state = cluster.wait_state(killed, *FINAL)
    text = cluster.output(killed)
    assert (state["status"], state["attempt"]) == ("done", 2), (state, text)
    assert "dstack: rank 1: its runner died: it ends here, too" in text
    assert "resumed 1-0" in text and saved_by(cluster, killed)[0] == "1-0"
    state = cluster.wait_state(taken, *FINAL)
    for rank in "0", "1":
        text = cluster.ok("logs", taken, "--rank", rank)
        assert state["status"] == "done" and state["attempt"] > 1, (state, text)  # the other may preempt it, too
        assert re.search(r"^dstack: preempted: \d\.\d s are left", text, re.M), text
        assert "resumed 1-0 1-1" in text, text
    cluster.assert_nothing_left()


@pytest.mark.skipif(not LONG, reason="a minute without a pulse")
def test_a_rank_without_a_pulse_is_lost(cluster):
    """Everything of it is killed at once, the keeper too."""
    cluster.write(workflows(workflow("again", ENDS, [("live", True)], nodes=2, retry="{attempts: 2}",
                                     resources="{cpu: 1}")))
    for lost in 0, 1:
        followed = cluster.start("run", "again", "--remote")
        wait_for(lambda: len(cluster.runs()) == lost + 1, LIMIT_S, "it is submitted")
        name = cluster.last()["run"]
        wait_up(cluster, name)
        kill_all(cluster, name, lost)
        out, err = followed.communicate(timeout=2 * LIMIT_S)
        state = cluster.state(name)
        assert (state["status"], state["attempt"]) == ("done", 2), (state, out, err)
        text = cluster.ok("logs", name, "--rank", str(1 - lost))
        print(err)
        assert f"rank {lost}: no sign of it for 60 s: it ends here, too" in text
        assert f"resumed 1-{1 - lost}" in text
    cluster.assert_nothing_left()
