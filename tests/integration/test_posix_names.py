"""POSIX behaviours and errno values of directories and names; as test_posix.py, also on a local directory."""
import concurrent.futures
import ctypes
import errno
import os
import subprocess

import pytest

from conftest import FileStore
from posix_world import fails, mounted, place, root, write  # noqa: F401 (fixtures)

SECOND = 1_000_000_000
libc = ctypes.CDLL(None, use_errno=True)


def test_names(root):
    names = ["n" * 255, "é" * 127, " ", "...", "a\nb", "a\\b", "%2F", "%", "a%00", "*?", "-rf", "~",
             "x" * 200, "日本", "e\u0301", "é", "a:b", "a|b", "a\"b", "a'b", "\t\r", "+ &=#"]
    for name in names:
        write(root / name, name.encode())
    assert sorted(os.listdir(root)) == sorted(names)
    for name in names:
        assert (root / name).read_bytes() == name.encode()
        (root / name).unlink()
    assert os.listdir(root) == []


def test_names_that_no_key_can_have(mounted, root):
    """A key is UTF-8: a name that is not is refused, and nothing breaks."""
    with pytest.raises(OSError) as caught:
        os.close(os.open(os.fsencode(root) + b"/\xff\xfe", os.O_CREAT | os.O_WRONLY))
    assert caught.value.errno in (errno.EINVAL, errno.EILSEQ)
    write(root / "good")
    assert os.listdir(root) == ["good"]


def test_names_with_control_characters(mounted, root):
    """Kept or refused, but nothing in between."""
    for byte in (1, 8, 0x1f, 0x7f):
        name = f"a{chr(byte)}b"
        try:
            write(root / name)
        except OSError as error:
            assert error.errno == errno.EINVAL
            continue
        assert os.listdir(root) == [name]
        os.unlink(root / name)
    assert os.listdir(root) == []


def test_keys_to_their_longest(mounted, root):
    """1024 bytes are an S3 key's limit, the store's prefix included: ENAMETOOLONG beyond it."""
    prefix = getattr(mounted.store, "prefix", "") + f"{root.relative_to(mounted.base)}/"
    here, used = os.open(root, os.O_RDONLY), len(prefix)
    try:
        while 1024 - used > 300:
            os.mkdir("d" * 200, dir_fd=here)
            below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here, used = below, used + 201
        longest = "f" * min(1024 - used, 255)
        while used + len(longest) < 1024:
            os.mkdir("e" * 100, dir_fd=here)
            below = os.open("e" * 100, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here, used = below, used + 101
            longest = "f" * min(1024 - used, 255)
        fd = os.open(longest, os.O_CREAT | os.O_WRONLY, dir_fd=here)
        os.write(fd, b"deep")
        os.close(fd)
        assert os.listdir(f"/proc/self/fd/{here}") == [longest]

        def create(name):
            fd = os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=here)
            os.write(fd, b"deeper")
            os.close(fd)

        if hasattr(mounted.store, "prefix"):
            fails(errno.ENAMETOOLONG, create, longest + "x")
            fails(errno.ENAMETOOLONG, os.mkdir, "g" * len(longest), dir_fd=here)
            fails(errno.ENAMETOOLONG, os.rename, longest, longest + "x", src_dir_fd=here,
                  dst_dir_fd=here)
            assert os.listdir(f"/proc/self/fd/{here}") == [longest]
    finally:
        os.close(here)


def test_symlinks(root):
    target = "x/" * 1000 + "end"
    os.symlink(target, root / "long")
    assert os.readlink(root / "long") == target
    assert os.lstat(root / "long").st_size == len(target)
    os.symlink("../é b", root / "odd")
    assert os.readlink(root / "odd") == "../é b"
    write(root / "f")
    os.symlink("f", root / "link")
    os.symlink(root / "f", root / "absolute")
    assert (root / "link").read_bytes() == (root / "absolute").read_bytes() == b"data"
    os.rename(root / "link", root / "moved")
    assert os.readlink(root / "moved") == "f"
    os.symlink("made", root / "dangling")
    write(root / "dangling", b"through")
    assert (root / "made").read_bytes() == b"through" and (root / "dangling").is_symlink()
    os.utime(root / "moved", ns=(SECOND, 2 * SECOND), follow_symlinks=False)
    assert os.lstat(root / "moved").st_mtime_ns == 2 * SECOND
    os.unlink(root / "moved")
    assert (root / "f").exists()


def test_ten_thousand_names(store, mount_at):
    """Listed whole, once each, in pieces that seekdir returns to; rm -r removes them all."""
    names = [f"entry-{i:05}" for i in range(10_000 if isinstance(store, FileStore) else 2_500)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put(f"d/{name}", b"x"), names))
    root = mount_at().path
    assert sorted(os.listdir(root / "d")) == names
    check_seekdir(root / "d", names)
    assert all((root / "d" / name).stat().st_size == 1 for name in names)
    subprocess.run(["rm", "-r", root / "d"], check=True, timeout=120)
    assert os.listdir(root) == []
    assert store.keys("d/") == []


class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("offset", ctypes.c_int64), ("size", ctypes.c_ushort),
                ("type", ctypes.c_ubyte), ("name", ctypes.c_char * 256)]


def check_seekdir(path, names):
    libc.opendir.restype = ctypes.c_void_p
    libc.readdir.restype = ctypes.POINTER(Dirent)
    libc.telldir.restype = ctypes.c_long
    directory = ctypes.c_void_p(libc.opendir(os.fsencode(path)))
    try:
        seen, marks = [], {}
        while True:
            place = libc.telldir(directory)
            entry = libc.readdir(directory)
            if not entry:
                break
            name = entry.contents.name.decode()
            marks[name] = place
            seen.append(name)
        assert sorted(seen) == sorted([".", "..", *names])
        for i in (0, len(names) // 2, len(names) - 1, 17):
            libc.seekdir(directory, ctypes.c_long(marks[names[i]]))
            assert libc.readdir(directory).contents.name.decode() == names[i]
        libc.rewinddir(directory)
        assert sum(1 for _ in iter(lambda: bool(libc.readdir(directory)), False)) == len(names) + 2
    finally:
        libc.closedir(directory)


def test_an_open_directory_read_again_shows_what_is_there_now(root):
    fd = os.open(root, os.O_RDONLY)
    try:
        assert os.listdir(fd) == []
        write(root / "new")
        assert os.listdir(fd) == ["new"]  # rewinddir
        os.unlink(root / "new")
        assert os.listdir(fd) == []
    finally:
        os.close(fd)


def test_removing_while_listing(root):
    """rm -r and shutil.rmtree read on after they removed what they read."""
    for i in range(300):
        write(root / f"f{i}", b"")
    with os.scandir(root) as entries:
        for entry in entries:
            os.unlink(entry.path)
    assert os.listdir(root) == []


def test_a_directory_lists_itself_and_its_parent(root):
    (root / "d").mkdir()
    listed = subprocess.run(["ls", "-ai", root / "d"], capture_output=True, text=True, check=True,
                            timeout=10).stdout.split()
    assert [name for name in listed if not name.isdigit()] == [".", ".."]


def test_statfs(root):
    state = os.statvfs(root)
    assert state.f_namemax == 255
    assert state.f_bavail * state.f_frsize > 1 << 30  # programs ask before they write
    assert state.f_bsize >= 4096
    assert subprocess.run(["df", root], capture_output=True, timeout=10).returncode == 0
