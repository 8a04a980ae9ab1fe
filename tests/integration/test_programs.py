"""Programs that training uses, as they are, on a mount of the S3 server. DSTACK_TEST_LONG=1: larger."""
import concurrent.futures
import hashlib
import io
import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import threading
import time

import pytest

from conftest import Mount, wait_for

KIB, MIB = 1 << 10, 1 << 20
LONG = bool(os.environ.get("DSTACK_TEST_LONG"))
BUDGET = 128 * MIB


@pytest.fixture
def mount(s3_store, directory):
    mount = Mount(s3_store, directory, "--budget", str(BUDGET))
    # A program that waits for a mount that hangs can be ended only by ending the mount.
    watchdog = threading.Timer(600 if LONG else 90, mount.process.kill)
    watchdog.start()
    try:
        yield mount
        assert mount.process.poll() is None, "the mount hung"
        assert mount.peak_rss_bytes() < BUDGET + 64 * MIB
        mount.stop()
    finally:
        watchdog.cancel()
        mount.kill()


@pytest.fixture
def root(mount):
    return mount.path


@pytest.fixture
def reader(s3_store, directory):
    """reader(): a second, read-only mount of the same prefix; stopped and checked afterwards."""
    mounts = []

    def start():
        (directory / "reader").mkdir()
        mounts.append(Mount(s3_store, directory / "reader", "-o", "ro", "--attr-ttl", "200"))
        return mounts[-1].path

    yield start
    for second in mounts:
        second.stop()
        second.kill()


def run(*command, cwd=None, seconds=120, **named):
    """Runs a program that must succeed; what it printed."""
    environment = {**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "a",
                   "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    result = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True,
                            timeout=seconds, env=environment, **named)
    assert result.returncode == 0, f"{command}: {result.stdout[-4000:]}{result.stderr[-4000:]}"
    return result.stdout


def run_python(code, *arguments, seconds=240):
    """In a process of its own, so that what it imports and keeps open goes with it."""
    return run(sys.executable, "-B", "-c", code, *arguments, seconds=seconds)


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")


# PyTorch, safetensors, h5py, numpy


TORCH = """
import hashlib, os, sys, torch
path, count, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
torch.manual_seed(1)
state = {f"layer{i}": torch.randn(4 << 20) for i in range(count)}  # 16 MiB each
if how == "direct":
    torch.save(state, path)
else:
    torch.save(state, path + ".tmp")
    os.replace(path + ".tmp", path)
del state
torch.manual_seed(1)
back = torch.load(path)
assert len(back) == count
for i in range(count):
    assert torch.equal(back.pop(f"layer{i}"), torch.randn(4 << 20)), i
"""


@pytest.mark.parametrize("how", ["direct", "rename"])
def test_torch_save_and_load(root, s3_store, how):
    pytest.importorskip("torch")
    run_python(TORCH, root / "model.pt", 64 if LONG else 16, how, seconds=240)
    assert os.listdir(root) == ["model.pt"]
    assert hashlib.sha256(s3_store.read("model.pt")).digest() == digest_of(root / "model.pt")
    # Overwritten in place by the next epoch.
    run_python(TORCH, root / "model.pt", 2, how)


