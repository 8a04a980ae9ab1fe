"""What the programs do that are measured: they write and read files."""
import concurrent.futures
import mmap
import os
import random

from world import MIB

RANDOM_BYTES = 256 * 1024
SMALL_BYTES = 4096


def write_file(path, size_mib, block):
    with open(path, "wb", buffering=0) as file:
        for _ in range(size_mib):
            file.write(block)
        os.fsync(file.fileno())


def read_file(path, size_mib):
    buffer, total = bytearray(MIB), 0
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total += count
    if total != size_mib * MIB:
        raise RuntimeError(f"{path}: {total} bytes read")


def check_bytes(path, size_mib, block):
    """That what was read is what was written, at a few places."""
    with open(path, "rb", buffering=0) as file:
        for at in {0, size_mib // 3, size_mib - 1}:
            if os.pread(file.fileno(), MIB, at * MIB) != block:
                raise RuntimeError(f"{path}: other bytes than were written, in MiB {at}")


def tensors_of(size):
    """Where the tensors of a file of SIZE bytes are: as safetensors lays out a transformer, behind a header."""
    layer = [16 << 10, 32 * MIB, 8 * MIB, 8 * MIB, 32 * MIB, 16 << 10, 86 * MIB, 86 * MIB, 86 * MIB]
    at, found = 12_344, []
    while at < size:
        end = min(at + layer[len(found) % len(layer)], size)
        found.append((at, end))
        at = end
    return found


def load_mapped(path, tensors):
    """Copies each of TENSORS, (from, to), out of a mapping."""
    memory = memoryview(bytearray(max(end - start for start, end in tensors)))
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped, \
            memoryview(mapped) as view:
        for start, end in tensors:
            memory[:end - start] = view[start:end]


def in_threads(count, work):
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))


def write_small(directory, count, threads):
    data = os.urandom(SMALL_BYTES)
    directory.mkdir()

    def work(thread):
        for i in range(thread, count, threads):
            with open(directory / f"{i:06}", "wb", buffering=0) as file:
                file.write(data)

    in_threads(threads, work)


def read_any(path, size_mib, reads, seed):
    """4 threads, each READS reads of RANDOM_BYTES at random places."""
    file = os.open(path, os.O_RDONLY)

    def work(thread):
        chance = random.Random(f"{seed}{thread}")
        for _ in range(reads):
            at = chance.randrange(size_mib * MIB // RANDOM_BYTES) * RANDOM_BYTES
            if len(os.pread(file, RANDOM_BYTES, at)) != RANDOM_BYTES:
                raise RuntimeError("short read")

    try:
        in_threads(4, work)
    finally:
        os.close(file)
