"""POSIX behaviours and errno values of attributes; as test_posix.py, also on a local directory."""
import ctypes
import errno
import os
import stat
import subprocess
import time

import pytest

from conftest import FileStore, Mount
from posix_world import fails, open_fd, place, root, write  # noqa: F401 (fixtures)

SECOND = 1_000_000_000
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
AT_FDCWD = -100
libc = ctypes.CDLL(None, use_errno=True)


def utimensat(path, atime, mtime):
    """Each a pair of seconds and nanoseconds."""
    times = (ctypes.c_long * 4)(*atime, *mtime)
    if libc.utimensat(AT_FDCWD, os.fsencode(path), times, 0) != 0:
        raise OSError(ctypes.get_errno(), "utimensat")


def test_utimensat(root):
    file = write(root / "f")
    utimensat(file, (1, 2), (3, 4))
    state = file.stat()
    assert (state.st_atime_ns, state.st_mtime_ns) == (SECOND + 2, 3 * SECOND + 4)
    utimensat(file, (0, UTIME_OMIT), (5, 6))
    state = file.stat()
    assert (state.st_atime_ns, state.st_mtime_ns) == (SECOND + 2, 5 * SECOND + 6)
    utimensat(file, (7, 8), (0, UTIME_OMIT))
    state = file.stat()
    assert (state.st_atime_ns, state.st_mtime_ns) == (7 * SECOND + 8, 5 * SECOND + 6)
    before = time.time_ns() - SECOND // 20  # the kernel's clock is coarser than ours
    utimensat(file, (0, UTIME_OMIT), (0, UTIME_NOW))
    state = file.stat()
    assert state.st_atime_ns == 7 * SECOND + 8
    assert before <= state.st_mtime_ns <= time.time_ns()
    assert before <= state.st_ctime_ns <= time.time_ns()
    utimensat(file, (-10, 0), (-10, 0))
    assert file.stat().st_mtime_ns == -10 * SECOND
    fails(errno.EINVAL, utimensat, file, (0, SECOND), (0, 0))
    fails(errno.ENOENT, utimensat, root / "no", (0, 0), (0, 0))


def test_times_of_an_open_file(root):
    """What cp -p does: the times are set before the last close."""
    with open_fd(root / "f") as fd:
        os.write(fd, b"data")
        os.utime(fd, ns=(SECOND, 2 * SECOND))
        assert os.fstat(fd).st_mtime_ns == 2 * SECOND
    assert (root / "f").stat().st_mtime_ns == 2 * SECOND


def test_reading_and_failing_leave_mtime(root):
    file = write(root / "f")
    os.utime(file, ns=(SECOND, 2 * SECOND))
    file.read_bytes()
    with open_fd(file, os.O_RDWR):
        pass
    os.rename(file, root / "g")
    os.chmod(root / "g", 0o600)
    assert (root / "g").stat().st_mtime_ns == 2 * SECOND


def test_writing_and_truncating_set_mtime(root):
    file = write(root / "f")
    for change in (lambda: os.truncate(file, 2), lambda: file.write_bytes(b"x"),
                   lambda: os.truncate(file, 1), lambda: file.write_bytes(b""),
                   lambda: file.write_bytes(b"")):  # ": > stamp" of an empty file too
        os.utime(file, ns=(SECOND, 2 * SECOND))
        change()
        assert file.stat().st_mtime_ns > 1_700_000_000 * SECOND


def test_mtime_of_a_directory_follows_its_names(root):
    (root / "d").mkdir()
    steps = [lambda: write(root / "d" / "f"), lambda: os.rename(root / "d/f", root / "d/g"),
             lambda: os.unlink(root / "d/g"), lambda: os.mkdir(root / "d/e"),
             lambda: os.rmdir(root / "d/e")]
    for step in steps:
        os.utime(root / "d", ns=(SECOND, 2 * SECOND))
        assert (root / "d").stat().st_mtime_ns == 2 * SECOND
        step()
        assert (root / "d").stat().st_mtime_ns > 1_700_000_000 * SECOND


def test_modes(root):
    old = os.umask(0o027)
    try:
        os.close(os.open(root / "f", os.O_CREAT | os.O_WRONLY, 0o777))
        os.mkdir(root / "d", 0o777)
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(root / "f").st_mode) == 0o750
    assert stat.S_IMODE(os.stat(root / "d").st_mode) == 0o750
    for mode in (0o600, 0o4755, 0o2755, 0o1644, 0o000):
        os.chmod(root / "f", mode)
        assert stat.S_IMODE(os.stat(root / "f").st_mode) == mode
    os.chmod(root / "d", 0o1777)
    assert stat.S_IMODE(os.stat(root / "d").st_mode) == 0o1777


