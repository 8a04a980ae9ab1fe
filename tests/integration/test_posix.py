"""POSIX behaviours and errno values. Each test runs on a local directory too, which shows that the
test itself is right; what the mount does otherwise on purpose stands in docs/filesystem.md."""
import concurrent.futures
import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import stat
import subprocess
import threading
import time

import pytest

from conftest import FileStore, Mount, S3Store

KIB, MIB = 1 << 10, 1 << 20
SECOND = 1_000_000_000
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
AT_FDCWD = -100
libc = ctypes.CDLL(None, use_errno=True)


class Place:
    """A directory to test in; STORE is None on the local filesystem."""

    def __init__(self, base, store, mount):
        self.base, self.store, self.mount = base, store, mount
        self.count = 0

    def new_directory(self):
        self.count += 1
        path = self.base / f"t{self.count}"
        path.mkdir()
        return path


@pytest.fixture(scope="module", params=["local", "file", "s3"])
def place(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("posix")
    if request.param == "local":
        yield Place(directory, None, None)
        shutil.rmtree(directory)
        return
    store = FileStore(directory) if request.param == "file" else S3Store()
    mount = Mount(store, directory, "--budget", "64MiB", "--part-size", "5MiB")
    try:
        yield Place(mount.path, store, mount)
        mount.stop()
    finally:
        mount.kill()
        if request.param == "s3":
            store.remove_all()
        shutil.rmtree(directory)


@pytest.fixture
def root(place):
    return place.new_directory()


@pytest.fixture
def mounted(place):
    """For what only the mount has: the store behind it."""
    if not place.store:
        pytest.skip("of the mount alone")
    return place


def fails(expected, function, *arguments, **named):
    with pytest.raises(OSError) as caught:
        function(*arguments, **named)
    assert errno.errorcode[caught.value.errno] == errno.errorcode[expected]


def write(path, data=b"data"):
    path.write_bytes(data)
    return path


class open_fd:
    def __init__(self, path, flags=os.O_RDWR | os.O_CREAT, mode=0o644):
        self.fd = os.open(path, flags, mode)

    def __enter__(self):
        return self.fd

    def __exit__(self, *_):
        os.close(self.fd)


# Errors


def tree(root):
    (root / "dir" / "sub").mkdir(parents=True)
    (root / "empty").mkdir()
    write(root / "file")
    os.symlink("loop", root / "loop")
    os.symlink("file", root / "link")
    return root


ERRORS = {
    "open what is not there": lambda r: (errno.ENOENT, os.open, r / "no", os.O_RDONLY),
    "create below what is not there": lambda r: (errno.ENOENT, os.open, r / "no/x", os.O_CREAT),
    "create what exists": lambda r: (errno.EEXIST, os.open, r / "file", os.O_CREAT | os.O_EXCL),
    "create over a symlink": lambda r: (errno.EEXIST, os.open, r / "link", os.O_CREAT | os.O_EXCL),
    "mkdir over a file": lambda r: (errno.EEXIST, os.mkdir, r / "file"),
    "mkdir over a directory": lambda r: (errno.EEXIST, os.mkdir, r / "dir"),
    "mkdir over a symlink": lambda r: (errno.EEXIST, os.mkdir, r / "link"),
    "symlink over a file": lambda r: (errno.EEXIST, os.symlink, "x", r / "file"),
    "open below a file": lambda r: (errno.ENOTDIR, os.open, r / "file/x", os.O_RDONLY),
    "create below a file": lambda r: (errno.ENOTDIR, os.open, r / "file/x", os.O_CREAT),
    "a file with a slash": lambda r: (errno.ENOTDIR, os.stat, f"{r}/file/"),
    "O_DIRECTORY of a file": lambda r: (errno.ENOTDIR, os.open, r / "file", os.O_DIRECTORY),
    "list a file": lambda r: (errno.ENOTDIR, os.listdir, r / "file"),
    "rmdir a file": lambda r: (errno.ENOTDIR, os.rmdir, r / "file"),
    "rmdir a symlink": lambda r: (errno.ENOTDIR, os.rmdir, r / "link"),
    "write a directory": lambda r: (errno.EISDIR, os.open, r / "dir", os.O_WRONLY),
    "create a directory's name": lambda r: (errno.EISDIR, os.open, r / "dir", os.O_CREAT | os.O_WRONLY),
    "unlink a directory": lambda r: (errno.EISDIR, os.unlink, r / "dir"),
    "truncate a directory": lambda r: (errno.EISDIR, os.truncate, r / "dir", 0),
    "rename a file to a directory": lambda r: (errno.EISDIR, os.rename, r / "file", r / "empty"),
    "rename a directory to a file": lambda r: (errno.ENOTDIR, os.rename, r / "dir", r / "file"),
    "rename into itself": lambda r: (errno.EINVAL, os.rename, r / "dir", r / "dir/sub/x"),
    "rename to what is full": lambda r: (errno.ENOTEMPTY, os.rename, r / "empty", r / "dir"),
    "rename what is not there": lambda r: (errno.ENOENT, os.rename, r / "no", r / "x"),
    "rename to nowhere": lambda r: (errno.ENOENT, os.rename, r / "file", r / "no/x"),
    "rmdir what is full": lambda r: (errno.ENOTEMPTY, os.rmdir, r / "dir"),
    "rmdir what is not there": lambda r: (errno.ENOENT, os.rmdir, r / "no"),
    "unlink what is not there": lambda r: (errno.ENOENT, os.unlink, r / "no"),
    "open a loop": lambda r: (errno.ELOOP, os.open, r / "loop", os.O_RDONLY),
    "O_NOFOLLOW of a symlink": lambda r: (errno.ELOOP, os.open, r / "link", os.O_NOFOLLOW),
    "readlink a file": lambda r: (errno.EINVAL, os.readlink, r / "file"),
    "readlink a directory": lambda r: (errno.EINVAL, os.readlink, r / "dir"),
    "open a name of 256 bytes": lambda r: (errno.ENAMETOOLONG, os.open, r / ("n" * 256), os.O_RDONLY),
    "create a name of 256 bytes": lambda r: (errno.ENAMETOOLONG, os.open, r / ("n" * 256), os.O_CREAT),
    "mkdir a name of 256 bytes": lambda r: (errno.ENAMETOOLONG, os.mkdir, r / ("n" * 256)),
    "rename to 256 bytes": lambda r: (errno.ENAMETOOLONG, os.rename, r / "file", r / ("n" * 256)),
    "symlink of 256 bytes": lambda r: (errno.ENAMETOOLONG, os.symlink, "x", r / ("n" * 256)),
    "an empty symlink": lambda r: (errno.ENOENT, os.symlink, "", r / "x"),
    "truncate to less than nothing": lambda r: (errno.EINVAL, os.truncate, r / "file", -1),
    "link a directory": lambda r: (errno.EPERM, os.link, r / "dir", r / "x"),
}


@pytest.mark.parametrize("what", ERRORS)
def test_error(root, what):
    expected, function, *arguments = ERRORS[what](tree(root))
    fails(expected, function, *arguments)


def test_hard_links_and_devices_are_refused(mounted, root):
    write(root / "file")
    fails(errno.EPERM, os.link, root / "file", root / "x")
    fails(errno.EPERM, os.mknod, root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    fails(errno.EPERM, os.mkfifo, root / "fifo")
    assert os.listdir(root) == ["file"]


def test_mknod_makes_a_file(place, root):
    os.mknod(root / "file", stat.S_IFREG | 0o640)
    assert os.stat(root / "file").st_mode == stat.S_IFREG | 0o640
    fails(errno.EEXIST, os.mknod, root / "file", stat.S_IFREG | 0o640)


def test_writing_and_reading_the_wrong_handle(root):
    with open_fd(root / "f", os.O_CREAT | os.O_WRONLY) as fd:
        fails(errno.EBADF, os.read, fd, 1)
    with open_fd(root / "f", os.O_RDONLY) as fd:
        fails(errno.EBADF, os.write, fd, b"x")
        fails(errno.EINVAL, os.ftruncate, fd, 0)


# Races


def test_only_one_of_eight_wins_o_excl(root):
    def create(path, barrier):
        barrier.wait()
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            return 1
        except FileExistsError:
            return 0

    for attempt in range(10):
        barrier = threading.Barrier(8)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            winners = list(pool.map(lambda _: create(root / f"f{attempt}", barrier), range(8)))
        assert sum(winners) == 1


def test_creating_at_once_gives_one_file(root):
    def create(path, barrier, number):
        barrier.wait()
        with open_fd(path, os.O_CREAT | os.O_RDWR) as fd:
            os.pwrite(fd, b"x", number)

    for attempt in range(10):
        barrier = threading.Barrier(8)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: create(root / f"f{attempt}", barrier, n), range(8)))
        assert (root / f"f{attempt}").read_bytes() == b"x" * 8


