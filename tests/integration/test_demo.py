"""What scripts/demo-interruption draws, and, with DSTACK_TEST_LONG=1, the whole of it."""
import io
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(TOP / "scripts" / "demo"))

import curve  # noqa: E402

LONG = bool(os.environ.get("DSTACK_TEST_LONG"))
LOG = """from step 0 of 10
step 0 loss 8.0000
step 1 loss 6.0000
step 2 loss 4.0000
dstack: preempted: 4.5 s are left to end and save
dstack: mounts are saved, after 0.25 s; 4.0 s are left
dstack: --- attempt 2, on vm ---
from step 2 of 10
step 2 loss 4.0000
step 3 loss 2.0000
final 0x1p+1 abc
"""
SVG = "{http://www.w3.org/2000/svg}"


def story():
    told = curve.Story()
    for line in LOG.splitlines():
        told.add(line)
    return told


def test_attempts_and_what_was_repeated():
    told = story()
    assert [len(points) for points in told.attempts] == [3, 2]
    assert (told.repeated(0), told.repeated(1)) == ([], [2])
    text = "\n".join(curve.summary(told, False))
    assert "attempt 1: steps 0 to 2\n    preempted: 4.5 s are left to end and save\n    mounts are saved, after 0.25 s" in text
    assert "attempt 2: steps 2 to 3, 1 of them again (2 to 2)" in text and "---" not in text


def test_the_curve_on_a_terminal():
    lines = curve.frame(story(), False)
    assert all(len(line) == curve.WIDTH + 9 for line in lines[:curve.HEIGHT])
    assert sum(line.count(curve.MARKS[0]) for line in lines) == 2  # one is under attempt 2's
    assert sum(line.count(curve.MARKS[1]) for line in lines) == 2
    assert lines[0].startswith("   8.00 │" + curve.MARKS[0])
    narrow = curve.frame(story(), False, 30)
    assert {len(line) for line in narrow} == {39}
    coloured = "\n".join(curve.frame(story(), True))
    assert "\033[32m" in coloured and "\033[33m" in coloured
    assert curve.frame(curve.Story(), False)  # nothing yet


def test_the_picture():
    picture = xml.etree.ElementTree.fromstring(curve.svg(story()))
    circles = picture.findall(f"{SVG}circle")
    assert len(circles) == 5 and len({circle.get("stroke") for circle in circles}) == 2
    assert [circle.get("fill") for circle in circles].count("none") == 1  # the repeated step is hollow
    assert "attempt 2: 1 steps again" in [text.text for text in picture.findall(f"{SVG}text")]


def test_each_attempt_is_interrupted_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(LOG))
    monkeypatch.setattr(sys, "argv", ["curve.py", "--at", "1,3", "--do", f"echo x >> {tmp_path}/done",
                                      "--svg", f"{tmp_path}/a.svg"])
    curve.main()
    assert (tmp_path / "done").read_text() == "x\nx\n" and (tmp_path / "a.svg").exists()
    out = capsys.readouterr().out
    assert out.count("step 0") == 1 and out.endswith("final 0x1p+1 abc\n")  # drawn once: it is no terminal


def left():
    processes = [p for p in pathlib.Path("/proc").glob("[0-9]*") if b"/tmp/dsi." in read(p / "cmdline")]
    return processes + list(pathlib.Path("/tmp").glob("dsi.*"))


def read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.skipif(not LONG or os.geteuid() != 0 or not shutil.which("slurmctld"),
                    reason="minutes, on a real Slurm, as root")
@pytest.mark.parametrize("is_cut_short", [False, True])
def test_the_whole(tmp_path, is_cut_short):
    svg = tmp_path / "curve.svg"
    demo = subprocess.Popen([TOP / "scripts/demo-interruption", svg], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, start_new_session=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    out = ""
    for line in demo.stdout:
        out += line
        if is_cut_short and "its loss, while" in line:
            time.sleep(5)
            os.killpg(demo.pid, signal.SIGINT)
    assert demo.wait(60) == (130 if is_cut_short else 0), out
    if not is_cut_short:
        assert len(re.findall(r"attempt [123]: steps", out)) == 3 and "bit for bit" in out
        assert xml.etree.ElementTree.fromstring(svg.read_text()).findall(f"{SVG}circle")
    assert not left()
