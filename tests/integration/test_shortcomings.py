"""Where the system that this one follows falls short, and what happens here instead: on the S3 server."""
import json
import os
import re
import time

from cli_world import LIMIT_S, Terminal, needs_root, rgw, world
from conftest import wait_for
from test_artifacts import UNSAVABLE, tree, yaml
from test_interruption import google  # noqa: F401

LONG = os.environ.get("DSTACK_TEST_LONG") == "1"


def detached(world, commands, *more):
    return world.ok("run", "bash", "-c", commands, "-a", "output", "-d", "--remote",
                    *more).splitlines()[1].split()[0]


def test_1_a_non_zero_exit_saves_what_is_not_mounted(rgw):
    done = rgw.run("run", "bash", "-c", "echo x > output/a; exit 7", "-a", "output", "--remote")
    assert done.returncode == 7 and rgw.files(rgw.last()["run"]) == ["output/a"]


def test_2_a_graceful_stop_waits_for_what_saves(rgw):
    name = detached(rgw, "trap 'sleep 1; echo late > output/late; exit 0' TERM; echo up; "
                         "while :; do sleep 0.1; done")
    wait_for(lambda: "up" in rgw.ok("logs", name), LIMIT_S, "up")
    rgw.ok("stop", name)
    rgw.wait_status(name, "stopped")
    assert rgw.files(name) == ["output/late"]


def test_3_an_upload_that_fails_fails_the_run(rgw):
    done = rgw.run("run", "bash", "-c", UNSAVABLE, "-a", "output", "--remote")
    assert done.returncode == 1 and rgw.last()["status"] == "failed" and "dstack push" in done.err


def test_3_a_store_that_refuses_fails_the_run_and_push_saves_it(rgw):
    """The bucket takes no more while the run works, and does again later."""
    client, bucket = rgw.remote.client, rgw.remote.bucket
    name = detached(rgw, "echo x > output/a; echo up; while [ ! -e /tmp/go-$RUN_NAME ]; do sleep 0.1; done")
    wait_for(lambda: "up" in rgw.ok("logs", name), LIMIT_S, "up")
    deny = {"Version": "2012-10-17", "Statement": [{
        "Effect": "Deny", "Principal": "*", "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{bucket}/{rgw.remote.prefix}artifacts/*"}]}
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(deny))
    try:
        open(f"/tmp/go-{name}", "w").close()
        rgw.wait_status(name, "failed")
    finally:
        client.delete_bucket_policy(Bucket=bucket)
        os.unlink(f"/tmp/go-{name}")
    assert rgw.files(name) == [] and "kept in" in rgw.ok("ps", "-v", name)
    rgw.ok("push", name)
    assert rgw.files(name) == ["output/a"] and "saved later" in rgw.ok("ps", "-v", name)
    rgw.assert_nothing_left()


def test_4_commands_start_when_the_mount_is_there(rgw):
    rgw.write(yaml(("w", ["grep -c \" $PWD/output \" /proc/self/mounts; echo x > output/a"],
                    ["artifacts: [{path: output, mount: true}]"])))
    assert rgw.ok("run", "w", "--remote").splitlines()[2:] == ["1"]
    assert rgw.files(rgw.last()["run"]) == ["output/a"]


def test_5_a_mounted_artifact_ends_done_and_cleanly_unmounted(rgw):
    rgw.write(yaml(("w", ["head -c 12M /dev/urandom > output/big; echo x > output/a"],
                    ["artifacts: [{path: output, mount: true}]"])))
    rgw.ok("run", "w", "--remote")
    assert rgw.last()["status"] == "done"
    assert rgw.files(rgw.last()["run"]) == ["output/a", "output/big"]
    assert not any(".dstack-mount" in key for key in rgw.remote.keys("artifacts/"))
    rgw.assert_nothing_left()


@needs_root
def test_6_an_interrupted_run_comes_back_whole_and_not_for_ever(rgw, google):
    """Both kinds of artifacts, at once, with all that was asked for, as often as the workflow says."""
    google.serve(rgw)
    rgw.write(yaml(("w", ["echo \"$WHO $0 $(cat live/n) $(cat saved/n)\"",
                          "for d in live saved; do echo $DSTACK_RUN_ATTEMPT >> $d/n; done",
                          "echo up; sleep 60 & wait $!"],
                    ["artifacts: [{path: live, mount: true}, saved]", "env: [WHO=me]", "ports: 1",
                     "retry: {attempts: 2}"])))
    process = rgw.start("run", "w", "--remote")
    for attempt in (1, 2):
        wait_for(lambda: rgw.runs() and rgw.ok("logs", rgw.last()["run"]).count("up\n") == attempt, LIMIT_S,
                 f"attempt {attempt} is up")
        begin = time.monotonic()
        google.preempt()
        if attempt == 1:
            wait_for(lambda: "attempt 2" in rgw.ok("logs", rgw.last()["run"]), LIMIT_S, "the next one begins")
            assert time.monotonic() - begin < 20  # not minutes
            google.again()
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode != 0 and "its 2 attempts are used up" in err, err
    assert re.search("^me .* 1 1$", out, re.M), out
    assert rgw.last()["status"] == "failed" and rgw.files(rgw.last()["run"]) == ["live/n", "saved/n"]
    rgw.assert_nothing_left()


def test_7_modes_symlinks_empty_files_and_long_listings(rgw, tmp_path):
    make = ("cd output; mkdir many empty; touch $(seq -f many/%g 1100); ln -s many/1 link; "
            "printf '#!/bin/sh' > x; chmod 755 x; chmod 700 many")
    rgw.ok("run", "bash", "-c", make, "-a", "output", "--remote")
    name = rgw.last()["run"]
    assert len(rgw.files(name)) == 1102
    rgw.ok("cp", name, "output", tmp_path / "copy")
    copy = tree(tmp_path / "copy")
    assert len(copy) == 1104 and copy["link"][2] == "many/1" and copy["x"][1] == 0o755
    assert copy["many"][1] == 0o700 and "empty" in copy and copy["many/1100"][2] == b""


def test_8_an_abort_stays_one_and_ctrl_c_saves(rgw):
    name = detached(rgw, "trap '' TERM; echo x > output/a; echo up; while :; do sleep 0.1; done")
    wait_for(lambda: "up" in rgw.ok("logs", name), LIMIT_S, "up")
    rgw.ok("stop", name)
    rgw.wait_status(name, "stopping")
    rgw.ok("stop", name, "-x")
    rgw.wait_status(name, "aborted", "stopped")
    assert rgw.last()["status"] == "aborted" and rgw.files(name) == []
    terminal = Terminal(rgw, "run", "bash", "-c", "echo x > output/a; echo up; sleep 60", "-a", "output",
                        "--remote")
    terminal.expect("up\r\n")
    terminal.send("\x03")
    terminal.expect("[y/N]")
    terminal.send("y\n")
    assert terminal.finish() == 130 and rgw.last()["status"] == "stopped"
    assert rgw.files(rgw.last()["run"]) == ["output/a"]


def test_9_run_returns_when_the_run_is_done(rgw):
    rgw.write(yaml(("a", ["head -c 20M /dev/urandom > data/x"], ["artifacts: [data]"]),
                   ("b", ["stat -c %s data/x"], ["deps: [{workflow: a}]"])))
    for _ in range(5 if LONG else 1):
        rgw.ok("run", "a", "--remote")
        assert rgw.last()["status"] == "done"
        assert rgw.ok("run", "b", "--remote").splitlines()[2:] == ["20971520"]