def test_mkdir_and_rename_race(root):
    def make(path, barrier):
        barrier.wait()
        try:
            os.mkdir(path)
            return 1
        except FileExistsError:
            return 0

    for attempt in range(5):
        barrier = threading.Barrier(8)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(lambda _: make(root / f"d{attempt}", barrier), range(8))) == 1


def test_appends_of_several_handles_do_not_mix(root):
    def append(number):
        with open_fd(root / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND) as fd:
            for i in range(200):
                line = b"%d %d " % (number, i)
                line += bytes([97 + number]) * (20 + (number * 37 + i * 11) % 400) + b"\n"
                assert os.write(fd, line) == len(line)

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(append, range(6)))
    seen = {n: 0 for n in range(6)}
    for line in (root / "log").read_bytes().splitlines():
        number, i, text = line.split()
        number = int(number)
        assert seen[number] == int(i)
        assert text == bytes([97 + number]) * (20 + (number * 37 + int(i) * 11) % 400)
        seen[number] += 1
    assert seen == {n: 200 for n in range(6)}


@pytest.mark.parametrize("size", [100, 3 * MIB])
def test_rename_is_atomic_for_readers(root, size):
    write(root / "f", b"0" * size)
    stop, problems, reads = threading.Event(), [], []

    def read():
        while not stop.is_set():
            try:
                data = (root / "f").read_bytes()
            except OSError as error:
                problems.append(repr(error))
                return
            if len(data) != size or len(set(data)) != 1:
                problems.append(f"{len(data)} bytes of {set(data)}")
            reads.append(1)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for i in range(20):
            write(root / "new", bytes([48 + i % 10]) * size)
            os.rename(root / "new", root / "f")
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert not problems
    assert len(reads) > 5


