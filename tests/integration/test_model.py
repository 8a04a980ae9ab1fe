"""Random operations on the mount and on a local directory: both must answer the same at every step,
and the store must hold exactly the bytes whenever close, fsync, truncate or rename says so.

DSTACK_TEST_LONG=1 runs for 10 minutes instead of one; DSTACK_TEST_SEED=N repeats the batch that
failed. Hypothesis shrinks a failure and prints its steps.
"""
import errno
import hashlib
import itertools
import mmap
import os
import shutil
import stat
import time

import pytest

pytest.importorskip("hypothesis")
import hypothesis  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis import stateful  # noqa: E402
from hypothesis.configuration import set_hypothesis_home_dir  # noqa: E402
from hypothesis.internal.conjecture import engine  # noqa: E402

from conftest import FileStore, Mount, S3Store, wait_for  # noqa: E402

KIB, MIB = 1 << 10, 1 << 20
SECONDS = 300 if os.environ.get("DSTACK_TEST_LONG") else 25
EXAMPLES = 25  # in a batch; Hypothesis makes the first ten of them short
MAX_FILE = 48 * MIB
MAX_HANDLES = 4
OPTIONS = ("--budget", "64MiB", "--part-size", "5MiB")

PATHS = ["a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "link"]
FILES = ["a", "b", "d/a", "d/e/a"]
TARGETS = ["a", "b", "d", "d/a", "../a", "link", "nowhere", "e/a"]
CREATE_FLAGS = [0, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_TRUNC, os.O_CREAT | os.O_TRUNC]
ACCESS = [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR]
# Around what the kernel's pages and the store's parts end at.
EDGES = [0, 1, 100, 4 * KIB - 1, 4 * KIB, 128 * KIB, MIB - 1, MIB + 1, 5 * MIB - 1, 5 * MIB,
         5 * MIB + 1, 8 * MIB, 10 * MIB, 16 * MIB + 3]
SIZES = [1, 2, 100, 4 * KIB - 1, 4 * KIB, 64 * KIB + 1, MIB, 5 * MIB, 5 * MIB + 1, 11 * MIB, 20 * MIB]

paths = st.sampled_from(PATHS)
slots = st.integers(0, MAX_HANDLES - 1)
handles = st.integers(0, MAX_HANDLES - 1)  # the n-th of those that are open
offsets = st.sampled_from(EDGES) | st.integers(0, 2 * MIB)
sizes = st.sampled_from(SIZES) | st.integers(1, 64 * KIB)
fills = st.integers(1, 255)
times_ns = st.integers(1, 1_500_000_000_999_999_999)

NOISE = hashlib.shake_256(b"model").digest(64 * KIB - 7)  # no page of its repetitions is like another


def data_of(fill, size):
    block = bytes([fill]) + NOISE[fill:]
    return (block * (size // len(block) + 1))[:size]


class Bytes:
    """Bytes to compare, whose failures can be read."""

    def __init__(self, data):
        self.data = data

    def __eq__(self, other):
        return isinstance(other, Bytes) and self.data == other.data

    def __repr__(self):
        return f"{len(self.data)} bytes {self.data[:8]!r}…"


def first_difference(one, other):
    step = 64 * KIB
    for at in range(0, max(len(one), len(other)), step):
        if one[at:at + step] != other[at:at + step]:
            pairs = zip(one[at:at + step], other[at:at + step])
            return at + next((i for i, (x, y) in enumerate(pairs) if x != y),
                             min(len(one), len(other)) - at)
    return None


def explain(expected, found):
    """Where two results differ first."""
    if not (isinstance(expected, Bytes) and isinstance(found, Bytes)):
        return f"local {expected!r}, mount {found!r}"
    at = first_difference(expected.data, found.data)
    return (f"{expected!r} became {found!r}; the first difference is at {at}: "
            f"{expected.data[at:at + 8]!r} became {found.data[at:at + 8]!r}")


class Side:
    """One of the two directories, and what is open in it."""

    def __init__(self, root):
        self.root = root
        self.fds = [None] * MAX_HANDLES
        self.flags = [0] * MAX_HANDLES

    def path(self, name):
        return os.path.join(self.root, name)

    def open(self, slot, name, flags):
        self.fds[slot] = os.open(self.path(name), flags, 0o644)
        self.flags[slot] = flags

    def close(self, slot):
        fd, self.fds[slot] = self.fds[slot], None
        os.close(fd)

    def close_all(self):
        for slot in range(MAX_HANDLES):
            if self.fds[slot] is not None:
                self.close(slot)

    def write(self, slot, data):
        return os.write(self.fds[slot], data)

    def pwrite(self, slot, offset, data):
        return os.pwrite(self.fds[slot], data, offset)

    def read(self, slot, offset, size):
        return Bytes(os.pread(self.fds[slot], size, offset))

    def ftruncate(self, slot, size):
        os.ftruncate(self.fds[slot], size)

    def file_size(self, fd):
        """0 for a directory, which cannot be mapped and has any size."""
        state = os.fstat(fd)
        return state.st_size if stat.S_ISREG(state.st_mode) else 0

    def map_write(self, slot, offset, data, synced):
        """Through a shared mapping, seen by pread before and after the mapping is gone."""
        fd = self.fds[slot]
        size = self.file_size(fd)
        if offset >= size:
            return None
        data = data[:size - offset]
        with mmap.mmap(fd, 0) as memory:
            memory[offset:offset + len(data)] = data
            seen = os.pread(fd, len(data), offset)
            if synced:
                memory.flush()
        return Bytes(seen), Bytes(os.pread(fd, len(data), offset))

    def map_read(self, slot):
        fd = self.fds[slot]
        if self.file_size(fd) == 0:
            return None
        with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as memory:
            return Bytes(memory[:])

    def copy(self, source, target, size):
        """copy_file_range from one offset to another; may be short, so it is repeated."""
        done = 0
        while done < size:
            count = os.copy_file_range(self.fds[source], self.fds[target], size - done, done, done)
            if not count:
                break
            done += count
        return done

    def state(self, st_):
        kind = stat.S_IFMT(st_.st_mode)
        state = {"mode": oct(st_.st_mode)}
        if kind != stat.S_IFDIR:
            state.update(size=st_.st_size, nlink=st_.st_nlink)
        if kind == stat.S_IFREG:
            is_set = st_.st_mtime < 1_600_000_000  # by utime, and nothing was written after it
            state["mtime"] = st_.st_mtime_ns if is_set else "now"
        return state

    def lstat(self, name):
        return self.state(os.lstat(self.path(name)))

    def fstat(self, slot):
        return self.state(os.fstat(self.fds[slot]))

    def list(self, name):
        return sorted(os.listdir(self.path(name)))


def named(arguments):
    return tuple(Bytes(a) if isinstance(a, bytes) else a for a in arguments)


def outcome(call):
    try:
        return call()
    except OSError as error:
        return errno.errorcode[error.errno]


class World:
    """A store and a mount of it, which many examples use one after the other."""

    def __init__(self, store, directory):
        self.store, self.directory = store, directory
        self.mount = Mount(store, directory, *OPTIONS)
        self.numbers = itertools.count()
        self.failures = []

    def remount(self):
        self.mount.stop()
        self.mount = Mount(self.store, self.directory, *OPTIONS)


def changes(flags):
    """Whether what was opened so is saved by its close."""
    return flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) != 0


def has_open():
    return stateful.precondition(lambda self: any(fd is not None for fd in self.local.fds))


def machine(world):
    """The state machine's class for one world: each run of it has a directory of its own."""

    class Model(stateful.RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            self.prefix = f"x{next(world.numbers)}"
            self.local = Side(str(world.directory / f"local-{self.prefix}"))
            self.mounted = Side(str(world.mount.path / self.prefix))
            for side in (self.local, self.mounted):
                for name in ("", "d", "d/e"):
                    os.mkdir(side.path(name))
                for name, size in (("a", 100), ("d/b", 6 * MIB)):
                    with open(side.path(name), "wb") as file:
                        file.write(data_of(1, size))

        def teardown(self):
            try:
                self.close_everything()
            finally:
                for side in (self.local, self.mounted):
                    for slot, fd in enumerate(side.fds):
                        if fd is not None:
                            os.close(fd)
                    shutil.rmtree(side.root, ignore_errors=True)

        def fail(self, message):
            """Remembers what failed first, also when it does not fail again."""
            world.failures.append(message)
            raise AssertionError(message)

        def same(self, what, expected, found):
            if found != expected:
                self.fail(f"{what}: {explain(expected, found)}")

        def both(self, what, *arguments):
            """WHAT on both sides; the same answer, or the test fails. True when it succeeded."""
            expected = outcome(lambda: getattr(self.local, what)(*arguments))
            found = outcome(lambda: getattr(self.mounted, what)(*arguments))
            self.same(f"{what}{named(arguments)}", expected, found)
            return not isinstance(expected, str)

        def call(self, function, *arguments):
            """os.FUNCTION on both sides, with the paths in a tuple."""
            def on(side):
                return lambda: function(*(side.path(a[0]) if isinstance(a, tuple) else a
                                          for a in arguments))
            expected, found = outcome(on(self.local)), outcome(on(self.mounted))
            self.same(f"{function.__name__}{named(arguments)}", expected, found)
            return not isinstance(expected, str)

        def is_open(self, slot):
            return self.local.fds[slot] is not None

        def slot_of(self, handle):
            slots_open = [slot for slot in range(MAX_HANDLES) if self.is_open(slot)]
            return slots_open[handle % len(slots_open)]

        def name_of(self, slot):
            """Where an open file is now; None when it has no name any more."""
            wanted = os.fstat(self.local.fds[slot])
            for name in PATHS:
                try:
                    if os.path.samestat(os.lstat(self.local.path(name)), wanted):
                        return name
                except OSError:
                    pass
            return None

        def check_object(self, name):
            """Another client sees the very bytes."""
            if name is None or not os.path.lexists(self.local.path(name)):
                return
            path = self.local.path(name)
            if os.path.realpath(os.path.dirname(path)) != os.path.join(os.path.realpath(self.local.root),
                                                                       os.path.dirname(name)).rstrip("/"):
                return  # through a symlink: an object of another name
            kind = os.lstat(path).st_mode
            if stat.S_ISREG(kind):
                expected = open(path, "rb").read()
            elif stat.S_ISLNK(kind):
                expected = os.readlink(path).encode()
            else:
                return
            found = world.store.read(f"{self.prefix}/{name}")
            if found is None:
                self.fail(f"{name} is not in the store")
            self.same(f"{name} in the store", Bytes(expected), Bytes(found))

        def check_no_object(self, name):
            if world.store.read(f"{self.prefix}/{name}") is not None:
                self.fail(f"{name} is still in the store")

        def is_written(self, name):
            """Whether anything still writes to the file, so that its object may be older."""
            return any(self.is_open(slot) and changes(self.local.flags[slot])
                       and self.name_of(slot) == name for slot in range(MAX_HANDLES))

        def check_if_settled(self, *names):
            for name in names:
                real = os.path.relpath(os.path.realpath(self.local.path(name)), self.local.root)
                if real in PATHS and not self.is_written(real):
                    self.check_object(real)

        def close_everything(self):
            for slot in range(MAX_HANDLES):
                if self.is_open(slot):
                    self.both("close", slot)
            for name in PATHS:
                self.check_object(name)
            expected = [os.path.relpath(os.path.join(where, name), self.local.root)
                        for where, dirs, files in os.walk(self.local.root)
                        for name in files + [d for d in dirs if os.path.islink(os.path.join(where, d))]]
            keys = [key for key in world.store.keys(self.prefix + "/") if not key.endswith("/")]
            self.same("keys", sorted(f"{self.prefix}/{name}" for name in expected), sorted(keys))
            wait_for(lambda: world.store.keys(".dstack-mount/") == [".dstack-mount/lease"], 5,
                     "staged objects are gone")  # the kernel tells of a last close a little later

        @stateful.rule(slot=slots, name=paths, access=st.sampled_from(ACCESS),
                       how=st.sampled_from(CREATE_FLAGS), append=st.booleans())
        def open(self, slot, name, access, how, append):
            if self.is_open(slot):
                self.close_slot(slot)
            self.both("open", slot, name, access | how | (os.O_APPEND if append else 0))

        @stateful.rule(slot=slots, name=st.sampled_from(FILES))
        def create(self, slot, name):
            self.open(slot, name, os.O_RDWR, os.O_CREAT, False)

        def close_slot(self, slot):
            name = self.name_of(slot)
            flags = self.local.flags[slot]
            only_reads = flags & os.O_ACCMODE == os.O_RDONLY and not flags & os.O_TRUNC
            self.both("close", slot)
            # What another handle rewrites stays as it was until that one is closed.
            if changes(flags) and not (only_reads and self.is_written(name)):
                self.check_object(name)

        @has_open()
        @stateful.rule(handle=handles)
        def close(self, handle):
            self.close_slot(self.slot_of(handle))

        def has_room(self, slot, size):
            return os.fstat(self.local.fds[slot]).st_size + size <= MAX_FILE

        @has_open()
        @stateful.rule(handle=handles, offset=offsets, size=sizes, fill=fills)
        def pwrite(self, handle, offset, size, fill):
            slot = self.slot_of(handle)
            if self.has_room(slot, size):
                self.both("pwrite", slot, offset, data_of(fill, size))

        @has_open()
        @stateful.rule(handle=handles, size=sizes, fill=fills)
        def write(self, handle, size, fill):
            slot = self.slot_of(handle)
            if self.has_room(slot, size):
                self.both("write", slot, data_of(fill, size))

        @has_open()
        @stateful.rule(handle=handles, offset=offsets, size=sizes)
        def read(self, handle, offset, size):
            self.both("read", self.slot_of(handle), offset, size)

        @has_open()
        @stateful.rule(handle=handles)
        def read_all(self, handle):
            self.both("read", self.slot_of(handle), 0, MAX_FILE + 1)

        @has_open()
        @stateful.rule(handle=handles, offset=offsets, size=sizes, fill=fills, synced=st.booleans())
        def map_write(self, handle, offset, size, fill, synced):
            self.both("map_write", self.slot_of(handle), offset, data_of(fill, size), synced)

        @has_open()
        @stateful.rule(handle=handles)
        def map_read(self, handle):
            self.both("map_read", self.slot_of(handle))

        @has_open()
        @stateful.rule(handle=handles, to=handles, size=sizes)
        def copy(self, handle, to, size):
            self.both("copy", self.slot_of(handle), self.slot_of(to), size)

        @has_open()
        @stateful.rule(handle=handles)
        def fsync(self, handle):
            slot = self.slot_of(handle)
            for side in (self.local, self.mounted):
                os.fsync(side.fds[slot])
            self.check_object(self.name_of(slot))

        @has_open()
        @stateful.rule(handle=handles, size=offsets)
        def ftruncate(self, handle, size):
            self.both("ftruncate", self.slot_of(handle), size)

        @stateful.rule(name=paths, size=offsets)
        def truncate(self, name, size):
            if self.call(os.truncate, (name,), size):
                self.check_if_settled(name)

        @stateful.rule(old=paths, new=paths)
        def rename(self, old, new):
            if self.call(os.rename, (old,), (new,)):
                self.check_if_settled(new)
                if not os.path.lexists(self.local.path(old)):
                    self.check_no_object(old)

        @stateful.rule(name=paths)
        def unlink(self, name):
            if self.call(os.unlink, (name,)):
                self.check_no_object(name)

        @stateful.rule(name=paths)
        def mkdir(self, name):
            self.call(os.mkdir, (name,))

        @stateful.rule(name=st.sampled_from(["d", "d/e"]))
        def make_directory(self, name):
            self.call(os.mkdir, (name,))

        @stateful.rule(name=paths)
        def rmdir(self, name):
            self.call(os.rmdir, (name,))

        @stateful.rule(name=paths, text=st.sampled_from(TARGETS))
        def symlink(self, name, text):
            self.call(os.symlink, text, (name,))

        @stateful.rule(name=paths)
        def readlink(self, name):
            self.call(os.readlink, (name,))

        @stateful.rule(name=paths, mode=st.sampled_from([0o600, 0o644, 0o755, 0o400, 0o4711]))
        def chmod(self, name, mode):
            self.call(os.chmod, (name,), mode)

        @stateful.rule(name=paths, atime=times_ns, mtime=times_ns)
        def utime(self, name, atime, mtime):
            def utime(path):
                os.utime(path, ns=(atime, mtime))
            self.call(utime, (name,))

        @stateful.rule(name=paths)
        def list(self, name):
            self.both("list", name)

        @stateful.rule(dice=st.integers(0, 5))
        def remount(self, dice):
            if dice == 5:
                self.close_everything()
                world.remount()

        @stateful.invariant()
        def same_tree(self):
            self.both("list", ".")
            for name in PATHS:
                self.both("lstat", name)
            for slot in range(MAX_HANDLES):
                if self.is_open(slot):
                    self.both("fstat", slot)

    return Model


def run_batch(world, seed):
    engine.MAX_SHRINKING_SECONDS = 60
    settings = hypothesis.settings(
        max_examples=EXAMPLES, stateful_step_count=80, deadline=None, database=None, print_blob=True,
        report_multiple_bugs=False,
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
        suppress_health_check=list(hypothesis.HealthCheck))
    try:
        stateful.run_state_machine_as_test(hypothesis.seed(seed)(machine(world)), settings=settings)
    except BaseException:
        print(f"repeat this with DSTACK_TEST_SEED={seed}; first: {world.failures[:1]}")
        raise


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_the_mount_behaves_as_a_local_directory(kind, directory):
    set_hypothesis_home_dir(str(directory / "hypothesis"))
    store = FileStore(directory) if kind == "file" else S3Store()
    given = os.environ.get("DSTACK_TEST_SEED")
    seed = int(given) if given else time.time_ns() % 1_000_000_000
    end = time.monotonic() + SECONDS
    world = World(store, directory)
    try:
        run_batch(world, seed)
        while not given and time.monotonic() < end:
            seed += 1
            run_batch(world, seed)
        world.mount.stop()
    finally:
        world.mount.kill()
        if kind == "s3":
            store.remove_all()
