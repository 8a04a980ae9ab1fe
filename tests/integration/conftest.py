"""Real mounts over real stores: a file store, and the S3 server that scripts/test started."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import uuid

import boto3
import pytest
from botocore.config import Config

sys.path.append(str(pathlib.Path(__file__).parents[1] / "support"))

# What a shell starts in the background ignores it, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

READY_S = 20
BAD_LOG = re.compile(r"\berror\b|\bwarning\b|critical|sanitizer|runtime error", re.I)


def program(name):
    path = pathlib.Path(os.environ["DSTACK_BIN"]) / name
    assert path.exists(), f"{path} is not built"
    return str(path)


def is_mounted(path):
    return any(line.split()[1] == str(path) for line in open("/proc/mounts"))


def wait_for(what, seconds, description):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return
        time.sleep(0.05)
    pytest.fail(f"not within {seconds} s: {description}")


class FileStore:
    """A prefix in a directory; read with nothing of ours."""

    def __init__(self, path):
        self.root = path / "store"
        self.root.mkdir()
        self.url = f"file://{self.root}"
        self.arguments = []
        self.environment = {}

    def read(self, key):
        try:
            return (self.root / key.replace("%", "%25")).read_bytes()  # "%" is escaped there
        except (FileNotFoundError, NotADirectoryError):
            return None

    def put(self, key, data):
        path = self.root / key.replace("%", "%25")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def keys(self, prefix=""):
        """Every key that begins with PREFIX; raw names in .dstack- are the driver's own."""
        files = (os.path.relpath(os.path.join(path, name), self.root)
                 for path, _, names in os.walk(self.root) for name in names)
        keys = ("/".join("" if name == "%" else urllib.parse.unquote(name) for name in file.split("/"))
                for file in files if not file.startswith(".dstack-"))
        return [key for key in keys if key.startswith(prefix)]


class S3Store:
    """A prefix of its own in the test bucket; read through boto3."""

    def __init__(self):
        self.endpoint = os.environ["DSTACK_TEST_RGW"]
        self.bucket = os.environ["DSTACK_TEST_RGW_BUCKET"]
        key, secret = os.environ["DSTACK_TEST_RGW_KEY"], os.environ["DSTACK_TEST_RGW_SECRET"]
        self.prefix = f"mount-{uuid.uuid4().hex[:12]}/"
        self.url = f"s3://{self.bucket}/{self.prefix}"
        self.arguments = ["--endpoint", self.endpoint, "--region", "us-east-1"]
        self.environment = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
        self.client = boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1", aws_access_key_id=key,
            aws_secret_access_key=secret, config=Config(s3={"addressing_style": "path"}))

    def read(self, key):
        try:
            return self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)["Body"].read()
        except self.client.exceptions.NoSuchKey:
            return None

    def put(self, key, data):
        self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data)

    def keys(self, prefix=""):
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix + prefix)
        return [item["Key"][len(self.prefix):] for page in pages for item in page.get("Contents", [])]

    def uploads(self):
        """Keys of those that nobody committed or aborted."""
        answer = self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.prefix)
        return [upload["Key"] for upload in answer.get("Uploads", [])]

    def texts(self, prefix=""):
        """What is there, by key; a runner that cleans up may remove some meanwhile."""
        found = {key: self.read(key) for key in self.keys(prefix)}
        return {key: data for key, data in found.items() if data is not None}

    def remove_all(self):
        keys = [{"Key": self.prefix + key} for key in self.keys()]
        for i in range(0, len(keys), 1000):
            self.client.delete_objects(Bucket=self.bucket, Delete={"Objects": keys[i:i + 1000]})


class Mount:
    """One dstack-mount in the foreground; stop() checks that it drained and had no complaints."""

    def __init__(self, store, directory, *options):
        self.path = directory / "mnt"
        self.path.mkdir(exist_ok=True)
        self.status_file = directory / "status.json"
        self.status_file.unlink(missing_ok=True)
        self.log_path = directory / "mount.log"
        self.log = open(self.log_path, "w")
        self.process = subprocess.Popen(
            [program("dstack-mount"), store.url, str(self.path), "-f",
             "--status-file", str(self.status_file), *store.arguments, *options],
            env={**os.environ, **store.environment}, stdin=subprocess.DEVNULL,
            stdout=self.log, stderr=self.log)
        try:
            wait_for(self.is_ready_or_dead, READY_S, "the mount is ready")
            assert self.process.poll() is None, self.log_path.read_text()
        except BaseException:
            self.kill()
            raise

    def status(self):
        try:
            return json.loads(self.status_file.read_text())
        except FileNotFoundError:
            return {}

    def is_ready_or_dead(self):
        return self.process.poll() is not None or self.status().get("state") == "ready"

    def peak_rss_bytes(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", text).group(1)) * 1024

    def stop(self, seconds=60, bad_log=BAD_LOG):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(seconds)
        finally:
            self.kill()
        log = self.log_path.read_text()
        assert code == 0, log
        assert not bad_log.search(log), log

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self.log.close()
        if is_mounted(self.path):
            subprocess.run(["fusermount3", "-uz", str(self.path)], check=False)


@pytest.fixture
def directory(tmp_path):
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture(params=["file", "s3"])
def store(request, directory):
    if request.param == "file":
        yield FileStore(directory)
        return
    s3 = S3Store()
    yield s3
    s3.remove_all()


@pytest.fixture
def s3_store():
    s3 = S3Store()
    yield s3
    s3.remove_all()


@contextlib.contextmanager
def mounting(store, directory, *always):
    """start(*options): mounts the store; what is left mounted at the end is stopped and checked."""
    mounts = []

    def start(*options):
        mounts.append(Mount(store, directory, *always, *options))
        return mounts[-1]

    yield start
    for mount in mounts:
        if mount.process.poll() is None:
            mount.stop()
        mount.kill()


@pytest.fixture
def mount_at(store, directory):
    with mounting(store, directory) as start:
        yield start
