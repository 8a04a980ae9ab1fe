"""What goes over the wire: a change of a large object sends what changed, the store copies the rest."""
import os
import re
import selectors
import socket
import threading
from urllib.parse import urlparse

import pytest

from conftest import Mount

MIB = 1 << 20
LONG = os.environ.get("DSTACK_TEST_LONG") == "1"
LARGE_MIB = 5 * 1024 if LONG else 256


REQUEST = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.1\r\n")  # nobody pipelines them


class CountingProxy:
    """Passes bytes between the client and the store, counts those that the client sends, and notes
    its requests: (method, path)."""

    def __init__(self, endpoint):
        url = urlparse(endpoint)
        self.target = (url.hostname, url.port)
        self.sent = 0
        self.requests = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ, None)
        self.wake, self.waker = socket.socketpair()
        self.selector.register(self.wake, selectors.EVENT_READ, None)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def accept(self):
        client, _ = self.listener.accept()
        server = socket.create_connection(self.target)
        for one, other, counted in ((client, server, True), (server, client, False)):
            self.selector.register(one, selectors.EVENT_READ, (other, counted))

    def run(self):
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.wake:
                    return
                if key.fileobj is self.listener:
                    self.accept()
                    continue
                other, counted = key.data
                self.forward(key.fileobj, other, counted)

    def forward(self, one, other, counted):
        try:
            data = one.recv(MIB)
            if data:
                other.sendall(data)
        except OSError:
            data = b""
        if counted:
            self.sent += len(data)
            request = REQUEST.match(data)
            if request:
                self.requests.append(tuple(text.decode() for text in request.groups()))
        if not data:
            for side in (one, other):
                if side.fileno() >= 0:
                    self.selector.unregister(side)
                    side.close()

    def close(self):
        self.waker.send(b"x")
        self.thread.join()
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.waker.close()
        self.selector.close()


@pytest.fixture
def proxy(s3_store):
    proxy = CountingProxy(s3_store.endpoint)
    yield proxy
    proxy.close()


@pytest.fixture
def counted(s3_store, proxy, directory):
    s3_store.arguments = ["--endpoint", proxy.endpoint, "--region", "us-east-1"]
    mount = Mount(s3_store, directory)
    yield mount
    if mount.process.poll() is None:
        mount.stop()
    mount.kill()


@pytest.fixture
def piece(s3_store):
    """"large", LARGE_MIB MiB, which the store itself puts together of copies of this. Before anything is
    mounted: a mount that has the prefix for itself need not see what others put there."""
    piece = os.urandom(64 * MIB)
    s3_store.put("piece", piece)
    large = {"Bucket": s3_store.bucket, "Key": s3_store.prefix + "large"}
    upload = s3_store.client.create_multipart_upload(**large)["UploadId"]
    parts = []
    for number in range(1, LARGE_MIB // 64 + 1):
        answer = s3_store.client.upload_part_copy(
            **large, UploadId=upload, PartNumber=number,
            CopySource={"Bucket": s3_store.bucket, "Key": s3_store.prefix + "piece"})
        parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
    s3_store.client.complete_multipart_upload(**large, UploadId=upload, MultipartUpload={"Parts": parts})
    return piece


def read_range(s3, key, start, size):
    return s3.client.get_object(Bucket=s3.bucket, Key=s3.prefix + key,
                                Range=f"bytes={start}-{start + size - 1}")["Body"].read()


def test_an_append_to_a_large_object_sends_little(s3_store, piece, proxy, counted):
    tail = os.urandom(MIB)
    before = proxy.sent
    with open(counted.path / "large", "ab") as file:
        file.write(tail)
    assert proxy.sent - before < 16 * MIB
    size = LARGE_MIB * MIB
    assert os.stat(counted.path / "large").st_size == size + MIB
    assert read_range(s3_store, "large", size, MIB) == tail
    assert read_range(s3_store, "large", size - 64 * MIB, 64 * MIB) == piece


def test_a_few_bytes_in_the_middle_send_little(s3_store, piece, proxy, counted):
    before = proxy.sent
    at = LARGE_MIB // 2 * MIB + 12345
    with open(counted.path / "large", "r+b", buffering=0) as file:
        file.seek(at)
        file.write(b"changed")
    assert proxy.sent - before < 32 * MIB
    expected = bytearray(piece)
    expected[12345:12352] = b"changed"
    assert read_range(s3_store, "large", at - 12345, 64 * MIB) == expected
    assert read_range(s3_store, "large", 0, 64 * MIB) == piece
    assert os.stat(counted.path / "large").st_size == LARGE_MIB * MIB


def test_a_truncation_of_a_large_object_sends_little(s3_store, piece, proxy, counted):
    before = proxy.sent
    os.truncate(counted.path / "large", 64 * MIB + 100)
    assert proxy.sent - before < 16 * MIB
    assert read_range(s3_store, "large", 0, 64 * MIB) == piece
    assert read_range(s3_store, "large", 64 * MIB, 1000) == piece[:100]


def test_a_growing_log_sends_what_was_added(s3_store, proxy, counted):
    """Publishing a 16 MiB log again and again does not send it again and again."""
    with open(counted.path / "log", "wb", buffering=0) as log:
        log.write(os.urandom(16 * MIB))
        os.fsync(log.fileno())
        before, publishes = proxy.sent, 8
        for i in range(publishes):
            log.write(b"one more line %d\n" % i)
            os.fsync(log.fileno())
        assert (proxy.sent - before) / publishes < 6 * MIB
    assert read_range(s3_store, "log", 16 * MIB, 100).startswith(b"one more line 0\n")
