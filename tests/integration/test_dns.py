"""The store's name does not resolve for a while: the mount waits for it, as for a store that is gone."""
import concurrent.futures
import subprocess
import threading
import time

import pytest

import conftest
from fault_proxy import Proxy
from test_faults import LONG
from test_load import DiscardingStore

NAME = "store.faults.test"
CACHE_S = 61    # for so long libcurl keeps an address
GONE_S = 4 if LONG else 2
# The mountpoint's place stays shared with us; what names are looked up in does not (a container mounts these).
PRIVATE = """
for path in / /etc/hosts /etc/resolv.conf; do mountpoint -q $path && mount --make-private $path; done
mount --bind {0}/hosts /etc/hosts && mount --bind {0}/resolv /etc/resolv.conf && exec "$0" "$@"
"""


class Names:
    """/etc/hosts of the mount's own: its namespace differs from ours in that and in where names are asked for."""

    def __init__(self, directory):
        self.hosts = directory / "hosts"
        self.hosts.write_text("127.0.0.1 localhost\n")
        (directory / "resolv").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")

    def back(self):
        self.hosts.write_text(f"127.0.0.1 localhost {NAME}\n")   # the same file: it is bound

    def gone(self):
        self.hosts.write_text("127.0.0.1 localhost\n")


@pytest.fixture
def shared(directory):
    """A place whose mounts are seen here too, whatever the namespace they are made in."""
    path = directory / "shared"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path], check=True)
    subprocess.run(["mount", "--make-shared", path], check=True)
    yield path
    subprocess.run(["umount", "-l", path], check=True)


@pytest.mark.skipif("os.geteuid() != 0", reason="makes a mount namespace")
def test_a_name_that_does_not_resolve_for_a_while(shared, directory, monkeypatch):
    """At length, every address that is known is too old by then, and every connection is cut."""
    names = Names(directory)
    store = DiscardingStore()
    mount = None
    unshare = ["unshare", "-m", "--propagation", "unchanged", "sh", "-c", PRIVATE.format(directory)]
    popen = subprocess.Popen
    try:
        with Proxy(store.endpoint) as proxy:
            store.arguments = ["--endpoint", proxy.url.replace("127.0.0.1", NAME), "--region", "us-east-1"]
            names.back()
            with monkeypatch.context() as patch:
                patch.setattr(conftest.subprocess, "Popen",
                              lambda command, **options: popen([*unshare, *command], **options))
                mount = conftest.Mount(store, shared)
            names.gone()
            time.sleep(CACHE_S if LONG else 0)
            proxy.gone()
            proxy.back()
            back = threading.Timer(GONE_S, names.back)
            back.start()
            began = time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda i: (mount.path / f"{i}").write_bytes(b"x" * 1000), range(24)))
            took_s = time.monotonic() - began
            back.join()
            assert all(store.size(str(i)) == 1000 for i in range(24))
            assert took_s >= GONE_S or not LONG
            mount.stop()
    finally:
        if mount:
            mount.kill()
        store.stop()
