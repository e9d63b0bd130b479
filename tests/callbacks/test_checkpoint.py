"""Saved states: two are kept, and a damaged one is said in one line and passed over."""

import pytest
import torch

from fisherexp.callbacks.checkpoint import newest, remove, save


@pytest.fixture
def file(tmp_path):
    """Of a loop that has saved its steps 1, 2 and 3."""
    for step in (1, 2, 3):
        save(tmp_path / "last.ckpt", {"step": step, "x": torch.full((100,), float(step))})
    return tmp_path / "last.ckpt"


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((100,), 3.0).numpy().tobytes()) + 7] ^= 4
    path.write_bytes(bytes(content))


def step(path):
    return torch.load(path, weights_only=True)["step"]


def test_the_newest_state_is_taken_and_nothing_said(file, capsys):
    assert step(newest(file)) == 3
    assert capsys.readouterr().err == ""
    assert len(list(file.parent.iterdir())) == 2


@pytest.mark.parametrize("damage", [cut, empty, flip])
def test_a_damaged_state_costs_one_state_and_one_line(file, damage, capsys):
    damage(file)
    assert step(newest(file)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{file} is damaged (")
    assert "going on from the state before it" in line


def test_torch_alone_would_take_a_flipped_bit(file):
    """The control: without the look at checksums it would be another state."""
    flip(file)
    assert not torch.equal(torch.load(file, weights_only=True)["x"], torch.full((100,), 3.0))


def test_where_none_is_whole_it_starts_afresh(file, capsys):
    for path in file.parent.iterdir():
        empty(path)
    assert newest(file) is None
    assert capsys.readouterr().err.rstrip().endswith("starting afresh")


def test_only_the_one_before_is_there_after_a_kill_between_two_renames(file):
    file.unlink()
    assert step(newest(file)) == 2
    remove(file)
    assert newest(file) is None
    assert list(file.parent.iterdir()) == []
