"""Written whole or not at all, and readable to others as any new file."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from fisherexp.files import require_room, sweep_up, write_atomically, write_text


@pytest.mark.parametrize("mask", [0o002, 0o022, 0o077])
def test_permissions_are_those_of_a_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "new" / "ours", "x")
        # safetensors puts a file of its own in the place of the one it is given, which nobody else may read.
        write_atomically(tmp_path / "tensors", lambda temporary: save_file({"x": torch.ones(1)}, temporary))
        (tmp_path / "plain").write_text("x")
        (tmp_path / "folder").mkdir()
    finally:
        os.umask(before)
    for ours in (tmp_path / "new" / "ours", tmp_path / "tensors"):
        assert ours.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "folder").stat().st_mode


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "file", "old")

    def fill(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "file", fill)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_content_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    path, seen = tmp_path / "file", []
    monkeypatch.setattr(os, "fsync", lambda handle: seen.append((os.pread(handle, 10, 0), path.exists())))
    write_text(path, "new")
    assert seen == [(b"new", False)]
    assert path.read_text() == "new"


def test_what_was_there_can_be_kept(tmp_path):
    for text in ("first", "second", "third"):
        write_atomically(
            tmp_path / "file", lambda temporary, text=text: temporary.write_text(text), tmp_path / "before"
        )
    assert (tmp_path / "file").read_text() == "third"
    assert (tmp_path / "before").read_text() == "second"


DIE = """
import os, sys
from pathlib import Path
from fisherexp.files import write_atomically

def fill(temporary):
    temporary.write_text("half")
    (temporary.parent / ".tmp_of_a_library").write_text("half")
    os.kill(os.getpid(), 9)

write_atomically(Path(sys.argv[1]), fill)
"""


def test_what_a_killed_writer_leaves_goes_and_what_a_living_one_writes_stays(tmp_path):
    for name in ("file", "[other]"):
        subprocess.run([sys.executable, "-c", DIE, str(tmp_path / name)], check=False)
    assert len(list(tmp_path.iterdir())) == 4  # the control: there is something to sweep up

    def fill(temporary):
        temporary.write_text("half")
        sweep_up(tmp_path)  # another process would find the lock held just so: locks are of open files
        assert temporary.read_text() == "half"

    write_atomically(tmp_path / "living", fill)
    assert [path.name for path in tmp_path.iterdir()] == ["living"]


def test_writing_a_file_again_sweeps_up_after_it_alone(tmp_path):
    subprocess.run([sys.executable, "-c", DIE, str(tmp_path / "[file]")], check=False)
    left = {path.name for path in tmp_path.iterdir()}
    for name in ("f", "[file"):
        write_text(tmp_path / name, "whole")
        assert left < {path.name for path in tmp_path.iterdir()}
    write_text(tmp_path / "[file]", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"f", "[file", "[file]"}


def test_without_locks_nothing_is_removed(tmp_path, monkeypatch):
    def refuse(handle, operation):
        raise OSError("no locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    subprocess.run([sys.executable, "-c", DIE, str(tmp_path / "file")], check=False)
    sweep_up(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    write_text(tmp_path / "file", "whole")
    assert (tmp_path / "file").read_text() == "whole"
    shutil.rmtree(tmp_path)


def test_no_room_is_said_with_what_there_is(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=10**9))
    require_room(tmp_path / "not" / "there", 10**9, "the model")
    with pytest.raises(OSError, match=r"the model takes 2 GB, 1 GB are free.*output_dir"):
        require_room(tmp_path, 2 * 10**9, "the model")
