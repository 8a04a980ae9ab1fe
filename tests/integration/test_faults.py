"""Nothing is lost, nothing is wrong, nothing hangs: writers, readers and tree transfers over a proxy that
does harm. What was closed or fsynced is read back through another client, straight from the server.

Seeds are printed; DSTACK_TEST_SEED=N repeats one. DSTACK_TEST_LONG=1: longer, and every fault many times.
"""
import concurrent.futures
import errno
import os
import random
import re
import subprocess
import threading
import time

import pytest

from conftest import Mount, program, wait_for
from fault_proxy import Fault, Proxy, RawProxy, Schedule, s3_error

MIB = 1 << 20
LONG = os.environ.get("DSTACK_TEST_LONG") == "1"
ROUNDS = 40 if LONG else 3
WRITERS = 3
HANG_S = 120            # no call may take longer: a deadline is 60 s and a second for each MiB
SANITIZER = re.compile("sanitizer|runtime error:|critical", re.I)
BODIES = ("put", "part", "commit")
CHANGES = BODIES + ("begin", "copy part", "copy", "delete", "abort", "delete many")
XML = ("list", "begin", "commit", "copy", "copy part")

# Name: (share of the requests, faults).
FAULTS = {
    "reset before the answer": (0.15, [Fault(cut_answer=-1)]),
    "answer lost": (0.15, [Fault(kinds=CHANGES, cut_answer=-1, is_polite=True)]),
    "reset in a request's body": (0.25, [Fault(kinds=BODIES, cut_request="anywhere")]),
    "reset in an answer's body": (0.25, [Fault(cut_answer="anywhere")]),
    "truncated answers": (0.25, [Fault(cut_answer="anywhere", is_polite=True)]),
    "longer than announced": (0.25, [Fault(kinds=XML + ("get",), length=-1)]),
    "shorter than announced": (0.25, [Fault(kinds=XML + ("get",), length=10)]),
    "corrupted requests": (0.25, [Fault(kinds=BODIES, flip_request="anywhere")]),
    "storms of errors": (0.3, [Fault(answer=s3_error(500, "InternalError"), is_carried_out=False),
                               Fault(answer=s3_error(503, "SlowDown"), is_carried_out=False),
                               Fault(answer=s3_error(503, "ServiceUnavailable")),
                               Fault(answer=(502, "<html>bad gateway"), is_carried_out=False)]),
    "errors inside a 200": (0.5, [Fault(kinds=XML[2:], answer=s3_error(200, "InternalError"), is_carried_out=False),
                                  Fault(kinds=XML[2:], answer=s3_error(200, "SlowDown"))]),
    "latency": (1, [Fault(delay_s=0.2)]),
}
CONNECTIONS, WRONG_BODIES = list(FAULTS)[:5], list(FAULTS)[5:8]
FAULTS["ten per cent of everything"] = (0.1, [fault for name in FAULTS for fault in FAULTS[name][1]])
# What is tried each time; the others alone, and longer, with DSTACK_TEST_LONG=1.
SHORT = {
    "connections": (0.2, [fault for name in CONNECTIONS for fault in FAULTS[name][1]]),
    "bodies": (0.2, [fault for name in WRONG_BODIES for fault in FAULTS[name][1]]),
    **{name: FAULTS[name] for name in ("storms of errors", "errors inside a 200", "ten per cent of everything")},
}


def seed():
    number = int(os.environ.get("DSTACK_TEST_SEED", random.randrange(1 << 32)))
    print(f"DSTACK_TEST_SEED={number}")
    return number


