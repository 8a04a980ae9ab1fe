"""A proxy between a client and a real S3 server that does harm on a schedule.

A `Proxy` asks its `choose` for every request: None passes it on, a `Fault` says what goes wrong. The
Host header stays as it came, so signatures hold. A `Schedule` chooses at random from a seed, and only
among what a fault can happen to. `RawProxy` knows no HTTP: it flips bytes of a TLS stream.

threads: each proxy has a thread of its own; `choose`, `is_gone` and the counters may be used from any.
"""
import asyncio
import collections
import dataclasses
import random
import socket
import struct
import threading
import urllib.parse

PIECE = 64 * 1024


@dataclasses.dataclass(frozen=True)
class Fault:
    """What goes wrong with one request. Fractions are of a body's length; "anywhere": the schedule says."""
    kinds: tuple = ()               # of requests that it can happen to; (): all
    delay_s: float = 0              # before it is passed on
    answer: tuple = None            # (status, body) instead of the server's own
    is_carried_out: bool = True     # whether the server gets it, when an answer is given or lost
    cut_request: float = None       # the connection is reset there
    flip_request: float = None      # one byte is changed there
    cut_answer: float = None        # -1: before its head
    flip_answer: float = None
    is_polite: bool = False         # a cut is a FIN, not a RST
    length: int = 0                 # added to the answer's Content-Length
    bytes_s: int = 0                # the answer's body comes this slowly


@dataclasses.dataclass
class Request:
    line: bytes
    head: bytes
    method: str
    path: str
    query: dict
    headers: dict
    length: int

    @property
    def kind(self):
        """What S3 calls it, in this code's words."""
        copies = "x-amz-copy-source" in self.headers
        if self.method == "PUT":
            if "partNumber" in self.query:
                return "copy part" if copies else "part"
            return "copy" if copies else "put"
        if self.method == "POST":
            return "begin" if "uploads" in self.query else "commit" if "uploadId" in self.query else "delete many"
        if self.method == "GET":
            return "uploads" if "uploads" in self.query else "list" if "list-type" in self.query else "get"
        return "abort" if "uploadId" in self.query else self.method.lower()


class Schedule:
    """Of the requests that FAULTS can happen to, SHARE meet one; the same for the same seed and order."""

    def __init__(self, seed, share, faults):
        self.random = random.Random(seed)
        self.share, self.faults = share, faults
        self.is_over = False

    def __call__(self, request):
        possible = [fault for fault in self.faults if not fault.kinds or request.kind in fault.kinds]
        if self.is_over or not possible or self.random.random() >= self.share:
            return None
        fault = self.random.choice(possible)
        places = {name: self.random.random() for name in ("cut_request", "flip_request", "cut_answer", "flip_answer")
                  if getattr(fault, name) == "anywhere"}
        return dataclasses.replace(fault, **places)


class Cut(Exception):
    """Both connections end here."""


