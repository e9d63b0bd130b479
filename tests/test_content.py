"""Hashes of content: they follow bytes, names and places within a folder, and are never remembered wrongly."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fisherexp import content as hashes
from fisherexp.content import content, contents, look_again

LONG_AGO = time.time() - 1000


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """A cache directory of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FISHEREXP_REHASH", raising=False)
    look_again()
    return tmp_path / "cache" / "fisherexp" / "contents"


@pytest.fixture
def at_rest(monkeypatch):
    """Files count as at rest at once: that of a change (ctime) cannot be set back."""
    monkeypatch.setattr(hashes, "REST", -1.0)


@pytest.fixture
def reads(monkeypatch) -> list[Path]:
    """The files that are read, in order."""
    found, plain = [], hashes._read
    monkeypatch.setattr(hashes, "_read", lambda file: found.append(file) or plain(file))
    return found


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes with one image each."""
    root = tmp_path / "photos"
    for name, pixels in (("cat", b"meow"), ("dog", b"woof")):
        (root / name).mkdir(parents=True)
        (root / name / "0.png").write_bytes(pixels)
    return root


def again(path: Path) -> str:
    look_again()
    return content(path)


def swap(root: Path) -> None:
    one, other = root / "cat" / "0.png", root / "dog" / "0.png"
    one.rename(root / "t")
    other.rename(one)
    (root / "t").rename(other)


CHANGES = {
    "bytes, same size": lambda root: (root / "cat" / "0.png").write_bytes(b"MEOW"),
    "two files swapped": swap,
    "another file": lambda root: (root / "cat" / "1.png").write_bytes(b"meow"),
    "one less": lambda root: (root / "cat" / "0.png").unlink(),
    "another name": lambda root: (root / "cat" / "0.png").rename(root / "cat" / "9.png"),
    "another folder": lambda root: (root / "cat" / "0.png").rename(root / "dog" / "9.png"),
    "a folder's name": lambda root: (root / "cat").rename(root / "cow"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_below_a_folder_changes_its_hash(folder, change):
    before = content(folder)
    change(folder)
    assert again(folder) != before


def test_place_and_times_of_a_folder_do_not_count(folder):
    before = content(folder)
    os.utime(folder / "cat" / "0.png", (LONG_AGO, LONG_AGO))
    (folder / ".DS_Store").write_bytes(b"icons")
    moved = folder.rename(folder.with_name("elsewhere"))
    assert again(moved) == before


def test_links_are_followed_but_never_in_circles(folder, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "1.png").write_bytes(b"one")
    before = content(folder)
    (folder / "cow").symlink_to(tmp_path / "more")
    linked = again(folder)
    (folder / "cow" / "back").symlink_to(folder)
    (tmp_path / "more" / "1.png").write_bytes(b"two")
    assert len({before, linked, again(folder)}) == 3


def test_a_link_to_nothing_counts_as_soon_as_it_leads_to_something(folder, tmp_path):
    before = content(folder)
    (folder / "link").symlink_to(tmp_path / "target")
    assert again(folder) == before
    (tmp_path / "target").write_bytes(b"one")
    assert again(folder) != before


def test_unchanged_files_are_read_once(folder, reads, at_rest):
    first = content(folder)
    assert again(folder) == first
    assert len(reads) == 2
    (folder / "cat" / "0.png").write_bytes(b"purr")
    assert again(folder) != first
    assert [file.parent.name for file in reads[2:]] == ["cat"]


def test_a_change_behind_a_restored_time_is_seen(folder, reads, at_rest):
    """`touch -r`: size, time and inode as before, and only ctime tells."""
    file = folder / "cat" / "0.png"
    first, before = content(folder), file.stat()
    time.sleep(0.05)
    with file.open("r+b") as stream:
        stream.write(b"MEOW")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert again(folder) != first


def test_a_file_that_was_just_written_is_not_remembered(folder, reads, cache):
    content(folder)
    assert [json.loads(file.read_text()) for file in cache.glob("*.json")] == []
    again(folder)
    assert len(reads) == 4


def test_a_cache_that_trusts_young_files_would_lie(folder, at_rest, monkeypatch):
    """The control: without the rule, what is written twice within a tick of the clock is taken for the first."""
    file = folder / "cat" / "0.png"
    stopped = hashes._stamp(file.stat())
    monkeypatch.setattr(hashes, "_stamp", lambda status: [status.st_size, *stopped[1:]])
    first = content(file)
    file.write_bytes(b"MEOW")
    assert again(file) == first  # wrong, and only for want of the rule
    monkeypatch.setattr(hashes, "REST", 2.0)
    for memory in (Path(os.environ["XDG_CACHE_HOME"]) / "fisherexp" / "contents").glob("*.json"):
        memory.unlink()
    first = again(file)
    file.write_bytes(b"meow")
    assert again(file) != first


def test_rehash_reads_everything(folder, reads, at_rest, monkeypatch):
    first = content(folder)
    monkeypatch.setenv("FISHEREXP_REHASH", "1")
    assert again(folder) == first
    assert len(reads) == 4


@pytest.mark.parametrize("damage", [b"", b"{", b'{"0.png": 3', b"\xff\xfe"])
def test_a_damaged_cache_is_no_cache(folder, at_rest, cache, damage):
    first = content(folder)
    memories = list(cache.glob("*.json"))
    assert len(memories) == 2
    for memory in memories:
        memory.write_bytes(damage)
    assert again(folder) == first


def test_within_a_process_the_answer_stays_until_a_run_begins(folder):
    before = content(folder)
    swap(folder)
    assert content(folder) == before
    look_again()
    assert content(folder) != before


def test_files_in_their_order(folder):
    files = [folder / "dog" / "0.png", folder / "cat" / "0.png"]
    assert contents(files) == [content(files[0]), content(files[1])]
    assert contents(files) == contents(reversed(files))[::-1]


def test_several_processes_at_once_agree(folder, cache):
    for number in range(200):
        (folder / "cat" / f"{number}.png").write_bytes(str(number).encode())
    code = "import sys; from pathlib import Path; from fisherexp import content as h; h.REST = -1.0; "
    command = [sys.executable, "-c", code + "print(h.content(Path(sys.argv[1])))", str(folder)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert {process.communicate()[0].strip() for process in processes} == {again(folder)}
    for memory in cache.glob("*.json"):
        assert json.loads(memory.read_text())
    assert not list(cache.glob(".*"))


def test_a_cache_that_cannot_be_written_is_said_and_costs_time_only(folder, at_rest, monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    hashes._say_once.cache_clear()
    before = content(folder)
    assert "read anew by every process" in capsys.readouterr().err
    assert again(folder) == before


def test_what_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(OSError, match="nothing_here"):
        content(tmp_path / "nothing_here" / "x.npz")
