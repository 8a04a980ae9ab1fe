"""Ends that nobody planned: the daemon or the server killed at any moment, unmounts under busy writers, no
descriptors, full disks. What was closed or fsynced is there afterwards; all else is its old self or whole.
"""
import concurrent.futures
import errno
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import pytest

from conftest import FileStore, Mount, S3Store, is_mounted, wait_for
from fault_proxy import Proxy
from test_faults import LONG, MIB, SANITIZER, seed, through, uploads

ROOT = pathlib.Path(__file__).parents[2]
OPTIONS = ("--part-size", "5MiB", "--sync-interval", "60000")


# What a mount says of files that an earlier one had not saved (test_journal.py looks at them).
RECOVERED = re.compile(r"\berror\b(?!.* is not recovered)|\bwarning\b(?! recovered|.* was still being written)"
                       r"|another client|critical|sanitizer|runtime error")


class Record:
    """What each file may hold: the last content that was closed or fsynced, and what was tried since."""

    def __init__(self):
        self.saved = {}
        self.tried = {}

    def may_be(self, name):
        return {self.saved.get(name), *self.tried.get(name, ())}


def write_on(root, record, index, chance, is_over):
    """Writes until the mount is gone; RECORD is told before and after."""
    try:
        while not is_over.is_set():
            name = f"{index}-{chance.randrange(3)}"
            data = chance.randbytes(chance.choice([1000, 100_000, 6 * MIB, 12 * MIB]))
            path = root / name
            record.tried[name] = [data]
            if chance.random() < 0.3:
                path = root / f"{name}.tmp"
                record.tried[path.name] = [data, None]
            with open(path, "wb", buffering=0) as file:
                for at in range(0, len(data), MIB):
                    file.write(data[at:at + MIB])
                if chance.random() < 0.3:
                    os.fsync(file.fileno())
            if path.name != name:
                os.rename(path, root / name)
            record.saved[name] = data
            record.tried[name] = []
    except OSError as error:
        assert error.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.EINTR), error


def check(store, record, root):
    for name in set(record.tried) | set(record.saved):
        found = store.read(name)
        assert found in record.may_be(name), (name, found and len(found))
        assert (root / name).exists() == (found is not None)
        if found is not None:
            assert (root / name).read_bytes() == found
            record.saved[name] = found
        else:
            record.saved.pop(name, None)
        record.tried[name] = []


def test_kill_9_at_any_moment(s3_store, directory):
    number = seed()
    chance = random.Random(number)
    record = Record()
    mount = Mount(s3_store, directory, *OPTIONS)
    try:
        for _ in range(100 if LONG else 6):
            is_over = threading.Event()
            with concurrent.futures.ThreadPoolExecutor(3) as pool:
                work = [pool.submit(write_on, mount.path, record, i, random.Random(chance.random()), is_over)
                        for i in range(3)]
                time.sleep(chance.uniform(0.02, 0.6))
                mount.process.kill()
                mount.process.wait(10)
                is_over.set()
                for one in work:
                    one.result(30)
            mount.log.close()
            subprocess.run(["fusermount3", "-u", str(mount.path)], check=True, timeout=10)
            began = time.monotonic()
            mount = Mount(s3_store, directory, *OPTIONS)    # the same host's dead process: at once
            assert time.monotonic() - began < 30
            assert uploads(s3_store) == []
            assert s3_store.keys(".dstack-mount/") == [".dstack-mount/lease"]
            check(s3_store, record, mount.path)
        mount.stop(bad_log=RECOVERED)
    finally:
        mount.kill()
    assert record.saved and s3_store.keys(".dstack-mount/") == []


