"""The lines of the table: each a function that measures on a world and fills a Report.

Every line does its work with the clients in turn, in rounds, there and back, since what one leaves
behind (a server frees what was removed after a while) weighs on the next; the best round of each
counts, so that what else runs on the machine weighs on all alike. Limits come from the raw client in
the same rounds. Peers that no goal names are measured in the first round only. Where a goal is close to
the limit there is a round more.
"""
import os
import pathlib
import random
import re
import shutil
import statistics
import subprocess
import threading
import time

from programs import (RANDOM_BYTES, SMALL_BYTES, check_bytes, in_threads, load_mapped, read_any, read_file,
                      tensors_of, write_file, write_small)
from world import BUCKET, MIB, Mounted, say

FAR_MS = 20
OLD_S = 5.2  # what was told so long ago is asked for again, and put so long ago does not change unseen
LAG_MOST_S = 60
PEERS = ["s3fs", "rclone"]


# --- rounds ---

def best(old, new):
    """The quicker one; and the least work that was seen, whatever it took."""
    if not old:
        return {**new, "least": dict(new)}
    quicker = old if old["seconds"] <= new["seconds"] else new
    return {**quicker, "least": {key: min(value, new[key]) for key, value in old["least"].items()}}


def by_client(rounds, clients, measure, only_once=()):
    """{client: its best result}; MEASURE(client, round) -> {"seconds": …}."""
    results = {}
    for number in range(rounds):
        for client in reversed(clients) if number % 2 else clients:
            if number and client in ("rclone", *only_once):
                continue
            try:
                result = measure(client, number)
            except OSError as error:
                if client != "rclone":
                    raise
                say(f"    rclone: {error}")
                continue
            say(f"    {client}: {result['seconds']:.2f} s")
            results[client] = best(results.get(client), result)
    return results


def check_stored(server, client, sizes):
    """That every object is there, as large as it should be."""
    for key, size in sizes.items():
        stored = server.s3().head_object(Bucket=BUCKET, Key=key)["ContentLength"]
        if stored != size:
            raise RuntimeError(f"{client} stored {stored} bytes of {key}")


def check_small(server, client, prefix, count):
    pages = server.s3().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    sizes = [entry["Size"] for page in pages for entry in page.get("Contents", [])
             if not entry["Key"].endswith("/")]
    if sizes != [SMALL_BYTES] * count:
        raise RuntimeError(f"{client}: {len(sizes)} objects of {sum(sizes)} bytes below {prefix}")


# --- the lines ---

UNSIGNED = ", unsigned"  # bodies are not signed with their hash: --unsigned-payload
OURS = ("raw", "dstack", f"raw{UNSIGNED}", f"dstack{UNSIGNED}")


def transfer(world, server, key, clients, rounds):
    """Writes and reads one file with each client; {"write": {...}, "read": {...}}."""
    writes, reads, size_mib = {}, {}, world.size_mib

    def measure(named, number):
        client, unsigned, _ = named.partition(UNSIGNED)
        is_store = client != "nothing"
        name = f"{key}-{client}" if is_store else "file"
        size = size_mib * MIB
        options = ["--unsigned-payload"] if unsigned else []
        if client == "raw":
            write = world.raw(server, "put", name, size, options=options)
            read = world.raw(server, "get", name, size)
        else:
            options = options if is_store else [size]
            with Mounted(world, client, server, *options) as mount:
                write = mount.timed(lambda: write_file(mount.path / name, size_mib, world.block))
                if is_store:
                    check_stored(server, client, {name: size})
            with Mounted(world, client, server, *options) as mount:
                read = mount.timed(lambda: read_file(mount.path / name, size_mib))
                if server.keeps_bytes:
                    check_bytes(mount.path / name, size_mib, world.block)
        if is_store:
            world.remove(server, name)
        writes[named] = best(writes.get(named), write)
        reads[named] = best(reads.get(named), read)
        return {"seconds": write["seconds"] + read["seconds"]}

    by_client(rounds, clients, measure)
    return {"write": writes, "read": reads}


