"""The lines of the table: each a function that measures on a world and fills a Report.

Every line does its work with the clients in turn, in rounds; the best round of each counts, so that
what else runs on the machine weighs on all alike. Limits come from the raw client in the same rounds.
"""
import concurrent.futures
import mmap
import os
import pathlib
import random
import shutil
import subprocess
import threading
import time

from world import BUCKET, CLIENTS, MIB, Mounted, say

RANDOM_BYTES = 256 * 1024
SMALL_BYTES = 4096


# --- what programs do ---

def write_file(path, size_mib, block):
    with open(path, "wb", buffering=0) as file:
        for _ in range(size_mib):
            file.write(block)
        os.fsync(file.fileno())


def read_file(path, size_mib):
    buffer, total = bytearray(MIB), 0
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total += count
    if total != size_mib * MIB:
        raise RuntimeError(f"{path}: {total} bytes read")


def tensors_of(size):
    """Where the tensors of a file of SIZE bytes are: as safetensors lays out a transformer, behind a header."""
    layer = [16 << 10, 32 * MIB, 8 * MIB, 8 * MIB, 32 * MIB, 16 << 10, 86 * MIB, 86 * MIB, 86 * MIB]
    at, found = 12_344, []
    while at < size:
        end = min(at + layer[len(found) % len(layer)], size)
        found.append((at, end))
        at = end
    return found


def load_mapped(path, tensors):
    """Copies each of TENSORS, (from, to), out of a mapping."""
    memory = memoryview(bytearray(max(end - start for start, end in tensors)))
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped, \
            memoryview(mapped) as view:
        for start, end in tensors:
            memory[:end - start] = view[start:end]


def in_threads(count, work):
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))


def write_small(directory, count, threads):
    data = os.urandom(SMALL_BYTES)
    directory.mkdir()

    def work(thread):
        for i in range(thread, count, threads):
            with open(directory / f"{i:06}", "wb", buffering=0) as file:
                file.write(data)

    in_threads(threads, work)


def best(*results):
    return min((r for r in results if r), key=lambda r: r["seconds"])


def by_client(rounds, clients, measure):
    """{client: its best result}; MEASURE(client, round) -> {"seconds": …}."""
    results = {}
    for number in range(rounds):
        for client in clients:
            result = measure(client, number)
            say(f"    {client}: {result['seconds']:.2f} s")
            results[client] = best(results.get(client), result)
    return results


# --- the lines ---

def transfer(world, server, key, clients, size_mib):
    """Writes and reads one file with each client; {"write": {...}, "read": {...}}."""
    writes, reads = {}, {}

    def measure(client, number):
        is_store = client != "nothing"
        name = f"{key}-{client}" if is_store else "file"
        size = size_mib * MIB
        if client == "raw":
            write = world.raw(server, "put", name, size)
            read = world.raw(server, "get", name, size)
        else:
            options = () if is_store else (size,)
            with Mounted(world, client, server, *options) as mount:
                write = mount.timed(lambda: write_file(mount.path / name, size_mib, world.block))
            with Mounted(world, client, server, *options) as mount:
                read = mount.timed(lambda: read_file(mount.path / name, size_mib))
        if is_store:
            stored = server.s3().head_object(Bucket=BUCKET, Key=name)["ContentLength"]
            if stored != size:
                raise RuntimeError(f"{client} stored {stored} bytes")
            world.remove(server, name)
        writes[client] = best(writes.get(client), write)
        reads[client] = best(reads.get(client), read)
        return {"seconds": write["seconds"] + read["seconds"]}

    by_client(world.rounds, clients, measure)
    return {"write": writes, "read": reads}


def line_file(world, report):
    """One large file, written and fsynced, then read cold, on a real store."""
    server, mib = world.server("rgw"), world.size_mib
    results = transfer(world, server, "file", ("raw", *CLIENTS), mib)
    for verb, s3fs_goal, cpu_goal in (("write", 0.45, 1.3), ("read", 0.85, 0.8)):
        clients = results[verb]
        report.clients(f"{verb} {mib} MiB", server.name, clients)
        ours, raw, s3fs = clients["dstack"], clients["raw"], clients["s3fs"]
        report.most(f"{verb}: time / raw", server.name, ours["seconds"] / raw["seconds"], 1.1)
        report.most(f"{verb}: time / s3fs", server.name, ours["seconds"] / s3fs["seconds"], s3fs_goal,
                    limit=raw["seconds"] / s3fs["seconds"])
        report.most(f"{verb}: CPU s/GiB", server.name, ours["cpu_s"] * 1024 / mib, cpu_goal)


