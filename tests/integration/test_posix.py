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

import pytest

from posix_world import fails, mounted, open_fd, place, root, write  # noqa: F401 (fixtures)

KIB, MIB = 1 << 10, 1 << 20
AT_FDCWD = -100
libc = ctypes.CDLL(None, use_errno=True)


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