class Work:
    """Writers and readers on a mount, and what the store must hold at any time."""

    def __init__(self, store, root, number):
        self.store, self.root, self.number = store, root, number
        self.saved = {}
        self.lock = threading.Lock()
        self.errors = []            # (name, errno): calls that failed
        self.slowest_s = 0

    def call(self, name, function, *arguments):
        """Runs one call of a program; whether it succeeded."""
        began = time.monotonic()
        try:
            function(*arguments)
            return True
        except OSError as error:
            self.errors.append((name, errno.errorcode.get(error.errno, error.errno)))
            return False
        finally:
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)

    def expect(self, name, data):
        """The file was closed or fsynced with success: another client must see all of it."""
        found = self.store.read(name)
        assert found == data, (name, len(data), None if found is None else len(found))
        self.saved[name] = data

    def append(self, name, data, chance):
        with open(self.root / name, "ab", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())
            self.expect(name, self.saved[name] + data)

    def replace(self, name, data, chance):
        temporary = name + ".tmp"
        with open(self.root / temporary, "wb", buffering=0) as file:
            for at in range(0, len(data), MIB):
                file.write(data[at:at + MIB])
        os.rename(self.root / temporary, self.root / name)

    def write(self, name, data, chance):
        with open(self.root / name, "wb", buffering=0) as file:
            for at in range(0, len(data), MIB):
                file.write(data[at:at + MIB])
            if chance.random() < 0.3:
                os.fsync(file.fileno())
                self.expect(name, data)

    def writer(self, index, rounds):
        chance = random.Random(self.number * 100 + index)
        os.mkdir(self.root / f"d{index}")
        for i in range(rounds):
            name = f"d{index}/{chance.randrange(3)}"
            size = chance.choice([0, 100, 70_000, 2 * MIB, 6 * MIB]) if i else 6 * MIB
            data = chance.randbytes(size)
            how = chance.choice([self.write, self.replace, self.append])
            if how == self.append and name not in self.saved:
                how = self.write
            if how == self.append:
                data = data[:70_000]
                after = self.saved[name] + data
            else:
                after = data
            if self.call(name, how, name, data, chance):
                self.expect(name, after)
            else:
                self.saved[name] = after    # it must be saved by itself
        if rounds:
            os.unlink(self.root / name)
            del self.saved[name]
            assert self.store.read(name) is None

    def read(self, name):
        with open(self.root / name, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            data = b""
            while piece := file.read(MIB):
                data += piece
        assert data == self.given[name], name

    def reader(self, index, is_over):
        chance = random.Random(self.number * 100 + 50 + index)
        while not is_over.is_set():
            name = chance.choice(sorted(self.given))
            self.call(name, self.read, name)

    def give(self):
        """What other clients had put there."""
        chance = random.Random(self.number)
        self.given = {f"given/{size}": chance.randbytes(size) for size in (0, 1, 300_000, 9 * MIB)}
        for name, data in self.given.items():
            self.store.put(name, data)

    def run(self, rounds):
        is_over = threading.Event()
        with concurrent.futures.ThreadPoolExecutor(WRITERS + 2) as pool:
            readers = [pool.submit(self.reader, i, is_over) for i in range(2)]
            writers = [pool.submit(self.writer, i, rounds) for i in range(WRITERS)]
            try:
                for writer in writers:
                    writer.result()
            finally:
                is_over.set()
            for reader in readers:
                reader.result()

    def all_is_saved(self):
        return all(self.store.read(name) == data for name, data in self.saved.items())

    def check_end(self, mount):
        """The faults are over: nothing is left of them."""
        wait_for(self.all_is_saved, 30, "what failed to be saved is saved by itself")
        for name in self.given:
            self.read(name)
        mount.stop(bad_log=SANITIZER)
        assert self.all_is_saved()
        assert sorted(self.store.keys()) == sorted({f"d{i}/" for i in range(WRITERS)} | set(self.saved)
                                                   | set(self.given))
        assert uploads(self.store) == []
        assert self.slowest_s < HANG_S


def uploads(store):
    pages = store.client.get_paginator("list_multipart_uploads").paginate(
        Bucket=store.bucket, Prefix=store.prefix)
    return [item["Key"] for page in pages for item in page.get("Uploads", [])]


def fails(function, *arguments):
    """The name of the errno with which it fails."""
    with pytest.raises(OSError) as error:
        function(*arguments)
    return errno.errorcode[error.value.errno]


def read_unsaved(path):
    """Any close of a new file tries to save it, and fails when that does."""
    file = open(path, "rb", buffering=0)
    data = file.readall()
    try:
        file.close()
    except OSError:
        pass
    return data


def through(store, proxy):
    store.arguments = ["--endpoint", proxy.url, "--region", "us-east-1"]
    return store


@pytest.fixture
def s3_mount_at(s3_store, directory):
    mounts = []

    def start(*options):
        mounts.append(Mount(s3_store, directory, "--part-size", "5MiB", *options))
        return mounts[-1]

    yield start
    for mount in mounts:
        mount.kill()


def log_lines(mount):
    return [line for line in mount.log_path.read_text().splitlines() if re.search(r"\b(error|warning)\b", line)]


@pytest.mark.parametrize("name", FAULTS if LONG else SHORT)
def test_faults_that_pass_are_not_seen(name, s3_store, s3_mount_at):
    number = seed()
    schedule = Schedule(number, *{**FAULTS, **SHORT}[name])
    with Proxy(s3_store.endpoint, lambda request: schedule(request)) as proxy:
        work = Work(through(s3_store, proxy), None, number)
        work.give()
        mount = s3_mount_at()
        work.root = mount.path
        work.run(ROUNDS)
        schedule.is_over = True
        assert work.errors == [], log_lines(mount)
        assert log_lines(mount) == []
        work.check_end(mount)
        assert proxy.faults > 0, proxy.seen


def test_an_upload_lost_in_the_store(s3_store, s3_mount_at):
    """Somebody aborted it (a lifecycle rule does): what is not in memory any more is lost, and that is said
    once; nobody else waits for it."""
    mount = s3_mount_at("--budget", "64MiB")
    file = os.open(mount.path / "lost", os.O_WRONLY | os.O_CREAT)
    try:
        for _ in range(80):
            os.write(file, os.urandom(MIB))
        wait_for(lambda: uploads(s3_store), 10, "an upload has begun")
        time.sleep(1)   # the last part is sent too: it is the commit that fails
        for upload in s3_store.client.list_multipart_uploads(
                Bucket=s3_store.bucket, Prefix=s3_store.prefix)["Uploads"]:
            s3_store.client.abort_multipart_upload(Bucket=s3_store.bucket, Key=upload["Key"],
                                                   UploadId=upload["UploadId"])
        for _ in range(2):
            assert fails(os.fsync, file) == "EIO"
        (mount.path / "other").write_bytes(b"x" * 1000)
        assert s3_store.read("other") == b"x" * 1000
        os.ftruncate(file, 0)
        os.pwrite(file, b"anew", 0)
        os.fsync(file)
        assert s3_store.read("lost") == b"anew"
    finally:
        os.close(file)
    assert sum("lost its upload" in line for line in log_lines(mount)) == 1
    mount.stop(bad_log=SANITIZER)


def test_a_begin_whose_answer_is_lost_leaves_no_upload(s3_store, s3_mount_at):
    begins = iter([Fault(cut_answer=-1)])
    with Proxy(s3_store.endpoint, lambda request: next(begins, None) if request.kind == "begin" else None) as proxy:
        through(s3_store, proxy)
        mount = s3_mount_at()
        (mount.path / "file").write_bytes(bytes(6 * MIB))
        assert proxy.seen["begin"] == 2
        mount.stop()
    assert uploads(s3_store) == []


def test_a_store_that_is_gone_for_a_while(s3_store, s3_mount_at):
    """Writes go to memory, fsync waits, and all goes on when it is back."""
    number = seed()
    with Proxy(s3_store.endpoint) as proxy:
        work = Work(through(s3_store, proxy), None, number)
        work.give()
        mount = s3_mount_at()
        work.root = mount.path
        back = threading.Timer(70 if LONG else 3, proxy.back)
        gone = threading.Timer(0.3, lambda: (proxy.gone(), back.start()))
        gone.start()
        work.run(30 if LONG else 3)
        back.join()
        if not LONG:    # a deadline is 60 s
            assert work.errors == [], log_lines(mount)
        work.check_end(mount)


REFUSALS = {
    "AccessDenied": (403, "EACCES"),
    "ExpiredToken": (400, "EACCES"),
    "InvalidAccessKeyId": (403, "EACCES"),
    "QuotaExceeded": (403, "EDQUOT"),
    "InsufficientStorage": (507, "ENOSPC"),
    "InvalidRequest": (400, "EINVAL"),
}


@pytest.mark.parametrize("code", REFUSALS if LONG else ("ExpiredToken", "QuotaExceeded"))
def test_a_store_that_refuses(code, s3_store, s3_mount_at):
    """Never silence: close and fsync say it; the log names each object and the cause once. When the store
    allows it again (more quota, credentials that work), everything is saved by itself."""
    status, expected = REFUSALS[code]
    is_refusing = threading.Event()

    def refuse(request):
        is_lease = request.path.endswith("/lease")
        if is_refusing.is_set() and request.kind in CHANGES and not is_lease:
            return Fault(answer=s3_error(status, code), is_carried_out=False)
        return None

    with Proxy(s3_store.endpoint, refuse) as proxy:
        through(s3_store, proxy)
        mount = s3_mount_at()
        (mount.path / "before").write_bytes(b"old")
        is_refusing.set()
        contents = {"small": b"s" * 1000, "large": os.urandom(12 * MIB), "before": b"new"}
        for name, data in contents.items():
            assert fails((mount.path / name).write_bytes, data) == expected
        assert s3_store.read("before") == b"old" and s3_store.read("small") is None
        time.sleep(3.5)   # it is tried again meanwhile
        for name, data in contents.items():
            assert read_unsaved(mount.path / name) == data
            lines = [line for line in log_lines(mount) if f" {name}:" in line]
            assert all(code in line for line in lines) and len(lines) <= 1, log_lines(mount)
        assert any(" small:" in line for line in log_lines(mount))  # the first: the others come behind it
        is_refusing.clear()
        if expected == "EINVAL":    # for good: nobody asks again but the program
            for name, data in contents.items():
                (mount.path / name).write_bytes(data)
        wait_for(lambda: all(s3_store.read(name) == data for name, data in contents.items()), 15, "all is saved")
        mount.stop(bad_log=SANITIZER)
        assert uploads(s3_store) == []


def test_answers_that_stall_or_trickle(s3_store, s3_mount_at):
    """Below 1 KiB/s for 10 s counts as failed: nobody waits for a minute."""
    slow = {"stalled": Fault(delay_s=60), "trickle": Fault(bytes_s=1)}
    first = {("put", "stalled"), ("get", "stalled"), ("get", "trickle")}
    data = os.urandom(70_000)

    def once(request):
        name = request.path.rsplit("/", 1)[1]
        if (request.kind, name) not in first:
            return None
        first.discard((request.kind, name))
        return slow[name]

    for name in slow:
        s3_store.put(name, data)
    with Proxy(s3_store.endpoint, once) as proxy, concurrent.futures.ThreadPoolExecutor(4) as pool:
        through(s3_store, proxy)
        mount = s3_mount_at()
        os.mkdir(mount.path / "d")
        began = time.monotonic()
        reads = [pool.submit((mount.path / name).read_bytes) for name in slow]
        write = pool.submit((mount.path / "d/stalled").write_bytes, data)
        assert [read.result(60) for read in reads] == [data, data]
        write.result(60)
        assert s3_store.read("d/stalled") == data
        assert not {("put", "stalled"), ("get", "trickle")} & first
        assert 5 < time.monotonic() - began < 30
        mount.stop()


@pytest.mark.skipif("DSTACK_TEST_RGW_TLS" not in os.environ, reason="needs the server's TLS port")
def test_bytes_changed_under_tls(s3_store, s3_mount_at):
    """Over https no changed byte passes, in either direction."""
    number = seed()
    with RawProxy(os.environ["DSTACK_TEST_RGW_TLS"], number, 0.4) as proxy:
        work = Work(through(s3_store, proxy), None, number)
        work.give()
        mount = s3_mount_at("--cacert", os.environ["DSTACK_TEST_RGW_CACERT"])
        work.root = mount.path
        for _ in range(10):     # the chance of none is small, and not zero
            work.run(ROUNDS * 2)
            if proxy.faults:
                break
        proxy.share = 0
        assert work.errors == [], log_lines(mount)
        work.check_end(mount)
        assert proxy.faults > 0


def tree_of(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("name", FAULTS if LONG else ("ten per cent of everything",))
def test_trees_there_and_back(name, s3_store, directory):
    number = seed()
    chance = random.Random(number)
    tree = directory / "from"
    for i in range(60):
        file = tree / f"d{i % 3}" / f"{i}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(chance.randbytes(chance.choice([0, 10, 40_000])))
    (tree / "large").write_bytes(chance.randbytes(40 * MIB))    # in parts
    schedule = Schedule(number, *FAULTS[name])
    url = f"s3://{s3_store.bucket}"
    with Proxy(s3_store.endpoint, schedule) as proxy:
        for way, path in (("up", tree), ("down", directory / "to")):
            result = subprocess.run(
                [program("store_transfer"), way, str(path), url, proxy.url, s3_store.prefix],
                env={**os.environ, **s3_store.environment}, stdin=subprocess.DEVNULL, capture_output=True,
                text=True, timeout=HANG_S)
            assert result.returncode == 0, result.stderr
        assert proxy.faults > 0
    assert tree_of(directory / "to") == tree_of(tree)
    assert {key: s3_store.read(key) for key in s3_store.keys()} == tree_of(tree)
