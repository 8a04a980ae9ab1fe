"""What a workflow may ask for: secrets, variables, ports, python, resources, containers, IDEs."""
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from cli_world import HELLO, LIMIT_S, Terminal, anywhere, needs_root, processes_of, rgw, world
from conftest import wait_for

VALUE = "hunter2 it's \"$HOME\" *"
PODMAN_OPTIONS = ("--runtime runc --network=host --ulimit nofile=1024:1024 "
                  "--ulimit nproc=1024:1024 --pull=never")


def flow(body, name="w", provider="bash"):
    return f"workflows:\n  - name: {name}\n    provider: {provider}\n    " + \
        body.strip("\n").replace("\n", "\n    ") + "\n"


def commands(*lines, more=""):
    return flow("commands:\n" + "\n".join(f"  - {json.dumps(line)}" for line in lines) + "\n" + more)


def output(done):
    """What the job printed: behind the table of `run`."""
    assert done.returncode == 0, done.err + done.out
    return done.out.splitlines()[2:]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def fake(world, name, text):
    """An executable NAME, first in PATH."""
    path = world.home.parent / "fake" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    world.environment["PATH"] = f"{path.parent}:{os.environ['PATH']}"
    return path


def poor_path(world):
    """A PATH with what a job needs, and nothing to choose from."""
    directory = world.home.parent / "bin"
    directory.mkdir()
    for name in "bash sh git env cat head rm sed fusermount3 timeout zstd".split():
        (directory / name).symlink_to(shutil.which(name))
    (directory / "python3").symlink_to("/usr/bin/python3")
    world.environment["PATH"] = str(directory)


# --- secrets ---

def everything_below(path):
    found = {}
    for file in path.rglob("*"):
        try:
            found[file] = file.read_bytes()
        except (FileNotFoundError, IsADirectoryError):  # a runner's last signs go just now
            pass
    assert len(found) > 3
    return found


def test_a_secret_reaches_the_job_and_nothing_else(anywhere):
    world, options = anywhere
    assert world.ok("secrets", "add", "TOKEN", VALUE) == ""
    world.ok("secrets", "add", "OTHER", input="from stdin\n")
    assert world.ok("secrets").split() == ["NAME", "OTHER", "TOKEN"]
    world.write(commands(
        "printf '%s' ${{ secrets.TOKEN }} | sha256sum | cut -c 1-8",
        "printf '%s' 'x ${{ secrets.OTHER }} y' | wc -c",
        "echo \"<$TOKEN> <${{ secrets.OTHER }}>\"",
        "printf '%s' \"$URL\" | sha256sum | cut -c 1-8",
        "env | grep -c DSTACK_SECRETS_KEY || true",
        "tr '\\0' ' ' < /proc/$$$$/cmdline | grep -c hunter || true",
        more="env:\n  - URL=u:${{ secrets.OTHER }}@h"))
    sums = [hashlib.sha256(text.encode()).hexdigest()[:8] for text in (VALUE, "u:from stdin@h")]
    assert output(world.run("run", "w", *options)) == [sums[0], "14", "<***> <***>", sums[1], "0", "0"]
    kept = everything_below(world.home)
    if world.remote:
        kept.update(world.remote.texts())
    assert [name for name, data in kept.items() if b"hunter2" in data or b"from stdin" in data] == []
    assert (world.home / "secrets.key").stat().st_mode & 0o777 == 0o600


def test_no_secret_is_on_disk_or_in_ps_while_the_job_runs(world):
    world.ok("secrets", "add", "TOKEN", "hunter2")
    world.write(commands("echo up ${{ secrets.TOKEN }}", "sleep 60 # ${{ secrets.TOKEN }}"))
    name = world.begin("w")
    lines = [pathlib.Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes_of(world.home)]
    assert lines and not [line for line in lines if b"hunter2" in line]
    assert [p for p, data in everything_below(world.home).items() if b"hunter2" in data] == []
    world.ok("stop", name, "-x")
    world.wait_status(name, "aborted")


