"""Two mounts of one prefix: who may write, and what readers see of it."""
import errno
import os
import signal
import subprocess
import threading
import time

import pytest

from conftest import FileStore, Mount, is_mounted, program, wait_for

KIB = 1 << 10
LONG = os.environ.get("DSTACK_TEST_LONG") == "1"


@pytest.fixture
def mounts(store, directory):
    """mounts(name, *options): a mount of its own directory; all are stopped and checked at the end."""
    started = []

    def start(name, *options):
        place = directory / name
        place.mkdir(exist_ok=True)
        started.append(Mount(store, place, *options))
        return started[-1]

    yield start
    for mount in started:
        if mount.process.poll() is None:
            mount.stop()
        mount.kill()


def refused(store, directory, *options):
    place = directory / "refused"
    place.mkdir(exist_ok=True)
    result = subprocess.run(
        [program("dstack-mount"), store.url, str(place), "-f", *store.arguments, *options],
        env={**os.environ, **store.environment}, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=60)
    assert result.returncode != 0
    assert not is_mounted(place)
    return result.stderr


def test_a_second_writer_is_refused_and_readers_are_not(store, directory, mounts):
    first = mounts("first", "--lease-ttl", "4")
    (first.path / "x").write_text("one")
    message = refused(store, directory, "--lease-ttl", "4")
    assert f"pid {first.process.pid}" in message and "read-only" in message
    message = refused(store, directory, "--mode", "shared")
    assert f"pid {first.process.pid}" in message
    reader = mounts("reader", "--mode", "read-only")
    assert (reader.path / "x").read_text() == "one"
    with pytest.raises(OSError) as error:
        (reader.path / "y").write_text("no")
    assert error.value.errno == errno.EROFS
    first.stop()
    second = mounts("second")
    assert (second.path / "x").read_text() == "one"


def test_a_killed_writer_is_replaced_at_once(store, directory, mounts):
    first = mounts("first")
    (first.path / "x").write_text("saved")
    first.process.kill()
    first.process.wait()
    first.kill()
    began = time.monotonic()
    second = mounts("second")
    assert time.monotonic() - began < 5
    assert (second.path / "x").read_text() == "saved"


# Holds a file open, in a process of its own: a child of ours would close it, and so wait for a daemon
# that sleeps. Writes when it is told to, and says what came of it.
LATE_WRITER = """
import os, sys
handle = os.open(sys.argv[1], os.O_WRONLY)
print("open", flush=True)
sys.stdin.readline()
for step in (lambda: os.write(handle, b"FIRST"), lambda: os.fsync(handle), lambda: os.close(handle)):
    try:
        step()
    except OSError as error:
        print(error.errno, flush=True)
        break
else:
    print(0, flush=True)
"""


def test_a_writer_that_slept_too_long_writes_nothing_more(store, directory, mounts):
    first = mounts("first", "--lease-ttl", "2")
    (first.path / "x").write_text("first")
    late = subprocess.Popen(["python3", "-c", LATE_WRITER, str(first.path / "x")],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert late.stdout.readline() == "open\n"
        first.process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(5)  # the lease lapses; it is of this machine, so only silence tells
            second = mounts("second", "--lease-ttl", "2")
            (second.path / "x").write_text("second")
        finally:
            first.process.send_signal(signal.SIGCONT)
        result, _ = late.communicate("now\n", timeout=30)
        assert int(result) in (errno.ESTALE, errno.EIO)
    finally:
        late.kill()
        late.wait()
    assert store.read("x") == b"second"
    first.process.send_signal(signal.SIGTERM)
    first.process.wait(30)
    assert "taken over" in first.log_path.read_text()
    assert store.read("x") == b"second"


def test_shared_writers_see_each_other(store, mounts):
    one, two = mounts("one", "--mode", "shared"), mounts("two", "--mode", "shared")
    (one.path / "x").write_text("one")
    wait_for(lambda: (two.path / "x").exists(), 5, "the other one's file")
    (two.path / "x").write_text("two, longer")
    wait_for(lambda: (one.path / "x").read_text() == "two, longer", 5, "its new content")
    (two.path / "x").unlink()
    wait_for(lambda: not (one.path / "x").exists(), 5, "that it is gone")


def test_a_log_is_followed_live(store, mounts):
    """tail -f on another mount sees each line within two sync intervals."""
    writer = mounts("writer", "--sync-interval", "1000")
    reader = mounts("reader", "--mode", "read-only", "--attr-ttl", "200")
    delays = []
    with open(writer.path / "log", "w") as log:
        log.write("line 0\n")
        log.flush()
        wait_for(lambda: (reader.path / "log").exists(), 5, "the log")
        tail = subprocess.Popen(["tail", "-n", "+1", "-s", "0.1", "-f", str(reader.path / "log")],
                                stdout=subprocess.PIPE, text=True)
        try:
            assert tail.stdout.readline() == "line 0\n"
            for i in range(1, 9):
                began = time.monotonic()
                log.write(f"line {i}\n")
                log.flush()
                assert tail.stdout.readline() == f"line {i}\n"
                delays.append(time.monotonic() - began)
        finally:
            tail.kill()
            tail.wait()
    assert max(delays) < 2.0, delays


def test_a_replaced_checkpoint_is_never_a_mixture(store, mounts):
    """1,000 replacements (300 on a server) under a reader: it gets one version or ESTALE."""
    size, rounds = 300 * KIB, 1000 if LONG or isinstance(store, FileStore) else 300
    writer = mounts("writer")
    reader = mounts("reader", "--mode", "read-only", "--attr-ttl", "50")
    target = writer.path / "model"
    target.write_bytes(bytes([0]) * size)
    done = threading.Event()
    seen = {"whole": 0, "stale": 0}
    wrong = []

    def read():
        while not done.is_set():
            try:
                with open(reader.path / "model", "rb", buffering=0) as file:
                    data = file.read(size // 2)
                    time.sleep(0.002)
                    while more := file.read(size):  # a read may end early where the next one fails
                        data += more
            except OSError as error:
                if error.errno not in (errno.ESTALE, errno.ENOENT):
                    wrong.append(repr(error))
                seen["stale"] += 1
                continue
            seen["whole"] += 1
            if len(data) != size or len(set(data)) != 1:
                wrong.append(f"{len(data)} bytes of {sorted(set(data))}")

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for i in range(1, rounds + 1):
            (writer.path / "tmp").write_bytes(bytes([i % 256]) * size)
            os.rename(writer.path / "tmp", target)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not wrong, wrong[:5]
    assert seen["whole"] > 10, seen
    assert store.read("model") == bytes([rounds % 256]) * size
