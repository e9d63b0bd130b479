"""States of a run as they can be read off its folder, also after a kill."""

import os
import signal
import subprocess
import sys
import time

import pytest

from fisherexp.files import write_json, write_text
from fisherexp.runs.state import Busy, RunFolder, State, run_folders
from fisherexp.sweeps.status import standings

HOLD = """
import sys, time
from pathlib import Path
from fisherexp.runs.state import RunFolder
with RunFolder(Path(sys.argv[1])).claimed():
    print("claimed", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    found = RunFolder(tmp_path / "method" / "data" / "0123")
    write_text(found.path / "config.yaml", "seed: 0\n")
    return found


def test_states_follow_what_lies_in_the_folder(folder, tmp_path):
    assert RunFolder(tmp_path / "new").state() is State.QUEUED
    assert folder.state() is State.INTERRUPTED
    folder.fail("Traceback …\nValueError: no")
    assert folder.state() is State.FAILED
    assert folder.error() == "ValueError: no"
    write_json(folder.record_file, {"metrics": {}})
    assert folder.state() is State.DONE
    folder.forget()
    assert folder.state() is State.INTERRUPTED
    assert [f.path for f in run_folders(tmp_path)] == [folder.path]


def test_a_claim_is_seen_refused_to_others_and_freed_by_a_kill(folder):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder.path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "claimed\n"
    assert folder.state() is State.RUNNING
    with pytest.raises(Busy, match="0123"), folder.claimed():
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert folder.state() is State.INTERRUPTED
    with folder.claimed():
        pass


def test_a_damaged_record_is_an_error_that_names_the_file(folder):
    folder.record_file.write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"run\.json"):
        folder.record()
    folder.record_file.write_text('{"metrics": ')
    with pytest.raises(ValueError, match="Expecting value"):
        folder.record()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b'{"metrics": {', "Expecting property name"),
        (b"\xff\xfe", "codec can't decode"),
        (b"null", "does not hold a run record"),
        (b"[" * 100_000, "RecursionError"),
    ],
    ids=["empty", "torn", "no text", "null", "nested"],
)
def test_a_run_with_a_damaged_record_is_not_done(folder, tmp_path, content, reason):
    folder.record_file.write_bytes(content)
    assert folder.state() is State.INTERRUPTED
    assert not folder.is_settled(False)
    assert reason in folder.unusable()
    (standing,) = standings(tmp_path)
    assert standing.state is State.INTERRUPTED
    assert standing.remark.startswith(f"{folder.record_file} cannot be read: ")
    assert "\n" not in standing.remark


WHOLE = {
    "identity": "0123",
    "names": {"method": "ssd", "data": "digits", "model": "small_cnn", "scenario": "none"},
    "semantic": {},
    "config": {"scenario": {}},
    "seed": 0,
    "headings": {"accuracy": "acc. %"},
    "metrics": {"after": {"accuracy": 90.0}},
    "trial": False,
    "command": "python run.py",
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"command": ...}, "it lacks command"),
        ({"metrics": {}}, "it lacks metrics.after"),
        ({"metrics": {"after": {"accuracy": "high"}}}, "it lacks metrics.after.accuracy as a number"),
        ({"headings": []}, "it lacks headings by name"),
        ({"config": {}}, "it lacks config.scenario"),
    ],
    ids=str,
)
def test_a_record_that_cannot_be_shown_is_made_again(folder, tmp_path, change, reason):
    write_json(folder.record_file, {key: value for key, value in (WHOLE | change).items() if value is not ...})
    assert folder.unusable() == reason
    assert folder.is_settled(False) == (reason is None)
    (standing,) = standings(tmp_path)
    assert (standing.state is State.DONE) == (reason is None)


WRITE = """
import sys
from pathlib import Path
from fisherexp.files import write_text
print("ready", flush=True)
while True:
    for letter in "ab":
        write_text(Path(sys.argv[1]), letter * 3_000_000)
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    file = tmp_path / "file"
    for delay in (0.05, 0.11, 0.17):
        writer = subprocess.Popen([sys.executable, "-c", WRITE, str(file)], stdout=subprocess.PIPE)
        writer.stdout.readline()
        while not file.exists():
            time.sleep(0.001)
        time.sleep(delay)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        assert file.read_text() in ("a" * 3_000_000, "b" * 3_000_000)


def test_a_failing_writer_leaves_the_old_file_and_no_litter(tmp_path):
    file = tmp_path / "file"
    write_text(file, "old")
    with pytest.raises(TypeError):
        write_json(file, {"live": object()})
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