def test_secrets_are_changed_and_deleted(world):
    world.ok("secrets", "add", "TOKEN", "one1")
    world.write(commands("echo ${#TOKEN}"))
    line = world.refuses("secrets", "add", "TOKEN", "two22")
    assert "already" in line and "update" in line
    assert output(world.run("run", "w")) == ["4"]
    world.ok("secrets", "add", "TOKEN", "two22", "-y")
    assert output(world.run("run", "w")) == ["5"]
    world.ok("secrets", "update", "TOKEN", "-hree3")
    assert output(world.run("run", "w")) == ["6"]
    world.ok("secrets", "delete", "TOKEN", "-y")
    assert output(world.run("run", "w")) == ["0"]
    assert world.ok("secrets").split() == ["NAME"]


def test_a_remote_that_comes_later_gets_the_secrets(world):
    world.ok("secrets", "add", "TOKEN", "hunter2")
    world.ok("config", "--storage", f"file://{world.home.parent}/later")
    world.write(commands("echo ${#TOKEN}"))
    assert output(world.run("run", "w", "--remote")) == ["7"]
    world.ok("secrets", "update", "TOKEN", "hunter22")
    assert output(world.run("run", "w", "--remote")) == ["8"]
    world.ok("secrets", "delete", "TOKEN")
    assert output(world.run("run", "w", "--remote")) == ["0"]


def test_a_terminal_does_not_show_what_is_typed(world):
    terminal = Terminal(world, "secrets", "add", "TOKEN")
    terminal.expect("Value of TOKEN: ")
    terminal.send("hunter2\n")
    assert terminal.finish() == 0
    assert "hunter2" not in terminal.text
    terminal = Terminal(world, "secrets", "add", "TOKEN")
    terminal.expect("Replace it? [y/N]")
    terminal.send("n\n")
    assert terminal.finish() == 1
    terminal = Terminal(world, "secrets", "update", "TOKEN")
    terminal.expect("Value of TOKEN: ")
    terminal.send("\x03\n")
    assert terminal.finish() == 1 and "interrupted" in terminal.text
    world.write(commands("echo ${#TOKEN}"))
    assert output(world.run("run", "w")) == ["7"]


@pytest.mark.parametrize("arguments, code, parts", [
    (["add", "1X", "v"], 1, ["1X", "environment variable"]),
    (["add", "PATH", "v"], 1, ["PATH"]),
    (["add", "X", ""], 1, ["empty"]),
    (["update", "X", "v"], 1, ["no secret X", "secrets add X"]),
    (["delete", "X"], 1, ["no secret X"]),
    (["add"], 2, ["usage", "secrets"]),
    (["remove", "X"], 2, ["usage", "delete"]),
])
def test_bad_calls_of_secrets(world, arguments, code, parts):
    line = world.refuses("secrets", *arguments, code=code)
    assert all(part in line for part in parts), line
    world.assert_nothing_made()


def test_a_machine_without_the_key_says_so(world):
    world.ok("secrets", "add", "TOKEN", "hunter2")
    world.write(commands("echo ${{ secrets.TOKEN }}"))
    key = (world.home / "secrets.key").read_text().strip()
    (world.home / "secrets.key").rename(world.home.parent / "key")
    done = world.run("run", "w")
    assert done.returncode == 1 and "no key" in done.err and "DSTACK_SECRETS_KEY" in done.err
    assert "no key" in world.refuses("secrets", "add", "MORE", "x")
    world.environment["DSTACK_SECRETS_KEY"] = key
    assert output(world.run("run", "w")) == ["***"]
    world.environment["DSTACK_SECRETS_KEY"] = "ab" * 32
    done = world.run("run", "w")
    assert done.returncode == 1 and "another key" in done.err


@pytest.mark.parametrize("text, parts", [
    ("echo ${{ secrets.NONE }}", ["no secret NONE", "secrets add NONE"]),
    ("cat <<END\n${{ secrets.TOKEN }}\nEND", ["here-document"]),
    ("echo ${{ secret.TOKEN }}", ["secret.TOKEN", "secrets.NAME"]),
])
def test_variables_that_cannot_be_replaced(world, text, parts):
    world.ok("secrets", "add", "TOKEN", "hunter2")
    world.write(commands(text))
    line = world.refuses("run", "w")
    assert all(part in line for part in parts), line
    assert world.runs() == []


def test_an_env_that_hides_a_secret_is_refused(world):
    world.ok("secrets", "add", "TOKEN", "hunter2")
    world.write(commands("echo ${{ secrets.TOKEN }}"))
    assert "hides" in world.refuses("run", "w", "-e", "TOKEN=x")