def digest_of(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest() if hasattr(hashlib, "file_digest") else \
            hashlib.sha256(file.read()).digest()


def test_distributed_checkpoint(root, s3_store):
    """Shards in parallel, then .metadata by rename: nobody sees it before every shard is whole."""
    shards, size = 4, 24 * MIB
    stop, problems, seen = threading.Event(), [], []

    def poll():
        while not stop.is_set():
            for step in range(3):
                if s3_store.read(f"step{step}/.metadata") is None:
                    continue
                seen.append(step)
                for i in range(shards):
                    found = s3_store.read(f"step{step}/__{i}_0.distcp")
                    if found is None or len(found) != size or set(found) != {step * shards + i}:
                        problems.append(f"step {step}: shard {i} is not whole")

    def write_shard(step, i):
        with open(root / f"step{step}" / f"__{i}_0.distcp", "wb") as file:
            for _ in range(size // MIB):
                file.write(bytes([step * shards + i]) * MIB)
            file.flush()
            os.fsync(file.fileno())

    poller = threading.Thread(target=poll)
    poller.start()
    try:
        for step in range(3):
            (root / f"step{step}").mkdir()
            with concurrent.futures.ThreadPoolExecutor(shards) as pool:
                list(pool.map(lambda i: write_shard(step, i), range(shards)))
            with open(root / f"step{step}" / ".metadata.tmp", "wb") as file:
                file.write(b"metadata")
                os.fsync(file.fileno())
            os.rename(root / f"step{step}" / ".metadata.tmp", root / f"step{step}" / ".metadata")
            assert s3_store.read(f"step{step}/.metadata") == b"metadata"
        wait_for(lambda: 2 in seen, 20, "the other client saw the last .metadata")
    finally:
        stop.set()
        poller.join()
    assert not problems


def test_checkpoint_without_fsync_keeps_its_order(root, s3_store):
    """Closed in order, seen in order, also when the shards take longer than what follows them."""
    for step in range(4):
        with open(root / f"shard{step}", "wb") as file:
            for _ in range(20):
                file.write(bytes([step + 1]) * MIB)
        (root / f"done{step}").write_bytes(b"done")
        assert s3_store.read(f"done{step}") == b"done"
        assert s3_store.read(f"shard{step}") == bytes([step + 1]) * (20 * MIB)


def safetensors_bytes(numpy, arrays):
    """The format: an 8-byte length, a JSON header, the tensors."""
    header, offset = {}, 0
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape),
                        "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(a.tobytes() for a in arrays.values())


def test_safetensors_sequence(root, s3_store):
    numpy = pytest.importorskip("numpy")
    random = numpy.random.default_rng(1)
    arrays = {f"w{i}": random.standard_normal((1024, 1024), dtype="f4") for i in range(12)}
    temporary, final = root / ".tmp1234.safetensors", root / "model.safetensors"
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(safetensors_bytes(numpy, arrays))
    os.chmod(temporary, 0o644)
    os.rename(temporary, final)
    assert s3_store.read("model.safetensors") == safetensors_bytes(numpy, arrays)
    memory = numpy.memmap(final, mode="r")
    length = int.from_bytes(memory[:8].tobytes(), "little")
    header = json.loads(memory[8:8 + length].tobytes())
    for name in reversed(list(header)):  # not in the order of the file
        start, end = header[name]["data_offsets"]
        found = memory[8 + length + start:8 + length + end].view("f4").reshape(header[name]["shape"])
        assert numpy.array_equal(found, arrays[name])


H5PY = """
import h5py, numpy, sys
path = sys.argv[1]
with h5py.File(path, "w") as f:
    f.create_dataset("grow", (0, 1024), maxshape=(None, 1024), chunks=(256, 1024), dtype="f4")
    f.create_dataset("fixed", data=numpy.arange(1 << 20))
for step in range(4):
    with h5py.File(path, "a") as f:
        d = f["grow"]
        d.resize(d.shape[0] + 1000, axis=0)
        d[-1000:] = step + 1
        f.flush()
        f["fixed"][step * 1000:step * 1000 + 10] = -1
        f.attrs["step"] = step
with h5py.File(path, "r+") as f:
    f["grow"][500:1500] = 9
    f["grow"].resize(3500, axis=0)
with h5py.File(path, "r") as f:
    d = f["grow"][:]
    assert d.shape == (3500, 1024) and (d[:500] == 1).all() and (d[500:1500] == 9).all()
    assert (d[1500:2000] == 2).all() and (d[2000:3000] == 3).all() and (d[3000:] == 4).all()
    fixed = f["fixed"][:]
    expected = numpy.arange(1 << 20)
    for step in range(4):
        expected[step * 1000:step * 1000 + 10] = -1
    assert (fixed == expected).all() and f.attrs["step"] == 3
"""


def test_h5py(root, s3_store):
    pytest.importorskip("h5py")
    run_python(H5PY, root / "data.h5")
    assert s3_store.read("data.h5") == (root / "data.h5").read_bytes()


def test_numpy_memmap(root, s3_store):
    numpy = pytest.importorskip("numpy")
    numpy.save(root / "a.npy", numpy.zeros((6000, 1000), dtype="f4"))
    memory = numpy.load(root / "a.npy", mmap_mode="r+")
    memory[::100] = 7
    memory[5999] = 8
    memory.flush()
    del memory
    back = numpy.load(io.BytesIO(s3_store.read("a.npy")))
    assert (back[:5999:100] == 7).all() and (back[5999] == 8).all() and (back[1] == 0).all()
    created = numpy.lib.format.open_memmap(root / "new.npy", mode="w+", dtype="i8", shape=(1 << 20,))
    created[:] = numpy.arange(1 << 20)
    created.flush()
    del created
    assert (numpy.load(root / "new.npy") == numpy.arange(1 << 20)).all()


# Databases and tools


@pytest.mark.parametrize("journal", ["delete", "truncate", "persist", "wal"])
def test_sqlite(root, s3_store, directory, journal):
    path = root / "data.db"
    for turn in range(3):
        database = sqlite3.connect(path, timeout=20)
        assert database.execute(f"pragma journal_mode={journal}").fetchone()[0] == journal
        database.execute("create table if not exists t(id integer primary key, body blob)")
        for i in range(4):
            with database:
                database.executemany("insert into t(body) values (?)",
                                     [(os.urandom(900),) for _ in range(400)])
        with database:
            database.execute("delete from t where id % 3 = 0")
        database.execute("update t set body = 'x'")
        database.rollback()
        assert database.execute("pragma integrity_check").fetchone()[0] == "ok"
        database.close()
    (directory / "copy.db").write_bytes(s3_store.read("data.db"))
    copy = sqlite3.connect(directory / "copy.db")
    assert copy.execute("pragma integrity_check").fetchone()[0] == "ok"
    count = copy.execute("select count(*) from t").fetchone()[0]
    copy.close()
    database = sqlite3.connect(path)
    assert database.execute("select count(*) from t").fetchone()[0] == count > 1000
    database.execute("vacuum")
    assert database.execute("pragma integrity_check").fetchone()[0] == "ok"
    database.close()


def test_sqlite_two_processes(root):
    """Locks hold within the mount: no update is lost."""
    path = root / "data.db"
    database = sqlite3.connect(path)
    database.execute("create table t(n integer)")
    database.execute("insert into t values (0)")
    database.commit()
    database.close()
    code = ("import sqlite3, sys\nd = sqlite3.connect(sys.argv[1], timeout=60)\n"
            "for i in range(20):\n    with d:\n        d.execute('update t set n = n + 1')\n")
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: run_python(code, path), range(3)))
    database = sqlite3.connect(path)
    assert database.execute("select n from t").fetchone()[0] == 60
    database.close()