def test_exactly_one_rename_of_a_file_succeeds(root):
    def move(number, barrier):
        barrier.wait()
        try:
            os.rename(root / "f", root / f"to{number}")
            return 1
        except FileNotFoundError:
            return 0

    for _ in range(5):
        write(root / "f")
        barrier = threading.Barrier(6)
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            assert sum(pool.map(lambda n: move(n, barrier), range(6))) == 1


# Names that go while the file is open


@pytest.mark.parametrize("size", [10, 12 * MIB])
def test_unlinked_while_open(root, size):
    with open_fd(root / "f") as fd:
        os.write(fd, b"x" * size)
        (root / "f").unlink()
        assert not (root / "f").exists()
        state = os.fstat(fd)
        assert (state.st_nlink, state.st_size) == (0, size)
        os.pwrite(fd, b"more", size)
        assert os.pread(fd, size + 10, 0) == b"x" * size + b"more"
        os.fsync(fd)
        write(root / "f", b"another")
        assert os.pread(fd, 4, size) == b"more"
        os.ftruncate(fd, 3)
        assert os.pread(fd, 10, 0) == b"xxx"
    assert (root / "f").read_bytes() == b"another"


def test_renamed_over_while_open(root):
    write(root / "f", b"old")
    with open_fd(root / "f", os.O_RDWR) as fd:
        write(root / "new", b"new")
        os.rename(root / "new", root / "f")
        assert os.fstat(fd).st_nlink == 0
        assert os.pread(fd, 10, 0) == b"old"
        os.pwrite(fd, b"OLD", 0)
        assert os.pread(fd, 10, 0) == b"OLD"
        assert (root / "f").read_bytes() == b"new"
    assert (root / "f").read_bytes() == b"new"


def test_renamed_while_written(root):
    with open_fd(root / "f") as fd:
        os.write(fd, b"one ")
        os.rename(root / "f", root / "g")
        os.write(fd, b"two")
        write(root / "f", b"other")
    assert (root / "g").read_bytes() == b"one two"
    assert (root / "f").read_bytes() == b"other"