# --- what is checked before anything starts ---

def test_resources_that_the_machine_has_not(world):
    world.write(commands("echo", more="resources: {memory: 900TB}"))
    line = world.refuses("run", "w")
    assert re.search(r"asks for 900.0TiB of memory; of this machine's .*iB, .*iB are available", line)
    cpus = len(os.sched_getaffinity(0))
    assert f"{cpus + 1} CPUs; this machine has {cpus}" in world.refuses("run", "w", "--cpu", str(cpus + 1))
    world.write(commands("echo"))
    fake(world, "nvidia-smi", "#!/bin/sh\necho 'Tesla V100-SXM2-16GB, 16160'\n")
    assert output(world.run("run", "w", "--gpu-name", "V100", "--gpu-memory", "15GB")) == [""]
    assert "it has Tesla V100" in world.refuses("run", "w", "--gpu", "2")
    assert "/dev/shm has" in world.refuses("run", "w", "--shm-size", "900TB")
    assert len(world.runs()) == 1


def test_where_a_workflow_wants_to_run(world):
    world.write(commands("echo", more="resources: {local: true}"))
    assert "resources.local" in world.refuses("run", "w", "--remote")
    world.write(commands("echo", more="resources: {remote: true}"))
    world.ok("run", "w")
    assert list((world.home / "remote" / "runs").glob("*/*.json"))


def test_ports_are_handed_over_and_clashes_refused(world):
    world.write(commands(
        "python3 -m http.server --bind 127.0.0.1 $PORT_1 >/dev/null 2>&1 & sleep 0.1",
        "for i in {1..100}; do curl -s -o /dev/null http://127.0.0.1:$PORT_1/ && break; sleep 0.05; done",
        "echo $PORT_0 $PORT_1 $PORT_2", more="ports: 2"))
    ports = output(world.run("run", "w"))[0].split()
    assert len(set(ports)) == 2 and all(1023 < int(port) < 65536 for port in ports)
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    line = world.refuses("run", "w", "-p", str(port))
    assert f"port {port} of this machine is taken" in line and "PORT:LOCAL" in line
    other = free_port()
    world.write(commands("echo $PORT_0 ${PORT_1-none}"))
    assert output(world.run("run", "w", "-p", f"{port}:{other}")) == [f"{other} none"]
    taken.close()
    assert len(world.runs()) == 2


