"""What was written and not yet saved outlives a mount that is killed: the next one saves it."""
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import time

import pytest

from conftest import Mount, program, wait_for

MIB = 1 << 20
NEVER = ("--sync-interval", "3600000")


class World:
    """Mounts of one store that are killed, and mounted again with the same journal."""

    def __init__(self, store, directory):
        self.store, self.directory = store, directory
        self.journal = directory / "journal"
        self.mount = None
        self.files = []

    def start(self, *options):
        self.mount = Mount(self.store, self.directory, "--journal", str(self.journal), *options)
        self.root = self.mount.path
        return self.root

    def open(self, name, flags=os.O_WRONLY | os.O_CREAT):
        self.files.append(os.open(self.root / name, flags, 0o644))
        return self.files[-1]

    def crash(self):
        self.mount.kill()
        for file in self.files:
            with contextlib.suppress(OSError):
                os.close(file)  # the mount is gone
        self.files = []

    def recover(self, *options):
        """Mounts again; returns what the status file says of it."""
        self.start(*options)
        return self.mount.status()["recovered"]

    def stop(self):
        """Unmounts; nothing is left of what any mount had under way."""
        for file in self.files:
            os.close(file)
        self.files = []
        self.mount.process.send_signal(signal.SIGTERM)
        code = self.mount.process.wait(60)
        self.mount.kill()
        log = self.mount.log_path.read_text()
        assert code == 0, log
        assert not re.search(r"\berror\b|sanitizer|runtime error", log, re.I), log
        assert list(self.journal.iterdir()) == [], log
        assert [key for key in self.store.keys() if key.startswith(".dstack-mount/")] == []
        assert uploads(self.store) == []


def uploads(store):
    if not hasattr(store, "client"):
        return []  # a temporary file each: keys() does not see them, nor is it ours to
    answer = store.client.list_multipart_uploads(Bucket=store.bucket, Prefix=store.prefix)
    return answer.get("Uploads", [])


@pytest.fixture
def world(store, directory):
    world = World(store, directory)
    yield world
    if world.mount:
        world.crash()


def noise(size, seed=0):
    return random.Random(seed).randbytes(size)


def write_all(file, data):
    view = memoryview(data)
    while view:
        view = view[os.write(file, view[:MIB]):]


def test_a_slow_log_keeps_its_last_lines(world):
    world.start()
    log = world.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(log, b"one\n")
    wait_for(lambda: world.store.read("log") == b"one\n", 5, "the log is published")
    os.write(log, b"two\n")
    os.write(log, b"three\n")
    world.crash()
    recovered = world.recover()
    assert world.store.read("log") == b"one\ntwo\nthree\n"
    assert recovered["aside"] == recovered["lost"] == []
    assert "that an earlier mount had not saved" in world.mount.log_path.read_text()
    with open(world.root / "log", "ab") as file:
        file.write(b"four\n")
    assert world.store.read("log") == b"one\ntwo\nthree\nfour\n"
    world.stop()


@pytest.mark.parametrize("size", [300, 24 * MIB])
def test_what_was_still_being_written_is_saved_beside(world, size):
    """A new file, and one that is rewritten: nobody sees them half-made."""
    data, again = noise(size), noise(size, 1)
    world.start(*NEVER)
    (world.root / "old").write_bytes(b"whole")
    write_all(world.open("new"), data)
    write_all(world.open("old", os.O_WRONLY | os.O_TRUNC), again)
    time.sleep(0.5)  # parts go up
    world.crash()
    recovered = world.recover()
    assert world.store.read("new") is None
    assert world.store.read("old") == b"whole"
    assert world.store.read("new.recovered") == data
    assert world.store.read("old.recovered") == again
    assert (world.root / "new.recovered").read_bytes() == data
    assert sorted(recovered["aside"]) == ["new.recovered", "old.recovered"]
    assert recovered["files"] == 2 and recovered["bytes"] == 2 * size
    world.stop()


def test_a_name_that_is_taken_gets_a_number(world):
    world.start(*NEVER)
    (world.root / "f.recovered").write_bytes(b"mine")
    os.write(world.open("f"), b"data")
    world.crash()
    assert world.recover()["aside"] == ["f.recovered-2"]
    assert world.store.read("f.recovered") == b"mine"
    assert world.store.read("f.recovered-2") == b"data"
    world.stop()


