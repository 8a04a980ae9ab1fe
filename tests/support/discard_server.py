"""An S3 server that throws uploads away: what a client does with a very large file, at memory's speed.

Objects of one PUT are kept in memory (leases need them), parts are read and forgotten. Prints its port.
"""
import hashlib
import http.server
import random
import threading
import urllib.parse

objects = {}            # key -> (etag, bytes or None: thrown away, size)
uploads = {}            # id -> {part: size}
lock = threading.Lock()
SMALL = 1 << 20


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=()):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        """The request's body when it is small, and how long it was."""
        left = length = int(self.headers.get("Content-Length", 0))
        if length <= SMALL:
            return self.rfile.read(length), length
        buffer = memoryview(bytearray(SMALL))
        while left:
            left -= self.rfile.readinto(buffer[:min(left, SMALL)])
        return None, length

    def target(self):
        parts = urllib.parse.urlsplit(self.path)
        return urllib.parse.unquote(parts.path), dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))

    def copy(self, key, query):
        """A part, or all, of what is there: a file that is saved while it grows is copied on the store's side."""
        source = urllib.parse.unquote(self.headers["x-amz-copy-source"])
        _, body, size = objects["/" + source.lstrip("/")]
        etag = f"{random.getrandbits(128):032x}"
        if "partNumber" in query:
            first, last = self.headers.get("x-amz-copy-source-range", f"bytes=0-{size - 1}")[6:].split("-")
            uploads[query["uploadId"]][int(query["partNumber"])] = int(last) - int(first) + 1
        else:
            objects[key] = (etag, body, size)
        root = "CopyPartResult" if "partNumber" in query else "CopyObjectResult"
        self.answer(200, f'<{root}><ETag>"{etag}"</ETag></{root}>'.encode())

    def do_PUT(self):
        key, query = self.target()
        body, size = self.body()
        with lock:
            if "x-amz-copy-source" in self.headers:
                self.copy(key, query)
                return
            if "partNumber" in query:
                uploads[query["uploadId"]][int(query["partNumber"])] = size
                self.answer(200, headers=[("ETag", f'"{int(query["partNumber"]):032x}"')])
                return
            old = objects.get(key, (None,))[0]
            if self.headers.get("If-None-Match") and old or self.headers.get("If-Match", old) != old:
                self.answer(412)
                return
            etag = hashlib.md5(body or b"").hexdigest()
            objects[key] = (etag, body, size)
        self.answer(200, headers=[("ETag", f'"{etag}"')])

    def do_POST(self):
        key, query = self.target()
        self.body()
        with lock:
            if "uploads" in query:
                name = f"upload{len(uploads)}"
                uploads[name] = {}
                text = f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
            else:
                objects[key] = ("f" * 32 + "-1", None, sum(uploads.pop(query["uploadId"]).values()))
                text = ("<CompleteMultipartUploadResult><ETag>\"" + "f" * 32 + "-1\"</ETag>"
                        "</CompleteMultipartUploadResult>")
        self.answer(200, text.encode())

    def do_GET(self):
        key, query = self.target()
        with lock:
            if "list-type" in query or "uploads" in query:
                root = "ListBucketResult" if "list-type" in query else "ListMultipartUploadsResult"
                self.answer(200, f"<{root}><IsTruncated>false</IsTruncated></{root}>".encode())
            elif key not in objects or objects[key][1] is None and self.command == "GET":
                self.answer(404)
            else:
                etag, body, size = objects[key]
                self.answer(200, body if body is not None else b"", [("ETag", f'"{etag}"'), ("X-Size", str(size))])

    do_HEAD = do_GET

    def do_DELETE(self):
        key, query = self.target()
        with lock:
            objects.pop(key, None)
            uploads.pop(query.get("uploadId"), None)
        self.answer(204)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