def test_a_file_created_read_only_can_be_written_by_its_creator(root):
    """git does this with every object."""
    with open_fd(root / "f", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o444) as fd:
        os.write(fd, b"data")
    assert (root / "f").read_bytes() == b"data"
    assert stat.S_IMODE(os.stat(root / "f").st_mode) == 0o444


def test_owners(root):
    file = write(root / "f")
    os.chown(file, 1234, 5678)
    state = file.stat()
    assert (state.st_uid, state.st_gid) == (1234, 5678)
    os.chown(file, -1, 99)
    state = file.stat()
    assert (state.st_uid, state.st_gid) == (1234, 99)
    os.symlink("f", root / "link")
    os.lchown(root / "link", 7, 8)
    assert (os.lstat(root / "link").st_uid, file.stat().st_uid) == (7, 1234)


def as_nobody(code, *arguments):
    """Runs Python as a user without rights; its output."""
    return subprocess.run(
        ["/usr/bin/python3", "-c", "import os, sys\nos.setgroups([])\nos.setgid(65534)\n"
         "os.setuid(65534)\n" + code, *map(str, arguments)],
        capture_output=True, text=True, timeout=30).stdout.strip()


def test_permissions_are_the_kernels_to_check(tmp_path):
    """default_permissions: modes and owners count, for others who may enter."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    store = FileStore(tmp_path)
    mount = Mount(store, tmp_path, "-o", "allow_other")
    try:
        for path in [mount.path, *tmp_path.parents]:
            if path.stat().st_uid == 0 and not path.stat().st_mode & 1:
                path.chmod(path.stat().st_mode | 0o011)
        tmp_path.chmod(0o711)
        write(mount.path / "secret").chmod(0o600)
        write(mount.path / "public").chmod(0o644)
        (mount.path / "closed").mkdir(mode=0o700)
        (mount.path / "open").mkdir()
        (mount.path / "open").chmod(0o777)
        code = """
def attempt(function, *arguments):
    try:
        function(*arguments)
        return "ok"
    except OSError as error:
        return type(error).__name__
root = sys.argv[1]
print(attempt(open, root + "/secret"), attempt(open, root + "/public"),
      attempt(open, root + "/public", "w"), attempt(os.listdir, root + "/closed"),
      attempt(open, root + "/new", "w"), attempt(open, root + "/open/new", "w"),
      attempt(os.chmod, root + "/public", 0o777), attempt(os.unlink, root + "/public"),
      os.access(root + "/public", os.R_OK), os.access(root + "/public", os.W_OK),
      os.stat(root + "/open/new").st_uid)
"""
        assert as_nobody(code, mount.path).split() == [
            "PermissionError", "ok", "PermissionError", "PermissionError", "PermissionError", "ok",
            "PermissionError", "PermissionError", "True", "False", "65534"]
        mount.stop()
    finally:
        mount.kill()


def test_user_attributes(root):
    file = write(root / "f")
    os.setxattr(file, "user.note", b"one")
    os.setxattr(file, "user.bytes", bytes(range(256)))
    assert os.getxattr(file, "user.note") == b"one"
    assert os.getxattr(file, "user.bytes") == bytes(range(256))
    assert sorted(os.listxattr(file)) == ["user.bytes", "user.note"]
    fails(errno.EEXIST, os.setxattr, file, "user.note", b"x", os.XATTR_CREATE)
    fails(errno.ENODATA, os.setxattr, file, "user.other", b"x", os.XATTR_REPLACE)
    fails(errno.ENODATA, os.getxattr, file, "user.other")
    fails(errno.ENODATA, os.removexattr, file, "user.other")
    os.setxattr(file, "user.note", b"")
    assert os.getxattr(file, "user.note") == b""
    with open(file, "ab") as appended:
        appended.write(b"more")
    os.rename(file, root / "g")
    assert sorted(os.listxattr(root / "g")) == ["user.bytes", "user.note"]
    os.removexattr(root / "g", "user.bytes")
    assert os.listxattr(root / "g") == ["user.note"]


def test_inode_numbers(root):
    file = write(root / "f")
    number = file.stat().st_ino
    os.rename(file, root / "g")
    assert (root / "g").stat().st_ino == number
    write(file)
    assert file.stat().st_ino != number
    entries = {entry.name: entry.inode() for entry in os.scandir(root)}
    assert entries["g"] == number