def test_docker_without_its_daemon_gives_way_to_podman(world):
    world.write("workflows:\n  - name: w\n    provider: docker\n    image: box\n")
    poor_path(world)
    path = world.environment["PATH"]
    fake(world, "docker", "#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    world.environment["PATH"] = f"{world.home.parent}/fake:{path}"
    line = world.refuses("run", "w")
    assert "docker cannot be used" in line and "no podman" in line and "Cannot connect" in line
    world.assert_nothing_made()
    fake(world, "podman", "#!/bin/sh\n[ $1 != run ] || echo podman runs\n")
    world.environment["PATH"] = f"{world.home.parent}/fake:{path}"
    assert output(world.run("run", "w")) == ["podman runs"]


def test_python_of_a_version(world):
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    fake(world, f"python{minor}", f"#!/bin/sh\nexec {sys.executable} \"$@\"\n").unlink()
    (world.home.parent / "fake" / f"python{minor}").symlink_to(os.path.realpath("/usr/bin/python3"))
    world.write(commands("python -c 'import sys; print(\"%d.%d\" % sys.version_info[:2], sys.prefix)'",
                         "command -v pip; echo $VIRTUAL_ENV", more=f"python: {minor}"))
    lines = output(world.run("run", "w"))
    assert lines[0].startswith(minor) and lines[0].endswith("/venv")
    assert lines[1] == f"{lines[2]}/bin/pip"
    world.write(commands("echo", more="python: 3.99"))
    line = world.refuses("run", "w")
    assert "python 3.99 is not on this machine" in line and "install python3.99" in line
    world.assert_nothing_left()


# --- the command line over the file ---

def test_options_go_over_the_workflow(world):
    world.write(commands("pwd | sed 's,.*/code,,'; echo $A $B; ls -d one two sub/two 2>/dev/null || true",
                         more="env: [A=1, B=1]\nartifacts: [one]\nworking_dir: sub"))
    (world.repo / "sub").mkdir()
    (world.repo / "sub" / "file").write_text("")
    (world.repo / "other").mkdir()
    (world.repo / "other" / "file").write_text("")
    assert output(world.run("run", "w")) == ["/sub", "1 1", "one"]
    assert output(world.run("run", "w", "-w", "other", "-e", "B=2", "-a", "two", "-i", "-t", "best")) == [
        "/other", "1 2", "two"]
    document = world.document(world.last()["run"])
    assert document["spec"]["resources"] == {"interruptible": True}
    assert [a["path"] for a in document["spec"]["artifacts"]] == ["two"]
    assert "best" in world.ok("tags")


def test_deps_on_the_command_line_replace_the_files(world):
    world.write("workflows:\n" + "".join(
        f"  - name: {name}\n    provider: bash\n    commands: [echo {name} > {name}/x]\n"
        f"    artifacts: [{name}]\n" for name in "ab")
        + "  - name: c\n    provider: bash\n    commands: ['cat */x']\n    deps: [workflow: a]\n")
    world.ok("run", "a")
    world.ok("run", "b", "-t", "two")
    assert output(world.run("run", "c")) == ["a"]
    assert output(world.run("run", "c", "--dep", ":two")) == ["b"]
    assert output(world.run("run", "c", "--dep", "b", "--dep", "a")) == ["a", "b"]


@pytest.mark.parametrize("arguments, code, parts", [
    (["w", "--cpu", "0"], 1, ["--cpu 0", "whole number"]),
    (["w", "--gpu", "x"], 1, ["--gpu x"]),
    (["w", "--memory", "16 elephants"], 1, ["--memory", "16GB"]),
    (["w", "--shm-size", "-1"], 1, ["--shm-size"]),
    (["w", "-p", "0"], 1, ["--port 0", "PORT:LOCAL"]),
    (["w", "-p", "80", "-p", "81:80"], 1, ["clash"]),
    (["w", "-w", "../x"], 1, ["--working-dir", "../x"]),
    (["w", "-w", "none"], 1, ["working_dir none is not in"]),
    (["w", "-a", "/"], 1, ["--artifact"]),
    (["w", "--dep", ":"], 1, [":TAG"]),
    (["w", "-c", "x"], 2, ["-c is for"]),
    (["docker"], 1, ["name an image"]),
    (["lab", "x"], 1, ["takes no arguments"]),
    (["elab"], 1, ["no workflow"]),
])
def test_bad_options(world, arguments, code, parts):
    world.write(commands("echo"))
    done = world.run("run", *arguments)
    assert done.returncode == code and all(part in done.err for part in parts), (done.out, done.err)
    world.assert_nothing_made()


# --- containers ---

@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A storage of podman's own with an image that has busybox and nothing else."""
    if os.environ.get("DSTACK_TEST_CHROOT"):
        pytest.skip("containers cannot be made in a chroot")
    if os.geteuid() != 0 or not shutil.which("podman") or not shutil.which("busybox"):
        pytest.skip("needs root, podman and busybox")
    top = pathlib.Path(tmp_path_factory.mktemp("podman"))
    root = top / "image"
    for name in ("bin", "tmp", "root", "proc", "sys", "dev", "etc"):
        (root / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), root / "bin/busybox")
    for name in "sh cat echo sleep kill ls env pwd grep sha256sum printf wc".split():
        (root / "bin" / name).symlink_to("busybox")
    (top / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\nrunroot = "{top}/r"\ngraphroot = "{top}/g"\n')
    environment = {"CONTAINERS_STORAGE_CONF": str(top / "storage.conf"),
                   "DSTACK_CONTAINER_ENGINE": "podman", "DSTACK_CONTAINER_OPTIONS": PODMAN_OPTIONS}
    subprocess.run(f"tar -C {root} -c . | podman import --quiet - localhost/box:1", shell=True, check=True,
                   env={**os.environ, **environment}, stdout=subprocess.DEVNULL, timeout=60)
    yield environment
    # not "system reset": that takes what is not in this storage, too
    subprocess.run(["podman", "rmi", "--all", "--force"], env={**os.environ, **environment},
                   stdout=subprocess.DEVNULL, check=False, timeout=60)


@pytest.fixture
def podman(images, rgw):
    """A world whose containers are podman's, with a remote."""
    rgw.environment.update(images)

    def containers():
        listed = subprocess.run(["podman", "ps", "-a", "--format", "{{.Names}}"], check=True, text=True,
                                env={**os.environ, **images}, stdout=subprocess.PIPE, timeout=30)
        return listed.stdout.split()

    rgw.containers = containers
    yield rgw
    assert containers() == []


@needs_root
def test_a_container_has_code_secrets_and_both_kinds_of_artifacts(podman):
    podman.ok("secrets", "add", "TOKEN", VALUE)
    podman.ok("run", "hello-txt", "--remote")
    (podman.repo / "sub").mkdir()
    (podman.repo / "sub" / "file").write_text("code\n")
    away = podman.home.parent / "away, too"
    podman.write(HELLO.split("  - name: hello-sh")[0] + "\n".join(flow(f"""image: localhost/box:1
commands:
  - pwd; cat file output/hello.txt; echo $HOME $A $RUN_NAME
  - printf %s ${{{{ secrets.TOKEN }}}} | sha256sum | grep -o '^........'
  - echo "$TOKEN" ${{{{ run.args }}}}
  - echo mounted > out/m; echo saved > saved/s; echo away > '{away}/a'; echo home > ~/.cache/h
  - test "$(ls /bin/busybox)" = /bin/busybox
working_dir: sub
home_dir: /home/me
env: [A=1, "PATH=/bin:/b"]
deps: [{{workflow: hello-txt, mount: true}}]
artifacts:
  - {{path: out, mount: true}}
  - path: saved
  - path: '{away}'
  - path: ~/.cache
""", provider="docker").splitlines()[1:]))
    done = podman.run("run", "w", "--remote", "more", limit=60)
    name = podman.last()["run"]
    assert output(done) == ["/workflow/sub", "code", "Hello world", f"/home/me 1 {name}",
                            hashlib.sha256(VALUE.encode()).hexdigest()[:8], "*** more"]
    for key, data in (("out/m", b"mounted\n"), ("saved/s", b"saved\n"), (".cache/h", b"home\n"),
                      (str(away)[1:] + "/a", b"away\n")):
        found = [k for k in podman.remote.keys("artifacts/") if k.endswith(f"{name}/{key}")]
        assert found and podman.remote.read(found[0]) == data, key
    podman.assert_nothing_left()


@needs_root
def test_a_container_is_stopped_aborted_and_lost_without_a_trace(podman):
    podman.write(flow("""image: localhost/box:1
commands:
  - trap 'echo saved > out/s; exit 0' TERM
  - echo up; while true; do sleep 0.1; done
artifacts: [out]
""", provider="docker"))
    name = podman.begin("w")
    assert len(podman.containers()) == 1
    podman.ok("stop", name)
    podman.wait_status(name, "stopped")
    assert podman.files(name) == ["out/s"]
    assert podman.containers() == []
    name = podman.begin("w")
    podman.ok("stop", "-x", name)
    podman.wait_status(name, "aborted")
    assert podman.containers() == []
    name = podman.begin("w")
    for pid in processes_of(podman.home):  # both processes of the runner
        if b"dstack-runner" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    podman.wait_status(name, "failed")
    podman.assert_nothing_left()


@needs_root
def test_containers_from_the_command_line(podman):
    assert output(podman.run("run", "docker", "localhost/box:1", "-c", "echo $A", "-c", "echo 2",
                             "-e", "A=1")) == ["1", "2"]
    assert output(podman.run("run", "docker", "localhost/box:1", "-e", "echo -n", "-c", "hi ")) == ["hi "]
    assert output(podman.run("run", "docker", "localhost/box:1", "--", "echo", "-n", "x")) == ["x"]
    done = podman.run("run", "docker", "localhost/box:1", "-c", "exit 7")
    assert done.returncode == 7
    done = podman.run("run", "docker", "localhost/none:1", "-c", "x")
    assert done.returncode == 125 and "none" in done.out


FAKE_DOCKER = r"""#!/bin/sh
[ "$1" != version ] || exit 0
{ printf '%s\n' "$@"; echo "-- config ${DOCKER_CONFIG-none}"; } >> "$FAKE_LOG"
case $1 in
    login) sed 's/^/stdin: /' >> "$FAKE_LOG"; echo x > "$DOCKER_CONFIG/config.json";;
    pull) ls "$DOCKER_CONFIG" >> "$FAKE_LOG";;
    run) echo "env: $TOKEN ${DSTACK_REGISTRY_PASSWORD-none}"; cat "$FAKE_SCRIPT" 2>/dev/null; exit 0;;
esac
"""


def test_what_docker_is_asked_for(world):
    log = world.home.parent / "docker.log"
    fake(world, "docker", FAKE_DOCKER)
    world.environment.update(FAKE_LOG=str(log), DSTACK_CONTAINER_OPTIONS="--security-opt 'a b'")
    world.ok("secrets", "add", "TOKEN", "hunter2")
    fake(world, "nvidia-smi", "#!/bin/sh\necho 'Tesla V100, 16160'\n")
    local = free_port()
    world.write(flow(f"""image: reg.example:5000/a/b:1
entrypoint: [bash, -c]
commands: [one, two]
registry_auth: {{username: me, password: "${{{{ secrets.TOKEN }}}}"}}
env: [A=secretly, LANG=xx, TMPDIR=/t]
ports: ["80:{local}"]
resources: {{shm_size: 64MB, gpu: 1}}
artifacts: [out, /tmp/dstack-fake/x]
""", provider="docker"))
    world.environment["LANG"] = "C"
    done = world.run("run", "w")
    shutil.rmtree("/tmp/dstack-fake")
    assert output(done) == ["env: *** none"]
    login, _, rest = log.read_text().partition("stdin: hunter2")
    assert login.splitlines()[:-1] == ["login", "--username", "me", "--password-stdin", "reg.example:5000"]
    pull, _, run = rest.lstrip("\n").partition("-- config")
    assert pull.splitlines() == ["pull", "--quiet", "reg.example:5000/a/b:1"]
    config, _, run = run.partition("run\n")
    assert "config.json" in config
    words, _, after = run.partition("-- config none")
    words = words.rstrip("\n").splitlines()
    for word in ("--rm", "--workdir=/workflow", f"--publish=127.0.0.1:{local}:80", "--gpus=1",
                 f"--shm-size={64 << 20}", "--security-opt", "a b", "A", "TOKEN", "LANG", "TMPDIR=/t",
                 "--entrypoint=/bin/sh"):
        assert word in words, (word, words)
    image = words.index("reg.example:5000/a/b:1")
    assert words[-4:] == ["bash", "-c", "one", "two"] and "-c" in words[image + 1]
    assert any(re.fullmatch("type=bind,source=.*/code,destination=/workflow", word) for word in words)
    assert "type=bind,source=/tmp/dstack-fake/x,destination=/tmp/dstack-fake/x" in words
    assert "hunter2" not in log.read_text().replace("stdin: hunter2", "")
    assert re.search(r"rm\n--force\ndstack-", after)


def test_without_docker_and_podman(world):
    poor_path(world)
    world.write(flow("image: x", provider="docker"))
    assert "docker or podman" in world.refuses("run", "w")
    world.environment["DSTACK_CONTAINER_ENGINE"] = "nerdctl"
    assert "nerdctl" in world.refuses("run", "w")
    world.assert_nothing_made()


# --- IDEs ---

FAKE_IDE = r"""#!/bin/bash
if [ "$1" = --version ]; then echo 1.2.3; exit; fi
echo "args: $*" | sed "s,/[^ ]*/token,TOKEN-FILE,"
echo "token: ${JUPYTER_TOKEN:0:4} $(head -c 4 "$DSTACK_TOKEN_FILE") setup: $SETUP"
"""


@pytest.mark.parametrize("provider, executable, path, flags", [
    ("code", "openvscode-server", "?tkn=", "--host 127.0.0.1 --port {} --connection-token-file TOKEN-FILE"),
    ("lab", "jupyter-lab", "lab?token=", "--ip=127.0.0.1 --port={} --port-retries=0 --no-browser"),
    ("notebook", "jupyter-notebook", "tree?token=", "--ip=127.0.0.1 --port={} --port-retries=0 --no-browser"),
])
def test_an_ide_starts_with_a_token(world, provider, executable, path, flags):
    fake(world, executable, FAKE_IDE)
    world.write(flow("setup: [export SETUP=done]\nversion: 1.2", provider=provider))
    lines = output(world.run("run", "w"))
    url = re.search(r"http://127.0.0.1:(\d+)/" + re.escape(path) + "([0-9a-f]{32})$", lines[0])
    assert url, lines
    assert lines[1].startswith("args: " + flags.format(url[1]))
    assert lines[2] == f"token: {url[2][:4]} {url[2][:4]} setup: done"
    port = free_port()
    assert f":{port}/" in output(world.run("run", provider, "-p", str(port)))[0]
    world.write(flow("version: 1.3", provider=provider))
    done = world.run("run", "w")
    assert done.returncode == 1 and "wants version 1.3" in done.out and "here is 1.2.3" in done.out


@pytest.mark.parametrize("provider, executable, part", [
    ("code", "openvscode-server", "VS Code is not on this machine"),
    ("lab", "jupyter-lab", "pip install jupyterlab"),
])
def test_an_ide_that_is_not_there(world, provider, executable, part):
    poor_path(world)
    python = pathlib.Path(world.environment["PATH"]) / "python3"
    python.unlink()
    python.symlink_to(shutil.which("false"))  # it may have a jupyterlab
    assert part in world.refuses("run", provider)
    world.assert_nothing_made()
    world.write(flow("setup: ['true']", provider=provider))
    done = world.run("run", "w")
    assert done.returncode == 127 and part in done.out


@pytest.mark.skipif(subprocess.run(["/usr/bin/python3", "-c", "import notebook"], check=False,
                                   stderr=subprocess.DEVNULL).returncode != 0,
                    reason="needs python3-notebook")
def test_a_real_notebook_opens_with_its_token_alone(world):
    poor_path(world)
    name = world.ok("run", "notebook", "-d").splitlines()[1].split()[0]
    wait_for(lambda: "tree?token=" in world.ok("logs", name), LIMIT_S, "the URL")
    url = re.search(r"Jupyter Notebook: (http\S+)", world.ok("logs", name))[1]

    def answers():
        try:
            return urllib.request.urlopen(url, timeout=5).status == 200
        except (urllib.error.URLError, ConnectionError):
            return False
    wait_for(answers, LIMIT_S, "the notebook answers")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url.split("tree")[0] + "api/contents", timeout=5)
    assert refused.value.code == 403
    world.ok("stop", name)
    world.wait_status(name, "stopped")
    world.assert_nothing_left()


