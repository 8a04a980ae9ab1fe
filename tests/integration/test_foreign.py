"""Objects that other clients put there, and a bucket that moves between this and s3fs."""
import os
import shutil
import stat
import subprocess

import pytest

from conftest import mounting, wait_for


def put(s3, key, body=b"", **more):
    s3.client.put_object(Bucket=s3.bucket, Key=s3.prefix + key, Body=body, **more)


@pytest.fixture
def mount_s3(s3_store, directory):
    with mounting(s3_store, directory) as start:
        yield start


# docs/filesystem.md says how each of these shows.
ODD_KEYS = ["d//x", "//y", "d/./x", "./z", "d/../x", "../z", "deep/" + "n" * 300, ".", "..",
            "d/", "both", "both/in", "a/b/c/d/e/f"]


@pytest.mark.parametrize("mode", ["exclusive", "read-only"])
def test_odd_keys_hide_no_neighbour(s3_store, mount_s3, mode):
    for key in ODD_KEYS:
        put(s3_store, key, b"odd")
    for key in ("d/good", "good", "deep/good"):
        put(s3_store, key, b"good")
    root = mount_s3("--mode", mode).path
    assert sorted(os.listdir(root)) == ["a", "both", "d", "deep", "good"]
    assert sorted(os.listdir(root / "d")) == ["good"]
    assert sorted(os.listdir(root / "deep")) == ["good"]
    for name in ("d/good", "good", "deep/good"):
        assert (root / name).read_bytes() == b"good"
    assert (root / "both").read_bytes() == b"odd"  # a key that is also a prefix shows as the file
    assert (root / "a/b/c/d/e/f").read_bytes() == b"odd"
    walked = sum(len(files) for _, _, files in os.walk(root))
    assert walked == 5


def test_attributes_without_metadata_and_with_foreign_ones(s3_store, mount_s3):
    put(s3_store, "plain", b"12345")
    put(s3_store, "mode", b"x", Metadata={"mode": "33252", "mtime": "1000000000", "uid": "77"})
    put(s3_store, "silly", b"x", Metadata={
        "mode": "99999999999", "mtime": "-1e99", "uid": "-5", "gid": "x", "xattr": "%%%"})
    put(s3_store, "fifo", b"x", Metadata={"mode": str(stat.S_IFIFO | 0o644)})
    root = mount_s3().path
    plain = os.stat(root / "plain")
    assert plain.st_size == 5 and stat.S_ISREG(plain.st_mode) and plain.st_uid == os.getuid()
    mode = os.stat(root / "mode")
    assert mode.st_mode == 33252 and mode.st_mtime == 1000000000 and mode.st_uid == 77
    for name in ("silly", "fifo"):
        assert stat.S_ISREG(os.stat(root / name).st_mode)
        assert (root / name).read_bytes() == b"x"
        assert os.listxattr(root / name) == []


def test_an_object_that_is_rewritten_keeps_its_own_metadata(s3_store, mount_s3):
    put(s3_store, "x", b"one", Metadata={"team": "vision"})
    mount = mount_s3()
    (mount.path / "x").write_bytes(b"two")
    head = s3_store.client.head_object(Bucket=s3_store.bucket, Key=s3_store.prefix + "x")
    assert head["Metadata"]["team"] == "vision"
    assert head["ContentLength"] == 3


class S3fs:
    def __init__(self, s3, directory):
        self.path = directory / "s3fs"
        self.path.mkdir()
        password = directory / "passwd"
        password.write_text("{AWS_ACCESS_KEY_ID}:{AWS_SECRET_ACCESS_KEY}\n".format(**s3.environment))
        password.chmod(0o600)
        self.log = open(directory / "s3fs.log", "w")
        self.process = subprocess.Popen(
            ["s3fs", f"{s3.bucket}:/{s3.prefix[:-1]}", str(self.path), "-f", "-o", f"url={s3.endpoint}",
             "-o", "use_path_request_style", "-o", f"passwd_file={password}", "-o", "use_xattr",
             "-o", "endpoint=us-east-1"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        try:
            wait_for(lambda: os.path.ismount(self.path), 20, "s3fs is mounted")
        except BaseException:
            self.stop()
            raise

    def stop(self):
        if os.path.ismount(self.path):
            subprocess.run(["fusermount3", "-uz", str(self.path)], check=False)
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


def fill(root):
    (root / "d").mkdir()
    (root / "d" / "script").write_text("#!/bin/sh\n")
    os.chmod(root / "d" / "script", 0o750)
    os.utime(root / "d" / "script", ns=(10**18, 10**18 + 123456789))
    os.symlink("d/script", root / "link")
    os.setxattr(root / "d" / "script", "user.note", b"one & two")


def check(root):
    state = os.stat(root / "d" / "script")
    assert stat.S_IMODE(state.st_mode) == 0o750
    assert state.st_mtime_ns == 10**18 + 123456789
    assert os.readlink(root / "link") == "d/script"
    assert (root / "link").read_text() == "#!/bin/sh\n"
    assert os.getxattr(root / "d" / "script", "user.note") == b"one & two"
    assert sorted(os.listdir(root)) == ["d", "link"]


def test_a_bucket_moves_from_s3fs_to_here_and_back(s3_store, mount_s3, directory):
    put(s3_store, "")  # s3fs wants its root to be there
    other = S3fs(s3_store, directory)
    try:
        fill(other.path)
    finally:
        other.stop()
    mount = mount_s3()
    check(mount.path)
    shutil.rmtree(mount.path / "d")
    (mount.path / "link").unlink()
    fill(mount.path)
    check(mount.path)
    mount.stop()
    again_directory = directory / "again"
    again_directory.mkdir()
    other = S3fs(s3_store, again_directory)
    try:
        check(other.path)
    finally:
        other.stop()