def test_directory_renamed_while_a_file_in_it_is_written(root):
    (root / "d" / "e").mkdir(parents=True)
    with open_fd(root / "d" / "e" / "f") as fd:
        os.write(fd, b"x" * (6 * MIB))
        os.rename(root / "d", root / "moved")
        os.write(fd, b"end")
    assert (root / "moved" / "e" / "f").read_bytes() == b"x" * (6 * MIB) + b"end"
    assert os.listdir(root) == ["moved"]


def test_removed_directory_in_use(root):
    (root / "d").mkdir()
    fd = os.open(root / "d", os.O_RDONLY | os.O_DIRECTORY)
    try:
        (root / "d").rmdir()
        fails(errno.ENOENT, os.open, "x", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
        fails(errno.ENOENT, os.mkdir, "x", dir_fd=fd)
        assert os.listdir(fd) == []
    finally:
        os.close(fd)
    assert os.listdir(root) == []


def test_rename_to_itself_and_over_an_empty_directory(root):
    write(root / "f")
    os.rename(root / "f", root / "f")
    assert (root / "f").read_bytes() == b"data"
    (root / "d").mkdir()
    write(root / "d" / "x")
    (root / "empty").mkdir()
    os.rename(root / "d", root / "empty")
    assert sorted(os.listdir(root)) == ["empty", "f"]
    assert os.listdir(root / "empty") == ["x"]


def test_rename_flags(root):
    write(root / "a", b"a"), write(root / "b", b"b")

    def rename(old, new, flags):
        if libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags) != 0:
            raise OSError(ctypes.get_errno(), "renameat2")

    fails(errno.EEXIST, rename, root / "a", root / "b", 1)  # RENAME_NOREPLACE
    rename(root / "a", root / "c", 1)
    assert (root / "b").read_bytes() == b"b" and (root / "c").read_bytes() == b"a"


# Attributes


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


# Sizes, holes, offsets


def test_truncate_and_holes(root):
    file = write(root / "f", b"x" * 10)
    os.truncate(file, 7 * MIB)
    assert file.read_bytes() == b"x" * 10 + bytes(7 * MIB - 10)
    os.truncate(file, 5)
    os.truncate(file, 20)
    assert file.read_bytes() == b"xxxxx" + bytes(15)
    with open_fd(file) as fd:
        os.lseek(fd, 6 * MIB, os.SEEK_SET)
        os.write(fd, b"end")
        assert os.lseek(fd, -3, os.SEEK_END) == 6 * MIB
        assert os.pread(fd, 3, 6 * MIB) == b"end"
        assert os.pread(fd, 100, 3 * MIB) == bytes(100)
    assert file.stat().st_size == 6 * MIB + 3


def test_seek_hole_and_data(root):
    """A filesystem may say that all is data, but ENXIO and the end are fixed."""
    with open_fd(root / "f") as fd:
        os.write(fd, b"x" * 100)
        os.ftruncate(fd, MIB)
        os.pwrite(fd, b"y", 2 * MIB)
        end = 2 * MIB + 1
        assert os.lseek(fd, 0, os.SEEK_DATA) == 0
        assert 0 < os.lseek(fd, 0, os.SEEK_HOLE) <= end
        assert os.lseek(fd, 2 * MIB, os.SEEK_DATA) == 2 * MIB
        fails(errno.ENXIO, os.lseek, fd, end, os.SEEK_DATA)
        fails(errno.ENXIO, os.lseek, fd, end + 1, os.SEEK_HOLE)


def test_large_sparse_size(root):
    with open_fd(root / "f") as fd:
        os.ftruncate(fd, 100 * MIB)
        assert os.fstat(fd).st_size == 100 * MIB
        assert os.pread(fd, 10, 100 * MIB - 5) == bytes(5)
        assert os.pread(fd, 10, 100 * MIB) == b""
        os.ftruncate(fd, 0)


def test_fallocate(place, root):
    with open_fd(root / "f") as fd:
        if place.store:
            fails(errno.EOPNOTSUPP, fallocate, fd, 0, 0, MIB)
            fails(errno.EOPNOTSUPP, fallocate, fd, 3, 0, 4 * KIB)  # PUNCH_HOLE | KEEP_SIZE
        else:
            fallocate(fd, 0, 0, MIB)
        os.posix_fallocate(fd, 0, 2 * MIB)  # glibc writes zeros where the kernel cannot
        assert os.fstat(fd).st_size == 2 * MIB


