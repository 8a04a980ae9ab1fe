"""Many at once, many in a row, and one that is very large: never stuck, never above the budget, nothing left.

DSTACK_TEST_LONG=1: ten minutes of 64 writers and 64 readers, 200 mounts, 100,000 files, 100 GB.
"""
import concurrent.futures
import hashlib
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

from conftest import Mount, is_mounted, wait_for
from test_faults import LONG, MIB, seed, uploads
from test_journal import Gate

SUPPORT = pathlib.Path(__file__).parents[1] / "support"
STUCK_S = 60
WORKERS = 128       # MAX_THREADS of fuse_mount.c


def write_and_read(store, mount, number, seconds, writers, readers):
    """Every writer rewrites its three files; readers take what was closed and compare it."""
    until = time.monotonic() + seconds
    digests = {}        # name -> those it may have now
    slowest = [0]

    def write(index):
        chance = random.Random(number * 1000 + index)
        while time.monotonic() < until:
            name = f"{index}-{chance.randrange(3)}"
            size = chance.choice([0, 4096, 100_000, MIB, 6 * MIB])
            data = chance.randbytes(min(size, 65536)) * (size // min(size, 65536) if size else 0)
            began = time.monotonic()
            old = digests.get(name, {None})
            digests[name] = old | {hashlib.sha256(data).hexdigest()}
            with open(mount.path / name, "wb", buffering=0) as file:
                for at in range(0, len(data), MIB):
                    file.write(data[at:at + MIB])
            digests[name] = {hashlib.sha256(data).hexdigest()}
            slowest[0] = max(slowest[0], time.monotonic() - began)

    def read(index):
        chance = random.Random(number * 1000 + 500 + index)
        while time.monotonic() < until:
            name = chance.choice(list(digests) or [None])
            before = digests.get(name)
            if before is None or None in before:    # it may not be there yet
                time.sleep(0.05)
                continue
            began = time.monotonic()
            data = (mount.path / name).read_bytes()
            slowest[0] = max(slowest[0], time.monotonic() - began)
            if before == digests[name] and len(before) == 1:    # nobody rewrote it meanwhile
                assert {hashlib.sha256(data).hexdigest()} == before, name

    with concurrent.futures.ThreadPoolExecutor(writers + readers) as pool:
        work = [pool.submit(write, i) for i in range(writers)] + [pool.submit(read, i) for i in range(readers)]
        for one in work:
            one.result(seconds + 2 * STUCK_S)
    assert slowest[0] < STUCK_S
    for name, expected in digests.items():
        assert {hashlib.sha256(store.read(name)).hexdigest()} == expected, name


@pytest.mark.parametrize("budget, readers", [("512MiB", 64), ("128MiB", 0)])
def test_64_writers(budget, readers, s3_store, directory):
    mount = Mount(s3_store, directory, "--budget", budget, "--part-size", "5MiB")
    try:
        write_and_read(s3_store, mount, seed(), 600 if LONG else 2, 64, readers)
        assert mount.peak_rss_bytes() < (int(budget[:3]) + 64) * MIB
        mount.stop()
    finally:
        mount.kill()
    assert uploads(s3_store) == []


def test_64_writers_that_wait(s3_store, directory):
    """The store is away, the budget full, and each writer's request in the hands of a thread."""
    block = os.urandom(MIB)

    def write(index):
        with open(mount.path / str(index), "wb", buffering=0) as file:
            for _ in range(4):
                assert file.write(block) == MIB

    with Gate(s3_store) as gate:
        mount = Mount(s3_store, directory, "--budget", "128MiB", "--part-size", "5MiB")
        try:
            assert os.listdir(mount.path) == []     # from now on names cost no request
            gate.close()
            with concurrent.futures.ThreadPoolExecutor(64) as pool:
                work = [pool.submit(write, index) for index in range(64)]
                time.sleep(3)
                waiting = mount.peak_rss_bytes()
                gate.open()     # else nobody comes to an end, whatever is found
                for one in work:
                    one.result(STUCK_S)
            assert 64 * MIB < waiting < (128 + 32) * MIB    # full; 64 requests of a MiB were 175
            assert mount.peak_rss_bytes() < (128 + 64) * MIB
            mount.stop(bad_log=re.compile("sanitizer|runtime error", re.I))
        finally:
            mount.kill()
    assert all(s3_store.read(str(index)) == 4 * block for index in range(64))


def test_mounts_and_unmounts(s3_store, directory):
    for i in range(200 if LONG else 10):
        mount = Mount(s3_store, directory)
        try:
            (mount.path / "file").write_text(str(i))
            if i % 2:
                mount.stop()
            else:
                subprocess.run(["fusermount3", "-u", str(mount.path)], check=True, timeout=30)
                assert mount.process.wait(30) == 0
            assert not is_mounted(mount.path)
        finally:
            mount.kill()
    assert s3_store.read("file") == str(i).encode()
    assert s3_store.keys() == ["file"]


def test_many_files(s3_store, directory):
    names = [f"{i:06}" for i in range(100_000 if LONG else 500)]
    mount = Mount(s3_store, directory)
    try:
        folder = mount.path / "d"
        folder.mkdir()
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda name: (folder / name).write_text(name), names))
            assert sorted(os.listdir(folder)) == names
            assert len(s3_store.keys("d/")) == len(names) + 1
            mount.stop()
            mount = Mount(s3_store, directory)
            assert sorted(os.listdir(folder)) == names
            assert (folder / names[-1]).read_text() == names[-1]
            list(pool.map(lambda name: (folder / name).unlink(), names))
        folder.rmdir()
        assert mount.peak_rss_bytes() < 512 * MIB
        mount.stop()
    finally:
        mount.kill()
    assert s3_store.keys() == []