def line_file(world, report):
    """One large file, written and fsynced, then read cold, on a real store."""
    server, mib = world.server("rgw"), world.size_mib
    results = transfer(world, server, "file", (*OURS, *PEERS), world.rounds + 1)
    for verb, how, s3fs_goal, cpu_goal in (("write", "", 0.45, 1.3), ("write", UNSIGNED, 0.45, 1.3),
                                           ("read", "", 0.85, 0.8)):
        clients = results[verb]
        if not how:
            report.clients(f"{verb} {mib} MiB", server.name, clients)
        ours, raw, s3fs = clients[f"dstack{how}"], clients[f"raw{how}"], clients["s3fs"]
        report.most(f"{verb}{how}: time / raw", server.name, ours["seconds"] / raw["seconds"], 1.1)
        report.most(f"{verb}{how}: time / s3fs", server.name, ours["seconds"] / s3fs["seconds"], s3fs_goal,
                    limit=raw["seconds"] / s3fs["seconds"])
        report.most(f"{verb}{how}: CPU s/GiB", server.name, ours["cpu_s"] * 1024 / mib, cpu_goal,
                    limit=raw["cpu_s"] * 1024 / mib)


def least_work(raw, nothing):
    """What our own parts come to, one after the other: the raw client's work and, on the same CPUs, what
    the kernel and the program do even for a filesystem that does nothing."""
    busy = (raw["least"]["busy_s"] + nothing["least"]["busy_s"]) / os.cpu_count()
    return {"seconds": max(raw["least"]["seconds"], nothing["least"]["seconds"], busy),
            "cpu_s": raw["least"]["cpu_s"] + nothing["least"]["cpu_s"]}


def line_null(world, report):
    """The same on a server that costs nothing; and a filesystem that does nothing."""
    server, mib = world.server("null"), world.size_mib
    results = transfer(world, server, "null", (*OURS, "nothing", *PEERS), world.rounds)
    for verb, how, goal in (("write", "", 1.0), ("write", UNSIGNED, 1.0), ("read", "", 1.5)):
        clients = results[verb]
        if not how:
            report.clients(f"{verb} {mib} MiB", server.name, clients)
        ours, s3fs, raw = clients[f"dstack{how}"], clients["s3fs"], clients[f"raw{how}"]
        least = least_work(raw, clients["nothing"])
        report.least(f"{verb}{how}: GB/s", server.name, mib * MIB / 1e9 / ours["seconds"], goal,
                     limit=mib * MIB / 1e9 / raw["seconds"])
        for name, what in (("time", "seconds"), ("CPU", "cpu_s")):
            report.most(f"{verb}{how}: {name} / s3fs", server.name, ours[what] / max(s3fs[what], 0.01),
                        0.25, limit=raw[what] / max(s3fs[what], 0.01))
            report.most(f"{verb}{how}: {name} of raw and of an empty filesystem / s3fs", server.name,
                        least[what] / max(s3fs[what], 0.01), None)


def line_delay(world, report):
    """One writer and one reader with 20 ms before each answer, against the same without."""
    server, mib = world.server("rgw"), world.size_mib
    near, far = {}, {}
    with world.proxy(server, 0) as direct, world.proxy(server, FAR_MS) as delayed:
        for number in range(world.rounds):
            for target, results in ((direct, near), (delayed, far)):
                clients = ("raw", "dstack") if number or target is direct else ("raw", "dstack", *PEERS)
                for verb, found in transfer(world, target, "delay", clients, 1).items():
                    for client, result in found.items():
                        results[verb, client] = best(results.get((verb, client)), result)
        for verb in ("write", "read"):
            report.clients(f"{verb} {mib} MiB", delayed.name,
                           {client: result for (of, client), result in far.items() if of == verb})
            rates = {client: near[verb, client]["seconds"] / far[verb, client]["seconds"]
                     for client in ("raw", "dstack")}
            report.least(f"{verb}: rate / rate without", delayed.name, rates["dstack"], 0.8,
                         limit=rates["raw"])