def dirty_mount(s3_store, directory, proxy, mib, *options):
    """A mount with MIB of data that cannot be saved, since the store is gone; the files are open."""
    through(s3_store, proxy)
    mount = Mount(s3_store, directory, "--sync-interval", "60000", *options)
    try:
        files = [os.open(mount.path / f"f{i}", os.O_WRONLY | os.O_CREAT) for i in range(4)]
        proxy.gone()
        for i, file in enumerate(files):
            for _ in range(mib // 4):
                assert os.write(file, bytes([i]) * MIB) == MIB
    except BaseException:
        mount.kill()
        raise
    return mount, files


def close_all(files):
    for file in files:
        try:
            os.close(file)
        except OSError:
            pass    # the mount is gone


def test_sigterm_saves_what_is_dirty(s3_store, directory):
    mib = 400 if LONG else 80
    with Proxy(s3_store.endpoint) as proxy:
        mount, files = dirty_mount(s3_store, directory, proxy, mib, "--budget", "600MiB")
        try:
            mount.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert mount.process.poll() is None
            proxy.back()
            assert mount.process.wait(60) == 0, mount.log_path.read_text()
        finally:
            close_all(files)
            mount.kill()
    for i in range(4):
        assert s3_store.read(f"f{i}") == bytes([i]) * (mib // 4 * MIB)
    assert uploads(s3_store) == []


def test_a_drain_timeout_ends_in_time_and_names_what_is_not_saved(s3_store, directory):
    with Proxy(s3_store.endpoint) as proxy:
        mount, files = dirty_mount(s3_store, directory, proxy, 40, "--drain-timeout", "2")
        try:
            began = time.monotonic()
            mount.process.send_signal(signal.SIGTERM)
            assert mount.process.wait(20) == 1
            assert time.monotonic() - began < 4
            assert not is_mounted(mount.path)
        finally:
            close_all(files)
            mount.kill()
    log = mount.log_path.read_text()
    status = json.loads(mount.status_file.read_text())
    assert status["state"] == "failed"
    for i in range(4):
        assert f"not saved: f{i}\n" in log
        assert f"f{i}" in json.dumps(status)


def test_no_descriptors_are_left(s3_store, directory):
    mount = Mount(s3_store, directory, *OPTIONS)
    try:
        limits = resource.prlimit(mount.process.pid, resource.RLIMIT_NOFILE)
        used = len(os.listdir(f"/proc/{mount.process.pid}/fd"))
        resource.prlimit(mount.process.pid, resource.RLIMIT_NOFILE, (used, limits[1]))
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            contents = {f"f{i}": os.urandom(7 * MIB) for i in range(6)}
            writes = [pool.submit((mount.path / name).write_bytes, data) for name, data in contents.items()]
            time.sleep(1)
            resource.prlimit(mount.process.pid, resource.RLIMIT_NOFILE, limits)
            for write in writes:
                write.result(60)
        for name, data in contents.items():
            assert s3_store.read(name) == data
        mount.stop(bad_log=SANITIZER)
    finally:
        mount.kill()


@pytest.fixture
def small_disk(directory):
    path = directory / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)], check=True)
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.skipif("os.geteuid() != 0", reason="mounts a small disk")
def test_a_full_disk(small_disk):
    """Both the store and the status file are on it: the writer is told, and all is saved when there is room."""
    store = FileStore(small_disk)
    mount = Mount(store, small_disk)
    try:
        ballast = small_disk / "ballast"
        with pytest.raises(OSError):
            ballast.write_bytes(bytes(3 * MIB))
        with pytest.raises(OSError) as error:
            (mount.path / "file").write_bytes(b"x" * 500_000)
        assert error.value.errno == errno.ENOSPC
        ballast.unlink()
        wait_for(lambda: store.read("file") == b"x" * 500_000, 10, "it is saved when there is room")
        mount.stop(bad_log=SANITIZER)
    finally:
        mount.kill()