class DiscardingStore:
    """A store that throws uploads away; it has the attributes of S3Store that Mount needs."""

    def __init__(self):
        self.process = subprocess.Popen([sys.executable, SUPPORT / "discard_server.py"], text=True,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.endpoint = f"http://127.0.0.1:{self.process.stdout.readline().strip()}"
        self.url = "s3://bucket/"
        self.arguments = ["--endpoint", self.endpoint, "--region", "us-east-1"]
        self.environment = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}

    def size(self, key):
        with urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/bucket/{key}", method="HEAD")) as answer:
            return int(answer.headers["X-Size"])

    def stop(self):
        self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()


def usage(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return {"rss_mib": int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) // 1024,
            "threads": int(re.search(r"Threads:\s+(\d+)", status).group(1)),
            "files": len(os.listdir(f"/proc/{pid}/fd"))}


def test_a_very_large_file(directory):
    size_gib = 100 if LONG else 2
    store = DiscardingStore()
    mount = None
    try:
        mount = Mount(store, directory)
        block = os.urandom(4 * MIB)
        seen = []
        with open(mount.path / "huge", "wb", buffering=0) as file:
            for i in range(size_gib * 256):
                assert file.write(block) == len(block)
                if i and i % (size_gib * 32) == 0:
                    seen.append(usage(mount.process.pid))
        print(seen)
        assert store.size("huge") == size_gib << 30
        for what, slack in (("rss_mib", 96), ("threads", 4), ("files", 8)):
            assert seen[-1][what] <= seen[1][what] + slack, (what, seen)
        mount.stop(120)
    finally:
        if mount:
            mount.kill()
        store.stop()


def test_signals_reach_more_writers_than_there_are_workers(directory):
    """With the store silent and the budget full, every thread of the daemon waits: none is left to be told."""
    store = DiscardingStore()
    mount = None
    writers = []
    try:
        mount = Mount(store, directory, "--budget", "16MiB")
        (mount.path / "first").write_bytes(b"x")
        os.kill(store.process.pid, signal.SIGSTOP)
        for i in range(WORKERS + 32):
            writers.append(subprocess.Popen(["dd", "if=/dev/zero", f"of={mount.path / str(i)}", "bs=128K"],
                                            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        wait_for(lambda: usage(mount.process.pid)["threads"] > WORKERS, 20, "all workers wait")
        time.sleep(1)
        assert all(writer.poll() is None for writer in writers)
        began = time.monotonic()
        for writer in writers:
            writer.send_signal(signal.SIGTERM)
        for writer in writers:
            assert writer.wait(max(0.1, began + 10 - time.monotonic())) == -signal.SIGTERM
        print(f"all ended after {time.monotonic() - began:.1f} s")
        os.kill(store.process.pid, signal.SIGCONT)
        mount.stop()
    finally:
        os.kill(store.process.pid, signal.SIGCONT)
        if mount:
            mount.kill()
        for writer in writers:
            writer.kill()
            writer.wait(10)
        store.stop()
