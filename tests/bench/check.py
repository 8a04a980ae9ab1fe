"""scripts/bench --check: the small form for continuous integration.

Only ratios between things measured in the same rounds are compared, the best of several rounds, on the
server that costs nothing; so neither a slow nor a noisy machine decides. A ratio that looks worse gets
more rounds before it counts as worse.
"""
import json

from lines import MIB, read_file, write_file, write_small
from world import TOP, Mounted, say

RECORDED = TOP / "tests/bench/recorded.json"
WORSE = 1.3
SIZE_MIB = 192
SMALL_COUNT = 200
ROUNDS, MORE_ROUNDS = 3, 12


def one_round(world, server, number, times):
    def note(name, seconds):
        times[name] = min(seconds, times.get(name, seconds))

    note("raw write", world.raw(server, "put", "raw", SIZE_MIB * MIB)["seconds"])
    note("raw read", world.raw(server, "get", "raw", SIZE_MIB * MIB)["seconds"])
    note("raw small", world.raw(server, "puts", f"raw-{number}/", SMALL_COUNT, 1)["seconds"])
    for client in ("dstack", "s3fs"):
        with Mounted(world, client, server) as mount:
            result = mount.timed(lambda: write_file(mount.path / client, SIZE_MIB, world.block))
            note(f"{client} write", result["seconds"])
            note(f"{client} write CPU", result["cpu_s"])
            if client == "dstack":
                small = mount.path / f"small-{number}"
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


def check(world, is_recording):
    recorded = {} if is_recording else json.loads(RECORDED.read_text())
    server, times = world.server("null"), {}
    most = MORE_ROUNDS if is_recording else ROUNDS
    number, worse = 0, []
    while number < most:
        one_round(world, server, number, times)
        number += 1
        found = ratios(times)
        worse = [name for name, value in recorded.items() if found[name] > WORSE * value]
        if number == ROUNDS and worse:
            most = MORE_ROUNDS
        elif number >= ROUNDS and not worse and not is_recording:
            break
    for name, value in found.items():
        old = f"recorded {recorded[name]:.2f}" if name in recorded else ""
        print(f"{'WORSE' if name in worse else 'ok   '}  {name:<36} {value:6.2f}  {old}")
    if is_recording:
        RECORDED.write_text(json.dumps({k: round(v, 2) for k, v in found.items()}, indent=1) + "\n")
        say(f"bench: wrote {RECORDED.relative_to(TOP)}")
    return 1 if worse else 0