def least_work(raw, nothing):
    """What a filesystem on a store takes at least: the raw client's work and, on the same CPUs, what the
    kernel and the program do even for a filesystem that does nothing."""
    busy = (raw["busy_s"] + nothing["busy_s"]) / os.cpu_count()
    return {"seconds": max(raw["seconds"], nothing["seconds"], busy), "cpu_s": raw["cpu_s"] + nothing["cpu_s"]}


def line_null(world, report):
    """The same on a server that costs nothing; and a filesystem that does nothing."""
    server, mib = world.server("null"), world.size_mib
    results = transfer(world, server, "null", ("raw", "nothing", *CLIENTS), mib)
    for verb, goal in (("write", 1.0), ("read", 1.5)):
        clients = results[verb]
        report.clients(f"{verb} {mib} MiB", server.name, clients)
        ours, s3fs, least = clients["dstack"], clients["s3fs"], least_work(clients["raw"], clients["nothing"])
        report.least(f"{verb}: GB/s", server.name, mib * MIB / 1e9 / ours["seconds"], goal,
                     limit=mib * MIB / 1e9 / least["seconds"])
        for name, what in (("time", "seconds"), ("CPU", "cpu_s")):
            report.most(f"{verb}: {name} / s3fs", server.name, ours[what] / max(s3fs[what], 0.01), 0.25,
                        limit=least[what] / max(s3fs[what], 0.01))
        report.most(f"{verb}: time / raw", server.name, ours["seconds"] / clients["raw"]["seconds"], None)


def line_delay(world, report):
    """One writer and one reader with 20 ms before each answer, against the same without."""
    server, mib = world.server("rgw"), world.size_mib
    near, far = {}, {}
    with world.proxy(server, 0) as direct, world.proxy(server, 20) as delayed:
        for _ in range(world.rounds):
            for target, results in ((direct, near), (delayed, far)):
                for verb, result in transfer(world, target, "delay", ("dstack",), mib).items():
                    results[verb] = best(results.get(verb), result["dstack"])
        for client in ("raw", "s3fs"):
            for verb, result in transfer(world, delayed, "delay", (client,), mib).items():
                far.setdefault(f"{verb}s", {})[client] = result[client]
        for verb in ("write", "read"):
            report.clients(f"{verb} {mib} MiB", delayed.name, {"dstack": far[verb], **far[f"{verb}s"]})
            report.least(f"{verb}: rate / rate without", delayed.name,
                         near[verb]["seconds"] / far[verb]["seconds"], 0.8)


