"""Servers, clients and clocks of scripts/bench: what each line of the table is measured with.

A Server is where clients connect; a Proxy in front of one counts bytes and may hold answers back.
Mounted runs one client's mount, or a filesystem that does nothing; its timed() tells seconds, the
daemon's CPU seconds and those of all that ran. Everything is on loopback, on free ports, below one temporary directory, and stopped by pid.
"""
import contextlib
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

import boto3
from botocore.config import Config

TOP = pathlib.Path(__file__).resolve().parents[2]
MIB = 1 << 20
BUCKET = "bench"
KEY, SECRET = "testkey", "testsecret"
WAIT_S = 120


def say(text):
    print(text, file=sys.stderr, flush=True)


def wait_for(what, is_there, process=None):
    end = time.monotonic() + WAIT_S
    while not is_there():
        if (process and process.poll() is not None) or time.monotonic() > end:
            raise RuntimeError(f"{what}: not there")
        time.sleep(0.02)


def cpu_s(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy_s():
    """CPU seconds of all that ran on this machine so far."""
    user, nice, system, _, _, irq, softirq, *_ = pathlib.Path("/proc/stat").read_text().split()[1:]
    return sum(map(int, (user, nice, system, irq, softirq))) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) / 1024


class Server:
    def __init__(self, name, port):
        self.name, self.port = name, port
        self.keeps_bytes = not name.startswith("null")
        self.endpoint = f"http://127.0.0.1:{port}"

    def s3(self):
        return boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1",
                            config=Config(s3={"addressing_style": "path"}, signature_version="s3v4",
                                          read_timeout=600))

    def requests(self):
        """How many requests of each method there were; only the null server counts."""
        with urllib.request.urlopen(f"{self.endpoint}/?stats", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {method: int(count) for method, count in (line.split() for line in lines)}


class World:
    def __init__(self, bin_dir, size_mib, rounds):
        self.bin, self.size_mib, self.rounds = pathlib.Path(bin_dir), size_mib, rounds
        self.temp = pathlib.Path(tempfile.mkdtemp(prefix="dsb.", dir="/tmp"))
        self.processes, self.servers = [], {}
        self.peaks_mib = {}
        self.block = os.urandom(MIB)
        os.environ.update(AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET, no_proxy="127.0.0.1",
                          AWS_EC2_METADATA_DISABLED="true", HOME=str(self.temp),
                          DSTACK_HOME=str(self.temp / "home"))
        for name in ("AWS_CA_BUNDLE", "AWS_PROFILE", "http_proxy", "HTTP_PROXY"):
            os.environ.pop(name, None)

    def free_port(self):
        return subprocess.check_output([TOP / "scripts/servers/free-ports"], text=True).strip()

    def start(self, name, *command):
        with open(self.temp / f"{name}.log", "w") as log:
            process = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL,
                                       stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def server(self, name):
        """"rgw" (Ceph over bluestore), "null" (costs almost nothing); started when first asked for."""
        if name not in self.servers:
            say(f"bench: starting {name}")
            port = self.free_port()
            if name == "rgw":
                subprocess.run([TOP / "scripts/servers/ceph-rgw", self.temp / "rgw", port, "bluestore"],
                               check=True, timeout=180)
            else:
                process = self.start("null", self.bin / "null_server", port)
            server = Server(name, port)
            if name == "null":
                wait_for("null server", lambda: self.is_up(server), process)
            server.s3().create_bucket(Bucket=BUCKET)
            self.servers[name] = server
        return self.servers[name]

    @staticmethod
    def is_up(server):
        with contextlib.suppress(OSError):
            server.requests()
            return True
        return False

    @contextlib.contextmanager
    def proxy(self, server, delay_ms):
        port, counts = self.free_port(), self.temp / f"counts-{time.monotonic_ns()}"
        process = self.start("proxy", self.bin / "delay_proxy", port, server.port, delay_ms, counts)
        try:
            wait_for("proxy", lambda: counts.exists() and counts.stat().st_size == 16, process)
            time.sleep(0.1)
            proxied = Server(f"{server.name}+{delay_ms}ms", port)
            # Bytes that went up and came down so far.
            proxied.passed = lambda: struct.unpack("=QQ", counts.read_bytes())
            yield proxied
        finally:
            process.terminate()
            process.wait(10)

    def raw(self, server, verb, key, count, parallel=1, options=()):
        """What the raw parallel client takes."""
        busy = busy_s()
        done = subprocess.run([self.bin / "raw", *options, server.endpoint, BUCKET, verb, key, str(count),
                               str(parallel)], check=True, timeout=1800, capture_output=True, text=True)
        seconds, cpu = map(float, done.stdout.split())
        return {"seconds": seconds, "cpu_s": cpu, "busy_s": busy_s() - busy}

    def remove(self, server, key):
        server.s3().delete_object(Bucket=BUCKET, Key=key)

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
                process.wait(10)
        if "rgw" in self.servers or (self.temp / "rgw").exists():
            subprocess.run([TOP / "scripts/servers/stop", self.temp / "rgw"], check=False)
        if not any(str(self.temp) in line for line in open("/proc/mounts")):
            shutil.rmtree(self.temp, ignore_errors=True)


class Mounted:
    """with Mounted(world, client, server) as mount: a fresh mount, so with an empty page cache."""

    def __init__(self, world, client, server, *options):
        self.world, self.client, self.server, self.options = world, client, server, options
        self.path = world.temp / f"mnt-{client}"

    def command(self):
        if self.client == "dstack":
            return [self.world.bin / "dstack-mount", f"s3://{BUCKET}", self.path, "-f", "--endpoint",
                    self.server.endpoint, "--region", "us-east-1", *self.options]
        if self.client == "s3fs":
            password = self.world.temp / "passwd-s3fs"
            password.write_text(f"{KEY}:{SECRET}\n")
            password.chmod(0o600)
            return ["s3fs", BUCKET, self.path, "-f", "-o", f"url={self.server.endpoint}", "-o",
                    "endpoint=us-east-1", "-o", "use_path_request_style", "-o", f"passwd_file={password}"]
        if self.client == "nothing":
            return [self.world.bin / "null_fuse", self.path, *self.options]
        return ["rclone", "mount", f"bench:{BUCKET}", self.path, "--config", "/dev/null"]

    def __enter__(self):
        os.environ.update(RCLONE_CONFIG_BENCH_TYPE="s3", RCLONE_CONFIG_BENCH_PROVIDER="Ceph",
                          RCLONE_CONFIG_BENCH_ENDPOINT=self.server.endpoint,
                          RCLONE_CONFIG_BENCH_ENV_AUTH="true",
                          # The null server's ETags are not hashes of anything.
                          RCLONE_CONFIG_BENCH_USE_MULTIPART_ETAG="false")
        self.path.mkdir(exist_ok=True)
        self.process = self.world.start(self.client, *self.command())
        try:
            wait_for(f"{self.client} on {self.server.name}", lambda: os.path.ismount(self.path),
                     self.process)
        except BaseException:
            self.stop()
            raise
        if self.client == "nothing":
            self.raise_readahead()
        return self

    def raise_readahead(self):
        """As dstack-mount does where it may."""
        device = os.stat(self.path).st_dev
        path = pathlib.Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
        with contextlib.suppress(PermissionError):
            path.write_text("4096")

    def timed(self, work):
        busy, cpu, begun = busy_s(), cpu_s(self.process.pid), time.monotonic()
        work()
        return {"seconds": time.monotonic() - begun, "cpu_s": cpu_s(self.process.pid) - cpu,
                "busy_s": busy_s() - busy}

    def stop(self):
        """Its exit status; None: it did not end."""
        if self.process.poll() is None:
            peaks = self.world.peaks_mib
            peaks[self.client] = max(peaks.get(self.client, 0), peak_mib(self.process.pid))
        if os.path.ismount(self.path):
            subprocess.run(["fusermount3", "-u", str(self.path)], check=False)
        try:
            return self.process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            subprocess.run(["fusermount3", "-uz", str(self.path)], check=False)
            return None

    def __exit__(self, failure, *_):
        status = self.stop()
        if status != 0 and self.client == "dstack" and not failure:
            log = (self.world.temp / "dstack.log").read_text()[-2000:]
            raise RuntimeError(f"dstack-mount ended with {status}: {log}")