# --- a remote with ways of its own ---

def test_what_a_remote_leaves_unsigned_its_runner_and_mounts_do_too(rgw):
    rgw.ok("config", "--name", "quick", "--storage", rgw.remote.url, "--region", "us-east-1",
           "--endpoint", os.environ["DSTACK_TEST_RGW"], "--unsigned-payload")
    assert "unsigned_payload: true" in (rgw.home / "config.yaml").read_text()
    rgw.write(commands("echo saved > out/f",
                       "ps -eo args | grep -e --unsigned-payload",
                       more="artifacts: [{path: out, mount: true}]"))
    done = rgw.run("run", "w", "--remote=quick")
    name = rgw.last()["run"]
    programs = {os.path.basename(line.split()[0]) for line in output(done) if name in line}
    assert programs == {"dstack-runner", "dstack-mount"}, done.out
    saved = [key for key in rgw.remote.keys("artifacts/") if key.endswith(f"{name}/out/f")]
    assert [rgw.remote.read(key) for key in saved] == [b"saved\n"]
    rgw.assert_nothing_left()


# --- a remote with certificates and buckets of its own ---

def test_a_remote_over_tls_with_buckets_in_the_host(rgw):
    if not os.environ.get("DSTACK_TEST_RGW_TLS"):
        pytest.skip("DSTACK_TEST_RGW_TLS is not set")
    port = os.environ["DSTACK_TEST_RGW_TLS"].rsplit(":", 1)[1]
    arguments = ["config", "--name", "tls", "--storage", rgw.remote.url, "--region", "us-east-1",
                 "--endpoint", f"https://s3.localhost:{port}", "--virtual-host"]
    assert "certificate" in rgw.run(*arguments).err
    rgw.ok(*arguments, "--cacert", os.path.relpath(os.environ["DSTACK_TEST_RGW_CACERT"], rgw.repo))
    rgw.ok("run", "hello-sh", "--remote=tls")
    files = [key for key in rgw.remote.keys("artifacts/") if key.endswith(".txt")]
    assert len(files) == 3
