"""Where the POSIX tests run: on a local directory, and on mounts of two stores."""
import errno
import os
import shutil

import pytest

from conftest import FileStore, Mount, S3Store


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