def make_repository(path, files=60):
    path.mkdir()
    run("git", "init", "-q", "-b", "main", path)
    for commit in range(3):
        for i in range(files):
            (path / f"d{i % 7}").mkdir(exist_ok=True)
            (path / f"d{i % 7}" / f"f{i}.txt").write_text(f"{i * commit} line\n" * (i + 10))
        run("git", "add", "-A", cwd=path)
        run("git", "commit", "-q", "-m", f"commit {commit}", cwd=path)


def test_git(root, directory):
    need("git")
    make_repository(directory / "origin")
    clone = root / "clone"
    run("git", "clone", "-q", "--no-local", directory / "origin", clone)
    (clone / "new.txt").write_text("new\n")
    (clone / "d1" / "f1.txt").unlink()
    run("git", "add", "-A", cwd=clone)
    run("git", "commit", "-q", "-m", "in the mount", cwd=clone)
    run("git", "checkout", "-q", "-b", "other", "HEAD~2", cwd=clone)
    run("git", "checkout", "-q", "main", cwd=clone)
    run("git", "gc", "-q", cwd=clone)
    run("git", "fsck", "--full", "--strict", cwd=clone)
    assert run("git", "status", "--porcelain", cwd=clone) == ""
    assert run("git", "log", "--format=%s", cwd=clone).split("\n")[0] == "in the mount"
    run("git", "clone", "-q", clone, directory / "back")
    assert (directory / "back" / "new.txt").read_text() == "new\n"