def line_parallel(world, report):
    """4 writers, then 4 readers, of a quarter each: no slower in sum than one."""
    server, mib = world.server("rgw"), world.size_mib
    times = {}
    for _ in range(world.rounds):
        for count in (1, 4):
            def name(i):
                return f"parallel-{count}-{i}"
            with Mounted(world, "dstack", server) as mount:
                write = mount.timed(lambda: in_threads(
                    count, lambda i: write_file(mount.path / name(i), mib // count, world.block)))
            with Mounted(world, "dstack", server) as mount:
                read = mount.timed(lambda: in_threads(
                    count, lambda i: read_file(mount.path / name(i), mib // count)))
            for i in range(count):
                world.remove(server, name(i))
            for verb, result in (("write", write), ("read", read)):
                times[verb, count] = best(times.get((verb, count)), result)
    for verb in ("write", "read"):
        report.most(f"4 × {verb}: time / one's", server.name,
                    times[verb, 4]["seconds"] / times[verb, 1]["seconds"], 1.1)


def line_random(world, report):
    """Random 256 KiB reads by 4 threads."""
    server, mib = world.server("rgw"), world.size_mib
    world.raw(server, "put", "random", mib * MIB)
    # So few that pages are seldom asked for twice: the kernel would answer those.
    reads = min(mib * MIB // RANDOM_BYTES // 8, 1024) // 4
    fetched = {}
    with world.proxy(server, 0) as counted:
        def measure(client, number):
            with Mounted(world, client, counted) as mount:
                file = os.open(mount.path / "random", os.O_RDONLY)

                def work(thread):
                    chance = random.Random(f"{number}{thread}")
                    for _ in range(reads):
                        at = chance.randrange(mib * MIB // RANDOM_BYTES) * RANDOM_BYTES
                        if len(os.pread(file, RANDOM_BYTES, at)) != RANDOM_BYTES:
                            raise RuntimeError("short read")

                before = counted.passed()[1]
                result = mount.timed(lambda: in_threads(4, work))
                os.close(file)
            fetched[client] = (counted.passed()[1] - before) / (4 * reads * RANDOM_BYTES)
            return result
        results = by_client(world.rounds, ("dstack", "s3fs"), measure)
    world.remove(server, "random")
    report.clients(f"{4 * reads} random reads of 256 KiB", server.name, results)
    report.least("random: rate / s3fs", server.name,
                 results["s3fs"]["seconds"] / results["dstack"]["seconds"], 2)
    report.most("random: bytes fetched / asked", server.name, fetched["dstack"], 1.2)


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
    for _ in range(world.rounds):
        for way, work in ways.items():
            with Mounted(world, "dstack", server) as mount:
                times[way] = best(times.get(way), mount.timed(lambda: work(mount.path / "model")))
    world.remove(server, "model")
    report.clients(f"{mib} MiB: read(), and a mapping's tensors", server.name, times)
    for way, goal in (("in order", 1.2), ("in any order", None)):
        report.most(f"mmap, tensors {way}: time / read()", server.name,
                    times[way]["seconds"] / times["read"]["seconds"], goal)


def line_small(world, report, count=1000):
    """Many small files, each closed, with 1 and with 16 threads."""
    server = world.server("rgw")
    for threads in (1, 16):
        def measure(client, number):
            name = f"small-{client}-{threads}-{number}"
            if client == "raw":
                return world.raw(server, "puts", f"{name}/", count, threads)
            with Mounted(world, client, server) as mount:
                return mount.timed(lambda: write_small(mount.path / name, count, threads))

        results = by_client(world.rounds, ("raw", "dstack", "s3fs"), measure)
        seconds = {client: result["seconds"] for client, result in results.items()}
        report.clients(f"{count} files of 4 KiB, {threads} threads", server.name, results)
        if threads == 1:
            report.least("small, 1 thread: rate / s3fs", server.name,
                         seconds["s3fs"] / seconds["dstack"], 3, limit=seconds["s3fs"] / seconds["raw"])
        else:
            report.most("small, 16 threads: time / raw", server.name, seconds["dstack"] / seconds["raw"],
                        1.1)


def list_all(path):
    count = 0
    with os.scandir(path) as entries:
        for entry in entries:
            os.lstat(entry.path)
            count += 1
    return count


def list_steps(world, server, name):
    """What a new mount's first and second `ls -l` cost."""
    steps = {}
    with Mounted(world, "dstack", server, "--attr-ttl", "60000") as mount:
        for step in ("cold", "warm"):
            before = server.requests()
            result = mount.timed(lambda: list_all(mount.path / name))
            after = server.requests()
            result["requests"] = {k: after[k] - before.get(k, 0) for k in after
                                  if after[k] != before.get(k, 0)}
            steps[step] = result
            say(f"    {step}: {result}")
    return steps


def line_list(world, report):
    """ls -l of a large directory, cold and warm, on the server that counts requests: of files that
    another mount wrote, and of objects that another client put there."""
    server, count = world.server("null"), 100_000 if world.size_mib >= 1024 else 10_000
    with Mounted(world, "dstack", server) as mount:
        write_small(mount.path / "ours", count, 16)
    world.raw(server, "puts", "foreign/", count, 16)
    for whose in ("ours", "foreign"):
        steps = list_steps(world, server, whose)
        cold, warm = steps["cold"], steps["warm"]
        report.clients(f"ls -l of {count} ({whose}): cold, warm", server.name, steps)
        report.most(f"ls -l cold, {whose}: s", server.name, cold["seconds"], None)
        # The name's lookup, the index, and beats of the lease beside the pages of 1,000 names.
        report.most(f"ls -l cold, {whose}: GETs beyond the listing", server.name,
                    cold["requests"].get("GET", 0) - count / 1000, 5)
        report.most(f"ls -l cold, {whose}: HEADs / name", server.name,
                    cold["requests"].get("HEAD", 0) / count, 0.001 if whose == "ours" else None)
        # A beat of the lease may fall into it.
        report.most(f"ls -l warm, {whose}: requests", server.name, sum(warm["requests"].values()), 2)


def append_lines(world, server, mib, seconds):
    """Appends a line a second; returns how long each took to be seen, and bytes sent per publish."""
    key, lags, versions = f"log-{mib}", [], set()
    world.raw(server, "put", key, mib * MIB)
    s3 = server.s3()
    with world.proxy(server, 0) as counted, Mounted(world, "dstack", counted) as mount:
        with open(mount.path / key, "ab", buffering=0) as log:
            size, written, done = mib * MIB, {}, threading.Event()

            def watch():
                while not done.is_set():
                    head = s3.head_object(Bucket=BUCKET, Key=key)
                    now = time.monotonic()
                    versions.add(head["ETag"])
                    for end in [e for e in list(written) if e <= head["ContentLength"]]:
                        lags.append(now - written.pop(end))
                    time.sleep(0.05)

            watcher = threading.Thread(target=watch)
            watcher.start()
            before = counted.passed()[0]
            try:
                for i in range(seconds):
                    size += log.write(b"line %d\n" % i)
                    written[size] = time.monotonic()
                    time.sleep(1)
                end = time.monotonic() + 60
                while written and time.monotonic() < end:
                    time.sleep(0.05)
            finally:
                done.set()
                watcher.join()
            sent = counted.passed()[0] - before
            if written:
                raise RuntimeError(f"{key}: lines were not seen within 60 s")
    world.remove(server, key)
    return max(lags), sent / MIB / max(len(versions) - 1, 1)


def line_append(world, report):
    """A log that grows by a line a second: when others see it, and what goes over the wire."""
    server = world.server("rgw")
    for mib in (16, min(world.size_mib, 1024)):
        world.raw(server, "put", "copied", mib * MIB)
        copy_s = world.raw(server, "copy", "copied", mib * MIB)["seconds"]
        lag, sent_mib = append_lines(world, server, mib, 10)
        for key in ("copied", "copied.copy"):
            world.remove(server, key)
        report.most(f"append to {mib} MiB: seen after s", server.name, lag, max(2, 4 * copy_s),
                    limit=copy_s)
        report.most(f"append to {mib} MiB: MiB sent each", server.name, sent_mib, 6)


def line_rename(world, report):
    """A large file and a directory of small ones get another name; no byte passes through."""
    server, mib = world.server("rgw"), world.size_mib
    for of, put, count, clients in ((f"{mib} MiB", "put", mib * MIB, ("dstack", "s3fs")),
                                    ("1,000 files", "puts", 1000, ("raw", "dstack", "s3fs"))):
        passed = {}
        with world.proxy(server, 0) as counted:
            def measure(client, number):
                name = f"rename-{client}-{number}"
                world.raw(server, put, name if put == "put" else f"{name}/", count, 16)
                if client == "raw":
                    return world.raw(server, "moves", f"{name}/", count, 16)
                with Mounted(world, client, counted) as mount:
                    before = sum(counted.passed())
                    result = mount.timed(lambda: os.rename(mount.path / name, mount.path / f"{name}-new"))
                    passed[client] = (sum(counted.passed()) - before) / MIB
                if put == "put":
                    world.remove(server, f"{name}-new")
                return result
            results = by_client(world.rounds, clients, measure)
        seconds = {client: result["seconds"] for client, result in results.items()}
        report.clients(f"rename of {of}", server.name, results)
        report.most(f"rename of {of}: time / s3fs", server.name, seconds["dstack"] / seconds["s3fs"], 0.25,
                    limit=seconds["raw"] / seconds["s3fs"] if "raw" in seconds else None)
        report.most(f"rename of {of}: MiB passed", server.name, passed["dstack"],
                    1 if put == "put" else 8)


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
                min(mount_ready_s(world, server) for _ in range(5)) * 1000, 150)
    repo = make_runs(world, 1000)
    lists = [command_s([world.bin / "dstack", "ps", "-a"], repo) for _ in range(5)]
    if len(lists[0][1].splitlines()) < 1000:
        raise RuntimeError(f"ps told {len(lists[0][1].splitlines())} runs")
    report.most("dstack ps of 1,000 runs: ms", "file", min(s for s, _ in lists) * 1000, 500)
    report.most("dstack --version: ms", "-", min(
        command_s([world.bin / "dstack", "--version"], repo)[0] for _ in range(10)) * 1000, 20)


LINES = {"file": line_file, "null": line_null, "delay": line_delay, "parallel": line_parallel,
         "random": line_random, "mmap": line_mmap, "small": line_small, "list": line_list,
         "append": line_append, "rename": line_rename, "start": line_start}