def reset(writer):
    """A RST instead of a FIN."""
    sock = writer.get_extra_info("socket")
    if sock is not None and not writer.transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class _Server:
    """A listener in a thread of its own."""

    def __init__(self, upstream):
        parts = urllib.parse.urlsplit(upstream)
        self.upstream = (parts.hostname, parts.port)
        self.loop = asyncio.new_event_loop()
        self.writers = set()
        self.server = None
        self.port = 0
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.run(self.listen())

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    async def listen(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", self.port, limit=1 << 20)
        self.port = self.server.sockets[0].getsockname()[1]

    async def leave(self):
        self.server.close()
        for writer in list(self.writers):
            reset(writer)

    async def serve(self, reader, writer):
        up_writer = None
        self.writers.add(writer)
        try:
            up_reader, up_writer = await asyncio.open_connection(*self.upstream, limit=1 << 20)
            await self.exchange(reader, writer, up_reader, up_writer)
        except Cut as cut:
            if cut.args:
                writer.close()
            else:
                reset(writer)
        except (OSError, asyncio.IncompleteReadError):
            reset(writer)
        finally:
            self.writers.discard(writer)
            if up_writer:
                up_writer.transport.abort()
            writer.close()

    def gone(self):
        """Nobody listens any more, and what was connected is reset."""
        self.run(self.leave())

    def back(self):
        self.run(self.listen())

    def stop(self):
        self.gone()

        async def end():
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.run(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Proxy(_Server):
    def __init__(self, upstream, choose=lambda request: None):
        self.choose = choose
        self.faults = 0
        self.seen = collections.Counter()   # requests of each kind
        super().__init__(upstream)
        self.url = f"http://127.0.0.1:{self.port}"

    async def exchange(self, reader, writer, up_reader, up_writer):
        while head := await read_head(reader):
            request = parse_request(head)
            self.seen[request.kind] += 1
            fault = self.choose(request)
            self.faults += fault is not None
            fault = fault or Fault()
            if fault.delay_s:
                await asyncio.sleep(fault.delay_s)
            if fault.answer and not fault.is_carried_out:
                await pass_body(reader, None, request.length)
            else:
                up_writer.write(head)
                await pass_body(reader, up_writer, request.length, fault.cut_request, fault.flip_request)
                await pass_answer(request, up_reader, None if fault.answer else writer, fault)
            if fault.answer:
                await give(request, writer, *fault.answer)


class RawProxy(_Server):
    """Changes one byte of some connections, in either direction, at a random place."""

    def __init__(self, upstream, seed, share):
        self.random = random.Random(seed)
        self.share = share
        self.faults = 0
        super().__init__(upstream)
        self.url = f"https://127.0.0.1:{self.port}"

    async def exchange(self, reader, writer, up_reader, up_writer):
        harm = [None, None]
        if self.random.random() < self.share:
            harm[self.random.randrange(2)] = self.random.randrange(4 << 20)
        pipes = [asyncio.ensure_future(self.pipe(reader, up_writer, harm[0])),
                 asyncio.ensure_future(self.pipe(up_reader, writer, harm[1]))]
        await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        for pipe in pipes:
            pipe.cancel()
        await asyncio.gather(*pipes, return_exceptions=True)

    async def pipe(self, reader, writer, place):
        done = 0
        while piece := await reader.read(PIECE):
            if place is not None and done <= place < done + len(piece):
                piece = flip(piece, place - done)
                self.faults += 1
            done += len(piece)
            writer.write(piece)
            await writer.drain()


async def read_head(reader):
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


def parse_headers(lines):
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {name.strip().lower(): value.strip() for name, value in pairs}


def parse_request(head):
    lines = head.decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ", 2)
    path, _, query = target.partition("?")
    headers = parse_headers(lines[1:])
    return Request(lines[0].encode(), head, method, path,
                   dict(urllib.parse.parse_qsl(query, keep_blank_values=True)), headers,
                   int(headers.get("content-length", 0)))


def flip(piece, place):
    changed = bytearray(piece)
    changed[place] ^= 0x20
    return bytes(changed)


async def pass_body(reader, writer, length, cut=None, flipped=None, is_polite=False, bytes_s=0):
    """LENGTH bytes; WRITER None: they are dropped."""
    cut_at = None if cut is None or not length else int(cut * length)
    flip_at = None if flipped is None or not length else min(int(flipped * length), length - 1)
    done = 0
    while done < length:
        piece = await reader.readexactly(min(PIECE, length - done))
        if flip_at is not None and done <= flip_at < done + len(piece):
            piece = flip(piece, flip_at - done)
        if cut_at is not None and cut_at < done + len(piece):
            if writer:
                writer.write(piece[:cut_at - done])
                await writer.drain()
            raise Cut(*([True] if is_polite else []))
        done += len(piece)
        for at in range(0, len(piece), bytes_s or len(piece)):
            if writer:
                writer.write(piece[at:at + (bytes_s or len(piece))])
                await writer.drain()
            if bytes_s:
                await asyncio.sleep(1)


async def read_chunks(reader):
    body = b""
    while True:
        size = int((await reader.readline()).split(b";")[0], 16)
        body += await reader.readexactly(size)
        await reader.readexactly(2)
        if not size:
            return body


async def pass_answer(request, reader, writer, fault):
    """WRITER None: the answer is lost."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = parse_headers(lines[1:])
    length = int(headers.get("content-length", 0))
    source = reader
    if "chunked" in headers.get("transfer-encoding", ""):
        body = await read_chunks(reader)
        length = len(body)
        source = asyncio.StreamReader()
        source.feed_data(body)
        source.feed_eof()
        lines = [line for line in lines if not line.lower().startswith("transfer-encoding")]
        lines.insert(1, f"Content-Length: {length}")
    if fault.cut_answer == -1:
        raise Cut(*([True] if fault.is_polite else []))
    has_body = request.method != "HEAD" and lines[0].split(" ")[1] not in ("204", "304")
    if fault.length and has_body:
        lines = [f"Content-Length: {max(length + fault.length, 0)}" if line.lower().startswith("content-length")
                 else line for line in lines]
    if writer:
        writer.write("\r\n".join(lines).encode("latin-1"))
    await pass_body(source, writer, length if has_body else 0, fault.cut_answer, fault.flip_answer,
                    fault.is_polite, fault.bytes_s)
    if fault.length and has_body:
        raise Cut(True)
    if writer:
        await writer.drain()


async def give(request, writer, status, body):
    text = b"" if request.method == "HEAD" else body.encode()
    writer.write(f"HTTP/1.1 {status} Fault\r\nContent-Length: {len(body)}\r\n"
                 f"Content-Type: application/xml\r\n\r\n".encode() + text)
    await writer.drain()


def s3_error(status, code):
    return status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>"
