"""scripts/bench --check: the small form for continuous integration.

Only ratios between things measured in the same rounds are compared, the best of several rounds, on the
server that costs nothing; so neither a slow nor a noisy machine decides. A ratio that looks worse gets
more rounds before it counts as worse. What can be counted is counted, and must be exactly right.
"""
import json
import os
import time

from lines import check_small, list_steps, mark, random_reads
from programs import read_file, write_file, write_small
from world import MIB, TOP, Mounted, say

RECORDED = TOP / "tests/bench/recorded.json"
WORSE = 1.3
SIZE_MIB = 640  # more than the memory budget
SMALL_COUNT = 200
ROUNDS, MORE_ROUNDS = 3, 12
RECORDINGS = 4  # the worst of which counts
LIST_COUNT = 3000


def one_round(world, server, times):
    def note(name, seconds):
        times[name] = min(seconds, times.get(name, seconds))

    note("raw write", world.raw(server, "put", "raw", SIZE_MIB * MIB)["seconds"])
    note("raw read", world.raw(server, "get", "raw", SIZE_MIB * MIB)["seconds"])
    note("raw small", world.raw(server, "puts", "raw/", SMALL_COUNT, 1)["seconds"])
    for client in ("dstack", "s3fs"):
        with Mounted(world, client, server) as mount:
            result = mount.timed(lambda: write_file(mount.path / client, SIZE_MIB, world.block))
            note(f"{client} write", result["seconds"])
            note(f"{client} write CPU", result["cpu_s"])
            if client == "dstack":
                small = mount.path / f"small-{time.monotonic_ns()}"
                note("dstack small", mount.timed(lambda: write_small(small, SMALL_COUNT, 1))["seconds"])
        with Mounted(world, client, server) as mount:
            result = mount.timed(lambda: read_file(mount.path / client, SIZE_MIB))
            note(f"{client} read", result["seconds"])
            note(f"{client} read CPU", result["cpu_s"])


def ratios(times):
    pairs = (("dstack write", "raw write"), ("dstack read", "raw read"), ("dstack small", "raw small"),
             ("dstack write", "s3fs write"), ("dstack read", "s3fs read"),
             ("dstack write CPU", "s3fs write CPU"), ("dstack read CPU", "s3fs read CPU"))
    return {f"{a} / {b}": times[a] / max(times[b], 0.01) for a, b in pairs}


def measure(world, server, recorded):
    """The ratios, after as many rounds as it takes to be sure; and those that are worse than recorded."""
    times, most, number, worse = {}, ROUNDS, 0, []
    while number < most:
        one_round(world, server, times)
        number += 1
        found = ratios(times)
        worse = [name for name, value in recorded.items() if found.get(name, 0) > WORSE * value]
        if number == ROUNDS and worse:
            most = MORE_ROUNDS
        elif number >= ROUNDS and not worse:
            break
    return found, worse


def count(world, server):
    """What must be exactly so on any machine: {what: (value, at most)}."""
    with Mounted(world, "dstack", server) as mount:
        write_small(mount.path / "ours", LIST_COUNT, 16)
        mark(mount.path / "ours", LIST_COUNT)
    steps = list_steps(world, "dstack", server, "ours", LIST_COUNT)
    requests = steps["cold"]["requests"]
    with world.proxy(server, 0) as counted:
        with Mounted(world, "dstack", counted) as mount:
            before = sum(counted.passed())
            os.rename(mount.path / "ours", mount.path / "new")
            passed = (sum(counted.passed()) - before) / LIST_COUNT
            check_small(server, "dstack", "new/", LIST_COUNT)
        world.raw(server, "put", "random", SIZE_MIB * MIB)
        _, fetched, _ = random_reads(world, counted, ("dstack",), 1, SIZE_MIB)
    return {"ls -l cold: LISTs": (requests.get("LIST", 0), LIST_COUNT // 1000 + 2),
            "ls -l cold: GETs": (requests.get("GET", 0), 3),
            "ls -l cold: HEADs": (requests.get("HEAD", 0), 1),
            "ls -l warm: GETs, HEADs and LISTs": (sum(steps["warm"]["requests"].get(verb, 0)
                                                      for verb in ("GET", "HEAD", "LIST")), 0),
            "rename: bytes for each file of 4 KiB": (passed, 2048),
            "random: bytes fetched / asked": (fetched, 1.2),
            "peak RSS of dstack-mount: MiB": (world.peaks_mib["dstack"], 512 + 64)}


def record(world, server):
    found = [measure(world, server, {})[0] for _ in range(RECORDINGS)]
    worst = {name: round(max(ratio[name] for ratio in found), 2) for name in found[0]}
    RECORDED.write_text(json.dumps(worst, indent=1) + "\n")
    say(f"bench: wrote {RECORDED.relative_to(TOP)}")
    return 0


def check(world, is_recording):
    server = world.server("null")
    if is_recording:
        return record(world, server)
    recorded = json.loads(RECORDED.read_text())
    found, worse = measure(world, server, recorded)
    worse += [f"{name} is not recorded, or not measured" for name in recorded.keys() ^ found.keys()]
    for name, value in found.items():
        print(f"{'WORSE' if name in worse else 'ok   '}  {name:<40} {value:7.2f}  "
              f"recorded {recorded.get(name)}")
    for name, (value, most) in count(world, server).items():
        if value > most:
            worse.append(name)
        print(f"{'WORSE' if name in worse else 'ok   '}  {name:<40} {value:7.2f}  at most {most}")
    return 1 if worse else 0