@pytest.mark.parametrize("option", ["-u", "-uz"])
def test_unmounts_under_busy_writers(option, s3_store, directory):
    mount = Mount(s3_store, directory, *OPTIONS)
    try:
        files = [os.open(mount.path / f"f{i}", os.O_WRONLY | os.O_CREAT) for i in range(3)]
        unmounted = threading.Event()

        def write(file):
            for i in range(12):
                os.write(file, bytes([i]) * MIB)
                if i == 6:
                    unmounted.wait(10)
            os.fsync(file)
            os.close(file)

        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            work = [pool.submit(write, file) for file in files]
            result = subprocess.run(["fusermount3", option, str(mount.path)], capture_output=True, timeout=10)
            assert (result.returncode == 0) == (option == "-uz"), result.stderr
            unmounted.set()
            for one in work:
                one.result(60)
        if option == "-u":
            assert "busy" in result.stderr.decode()
            mount.stop()
        else:
            assert mount.process.wait(30) == 0, mount.log_path.read_text()  # with the last file
        for i in range(3):
            assert s3_store.read(f"f{i}") == b"".join(bytes([n]) * MIB for n in range(12))
        assert uploads(s3_store) == [] and s3_store.keys(".dstack-mount/") == []
    finally:
        mount.kill()


class Server:
    """A gateway of our own, with data on a disk, whose processes can be killed and started again."""

    def __init__(self, path):
        self.path = path
        self.port = subprocess.check_output([ROOT / "scripts/servers/free-ports"], text=True).strip()
        subprocess.run([ROOT / "scripts/servers/ceph-rgw", path, self.port, "bluestore"], check=True, timeout=90)
        self.commands = [pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1] for pid in self.pids()]
        self.processes = []

    def pids(self):
        return [int(pid) for pid in (self.path / "pids").read_text().split()]

    def kill(self):
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not any(pathlib.Path(f"/proc/{pid}/exe").exists() for pid in self.pids()), 10, "it is gone")
        for process in self.processes:
            process.wait(10)

    def start(self):
        self.processes = [subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                           stderr=subprocess.DEVNULL, start_new_session=True)
                          for command in self.commands]
        (self.path / "pids").write_text("".join(f"{process.pid}\n" for process in self.processes))

    def stop(self):
        subprocess.run([ROOT / "scripts/servers/stop", self.path], check=True, timeout=30)
        for process in self.processes:
            process.wait(10)


def has_upload(store, key):
    """Whether there is one. A gateway killed at the end of a commit may list for ever what is gone."""
    for upload in store.client.list_multipart_uploads(Bucket=store.bucket, Prefix=key)["Uploads"]:
        try:
            print(store.client.list_parts(Bucket=store.bucket, Key=key, UploadId=upload["UploadId"]))
            return True
        except store.client.exceptions.NoSuchUpload:
            print(f"listed, and gone: {upload}")
    return False


@pytest.mark.skipif(not LONG, reason="a server of its own: half a minute")
def test_the_server_is_killed_under_eight_writers(directory, monkeypatch):
    path = pathlib.Path(tempfile.mkdtemp(prefix="dk", dir="/tmp"))  # short: it holds sockets
    server = Server(path)
    mount = None
    try:
        monkeypatch.setenv("DSTACK_TEST_RGW", f"http://127.0.0.1:{server.port}")
        monkeypatch.setenv("DSTACK_TEST_RGW_KEY", "testkey")
        monkeypatch.setenv("DSTACK_TEST_RGW_SECRET", "testsecret")
        store = S3Store()
        store.client.create_bucket(Bucket=store.bucket)
        mount = Mount(store, directory, *OPTIONS, "--lease-ttl", "4")
        saved = {}

        def write(index):
            chance = random.Random(index)
            for i in range(12):
                name, data = f"{index}-{i}", chance.randbytes(chance.choice([1000, 6 * MIB, 12 * MIB]))
                (mount.path / name).write_bytes(data)
                saved[name] = data

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            work = [pool.submit(write, i) for i in range(8)]
            for _ in range(2):
                time.sleep(2)
                server.kill()
                durable = dict(saved)
                time.sleep(2)
                server.start()
            try:
                for one in work:
                    one.result(180)
            except BaseException:
                print(mount.status(), mount.log_path.read_text())
                mount.kill()    # else the writers wait, and we for them
                raise
        assert len(durable) > 0
        for name, data in saved.items():
            assert store.read(name) == data, name
        mount.stop(bad_log=SANITIZER)
        assert [key for key in uploads(store) if has_upload(store, key)] == []
    finally:
        if mount:
            mount.kill()
        server.stop()
        shutil.rmtree(path, ignore_errors=True)