def fallocate(fd, mode, offset, size):
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(size)) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def test_o_direct(root):
    block = mmap.mmap(-1, 256 * KIB)  # aligned as O_DIRECT wants it
    block.write(os.urandom(256 * KIB))
    with open_fd(root / "f", os.O_CREAT | os.O_RDWR | os.O_DIRECT) as fd:
        for i in range(24):
            assert os.pwritev(fd, [block], i * 256 * KIB) == 256 * KIB
        back = mmap.mmap(-1, 256 * KIB)
        assert os.preadv(fd, [back], 23 * 256 * KIB) == 256 * KIB
        assert back[:] == block[:]
    assert (root / "f").read_bytes() == block[:] * 24
    with open_fd(root / "f", os.O_RDONLY | os.O_DIRECT) as fd:
        assert os.preadv(fd, [back], 0) == 256 * KIB and back[:] == block[:]


def test_o_sync(root):
    with open_fd(root / "f", os.O_CREAT | os.O_WRONLY | os.O_SYNC) as fd:
        for i in range(5):
            os.write(fd, b"%d" % i)
    assert (root / "f").read_bytes() == b"01234"


def test_mappings(root):
    file = write(root / "f", b"a" * (2 * MIB))
    with open(file, "r+b") as opened:
        shared = mmap.mmap(opened.fileno(), 0)
        private = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        shared[MIB:MIB + 3] = b"new"
        private[0:3] = b"own"
        assert os.pread(opened.fileno(), 3, MIB) == b"new"
        with open(file, "rb") as other:
            assert os.pread(other.fileno(), 3, MIB) == b"new"
        os.pwrite(opened.fileno(), b"pwrite", 5000)
        assert shared[5000:5006] == b"pwrite"
        with open(file, "r+b") as other:
            os.pwrite(other.fileno(), b"OTHER", 6000)
        assert shared[6000:6005] == b"OTHER"
        with open_fd(file, os.O_WRONLY) as fd:
            os.pwrite(fd, b"WRONLY", 7000)
        assert shared[7000:7006] == b"WRONLY"
        shared[100] = 120
        shared.flush()
        shared.close()
        private.close()
    data = file.read_bytes()
    assert data[MIB:MIB + 3] == b"new" and data[0:3] == b"aaa" and data[100:101] == b"x"


def test_a_mapping_of_a_file_opened_to_append(root):
    """The kernel writes a mapping's pages back through any handle of the file."""
    file = write(root / "f", b"a" * 100_000)
    with open_fd(file, os.O_RDWR | os.O_APPEND) as fd:
        shared = mmap.mmap(fd, 0)
        shared[50_000:50_003] = b"new"
        shared.flush()
        shared.close()
        assert os.fstat(fd).st_size == 100_000
        os.write(fd, b"end")
    assert file.read_bytes() == b"a" * 50_000 + b"new" + b"a" * 49_997 + b"end"


def test_a_mapping_outlives_its_handle(place, root):
    file = write(root / "f", b"a" * 100_000)
    with open(file, "r+b") as opened:
        shared = mmap.mmap(opened.fileno(), 0)
    shared[50_000:50_003] = b"new"
    shared.flush()
    if place.store:
        assert place.store.read(str(file.relative_to(place.base)))[50_000:50_003] == b"new"
    shared[60_000:60_003] = b"two"
    shared.close()
    assert file.read_bytes()[60_000:60_003] == b"two"


def test_executables_run(root):
    shutil.copy2("/bin/true", root / "true")
    subprocess.run([root / "true"], check=True, timeout=10)
    write(root / "script", b"#!/bin/sh\necho hello\n").chmod(0o755)
    assert subprocess.run([root / "script"], capture_output=True, timeout=10).stdout == b"hello\n"
    with open_fd(root / "true", os.O_RDONLY):
        process = subprocess.Popen(["sleep", "5"], executable="/bin/sleep")
        process.kill()
        process.wait()


# Directories and names


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


# Locks


