"""The examples of the documentation as they are typed, on a real S3 server, and the playground's
workflows that are about what is kept."""
import os

import pytest

from cli_world import LIMIT_S, rgw, world
from conftest import wait_for
from test_artifacts import yaml

LONG = os.environ.get("DSTACK_TEST_LONG") == "1"
ARTIFACTS = """workflows:
  - name: hello-txt
    provider: bash
    commands:
      - echo "Hello world" > output/hello.txt
    artifacts:
      - path: ./output
"""
RESOURCES = """workflows:
  - name: hello-sh
    provider: bash
    commands:
      - bash artifacts/hello.sh
    artifacts:
      - path: ./output
        mount: true
"""
HELLO_SH = """for i in {000..100}
do
    sleep 1
    echo $i > "output/${i}.txt"
    echo "Wrote output/${i}.txt"
done
"""
MNIST = {"t10k-images-idx3-ubyte": 7840016, "t10k-images-idx3-ubyte.gz": 1648877,
         "t10k-labels-idx1-ubyte": 10008, "t10k-labels-idx1-ubyte.gz": 4542,
         "train-images-idx3-ubyte": 47040016, "train-images-idx3-ubyte.gz": 9912422,
         "train-labels-idx1-ubyte": 60008, "train-labels-idx1-ubyte.gz": 28881}
TABLE = """PATH  FILE                                  SIZE
data  MNIST/raw/t10k-images-idx3-ubyte      7.5MiB
      MNIST/raw/t10k-images-idx3-ubyte.gz   1.6MiB
      MNIST/raw/t10k-labels-idx1-ubyte      9.8KiB
      MNIST/raw/t10k-labels-idx1-ubyte.gz   4.4KiB
      MNIST/raw/train-images-idx3-ubyte     44.9MiB
      MNIST/raw/train-images-idx3-ubyte.gz  9.5MiB
      MNIST/raw/train-labels-idx1-ubyte     58.6KiB
      MNIST/raw/train-labels-idx1-ubyte.gz  28.2KiB
"""


@pytest.fixture
def seed(rgw):
    (rgw.repo / ".dstack/workflows/all.yaml").unlink()
    rgw.write(ARTIFACTS, "workflows/artifacts.yaml")
    rgw.write(RESOURCES, "workflows/resources.yaml")
    (rgw.repo / "artifacts" / "hello.sh").write_text(HELLO_SH)
    return rgw


def test_define_push_pull_and_tag(seed):
    seed.ok("run", "hello-txt")
    name = seed.last()["run"]
    assert list(seed.home.glob("artifacts/*/*/output/hello.txt"))
    assert seed.remote.keys("artifacts/") == []
    seed.ok("push", name)
    (key,) = seed.remote.keys("artifacts/")
    assert seed.remote.read(key) == b"Hello world\n"
    seed.ok("rm", name, "-y")  # here; the remote has it still
    seed.ok("pull", name)
    (copy,) = seed.home.glob("artifacts/*/*/output/hello.txt")
    assert copy.read_text() == "Hello world\n"
    seed.ok("tags", "add", name, "awesome-tag")
    seed.ok("rm", name, "-y")
    assert seed.ok("ls", ":awesome-tag").splitlines() == ["PATH    FILE       SIZE", "output  hello.txt  12B"]


def test_list_artifacts_as_in_the_table(seed):
    make = "mkdir -p data/MNIST/raw; cd data/MNIST/raw; " + "; ".join(
        f"truncate -s {size} {name}" for name, size in MNIST.items())
    seed.write(yaml(("mnist-data", [make], ["artifacts: [{path: ./data}]"])), "workflows/mnist.yaml")
    seed.ok("run", "mnist-data")
    name = seed.last()["run"]
    assert seed.ok("ls", "-r", name) == TABLE
    assert seed.ok("ls", name).splitlines()[1].split() == ["data", "MNIST/"]
    assert seed.ok("ls", "-t", name).splitlines()[1].split() == ["data", "MNIST/", "63.5MiB"]


def test_real_time_artifacts(seed):
    name = seed.ok("run", "hello-sh", "--remote", "-d").splitlines()[1].split()[0]
    files = 101 if LONG else 2
    for i in range(files):
        wait_for(lambda: any(k.endswith(f"/output/{i:03}.txt") for k in seed.remote.keys("artifacts/")),
                 LIMIT_S, f"file {i}")
        assert "output/%03d.txt" % i in seed.files(name)
    if not LONG:
        assert seed.last()["status"] == "running"
        seed.ok("stop", name)
    seed.wait_status(name, "done" if LONG else "stopped")
    seed.ok("pull", name)
    assert len(list(seed.home.glob("artifacts/*/*/output/*.txt"))) >= files
    assert f"Wrote output/{files - 1:03}.txt" in seed.ok("logs", name)
    seed.assert_nothing_left()


def test_cat_txt_by_workflow_tag_and_from_another_repo(seed, tmp_path):
    for workflow, dep in (("cat-txt-2", "workflow: hello-txt"), ("cat-txt", "tag: awesome-tag")):
        seed.write(yaml((workflow, ["cat output/hello.txt"], [f"deps: [{{{dep}}}]"])),
                   f"workflows/{workflow}.yaml")
    seed.ok("run", "hello-txt", "--remote", "-t", "awesome-tag")
    for workflow in ("cat-txt-2", "cat-txt"):
        assert seed.ok("run", workflow, "--remote").splitlines()[2:] == ["Hello world"]
    assert "pull" in seed.refuses("run", "cat-txt-2")  # here there is none yet
    seed.ok("pull", ":awesome-tag")
    assert seed.ok("run", "cat-txt-2").splitlines()[2:] == ["Hello world"]


def test_an_environment_at_an_absolute_path(seed, tmp_path):
    """As the conda example: made once, found where it was made, still executable."""
    env = tmp_path / "envs" / "workflow"
    seed.write(yaml(("setup-conda", [f"mkdir -p {env}/bin; printf '#!/bin/sh\\necho runs' > {env}/bin/tool; "
                                     f"chmod +x {env}/bin/tool; ln -s tool {env}/bin/alias"],
                     [f"artifacts: [{{path: {env}}}]"]),
                    ("use-conda", [f"{env}/bin/alias"], ["deps: [{workflow: setup-conda}]"])),
               "workflows/conda.yaml")
    seed.ok("run", "setup-conda", "--remote")
    for path in sorted(env.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert seed.ok("run", "use-conda", "--remote").splitlines()[2:] == ["runs"]


def test_two_steps_and_a_background_writer(seed):
    """train-mnist: data first, then training, which a TensorBoard in the background watches."""
    seed.write(yaml(("mnist-data", ["echo digits > data/digits"], ["artifacts: [./data]"]),
                    ("train-mnist", ["(while :; do sleep 0.1; ls lightning_logs > /dev/null; done) &\n        "
                                     "cat data/digits; echo events > lightning_logs/events"],
                     ["deps: [{workflow: mnist-data}]", "artifacts: [{path: lightning_logs}]"])),
               "workflows/mnist.yaml")
    seed.ok("run", "mnist-data", "--remote")
    assert seed.ok("run", "train-mnist", "--remote").splitlines()[2:] == ["digits"]
    assert seed.files(seed.last()["run"]) == ["lightning_logs/events"]
    seed.assert_nothing_left()