def line_parallel(world, report):
    """4 writers, then 4 readers, of a quarter each: no slower in sum than one."""
    server, mib = world.server("rgw"), world.size_mib
    times = {}

    def measure(client, count):
        names = [f"parallel-{client}-{count}-{i}" for i in range(count)]
        with Mounted(world, client, server) as mount:
            write = mount.timed(lambda: in_threads(
                count, lambda i: write_file(mount.path / names[i], mib // count, world.block)))
            check_stored(server, client, {name: mib // count * MIB for name in names})
        with Mounted(world, client, server) as mount:
            read = mount.timed(lambda: in_threads(
                count, lambda i: read_file(mount.path / names[i], mib // count)))
        for name in names:
            world.remove(server, name)
        for verb, result in (("write", write), ("read", read)):
            say(f"    {count} × {verb}, {client}: {result['seconds']:.2f} s")
            times[verb, client, count] = best(times.get((verb, client, count)), result)

    for number in range(world.rounds + 1):
        for count in (4, 1) if number % 2 else (1, 4):
            measure("dstack", count)
        for client in () if number else PEERS:
            measure(client, 4)
    for verb in ("write", "read"):
        report.clients(f"4 × {verb} {mib // 4} MiB at once", server.name,
                       {client: times[verb, client, 4] for client in ("dstack", *PEERS)})
        # A tenth is what equal runs differ by.
        report.most(f"4 × {verb}: time / one's", server.name,
                    times[verb, "dstack", 4]["seconds"] / times[verb, "dstack", 1]["seconds"], 1.1)


def random_reads(world, counted, clients, rounds, mib):
    """Each client's best, and the most bytes that ours fetched for each that was asked for."""
    fetched = []
    # So few that pages are seldom asked for twice: the kernel would answer those.
    reads = min(mib * MIB // RANDOM_BYTES // 8, 1024) // 4

    def measure(client, number):
        if client == "raw":
            return world.raw(counted, "ranges", "random", mib * MIB, 4)
        with Mounted(world, client, counted) as mount:
            before = counted.passed()[1]
            result = mount.timed(lambda: read_any(mount.path / "random", mib, reads, number))
            if client == "dstack":
                time.sleep(0.3)  # what is fetched ahead and nobody asked for counts as well
                fetched.append((counted.passed()[1] - before) / (4 * reads * RANDOM_BYTES))
        return result

    return by_client(rounds, clients, measure), max(fetched), 4 * reads


def line_random(world, report):
    """Random 256 KiB reads by 4 threads; and 20 ms away."""
    server = world.server("rgw")
    world.raw(server, "put", "random", world.size_mib * MIB)
    for ms, rounds in ((0, world.rounds), (FAR_MS, 1)):
        with world.proxy(server, ms) as counted:
            # rclone fetches so much for each that it takes two minutes.
            clients = ("raw", "dstack", "s3fs") if ms else ("raw", "dstack", *PEERS)
            results, fetched, reads = random_reads(world, counted, clients, rounds, world.size_mib)
        name = counted.name if ms else server.name
        report.clients(f"{reads} random reads of 256 KiB", name, results)
        seconds = {client: result["seconds"] for client, result in results.items()}
        report.least("random: rate / s3fs", name, seconds["s3fs"] / seconds["dstack"], None if ms else 2,
                     limit=seconds["s3fs"] / seconds["raw"])
        report.most("random: bytes fetched / asked", name, fetched, 1.2)
    world.remove(server, "random")


def line_mmap(world, report):
    """Tensors out of a mapping: as they lie in the file (torch.load, safetensors), and in any order."""
    server, mib = world.server("rgw"), min(world.size_mib, 2048)
    world.raw(server, "put", "model", mib * MIB)
    in_order = tensors_of(mib * MIB)
    any_order = random.Random(1).sample(in_order, len(in_order))
    ways = {"read": lambda path: read_file(path, mib),
            "in order": lambda path: load_mapped(path, in_order),
            "in any order": lambda path: load_mapped(path, any_order)}
    times = {}

    def measure(way, client, target):
        with Mounted(world, client, target) as mount:
            result = mount.timed(lambda: ways[way](mount.path / "model"))
        say(f"    {way}, {client}: {result['seconds']:.2f} s")
        key = way if client == "dstack" else f"{way}, {client}"
        times[target.name, key] = best(times.get((target.name, key)), result)

    for number in range(world.rounds):
        for way in list(ways)[number % 2:] + list(ways)[:number % 2]:
            measure(way, "dstack", server)
    for client in PEERS:
        measure("in order", client, server)
    with world.proxy(server, FAR_MS) as far:
        for way in ways:
            measure(way, "dstack", far)
    world.remove(server, "model")
    for name in (server.name, far.name):
        found = {way: result for (of, way), result in times.items() if of == name}
        report.clients(f"{mib} MiB: read(), and a mapping's tensors", name, found)
        for way, goal in (("in order", 1.2), ("in any order", None)):
            report.most(f"mmap, tensors {way}: time / read()", name,
                        found[way]["seconds"] / found["read"]["seconds"], goal)


def small_files(world, server, clients, count, threads, rounds, only_once=()):
    def measure(client, number):
        name = f"small-{client}-{server.port}-{threads}-{number}"
        if client == "raw":
            return world.raw(server, "puts", f"{name}/", count, threads)
        with Mounted(world, client, server) as mount:
            result = mount.timed(lambda: write_small(mount.path / name, count, threads))
            check_small(server, client, f"{name}/", count)
        return result

    return by_client(rounds, clients, measure, only_once)


def line_small(world, report, count=1000):
    """Many small files, each closed, with 1 and with 16 threads; and 20 ms away."""
    server = world.server("rgw")
    for threads, rounds, only_once in (1, world.rounds, ()), (16, world.rounds + 1, PEERS):
        results = small_files(world, server, ("raw", "dstack", *PEERS), count, threads, rounds, only_once)
        seconds = {client: result["seconds"] for client, result in results.items()}
        report.clients(f"{count} files of 4 KiB, {threads} threads", server.name, results)
        report.least(f"small, {threads} threads: files/s", server.name, count / seconds["dstack"], None,
                     limit=count / seconds["raw"])
        if threads == 1:
            report.least("small, 1 thread: rate / s3fs", server.name,
                         seconds["s3fs"] / seconds["dstack"], 3, limit=seconds["s3fs"] / seconds["raw"])
        else:
            # The kernel's and the program's part of a file, beside a server that has both CPUs busy.
            report.most("small, 16 threads: time / raw", server.name, seconds["dstack"] / seconds["raw"],
                        1.2)
    with world.proxy(server, FAR_MS) as far:
        results = small_files(world, far, ("raw", "dstack", *PEERS), count // 4, 16, 1)
    seconds = {client: result["seconds"] for client, result in results.items()}
    report.clients(f"{count // 4} files of 4 KiB, 16 threads", far.name, results)
    report.most("small, 16 threads: time / raw", far.name, seconds["dstack"] / seconds["raw"], None)


MARKED = 100  # every so many files have a mode and an mtime of their own
MARKED_S = 1_000_000_000


def mark(directory, count):
    for i in range(0, count, MARKED):
        os.chmod(directory / f"{i:06}", 0o640)
        os.utime(directory / f"{i:06}", (MARKED_S, MARKED_S + i))


def check_listing(text, count, is_marked):
    """What ls -l told: every name, with its size, and the mode and mtime of those that have some of their own."""
    lines = re.findall(r"^(\S+) +\d+ \S+ \S+ +(\d+) (\d+) (\d{6})$", text, re.M)
    names = [int(name) for *_, name in lines]
    if names != list(range(count)):
        raise RuntimeError(f"{len(names)} names instead of {count}")
    for mode, size, mtime, name in lines:
        is_own = is_marked and int(name) % MARKED == 0
        if int(size) != SMALL_BYTES or is_own != (mode == "-rw-r-----") or \
                is_own != (int(mtime) == MARKED_S + int(name)):
            raise RuntimeError(f"{name}: {mode}, {size} bytes, {mtime}")


def list_steps(world, client, server, name, count, *options, pause_s=0):
    """What a new mount's first and second `ls -l` cost."""
    steps = {}
    with Mounted(world, client, server, *options) as mount:
        for step in ("cold", "warm"):
            time.sleep(pause_s)
            before, told = server.requests(), []
            result = mount.timed(lambda: told.append(subprocess.run(
                ["ls", "-l", "--time-style=+%s", mount.path / name], timeout=900,
                capture_output=True, check=client == "dstack",  # s3fs shows the directory in itself too
                text=True, env={"LC_ALL": "C", "PATH": os.environ["PATH"]}).stdout))
            after = server.requests()
            result["requests"] = {k: after[k] - before.get(k, 0) for k in after
                                  if after[k] != before.get(k, 0)}
            if client == "dstack":
                check_listing(told[0], count, name == "ours")
            steps[step] = result
            say(f"    {client}, {step}: {result}")
    return steps


def line_list(world, report):
    """ls -l of a large directory, cold and warm, on the server that counts requests: of files that
    another mount wrote, and of objects that another client put there, before and after a mount has
    listed them; and 20 ms away."""
    server, count = world.server("null"), 100_000 if world.size_mib >= 1024 else 10_000
    with Mounted(world, "dstack", server) as mount:
        write_small(mount.path / "ours", count, 16)
        mark(mount.path / "ours", count)
    world.raw(server, "puts", "foreign/", count, 16)
    pages = world.raw(server, "list", "foreign/", count)
    for whose, name in (("ours", "ours"), ("foreign", "foreign"), ("foreign, listed before", "foreign")):
        steps = list_steps(world, "dstack", server, name, count)
        cold, warm = steps["cold"], steps["warm"]
        told = {**steps, "raw": pages}
        if whose == "ours":
            for client in PEERS:
                told.update({f"{client} {step}": result for step, result in list_steps(
                    world, client, server, whose, count).items()})
        report.clients(f"ls -l of {count} ({whose})", server.name, told)
        report.most(f"ls -l cold, {whose}: s", server.name, cold["seconds"], None, limit=pages["seconds"])
        # Its parent's, and a page more where the directory has an object of its own.
        report.most(f"ls -l cold, {whose}: LISTs beyond one for 1,000 names", server.name,
                    cold["requests"].get("LIST", 0) - count / 1000, 2)
        # The index, and beats of the lease.
        report.most(f"ls -l cold, {whose}: GETs", server.name, cold["requests"].get("GET", 0), 3)
        report.most(f"ls -l cold, {whose}: HEADs / name", server.name,
                    cold["requests"].get("HEAD", 0) / count, None if whose == "foreign" else 0.001)
        # A beat of the lease, which is a PUT, may fall into it.
        warm["requests"].pop("PUT", None)
        report.most(f"ls -l warm, {whose}: requests", server.name, sum(warm["requests"].values()), 0)
    with world.proxy(server, FAR_MS) as far:
        far.requests = server.requests
        steps = list_steps(world, "dstack", far, "ours", count)
        pages = world.raw(far, "list", "foreign/", count)
        few = count // 10
        world.raw(far, "puts", "few/", few, 16)
        # Before an exclusive mount writes an index. Attributes are believed for a second.
        others = list_steps(world, "dstack", far, "few", few, "--mode", "read-only", pause_s=OLD_S)
        foreign = {client: list_steps(world, client, far, "few", few)["cold"]
                   for client in ("dstack", "s3fs")}
    report.clients(f"ls -l of {count} (ours)", far.name, {**steps, "raw": pages})
    report.most("ls -l cold, ours: s", far.name, steps["cold"]["seconds"], None, limit=pages["seconds"])
    report.clients(f"ls -l of {few} (foreign), cold", far.name, foreign)
    report.most("ls -l cold, foreign: time / s3fs", far.name,
                foreign["dstack"]["seconds"] / foreign["s3fs"]["seconds"], None)
    report.clients(f"ls -l of {few} (foreign), read-only", far.name, others)
    report.most("ls -l again, read-only: HEADs / name", far.name,
                others["warm"]["requests"].get("HEAD", 0) / few, 0.001)


class Watcher:
    """Looks at an object all the time: when it has grown to each of the sizes that were written."""

    def __init__(self, s3, key):
        self.s3, self.key = s3, key
        self.written, self.lags, self.versions = {}, [], set()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self):
        while not self.done.is_set():
            head = self.s3.head_object(Bucket=BUCKET, Key=self.key)
            now = time.monotonic()
            self.versions.add(head["ETag"])
            for end in [e for e in list(self.written) if e <= head["ContentLength"]]:
                self.lags.append(now - self.written.pop(end))
            time.sleep(0.05)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


def append_lines(world, client, server, mib, seconds):
    """Appends a line a second; returns the longest that one took to be seen while the log is open (None:
    not seen in time) and MiB sent for each version that was."""
    key = f"log-{mib}"
    world.raw(server, "put", key, mib * MIB)
    with world.proxy(server, 0) as counted, Mounted(world, client, counted) as mount, \
            open(mount.path / key, "ab", buffering=0) as log, Watcher(server.s3(), key) as seen:
        size, before = mib * MIB, counted.passed()[0]
        for i in range(seconds):
            size += log.write(b"line %d\n" % i)
            seen.written[size] = time.monotonic()
            time.sleep(1)
        end = time.monotonic() + (LAG_MOST_S if client == "dstack" else 10)
        while seen.written and time.monotonic() < end:
            time.sleep(0.05)
        sent = counted.passed()[0] - before
    world.remove(server, key)
    return None if seen.written else max(seen.lags), sent / MIB / max(len(seen.versions) - 1, 1)


def line_append(world, report):
    """A log that grows by a line a second: when others see it, and what goes over the wire."""
    server = world.server("rgw")
    for mib in (16, min(world.size_mib, 1024)):
        world.raw(server, "put", "copied", mib * MIB)
        copy = best(None, world.raw(server, "copy", "copied", mib * MIB))
        for _ in range(2):
            copy = best(copy, world.raw(server, "copy", "copied", mib * MIB))
        lag, sent_mib = append_lines(world, "dstack", server, mib, 10 if mib == 16 else 20)
        if lag is None:
            raise RuntimeError(f"lines of a log of {mib} MiB were not seen within {LAG_MOST_S} s")
        for key in ("copied", "copied.copy"):
            world.remove(server, key)
        told = {"copy by the server": copy, "dstack": {"seconds": lag}}
        if mib == 16:
            for client in PEERS:
                told[client] = {"seconds": peer_lag_s(world, client, server, mib)}
        report.clients(f"a line of a log of {mib} MiB is seen", server.name, told)
        # Nothing of a large log can be seen sooner than the store has copied it.
        report.most(f"append to {mib} MiB: seen after s", server.name, lag, max(2, 4 * copy["seconds"]),
                    limit=copy["seconds"])
        report.most(f"append to {mib} MiB: MiB sent each", server.name, sent_mib, 6)


def peer_lag_s(world, client, server, mib):
    """A peer's; None also when it cannot append."""
    try:
        return append_lines(world, client, server, mib, 3)[0]
    except OSError as error:
        say(f"    {client}: {error}")
        return None


def line_rename(world, report):
    """A large file and a directory of small ones get another name; no byte passes through."""
    server, mib = world.server("rgw"), world.size_mib
    for of, put, count in ((f"{mib} MiB", "put", mib * MIB), ("1,000 files", "puts", 1000)):
        passed = []
        with world.proxy(server, 0) as counted:
            def measure(client, number):
                name = f"rename-{client.replace(' ', '-')}-{number}"
                world.raw(server, put, name if put == "put" else f"{name}/", count, 16)
                if client.startswith("raw"):
                    result = world.raw(server, "move", name, count) if put == "put" else \
                        world.raw(server, "moves", f"{name}/", count, int(client.split()[1]))
                    new = f"{name}.copy"
                else:
                    new = f"{name}-new"
                    with Mounted(world, client, counted) as mount:
                        before = sum(counted.passed())
                        result = mount.timed(lambda: os.rename(mount.path / name, mount.path / new))
                        if client == "dstack":
                            passed.append((sum(counted.passed()) - before) / MIB)
                        if put == "put":
                            check_stored(server, client, {new: count})
                        else:
                            check_small(server, client, f"{new}/", count)
                            check_small(server, client, f"{name}/", 0)
                if put == "put":
                    world.remove(server, new)
                    world.remove(server, name)
                return result
            # How many at once suits the server best is found out.
            raws = ["raw"] if put == "put" else [f"raw {n}" for n in (8, 16, 32)]
            results = by_client(world.rounds, (*raws, "dstack", *PEERS), measure)
        raw = min((results.pop(name) for name in raws), key=lambda r: r["seconds"])
        seconds = {client: result["seconds"] for client, result in results.items()}
        report.clients(f"rename of {of}", server.name, {"raw": raw, **results})
        report.most(f"rename of {of}: time / s3fs", server.name, seconds["dstack"] / seconds["s3fs"], 0.25,
                    limit=raw["seconds"] / seconds["s3fs"])
        report.most(f"rename of {of}: MiB passed", server.name, max(passed), 1 if put == "put" else 2)


def mount_ready_s(world, server):
    path = world.temp / "mnt-start"
    path.mkdir(exist_ok=True)
    begun = time.monotonic()
    subprocess.run([world.bin / "dstack-mount", f"s3://{BUCKET}/start", path, "--endpoint",
                    server.endpoint], check=True, timeout=60)
    seconds = time.monotonic() - begun
    subprocess.run(["fusermount3", "-u", path], check=True, timeout=60)
    time.sleep(0.2)
    return seconds


def make_runs(world, count):
    """A repo with COUNT finished runs: one real one, whose marker is copied under other names."""
    repo, home = world.temp / "repo", pathlib.Path(os.environ["DSTACK_HOME"])
    (repo / ".dstack/workflows").mkdir(parents=True)
    (repo / ".dstack/workflows/a.yaml").write_text(
        "workflows:\n  - name: a\n    provider: bash\n    commands:\n      - 'true'\n")
    for command in (["init", "-q"], ["add", "."],
                    ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", *command], cwd=repo, check=True)
    subprocess.run([world.bin / "dstack", "run", "a"], cwd=repo, check=True, timeout=60,
                   stdin=subprocess.DEVNULL, capture_output=True)
    marker = next(p for p in home.glob("runs/**/*!*"))
    name, rest = marker.name.split("!", 1)
    document = marker.parent / f"{name}.json"
    for i in range(1, count):
        shutil.copy(marker, marker.parent / f"copy-{i}!{rest}")
        shutil.copy(document, marker.parent / f"copy-{i}.json")
    return repo


def command_s(command, cwd):
    begun = time.monotonic()
    done = subprocess.run(command, cwd=cwd, check=True, timeout=60, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True)
    return time.monotonic() - begun, done.stdout


def line_start(world, report):
    """How long the programs take to begin."""
    server = world.server("rgw")
    report.most("dstack-mount ready: ms", server.name,
                statistics.median(mount_ready_s(world, server) for _ in range(5)) * 1000, 150)
    repo = make_runs(world, 1000)
    lists = [command_s([world.bin / "dstack", "ps", "-a"], repo) for _ in range(5)]
    if len(lists[0][1].splitlines()) < 1000:
        raise RuntimeError(f"ps told {len(lists[0][1].splitlines())} runs")
    report.most("dstack ps of 1,000 runs: ms", "file", statistics.median(s for s, _ in lists) * 1000, 500)
    report.most("dstack --version: ms", "-", statistics.median(
        command_s([world.bin / "dstack", "--version"], repo)[0] for _ in range(10)) * 1000, 20)


# What costs nothing first, with no other server beside it.
LINES = {"null": line_null, "file": line_file, "delay": line_delay, "parallel": line_parallel,
         "random": line_random, "mmap": line_mmap, "small": line_small, "list": line_list,
         "append": line_append, "rename": line_rename, "start": line_start}
