"""Who may see what: secrets, other users, and names from outside that want to be somewhere else."""
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

from conftest import Mount, program, wait_for
from fault_proxy import Fault, Proxy, s3_error
from test_faults import through
from test_journal import Gate

SECRETS = ("testsecret", "another+Secret", "a+Very/Secret+Session/Token==")
NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]


@pytest.fixture
def open_directory():
    """One that every user may enter."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="dstack-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_secrets_are_in_no_log_nor_listing_nor_file(s3_store, directory, monkeypatch):
    """Refusals of many kinds, at the most talkative log level; the answers quote what was signed."""
    monkeypatch.setenv("DSTACK_LOG", "debug")
    answers = iter([s3_error(403, "SignatureDoesNotMatch"), s3_error(400, "ExpiredToken"),
                    (403, "<Error><Code>InvalidToken</Code><Token>x</Token><Message>m</Message></Error>")])
    refuse = lambda request: Fault(answer=next(answers, None), is_carried_out=False)  # noqa: E731
    refusing = [False]
    with Proxy(s3_store.endpoint, lambda request: refuse(request) if refusing[0] and request.kind == "put"
               and not request.path.endswith("/lease") else None) as proxy:
        mount = Mount(through(s3_store, proxy), directory)
        try:
            refusing[0] = True
            for i in range(3):
                with pytest.raises(OSError):
                    (mount.path / "file").write_bytes(b"x")
            refusing[0] = False
            command = pathlib.Path(f"/proc/{mount.process.pid}/cmdline").read_bytes().decode()
            lease = s3_store.read(".dstack-mount/lease").decode()
        finally:
            mount.process.send_signal(signal.SIGTERM)
            mount.process.wait(20)
            mount.kill()
    for text in (command, lease, mount.log_path.read_text(), mount.status_file.read_text()):
        assert text and not any(secret in text for secret in SECRETS)


def test_credentials_that_are_refused_are_not_printed(s3_store, directory):
    (directory / "mnt").mkdir()
    result = subprocess.run(
        [program("dstack-mount"), s3_store.url, str(directory / "mnt"), "-f", *s3_store.arguments],
        env={**os.environ, **s3_store.environment, "AWS_SECRET_ACCESS_KEY": SECRETS[1],
             "AWS_SESSION_TOKEN": SECRETS[2], "DSTACK_LOG": "debug"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert result.returncode != 0
    assert not any(secret in result.stdout + result.stderr for secret in SECRETS)


@pytest.mark.skipif("os.geteuid() != 0", reason="becomes another user")
def test_a_mount_is_its_users_own(s3_store, open_directory):
    s3_store.put("file", b"mine")
    mount = Mount(s3_store, open_directory)
    try:
        for command in (["ls", str(mount.path)], ["cat", str(mount.path / "file")],
                        ["touch", str(mount.path / "new")], ["stat", str(mount.path / "file")]):
            result = subprocess.run([*NOBODY, *command], capture_output=True, text=True, timeout=20)
            assert result.returncode != 0 and "ermission denied" in result.stderr, (command, result.stderr)
        assert subprocess.run([*NOBODY, "fusermount3", "-u", str(mount.path)], capture_output=True).returncode != 0
        assert (mount.path / "file").read_bytes() == b"mine"
        mount.stop()
    finally:
        mount.kill()
    assert s3_store.keys() == ["file"]


@pytest.mark.skipif("os.geteuid() != 0", reason="becomes another user")
def test_with_allow_other_modes_still_hold(s3_store, open_directory):
    mount = Mount(s3_store, open_directory, "-o", "allow_other")
    try:
        for name, mode in (("public", 0o644), ("private", 0o600)):
            (mount.path / name).write_bytes(b"text")
            (mount.path / name).chmod(mode)
        results = {name: subprocess.run([*NOBODY, "cat", str(mount.path / name)], capture_output=True, timeout=20)
                   for name in ("public", "private")}
        assert results["public"].stdout == b"text"
        assert results["private"].returncode != 0 and results["private"].stdout == b""
        assert subprocess.run([*NOBODY, "touch", str(mount.path / "new")], capture_output=True).returncode != 0
        mount.stop()
    finally:
        mount.kill()


HOSTILE = ["../escape", "..", ".", "a/../../escape", "./dot", "a//b", "//", "/etc/passwd", "a/./b", "x" * 300,
           "a/" + "y" * 500, "-rf", "~root", "new\nline", "a\\b", "%2e%2e%2fescape", "C:\\x"]


def test_names_from_outside_stay_inside(s3_store, directory):
    """Objects with names that no file can have are not shown; the others work; nothing lands elsewhere."""
    for key in HOSTILE:
        s3_store.put(key, b"hostile")
    s3_store.put("a/good", b"good")
    mount = Mount(s3_store, directory)
    try:
        seen = []
        for path, folders, files in os.walk(mount.path, onerror=lambda error: seen.append(error)):
            for name in folders + files:
                assert name not in ("", ".", "..") and "/" not in name and len(name) <= 255
            seen += [os.path.relpath(os.path.join(path, name), mount.path) for name in files]
            assert len(seen) < 100
        assert {"a/good", "-rf", "~root", "new\nline", "a\\b", "%2e%2e%2fescape"} <= set(seen), seen
        assert (mount.path / "a/good").read_bytes() == b"good"
        assert not (directory / "escape").exists()
        mount.stop()
    finally:
        mount.kill()
    to = directory / "to" / "below"
    result = subprocess.run(
        [program("store_transfer"), "down", str(to), f"s3://{s3_store.bucket}", s3_store.endpoint, s3_store.prefix],
        env={**os.environ, **s3_store.environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60)
    assert result.returncode == 1   # some of them no file can have
    assert not (directory / "escape").exists() and not (directory / "to/escape").exists()
    assert sorted(os.listdir(directory / "to")) == ["below"]


@pytest.fixture
def namespace(open_directory):
    """The process of a mount namespace in which everybody may open /dev/fuse; COMMAND in it as nobody."""
    node, ready = open_directory / "fuse", open_directory / "ready"
    holder = subprocess.Popen(["unshare", "-m", "sh", "-c", f"mknod -m 666 {node} c 10 229 && "
                               f"mount --bind {node} /dev/fuse && touch {ready} && exec sleep 300"])
    try:
        wait_for(ready.exists, 10, "the namespace is there")
        yield holder.pid, ["nsenter", "-m", "-t", str(holder.pid), *NOBODY]
    finally:
        holder.kill()
        holder.wait(10)


@pytest.mark.skipif("os.geteuid() != 0 or 'DSTACK_TEST_CHROOT' in os.environ",
                    reason="becomes another user, in a mount namespace")
def test_a_drain_of_no_use_ends_in_time_for_who_is_not_root(s3_store, open_directory, namespace):
    """The store is away, and a close waits for it: nobody but root can end its request by force."""
    holder, nobody = namespace
    mountpoint, journal, status = (open_directory / name for name in ("mnt", "journal", "status.json"))
    binary = shutil.copy(program("dstack-mount"), open_directory)   # where everybody may enter
    for path, mode in ((open_directory, 0o755), (mountpoint, 0o755), (journal, 0o700)):
        path.mkdir(exist_ok=True)
        path.chmod(mode)
        os.chown(path, 65534, 65534)
    with Gate(s3_store) as gate:
        mount = subprocess.Popen(
            [*nobody, binary, s3_store.url, mountpoint, "-f", *s3_store.arguments, "--journal", journal,
             "--status-file", status, "--drain-timeout", "2"],
            env={**os.environ, **s3_store.environment}, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            wait_for(lambda: status.exists() and '"ready"' in status.read_text(), 20, "the mount is ready")
            subprocess.run([*nobody, "ls", mountpoint], check=True, timeout=20)     # names are known
            gate.close()
            writer = subprocess.Popen([*nobody, "dd", "if=/dev/zero", f"of={mountpoint}/file", "bs=64k", "count=1",
                                       "conv=fsync"], stderr=subprocess.DEVNULL)
            time.sleep(1)
            assert writer.poll() is None
            began = time.monotonic()
            mount.send_signal(signal.SIGTERM)
            said = mount.communicate(timeout=20)[1]
            assert mount.returncode == 1 and "not saved: file" in said, said
            assert time.monotonic() - began < 2 + 5
            assert str(mountpoint) not in pathlib.Path(f"/proc/{holder}/mounts").read_text()
            assert writer.wait(10) != 0
        finally:
            mount.kill()
            mount.wait(10)
