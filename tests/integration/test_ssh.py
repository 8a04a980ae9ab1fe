"""Slurm's commands on another machine, over the real ssh: a sshd of the test's own, on loopback."""
import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

from cli_world import FINAL, processes_of
from conftest import wait_for
from slurm_world import LIMIT_S, LONG, TOP, cluster, needs_slurm, slurm, workflow, workflows  # noqa: F401

SSHD = "/usr/sbin/sshd"
pytestmark = needs_slurm + [pytest.mark.skipif(not os.path.exists(SSHD), reason="there is no sshd")]
SEPARATION = pathlib.Path("/run/sshd")  # sshd insists on it


class Login:
    """A machine to log in to: it has Slurm, and a DSTACK_HOME of its own; who logs in has neither."""

    def __init__(self, directory, cluster):
        self.directory, self.home, self.cluster = directory, directory / "there", cluster
        self.process = None
        (self.home / "bin").mkdir(parents=True)
        self.made_separation = not SEPARATION.exists()
        SEPARATION.mkdir(mode=0o755, exist_ok=True)
        self.port = subprocess.run([TOP / "scripts/servers/free-ports"], capture_output=True, text=True,
                                   check=True).stdout.strip()
        for name in ("host", "mine", "other"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)
        (directory / "authorized").write_text((directory / "mine.pub").read_text())
        host_key = " ".join((directory / "host.pub").read_text().split()[:2])
        (directory / "known").write_text(f"[127.0.0.1]:{self.port} {host_key}\n")
        (directory / "unknown").touch()
        there = {"HOME": self.home, "DSTACK_HOME": self.home / ".dstack", "PATH": f"{self.home}/bin:{cluster.environment['PATH']}",
                 "SLURM_CONF": cluster.environment.pop("SLURM_CONF")}
        (self.home / ".bashrc").write_text("echo Welcome to the cluster\n")  # as many a cluster's does
        set_env = " ".join(f"{name}={value}" for name, value in there.items())
        (directory / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {directory}/host\nPidFile none\n"
            f"AuthorizedKeysFile {directory}/authorized\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"
            f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nSetEnv {set_env}\n")
        self.client("login")
        tools = directory / "tools"  # ssh reads the configuration of the user's home, whatever HOME says
        tools.mkdir()
        (tools / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {directory}/ssh_config "$@"\n')
        (tools / "ssh").chmod(0o755)
        cluster.environment["PATH"] = f"{tools}:{cluster.environment['PATH']}"

    def client(self, name, port=None, key="mine", known="known"):
        """What ~/.ssh/config says of NAME."""
        text = (f"Host {name}\n  HostName 127.0.0.1\n  Port {port or self.port}\n  User root\n"
                f"  IdentityFile {self.directory}/{key}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
                f"  UserKnownHostsFile {self.directory}/{known}\n  GlobalKnownHostsFile none\n")
        with open(self.directory / "ssh_config", "a") as config:
            config.write(text)

    def start(self):
        self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", self.directory / "sshd_config"],
                                        stdin=subprocess.DEVNULL, stderr=open(self.directory / "sshd.log", "w"),
                                        start_new_session=True)
        wait_for(self.answers, 10, "sshd listens")

    def answers(self):
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", int(self.port))) == 0

    def sessions(self):
        """What sshd has forked for those who are logged in."""
        children = []
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if stat.read_text().rsplit(")", 1)[1].split()[1] == str(self.process.pid):
                    children.append(int(stat.parent.name))
        return children

    def logins(self):
        return (self.directory / "sshd.log").read_text().count("Accepted publickey")

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)
        for pid in processes_of(self.home / ".dstack"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.made_separation:
            with contextlib.suppress(OSError):
                SEPARATION.rmdir()


@pytest.fixture
def login(cluster, tmp_path):
    login = Login(tmp_path, cluster)
    try:
        login.start()
        yield login
    finally:
        login.stop()
        cluster.environment.update(cluster.slurm.environment)


WAIT = """
echo up; echo here > live/a
sleep 60"""


def test_runs_over_ssh(cluster, login):
    """Nothing of Slurm is where the commands are typed."""
    cluster.configure("--slurm-submit-host", "login")
    cluster.write(workflows(workflow("short", "echo it is $GREETING by $HOME, ${#WORD}", env="[GREETING=fine]"),
                            workflow("wait", WAIT, [("live", True)], resources="{cpu: 2}")))
    cluster.ok("secrets", "add", "WORD", "magic")
    (login.home / ".dstack").mkdir()
    shutil.copy(cluster.home / "secrets.key", login.home / ".dstack")
    done = cluster.run("run", "short", "--remote", limit=LIMIT_S)
    assert done.returncode == 0 and f"it is fine by {login.home}, 5" in done.out, (done.out, done.err)
    first, second = cluster.begin("wait"), cluster.begin("wait")
    queued = cluster.submit("wait")
    wait_for(lambda: "waiting: Resources" in cluster.ok("ps", "-v", queued), LIMIT_S, "the reason")
    logins = login.logins()
    following = cluster.start("logs", "-a", queued)
    time.sleep(4)
    assert login.logins() - logins == 1
    cluster.ok("stop", "-y", queued)
    assert following.communicate(timeout=LIMIT_S) == ("", "") and following.returncode == 0
    assert cluster.state(queued)["status"] == "stopped"
    cluster.ok("stop", "-x", "-y", second)
    assert cluster.wait_state(second, *FINAL)["status"] == "aborted"
    cluster.ok("stop", "-y", first)
    assert "up" in cluster.ok("logs", "-a", first)
    assert cluster.state(first)["status"] == "stopped"
    assert cluster.artifact(first, "live/a") == b"here\n"
    wait_for(lambda: not login.sessions(), 10, "everybody has logged out")
    cluster.assert_nothing_left()


def refused_run(cluster, host):
    cluster.configure("--slurm-submit-host", host)
    began = time.monotonic()
    message = cluster.refuses("run", "one", "--remote")
    assert time.monotonic() - began < 20, message
    assert f"on {host}: " in message, message
    assert not cluster.runs()
    return message


def test_who_cannot_log_in_is_told_why(cluster, login):
    cluster.write(workflows(workflow("one", "true")))
    nobody = subprocess.run([TOP / "scripts/servers/free-ports"], capture_output=True, text=True,
                            check=True).stdout.strip()
    login.client("nobody", port=nobody)
    login.client("stranger", key="other")
    login.client("new-host", known="unknown")
    assert "Connection refused" in refused_run(cluster, "nobody")
    assert "Permission denied" in refused_run(cluster, "stranger")
    assert "Host key verification failed" in refused_run(cluster, "new-host")
    assert "Could not resolve hostname" in refused_run(cluster, "no-such-host.invalid")


SLOW = """#!/bin/sh
/usr/bin/sbatch "$@" && exec sleep 60
"""


def test_the_connection_breaks_behind_sbatch(cluster, login, slurm):
    """The job is in the queue, and nobody knows its number: it must not work for a run that has failed."""
    cluster.configure("--slurm-submit-host", "login")
    cluster.write(workflows(workflow("wait", WAIT, [("live", True)])))
    (login.home / "bin/sbatch").write_text(SLOW)
    (login.home / "bin/sbatch").chmod(0o755)
    submitting = cluster.start("run", "wait", "--remote")
    wait_for(lambda: not slurm.idle(), LIMIT_S, "it is in the queue")
    for pid in login.sessions():
        os.kill(pid, signal.SIGKILL)
    out, err = submitting.communicate(timeout=LIMIT_S)
    assert submitting.returncode == 1 and re.fullmatch(r"dstack: on login: ssh: .*closed.*\n", err), (out, err)
    assert cluster.last()["status"] == "failed"
    wait_for(slurm.idle, LIMIT_S, "the job has ended")
    assert not cluster.remote.keys("artifacts/")
    cluster.assert_nothing_left()


def test_sshd_goes_away(cluster, login):
    """Whoever asks is told within the time of a question, and the run does not mind."""
    cluster.configure("--slurm-submit-host", "login")
    cluster.write(workflows(workflow("wait", WAIT, [("live", True)])))
    name = cluster.begin("wait")
    if LONG:
        os.kill(login.process.pid, signal.SIGSTOP)  # answers nobody, and refuses nobody
        try:
            began = time.monotonic()
            assert "on login: ssh" in cluster.refuses("run", "wait", "--remote")
            assert time.monotonic() - began < 15
            assert name in cluster.ok("ps")
        finally:
            os.kill(login.process.pid, signal.SIGCONT)
    login.process.kill()
    login.process.wait(10)
    assert "running" in cluster.ok("ps", name)
    assert "Connection refused" in cluster.refuses("run", "wait", "--remote")
    cluster.ok("stop", "-y", name)
    assert cluster.wait_state(name, *FINAL)["status"] == "stopped"
    cluster.assert_nothing_left()
