"""What programs see through a mount, and what another client sees in the store."""
import concurrent.futures
import hashlib
import os
import subprocess
import time

import pytest

from conftest import FileStore, is_mounted, mounting, program, wait_for

MIB = 1 << 20


def write_random(path, size, seed):
    """Writes SIZE bytes in 1 MiB pieces, fsyncs, and returns their SHA-256."""
    digest = hashlib.sha256()
    block = bytearray(hashlib.shake_256(str(seed).encode()).digest(MIB))
    with open(path, "wb", buffering=0) as file:
        for i in range(size // MIB):
            block[:8] = i.to_bytes(8, "little")
            digest.update(block)
            assert file.write(block) == len(block)
        os.fsync(file.fileno())
    return digest.hexdigest()


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while block := file.read(MIB):
            digest.update(block)
    return digest.hexdigest()


def test_large_file_is_the_same_here_and_in_the_store(store, mount_at):
    mount = mount_at()
    written = write_random(mount.path / "large", 1024 * MIB, 1)
    assert hashlib.sha256(store.read("large")).hexdigest() == written
    assert sha256(mount.path / "large") == written
    assert mount.peak_rss_bytes() < (512 + 64) * MIB
    mount.stop()
    again = mount_at()
    assert sha256(again.path / "large") == written


def test_eight_writers_at_once(store, mount_at):
    mount = mount_at("--budget", "128MiB")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        written = list(pool.map(lambda i: write_random(mount.path / f"f{i}", 128 * MIB, i), range(8)))
    for i, digest in enumerate(written):
        assert hashlib.sha256(store.read(f"f{i}")).hexdigest() == digest
        assert sha256(mount.path / f"f{i}") == digest
    assert mount.peak_rss_bytes() < (128 + 64) * MIB


def test_close_is_durable(store, mount_at):
    mount = mount_at()
    (mount.path / "a").write_bytes(b"first")
    assert store.read("a") == b"first"
    (mount.path / "a").write_bytes(b"second, longer")
    assert store.read("a") == b"second, longer"
    (mount.path / "empty").write_bytes(b"")
    assert store.read("empty") == b""


def test_names_and_directories(store, mount_at):
    root = mount_at().path
    names = ["a b", "x=1+2*3", "50%", "naïve-日本", "#?&", "dot."]
    (root / "d" / "e").mkdir(parents=True)
    for name in names:
        (root / "d" / name).write_text(name)
        assert store.read(f"d/{name}") == name.encode()
    assert sorted(os.listdir(root / "d")) == sorted(names + ["e"])
    with pytest.raises(OSError, match="not empty"):
        (root / "d").rmdir()
    (root / "d" / "e").rmdir()
    for name in names:
        (root / "d" / name).unlink()
        assert store.read(f"d/{name}") is None
    (root / "d").rmdir()
    assert os.listdir(root) == []


def test_rename_replaces_and_moves_directories(store, mount_at):
    root = mount_at().path
    (root / "old").write_text("old")
    (root / "new").write_text("new")
    os.rename(root / "new", root / "old")
    assert (root / "old").read_text() == "new"
    assert store.read("old") == b"new" and store.read("new") is None
    (root / "d").mkdir()
    (root / "d" / "x").write_text("x")
    os.rename(root / "d", root / "moved")
    assert (root / "moved" / "x").read_text() == "x"
    assert store.read("moved/x") == b"x" and store.read("d/x") is None


def test_append_truncate_and_unlink_while_open(store, mount_at):
    root = mount_at().path
    (root / "f").write_text("one")
    with open(root / "f", "a") as file:
        file.write("two")
    assert store.read("f") == b"onetwo"
    os.truncate(root / "f", 2)
    assert (root / "f").read_bytes() == b"on"
    os.truncate(root / "f", 4)
    assert (root / "f").read_bytes() == b"on\0\0"
    assert store.read("f") == b"on\0\0"
    with open(root / "f", "rb") as file:
        (root / "f").unlink()
        assert file.read() == b"on\0\0"
    assert not (root / "f").exists() and store.read("f") is None


def test_mode_and_times_outlive_the_mount(store, mount_at):
    mount = mount_at()
    file = mount.path / "script"
    file.write_text("#!/bin/sh\n")
    file.chmod(0o750)
    os.utime(file, ns=(1_000_000_000_123456789, 1_500_000_000_123456789))
    mount.stop()
    state = os.stat(mount_at().path / "script")
    assert state.st_mode & 0o7777 == 0o750
    assert state.st_mtime_ns == 1_500_000_000_123456789


def test_a_growing_file_is_published_while_open(store, mount_at):
    root = mount_at().path
    with open(root / "log", "w") as file:
        for text in ("one\n", "one\ntwo\n"):
            file.write(text[-4:])
            file.flush()
            wait_for(lambda: store.read("log") == text.encode(), 2, f"{text!r} is in the store")


def test_sigterm_saves_what_is_open(store, mount_at):
    mount = mount_at("--sync-interval", "60000")
    file = os.open(mount.path / "open", os.O_WRONLY | os.O_CREAT)
    try:
        os.write(file, b"x" * (3 * MIB))
        mount.stop()
        assert not is_mounted(mount.path)
        assert store.read("open") == b"x" * (3 * MIB)
    finally:
        try:
            os.close(file)
        except OSError:
            pass  # the mount is gone


def fails(store, mountpoint, *options, environment=None):
    """Starts a mount that must fail: one line, status not 0, nothing mounted. Returns the line."""
    result = subprocess.run(
        [program("dstack-mount"), store.url, str(mountpoint), "-f", *store.arguments, *options],
        env={**os.environ, **store.environment, **(environment or {})}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60)
    assert result.returncode != 0
    assert not is_mounted(mountpoint)
    lines = (result.stdout + result.stderr).strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_refuses_an_unreachable_endpoint(s3_store, directory):
    (directory / "mnt").mkdir()
    s3_store.arguments = ["--endpoint", "http://127.0.0.1:9", "--region", "us-east-1"]
    started = time.monotonic()
    assert "127.0.0.1" in fails(s3_store, directory / "mnt")
    assert time.monotonic() - started < 45


def test_refuses_a_wrong_secret_and_does_not_print_it(s3_store, directory):
    (directory / "mnt").mkdir()
    line = fails(s3_store, directory / "mnt", environment={"AWS_SECRET_ACCESS_KEY": "notthesecret"})
    assert "notthesecret" not in line


def test_refuses_a_missing_bucket(s3_store, directory):
    (directory / "mnt").mkdir()
    s3_store.url = "s3://no-such-bucket/x/"
    assert "no-such-bucket" in fails(s3_store, directory / "mnt")


def test_refuses_a_mountpoint_that_is_not_there(store, directory):
    assert str(directory / "nowhere") in fails(store, directory / "nowhere")


def test_refuses_a_mountpoint_that_is_not_empty(store, directory):
    (directory / "mnt").mkdir()
    (directory / "mnt" / "file").write_text("mine")
    assert "not empty" in fails(store, directory / "mnt")
    assert (directory / "mnt" / "file").read_text() == "mine"


def test_a_job_s_mount_heeds_its_parent_alone(directory):
    """Slurm sends SIGTERM to all processes of a job: what its commands save then must find the mount."""
    with mounting(FileStore(directory), directory) as start:
        mount = start("--parent", str(os.getpid()))
        subprocess.run(["kill", "-TERM", str(mount.process.pid)], check=True)
        (mount.path / "a").write_text("saved\n")
        time.sleep(0.2)
        assert is_mounted(mount.path) and (mount.path / "a").read_text() == "saved\n"
        mount.stop()