def fsync_in_vain(world, file):
    """An fsync that is under way when the mount is killed."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(OSError):
            os.fsync(file)
        os._exit(0)
    time.sleep(0.5)
    world.crash()
    os.waitpid(pid, 0)


def test_an_upload_is_finished_where_the_store_was_lost(s3_store, directory):
    """More than fits into memory: most of it is nowhere but in parts."""
    data = noise(96 * MIB)
    world = World(s3_store, directory)
    with Gate(s3_store) as gate:
        world.start("--budget", "64MiB", *NEVER)
        (world.root / "f").write_bytes(b"old")
        file = world.open("f", os.O_WRONLY | os.O_TRUNC)
        write_all(file, data)
        gate.close()
        fsync_in_vain(world, file)
        assert s3_store.read("f") == b"old"
        assert len(uploads(s3_store)) == 1
        gate.open()
        recovered = world.recover("--budget", "64MiB")
        assert s3_store.read("f") == data
        assert recovered["aside"] == recovered["lost"] == []
        assert world.mount.peak_rss_bytes() < (64 + 64) * MIB
        world.stop()


def test_a_recovery_that_is_interrupted_or_killed_is_done_again(s3_store, directory):
    data = noise(MIB // 2)
    world = World(s3_store, directory)
    with Gate(s3_store) as gate:
        world.start(*NEVER)
        for i in range(20):
            write_all(world.open(f"f{i:02}"), data)
        world.crash()
        left = sorted(world.journal.iterdir())
        gate.delay_s = 0.03
        for number in (signal.SIGKILL, signal.SIGTERM):
            (directory / "status.json").unlink(missing_ok=True)
            process = subprocess.Popen(
                [program("dstack-mount"), s3_store.url, str(directory / "mnt"), "-f", "--journal",
                 str(world.journal), *s3_store.arguments],
                env={**os.environ, **s3_store.environment}, stderr=subprocess.DEVNULL)
            seen = len(s3_store.keys("f"))
            try:
                wait_for(lambda: len(s3_store.keys("f")) > seen, 20, "some of it is recovered")
                process.send_signal(number)
                process.wait(20)
            finally:
                process.kill()
                process.wait(10)
            assert set(left) <= set(world.journal.iterdir())
        gate.delay_s = 0
        world.recover()
        assert sorted(s3_store.keys("f")) == [f"f{i:02}.recovered" for i in range(20)]
        assert all(s3_store.read(key) == data for key in s3_store.keys("f"))
        world.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tmpfs")
def test_a_full_tmpfs_is_said_and_costs_nothing_else(world):
    data = noise(24 * MIB)
    world.journal.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m,mode=700", "none", world.journal],
                   check=True)
    try:
        world.start(*NEVER)
        write_all(world.open("f"), data)
        world.files = [os.close(file) for file in world.files][:0]
        assert world.store.read("f") == data
        assert world.mount.log_path.read_text().count("would not survive a crash") == 1
        small = world.open("small")
        os.write(small, b"small")
        world.crash()
        world.recover()
        assert world.store.read("small.recovered") == b"small"
        world.stop()
    finally:
        world.crash()
        subprocess.run(["umount", world.journal], check=True)


def test_changes_in_the_middle_truncate_and_extend(world):
    """Overwritten and cut in place: beside, with what was there before where it was not changed."""
    before = noise(20 * MIB)
    world.start(*NEVER)
    (world.root / "f").write_bytes(before)
    file = world.open("f", os.O_RDWR)
    os.pwrite(file, b"x" * 5000, 7 * MIB)
    os.pwrite(file, b"y" * 10, 100)
    os.ftruncate(file, 15 * MIB)
    os.ftruncate(file, 16 * MIB)
    os.pwrite(file, b"z", 16 * MIB + 10)
    expected = bytearray(before)
    expected[7 * MIB:7 * MIB + 5000] = b"x" * 5000
    expected[100:110] = b"y" * 10
    expected = bytes(expected[:15 * MIB]) + bytes(MIB + 10) + b"z"
    world.crash()
    world.recover()
    assert world.store.read("f") == before
    assert world.store.read("f.recovered") == expected
    world.stop()


def test_renamed_and_removed_files(world):
    world.start(*NEVER)
    (world.root / "d").mkdir()
    for name in ("moved", "gone", "d/inside"):
        (world.root / name).write_bytes(b"first ")
        os.write(world.open(name, os.O_WRONLY | os.O_APPEND), b"second ")
    os.rename(world.root / "moved", world.root / "there")
    os.rename(world.root / "d", world.root / "e")
    os.unlink(world.root / "gone")
    for file in world.files:
        os.write(file, b"third")
    world.crash()
    recovered = world.recover()
    assert recovered["files"] == 2 and recovered["aside"] == recovered["lost"] == []
    assert world.store.read("there") == world.store.read("e/inside") == b"first second third"
    assert [world.store.read(key) for key in ("moved", "gone", "d/inside")] == [None] * 3
    assert sorted(os.listdir(world.root)) == ["e", "there"]
    world.stop()


def test_attributes_and_metadata_come_back(world):
    world.start(*NEVER)
    (world.root / "f").write_bytes(b"one")
    file = world.open("f", os.O_WRONLY | os.O_APPEND)
    os.write(file, b"two")
    os.fchmod(file, 0o640)
    os.setxattr(world.root / "f", "user.a", b"b")
    os.utime(world.root / "f", ns=(10**18, 10**18 + 7))
    world.crash()
    world.recover()
    state = os.stat(world.root / "f")
    assert (world.root / "f").read_bytes() == b"onetwo"
    assert state.st_mode & 0o7777 == 0o640 and state.st_mtime_ns == 10**18 + 7
    assert os.getxattr(world.root / "f", "user.a") == b"b"
    world.stop()


def test_two_crashes_in_a_row(world):
    world.start()
    (world.root / "log").write_bytes(b"0")
    os.write(world.open("log", os.O_WRONLY | os.O_APPEND), b"1")
    world.crash()
    world.recover(*NEVER)
    os.write(world.open("log", os.O_WRONLY | os.O_APPEND), b"2")
    os.write(world.open("new"), b"new")
    world.crash()
    world.recover()
    assert world.store.read("log") == b"012"
    assert world.store.read("new.recovered") == b"new"
    world.stop()


def test_another_client_changed_it_meanwhile(world):
    world.start(*NEVER)
    (world.root / "f").write_bytes(b"ours")
    os.write(world.open("f", os.O_WRONLY | os.O_TRUNC), b"ours, longer")
    world.crash()
    world.store.put("f", b"theirs")
    world.recover()
    assert world.store.read("f") == b"theirs"
    assert world.store.read("f.recovered") == b"ours, longer"
    world.stop()


def test_no_journal_and_read_only_leave_it_alone(world):
    world.start(*NEVER)
    os.write(world.open("f"), b"data")
    world.crash()
    left = list(world.journal.iterdir())
    assert len(left) == 1 and left[0].stat().st_mode & 0o777 == 0o600
    for options in (("--no-journal",), ("--mode", "read-only"), ("--mode", "shared")):
        mount = Mount(world.store, world.directory, *options)
        assert os.listdir(mount.path) == []
        mount.stop()
        assert list(world.journal.iterdir()) == left
    assert world.recover()["aside"] == ["f.recovered"]
    world.stop()


def test_a_directory_of_others_is_not_used(world):
    world.journal.mkdir(mode=0o755)
    mountpoint = world.directory / "mnt"
    mountpoint.mkdir()
    result = subprocess.run(
        [program("dstack-mount"), world.store.url, mountpoint, "-f", "--journal", world.journal,
         *world.store.arguments], env={**os.environ, **world.store.environment},
        capture_output=True, text=True, timeout=30)
    assert result.returncode == 1 and "not ours alone" in result.stderr
    link = world.directory / "link"
    target = world.directory / "target"
    target.mkdir(mode=0o700)
    link.symlink_to(target)
    world.store.environment["DSTACK_JOURNAL_DIR"] = str(link)
    mount = Mount(world.store, world.directory)
    try:
        assert "would not survive a crash" in mount.log_path.read_text()
        (mount.path / "f").write_bytes(b"data")
        assert world.store.read("f") == b"data"
        assert list(target.iterdir()) == []
    finally:
        mount.kill()
        del world.store.environment["DSTACK_JOURNAL_DIR"]


def test_a_mount_that_fails_leaves_the_rename_of_a_dead_one_to_the_next(s3_store, directory):
    world = World(s3_store, directory)
    dead = {"version": 1, "owner": "dead", "host": "elsewhere", "machine": "elsewhere", "pid": 1, "start_ticks": 1,
            "since": "", "beats": 1, "ttl_ms": 1000, "uploads": [], "renames": [{"from": "from/", "to": "to/"}]}
    world.store.put("from/file", b"moved")
    world.store.put(".dstack-mount/lease", json.dumps(dead).encode())
    (world.directory / "mnt").mkdir()
    for bad in (["--journal", "/proc/journal"], ["-o", "nonsense=1"]):
        result = subprocess.run(
            [program("dstack-mount"), world.store.url, str(world.directory / "mnt"), "-f", *world.store.arguments,
             "--journal", str(world.journal), *bad],
            env={**os.environ, **world.store.environment}, capture_output=True, text=True, timeout=60)
        assert result.returncode == 1, result.stderr
    world.start()
    assert (world.root / "to" / "file").read_bytes() == b"moved"
    assert not (world.root / "from").exists()
    world.stop()


def test_what_nobody_comes_back_for_is_removed(world):
    world.journal.mkdir(mode=0o700)
    for name, days in (("old", 15), ("young", 13)):
        (world.journal / name).write_bytes(b"")
        then = time.time() - days * 86400
        os.utime(world.journal / name, (then, then))
    world.store.environment["DSTACK_JOURNAL_DIR"] = str(world.journal)
    mount = Mount(world.store, world.directory)
    try:
        names = [path.name for path in world.journal.iterdir()]
        assert "young" in names and "old" not in names and len(names) == 2
    finally:
        mount.kill()
        del world.store.environment["DSTACK_JOURNAL_DIR"]


def test_a_drain_that_fails_leaves_it_to_the_next_mount(s3_store, directory):
    """The store does not answer: what was closed with an error is there after the next mount."""
    with Gate(s3_store) as gate:
        world = World(s3_store, directory)
        world.start("--drain-timeout", "1", *NEVER)
        (world.root / "log").write_bytes(b"one ")
        file = world.open("log", os.O_WRONLY | os.O_APPEND)
        os.write(file, b"two")
        gate.close()
        world.mount.process.send_signal(signal.SIGTERM)
        assert world.mount.process.wait(60) == 1
        assert "log" in world.mount.status()["unsaved"]
        world.crash()
        gate.open()
        world.recover()
        assert s3_store.read("log") == b"one two"
        world.stop()


class Gate:
    """A port that passes on to the store, or refuses."""

    def __init__(self, store):
        import socket
        import threading
        import urllib.parse
        self.store, self.socket_module, self.threading = store, socket, threading
        target = urllib.parse.urlparse(store.endpoint)
        self.target = (target.hostname, target.port)
        self.is_open, self.stopping = True, False
        self.pairs = []
        self.delay_s = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.arguments = store.arguments
        store.arguments = ["--endpoint", "http://127.0.0.1:%d" % self.listener.getsockname()[1],
                           "--region", "us-east-1"]

    def __enter__(self):
        self.thread = self.threading.Thread(target=self.accept, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping = True
        with contextlib.suppress(OSError):
            self.listener.shutdown(self.socket_module.SHUT_RDWR)
        self.listener.close()
        self.cut()
        self.thread.join(5)
        self.store.arguments = self.arguments

    def accept(self):
        while not self.stopping:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if not self.is_open:
                client.close()
                continue
            server = self.socket_module.create_connection(self.target)
            self.pairs.append((client, server))
            for a, b in ((client, server), (server, client)):
                self.threading.Thread(target=self.copy, args=(a, b), daemon=True).start()

    def copy(self, source, to):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                time.sleep(self.delay_s)
                to.sendall(data)
        for end in (source, to):
            with contextlib.suppress(OSError):
                end.shutdown(self.socket_module.SHUT_RDWR)

    def cut(self):
        for pair in self.pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(self.socket_module.SHUT_RDWR)
        self.pairs = []

    def close(self):
        self.is_open = False
        self.cut()

    def open(self):
        self.is_open = True