LOCKER = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
try:
    getattr(fcntl, sys.argv[2])(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("free")
except OSError:
    print("locked")
"""


@pytest.mark.parametrize("kind", ["flock", "lockf"])
def test_locks_hold_between_processes(root, kind):
    file = write(root / "f")

    def state():
        return subprocess.run(["/usr/bin/python3", "-c", LOCKER, file, kind], capture_output=True,
                              text=True, timeout=20).stdout.strip()

    with open(file, "r+b") as opened:
        getattr(fcntl, kind)(opened, fcntl.LOCK_EX)
        assert state() == "locked"
        getattr(fcntl, kind)(opened, fcntl.LOCK_UN)
        assert state() == "free"
        getattr(fcntl, kind)(opened, fcntl.LOCK_EX)
    assert state() == "free"  # released by close


# What another client sees


def key_of(place, path):
    return str(path.relative_to(place.base))


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
def test_a_created_file_is_in_the_store_after_close(mounted, root, flags):
    os.close(os.open(root / "f", os.O_CREAT | flags))
    assert mounted.store.read(key_of(mounted, root / "f")) == b""


def test_fsync_of_another_handle_is_durable(mounted, root):
    """sync(1) opens the file for reading and calls fsync."""
    with open_fd(root / "f", os.O_CREAT | os.O_WRONLY) as fd:
        os.write(fd, b"data")
        subprocess.run(["sync", root / "f"], check=True, timeout=20)
        assert mounted.store.read(key_of(mounted, root / "f")) == b"data"
        os.write(fd, b"more")
        os.fdatasync(fd)
        assert mounted.store.read(key_of(mounted, root / "f")) == b"datamore"
        os.write(fd, b"!")
        subprocess.run(["sync", "-f", root], check=True, timeout=20)  # syncfs
    assert mounted.store.read(key_of(mounted, root / "f")) == b"datamore!"


def test_a_duplicate_closed_is_durable(mounted, root):
    """close() of any descriptor that wrote, as when a child that inherited it ends."""
    with open_fd(root / "f", os.O_CREAT | os.O_WRONLY) as fd:
        os.write(fd, b"data")
        os.close(os.dup(fd))
        assert mounted.store.read(key_of(mounted, root / "f")) == b"data"
        subprocess.run(["sh", "-c", "echo end >&3"], pass_fds=(), check=False, timeout=10,
                       preexec_fn=lambda: os.dup2(fd, 3))
    assert mounted.store.read(key_of(mounted, root / "f")).startswith(b"data")


def test_attributes_are_durable_at_once(mounted, root):
    """chmod, utime, truncate, mkdir, symlink, rename and unlink return when the store has them."""
    file = write(root / "f", b"data")
    os.truncate(file, 2)
    assert mounted.store.read(key_of(mounted, file)) == b"da"
    (root / "d").mkdir()
    assert mounted.store.keys(key_of(mounted, root / "d") + "/") == [key_of(mounted, root / "d") + "/"]
    os.symlink("f", root / "link")
    assert mounted.store.read(key_of(mounted, root / "link")) == b"f"
    os.rename(file, root / "d" / "g")
    assert mounted.store.read(key_of(mounted, file)) is None
    assert mounted.store.read(key_of(mounted, root / "d" / "g")) == b"da"
    os.unlink(root / "d" / "g")
    assert mounted.store.read(key_of(mounted, root / "d" / "g")) is None


# stress-ng's own checks

STRESSORS = ["access", "chdir", "chmod", "dentry", "dir", "dirdeep", "fcntl", "filename", "flock",
             "fpunch", "getdent", "hdd", "iomix", "lease", "lockf", "mmap", "msync", "open", "readahead",
             "rename", "seek", "symlink", "sync-file", "touch", "utime"]


@pytest.mark.parametrize("stressor", STRESSORS)
def test_stress(mounted, root, stressor, tmp_path):
    size = {"hdd": ["--hdd-bytes", "24M"], "iomix": ["--iomix-bytes", "24M"], "seek": ["--seek-size", "8M"],
            "readahead": ["--readahead-bytes", "16M"], "mmap": ["--mmap-file", "--mmap-bytes", "4M"],
            "msync": ["--msync-bytes", "4M"], "dentry": ["--dentries", "50"],
            "filename": ["--filename-opts", "posix"], "dirdeep": ["--dirdeep-dirs", "2", "--dirdeep-inodes", "40"],
            "sync-file": ["--sync-file-bytes", "8M"]}.get(stressor, [])
    result = subprocess.run(
        ["stress-ng", f"--{stressor}", "2", "--timeout", "2", "--verify", "--temp-path", root, *size],
        capture_output=True, text=True, timeout=90, cwd=tmp_path)  # some leave a file where they are
    assert result.returncode == 0, result.stdout + result.stderr
    assert os.listdir(root) == []
