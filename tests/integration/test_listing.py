"""`ls -l`: what it costs on the wire, that it is true, and what memory it takes."""
import os
import subprocess
import threading
import time

import pytest

from conftest import FileStore, Mount, mounting
from test_cost import CountingProxy

MIB = 1 << 20
LONG = os.environ.get("DSTACK_TEST_LONG") == "1"
FILES = 100000 if LONG else 3000
PAGES = -(-FILES // 1000)
MADE_BY = 8


@pytest.fixture
def proxy(s3_store):
    proxy = CountingProxy(s3_store.endpoint)
    s3_store.arguments = ["--endpoint", proxy.endpoint, "--region", "us-east-1"]
    yield proxy
    proxy.close()


@pytest.fixture
def mount_s3(s3_store, proxy, directory):
    with mounting(s3_store, directory) as start:
        yield start


def make(directory, numbers):
    for i in numbers:
        path = directory / f"f{i:06}"
        with open(path, "wb", opener=lambda p, f: os.open(p, f, 0o600 + i % 0o200)) as file:
            file.write(b"x" * (i % 50))


def make_all(directory):
    os.umask(0)
    directory.mkdir()
    threads = [threading.Thread(target=make, args=(directory, range(n, FILES, MADE_BY)))
               for n in range(MADE_BY)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.symlink("f000001", directory / "link")
    os.utime(directory / "f000002", ns=(123456789, 987654321))


def attributes(directory):
    """What `ls -l` asks for, in the order that it does."""
    with os.scandir(directory) as names:
        return {entry.name: (st.st_mode, st.st_uid, st.st_gid, st.st_size, st.st_mtime_ns)
                for entry in names for st in [entry.stat(follow_symlinks=False)]}


def ls(directory):
    return subprocess.run(["ls", "-l", "--full-time", str(directory)], check=True,
                          capture_output=True, text=True).stdout.splitlines()[1:]


def requests_of(proxy, work):
    """What WORK gives, and what was sent for it: not the lease's heartbeat, nor a new index."""
    before = len(proxy.requests)
    result = work()
    return result, [(method, path) for method, path in proxy.requests[before:]
                    if method != "PUT" or ".dstack-" not in path]


def methods(requests):
    return [method for method, _ in requests]


def test_ls_of_a_large_directory(s3_store, proxy, mount_s3):
    """Written by one mount, listed by the next: no HEAD for a file. Again: nothing at all."""
    mount = mount_s3("--budget", "64MiB")
    make_all(mount.path / "d")
    expected, sent = requests_of(proxy, lambda: attributes(mount.path / "d"))
    assert len(expected) == FILES + 1 and sent == []
    for name, (mode, _, _, size, _) in expected.items():
        if name != "link":
            assert mode & 0o777 == 0o600 + int(name[1:]) % 0o200 and size == int(name[1:]) % 50
    assert expected["f000002"][4] == 987654321
    assert mount.peak_rss_bytes() < (64 + 64) * MIB
    mount.stop()

    mount = mount_s3("--budget", "64MiB")
    lines, sent = requests_of(proxy, lambda: ls(mount.path / "d"))
    assert len(lines) == FILES + 1 and lines[-1].endswith("link -> f000001")
    lists = [path for method, path in sent if "list-type" in path]
    assert len(lists) <= PAGES + 4, lists  # and the root's, the probes of "d"
    assert len(sent) - len(lists) <= 6, [path for method, path in sent if path not in lists]
    assert sum(method == "HEAD" for method in methods(sent)) <= 6, sent[:20]  # of "d" itself, again on a slow machine
    assert attributes(mount.path / "d") == expected
    again, sent = requests_of(proxy, lambda: ls(mount.path / "d"))
    assert again == lines and sent == []
    assert mount.peak_rss_bytes() < (64 + 64) * MIB
    mount.stop()

    mount = mount_s3("--mode", "read-only", "--attr-ttl", "600000")
    found, sent = requests_of(proxy, lambda: attributes(mount.path / "d"))
    assert found == expected and len(sent) <= PAGES + 8
    mount.stop()


def test_others_changes_are_seen(s3_store, proxy, mount_s3):
    """A chmod by another client leaves the ETag; a new file may have the same size and bytes."""
    os.umask(0)
    mount = mount_s3()
    make(mount.path, range(80))
    expected = attributes(mount.path)
    mount.stop()
    where = {"Bucket": s3_store.bucket, "Key": s3_store.prefix + "f000007"}
    metadata = s3_store.client.head_object(**where)["Metadata"]
    s3_store.client.copy_object(**where, CopySource=where, MetadataDirective="REPLACE",
                                Metadata={**metadata, "mode": str(0o100444)})
    s3_store.put("f000008", b"y" * 8)
    s3_store.put("f000009", b"x" * 9)
    mount = mount_s3()
    found, sent = requests_of(proxy, lambda: attributes(mount.path))
    changed = {name for name in expected if found[name] != expected[name]}
    assert changed == {"f000007", "f000008", "f000009"}
    assert found["f000007"][0] == 0o100444 and found["f000007"][1:] == expected["f000007"][1:]
    assert found["f000009"][0] == 0o100644
    assert (mount.path / "f000008").read_bytes() == b"y" * 8
    assert sum(method == "HEAD" for method in methods(sent)) == 3
    mount.stop()


@pytest.mark.parametrize("mode", ["shared", "read-only"])
def test_again_where_others_may_write(s3_store, proxy, mount_s3, mode):
    """What is known is old after a second; a listing that tells of no change makes it new again."""
    for i in range(20):
        s3_store.put(f"d/f{i:06}", b"x" * i)
    time.sleep(5.2)     # a HEAD tells when they changed to the second: it must be long over
    mount = mount_s3("--mode", mode)
    expected, sent = requests_of(proxy, lambda: attributes(mount.path / "d"))
    assert sum("d/f" in path for _, path in sent) == 20
    for _ in range(2):
        time.sleep(1.1)
        found, sent = requests_of(proxy, lambda: attributes(mount.path / "d"))
        assert found == expected and not [path for _, path in sent if "d/f" in path]
    where = {"Bucket": s3_store.bucket, "Key": s3_store.prefix + "d/f000007"}
    s3_store.client.copy_object(**where, CopySource=where, MetadataDirective="REPLACE",
                                Metadata={"mode": str(0o100444)})
    time.sleep(1.1)
    found, sent = requests_of(proxy, lambda: attributes(mount.path / "d"))
    assert found["f000007"][0] == 0o100444
    assert {name for name in expected if found[name] != expected[name]} == {"f000007"}
    assert sum("d/f" in path for _, path in sent) == 1
    mount.stop()


def test_rsync_and_find_find_nothing_new(directory):
    os.umask(0)
    store = FileStore(directory)
    source = directory / "source"
    source.mkdir()
    make(source, range(80))
    os.symlink("f000001", source / "link")
    mount = Mount(store, directory)
    subprocess.run(["rsync", "-a", f"{source}/", f"{mount.path}/d/"], check=True)
    mount.stop()
    mount = Mount(store, directory)
    (mount.path / "stamp").touch()
    newer = subprocess.run(["find", str(mount.path / "d"), "-type", "f", "-newer",
                            str(mount.path / "stamp")],
                           check=True, capture_output=True, text=True).stdout
    assert newer == ""
    copied = subprocess.run(["rsync", "-ai", f"{source}/", f"{mount.path}/d/"], check=True,
                            capture_output=True, text=True).stdout
    assert [line for line in copied.splitlines() if not line.startswith(".d")] == []
    mount.stop()


def test_memory_of_many_names(directory):
    """The kernel remembers all it looked up; we do not, for long."""
    count = 1000000 if LONG else 20000
    store = FileStore(directory)
    (store.root / "d").mkdir()
    for i in range(count):
        (store.root / "d" / f"f{i:07}").touch()
    mount = Mount(store, directory, "--budget", "16MiB")
    try:
        lines = ls(mount.path / "d")
        assert len(lines) == count and lines[-1].endswith(f"f{count - 1:07}")
        assert mount.peak_rss_bytes() < (16 + 64) * MIB
        mount.stop()
    finally:
        mount.kill()