def make_tree(path, files=60):
    """Files, directories, links, modes and old times, as a code base has."""
    for i in range(files):
        where = path / f"d{i % 5}" / f"e{i % 3}"
        where.mkdir(parents=True, exist_ok=True)
        (where / f"f{i}").write_bytes(os.urandom(i * 997 % 50_000))
        (where / f"f{i}").chmod(0o755 if i % 4 == 0 else 0o640)
        os.utime(where / f"f{i}", ns=(10 ** 18 + i, 10 ** 18 + i * 123_456_789))
    (path / "empty").mkdir()
    (path / "large").write_bytes(os.urandom(12 * MIB))
    os.symlink("d1/e1", path / "link")
    for where, _, _ in os.walk(path):
        os.utime(where, (1_000_000_000, 1_000_000_000))


def test_tar(root, directory):
    make_tree(directory / "tree")
    run("tar", "-C", directory / "tree", "-cf", root / "tree.tar", ".")
    run("tar", "-C", directory / "tree", "-df", root / "tree.tar")
    (root / "out").mkdir()
    run("tar", "-C", root / "out", "-xpf", root / "tree.tar")
    run("tar", "-C", root / "out", "-df", root / "tree.tar")
    run("diff", "-r", "--no-dereference", directory / "tree", root / "out")
    run("tar", "-C", root / "out", "-czf", root / "again.tar.gz", ".")
    run("tar", "-C", directory / "tree", "-dzf", root / "again.tar.gz")


def test_rsync_twice(root, directory, mount):
    need("rsync")
    make_tree(directory / "tree")
    run("rsync", "-a", f"{directory}/tree/", f"{root}/copy/")
    run("diff", "-r", "--no-dereference", directory / "tree", root / "copy")
    assert run("rsync", "-a", "--itemize-changes", f"{directory}/tree/", f"{root}/copy/") == ""
    (directory / "tree" / "large").write_bytes(os.urandom(100_000))
    (directory / "tree" / "empty").rmdir()
    run("rsync", "-a", "--delete", "--inplace", f"{directory}/tree/", f"{root}/copy/")
    assert run("rsync", "-a", "--delete", "--itemize-changes", "--checksum", f"{directory}/tree/",
               f"{root}/copy/") == ""


def test_rsync_after_a_remount(s3_store, directory):
    """Modes, times and owners are the same for the next mount."""
    need("rsync")
    make_tree(directory / "tree", 20)
    first = Mount(s3_store, directory)
    try:
        run("rsync", "-a", f"{directory}/tree/", f"{first.path}/copy/")
        first.stop()
    finally:
        first.kill()
    second = Mount(s3_store, directory)
    try:
        assert run("rsync", "-a", "--itemize-changes", f"{directory}/tree/", f"{second.path}/copy/") == ""
        second.stop()
    finally:
        second.kill()


def test_sparse_copy(root, directory, s3_store):
    with open(directory / "sparse", "wb") as file:
        for at in (0, 5 * MIB, 30 * MIB):
            file.seek(at)
            file.write(os.urandom(100_000))
        file.truncate(40 * MIB + 7)
    run("cp", "--sparse=always", directory / "sparse", root / "sparse")
    run("cmp", directory / "sparse", root / "sparse")
    run("cp", "--sparse=always", root / "sparse", directory / "back")
    run("cmp", directory / "sparse", directory / "back")
    assert s3_store.read("sparse") == (directory / "sparse").read_bytes()
    run("cp", "-a", root / "sparse", root / "again")
    run("cmp", root / "again", directory / "sparse")


def test_make(root):
    need("make", "cc")
    (root / "src").mkdir()
    calls = "".join(f"int f{i}(void);\n" for i in range(8))
    total = " + ".join(f"f{i}()" for i in range(8))
    for i in range(8):
        (root / "src" / f"f{i}.c").write_text(f"int f{i}(void)\n{{\n    return {i};\n}}\n")
    (root / "src" / "main.c").write_text(
        f'#include <stdio.h>\n{calls}int main(void)\n{{\n    printf("%d\\n", {total});\n}}\n')
    (root / "src" / "Makefile").write_text(
        "OBJECTS = main.o $(patsubst %,f%.o,0 1 2 3 4 5 6 7)\nsum: libf.a main.o\n"
        "\t$(CC) -o $@ main.o libf.a\nlibf.a: $(filter-out main.o,$(OBJECTS))\n\tar rcs $@ $^\n")
    run("make", "-j4", cwd=root / "src")
    assert run(root / "src" / "sum") == "28\n"
    assert "up to date" in run("make", cwd=root / "src")
    time.sleep(0.02)
    (root / "src" / "f3.c").write_text("int f3(void)\n{\n    return 103;\n}\n")
    assert "f3" in run("make", cwd=root / "src")
    assert run(root / "src" / "sum") == "128\n"


