"""Content of files and folders as hashes, remembered between processes by a cache that cannot lie.

A file's size, times and inode decide only whether it is read again. What is remembered lies in the user's cache
directory (XDG_CACHE_HOME), one JSON file for each folder, renamed into place: several processes may write at once, and
the last one wins. FISHEREXP_REHASH=1 reads everything again.
"""

import functools
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fisherexp.files import write_text

# An entry is kept only of a file that was at rest for so many seconds when it was read: one that is written twice
# within a tick of its file system's clock (two seconds on FAT) looks the same after both. Git calls such files racy.
REST = 2.0
PIECE = 1 << 20  # bytes read at a time
ANNOUNCED = 1 << 30  # bytes whose reading takes long enough to be worth a line
UNSEEN = {".DS_Store", "Thumbs.db", "desktop.ini"}  # file managers leave them wherever somebody looks

Stamp = list[int]

_answers: dict[Path, str] = {}  # of `content`, since the last `look_again`
_entries: dict[Path, dict[str, list]] = {}  # folder -> name -> stamp and hash, likewise


def content(path: Path) -> str:
    """Hash of a file's bytes, or of the relative paths and bytes of all files below a folder: 32 hexadecimal digits.

    Links are followed. Within a process the answer stays the same until `look_again`: a run keeps its name from its
    beginning to its end. Raises OSError where something cannot be read.
    """
    path = Path(os.path.abspath(path))
    if path not in _answers:
        if path.is_file():
            (_answers[path],) = contents([path])
        else:
            files = {file.relative_to(path).as_posix(): file for file in files_below(path) if _is_there(file)}
            hashes = contents(files.values())
            _answers[path] = _digest(json.dumps(sorted(zip(files, hashes, strict=True))).encode())
    return _answers[path]


def contents(files: Iterable[Path]) -> list[str]:
    """Hash of the bytes that each file has now, in the order of `files`. Raises OSError as `content` does."""
    files = [os.path.split(os.path.abspath(file)) for file in files]
    folders: dict[str, list[str]] = {}
    for folder, name in dict.fromkeys(files):
        folders.setdefault(folder, []).append(name)
    found = {folder: _hashes(Path(folder), names) for folder, names in folders.items()}
    return [found[folder][name] for folder, name in files]


def look_again() -> None:
    """Let the next question look at the files anew: a run begins."""
    _answers.clear()
    _entries.clear()


def files_below(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """All files below a folder, whatever links lead to, and links that lead to nothing. `above` are the folders on the
    way to it: a link back to one of them is not followed."""
    here = os.path.realpath(folder)
    if here in above:
        return
    for entry in os.scandir(folder):
        if entry.is_dir():
            yield from files_below(Path(entry), above | {here})
        elif entry.name not in UNSEEN:
            yield Path(entry)


def _is_there(file: Path) -> bool:
    return not file.is_symlink() or file.exists()


def _hashes(folder: Path, names: list[str]) -> dict[str, str]:
    """Name -> hash, for files of one folder."""
    if folder not in _entries:
        _entries[folder] = {} if os.environ.get("FISHEREXP_REHASH") == "1" else _remembered(_memory(folder))
    known = _entries[folder]
    stamps = {name: _stamp(os.stat(folder / name)) for name in names}
    found = {name: known[name][-1] for name in names if name in known and known[name][:-1] == stamps[name]}
    missing = [name for name in names if name not in found]
    if not missing:
        return found
    if (size := sum(stamps[name][0] for name in missing)) > ANNOUNCED:
        print(f"reading {size / 2**30:.1f} GiB in {folder}, to know its content", file=sys.stderr)
    with ThreadPoolExecutor() as pool:  # hashing and reading release the interpreter lock
        read = dict(zip(missing, pool.map(lambda name: _read(folder / name), missing), strict=True))
    found |= {name: digest for name, (digest, _) in read.items()}
    there = set(os.listdir(folder))
    kept = {name: entry for name, entry in known.items() if name in there and name not in read}
    kept |= {name: [*stamp, digest] for name, (digest, stamp) in read.items() if stamp is not None}
    if kept != known:
        _entries[folder] = kept
        _remember(_memory(folder), kept)
    return found


def _read(file: Path) -> tuple[str, Stamp | None]:
    """A file's hash, and the stamp by which it may be known again; None where it is or was being written."""
    digest, begun = hashlib.blake2b(digest_size=16), time.time()
    with file.open("rb") as stream:
        before = os.fstat(stream.fileno())
        while piece := stream.read(PIECE):
            digest.update(piece)
        after = os.fstat(stream.fileno())
    at_rest = max(before.st_mtime, before.st_ctime) < begun - REST
    stamp = _stamp(before)
    return digest.hexdigest(), stamp if at_rest and stamp == _stamp(after) else None


def _stamp(status: os.stat_result) -> Stamp:
    # Nobody can set the time of the last change of the inode (ctime) back, as `touch -r` does that of the content.
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _memory(folder: Path) -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return root / "fisherexp" / "contents" / f"{_digest(os.fsencode(folder))}.json"


def _remembered(memory: Path) -> dict[str, list]:
    try:
        return json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or damaged: nothing is known, and everything is read
        return {}


def _remember(memory: Path, entries: dict[str, list]) -> None:
    try:
        write_text(memory, json.dumps(entries))
    except OSError as error:
        _say_once(f"{memory.parent} cannot be written ({error.strerror}): files are read anew by every process")


@functools.cache
def _say_once(message: str) -> None:
    print(message, file=sys.stderr)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