# Logs followed while they are written


def event_record(data):
    """A TFRecord, with checksums that only a reader of ours would check."""
    length = struct.pack("<Q", len(data))
    return length + hashlib.sha256(length).digest()[:4] + data + hashlib.sha256(data).digest()[:4]


def records_of(data):
    """The whole records in DATA; fails when one is damaged."""
    found, at = [], 0
    while at + 12 <= len(data):
        length = data[at:at + 8]
        assert data[at + 8:at + 12] == hashlib.sha256(length).digest()[:4], f"damaged at {at}"
        size = struct.unpack("<Q", length)[0]
        if at + 16 + size > len(data):
            break
        body = data[at + 12:at + 12 + size]
        assert data[at + 12 + size:at + 16 + size] == hashlib.sha256(body).digest()[:4]
        found.append(body)
        at += 16 + size
    return found


def test_event_file_followed_live(root, reader):
    """As TensorBoard does: the reader keeps the file open and reads on from where it was."""
    path = root / "events.out.tfevents"
    writer = open(path, "ab")
    writer.write(event_record(b"0"))
    writer.flush()
    follower = reader() / "events.out.tfevents"
    wait_for(follower.exists, 5, "the other mount sees the file")
    data = b""
    with open(follower, "rb") as following:
        for step in range(1, 6):
            writer.write(event_record(b"%d" % step * (1 + step * 5000)))
            writer.flush()
            end = time.monotonic() + 5
            while len(records_of(data)) < step + 1 and time.monotonic() < end:
                data += following.read()
                time.sleep(0.1)
            assert len(records_of(data)) == step + 1
    writer.close()
    assert data == path.read_bytes()


def test_tail_follows_by_name(root, reader):
    """tail -F on the other mount prints each line within the publish interval and its own."""
    with open(root / "train.log", "w") as log:
        log.write("line 0\n")
        log.flush()
        path = reader() / "train.log"
        wait_for(path.exists, 5, "the other mount sees the file")
        tail = subprocess.Popen(["tail", "-F", "-n", "+1", "-s", "0.2", path], stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, text=True)
        lines = []
        thread = threading.Thread(target=lambda: lines.extend(tail.stdout))
        try:
            thread.start()
            for i in range(1, 5):
                log.write(f"line {i}\n")
                log.flush()
                time.sleep(1)
            time.sleep(2)
        finally:
            tail.kill()
            tail.wait()
            thread.join()
    assert lines == [f"line {i}\n" for i in range(5)]


# fio


def fio(root, *options):
    output = run("fio", "--minimal", "--directory", root, "--name", "job", "--verify", "crc32c",
                 "--verify_fatal", "1", "--verify_state_save", "0", "--group_reporting", "--end_fsync", "1",
                 "--randseed", "7", *options, seconds=200)
    assert "verify" not in output


@pytest.mark.parametrize("engine", ["psync", "libaio", "mmap"])
@pytest.mark.parametrize("pattern,block,size", [
    ("write", "4k", 8), ("write", "4m", 64), ("randwrite", "4k", 8), ("randwrite", "64k", 24),
    ("randwrite", "1m", 32), ("randrw", "16k", 12), ("rw", "256k", 24)])
def test_fio_verify(root, engine, pattern, block, size):
    need("fio")
    size *= 4 if LONG else 1
    depth = ["--iodepth", "8", "--direct", "1"] if engine == "libaio" else []
    fio(root, "--ioengine", engine, "--rw", pattern, "--bs", block, "--size", f"{size}m", *depth)


def test_fio_mixed_sizes_from_several_jobs(root):
    need("fio")
    fio(root, "--ioengine", "libaio", "--iodepth", "4", "--rw", "randwrite", "--bsrange", "4k-4m",
        "--size", "32m", "--numjobs", "4")
