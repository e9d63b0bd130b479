"""Writing files so that nobody ever reads half of one, and nothing is left of a process that was killed."""

import errno
import fcntl
import glob
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LOCK, CONTENT = ".writing", ".content"  # endings of a temporary's lock and of its folder


def write_atomically(path: Path, fill: Callable[[Path], None], keep: Path | None = None) -> None:
    """Let `fill` write a temporary file beside `path`, then rename it. A failure leaves `path` as it was.

    The file gets the permissions of any new file. What killed processes left of earlier attempts goes. keep: where
    what was in `path` stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_up(path.parent, path.name)
    with _folder_for(path) as (folder, mode):
        temporary = folder / path.name
        fill(temporary)
        temporary.chmod(mode)  # a library may have put a private file in its place
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # a rename may reach the disk before the data does
        if keep is not None and path.is_file():
            path.replace(keep)
        temporary.replace(path)


def require_room(folder: Path, size: int, what: str) -> None:
    """Raises OSError where the disk on which `folder` lies, or will lie, has no room for `what`, of `size` bytes."""
    there = next(parent for parent in (Path(folder).absolute() / "_").parents if parent.is_dir())
    free = shutil.disk_usage(there).free
    if free < size:
        raise OSError(
            errno.ENOSPC,
            f"{what} takes {size / 1e9:.2g} GB, {free / 1e9:.2g} GB are free: make room, or set output_dir",
            str(folder),
        )


def sweep_up(folder: Path, name: str = "*") -> None:
    """Remove what dead processes left in `folder` of files they were writing, or of the file `name` alone.

    A writer holds a lock, which the kernel takes away at any death, on this host or another that shares the file
    system. Where locks are not to be had, nothing is removed.
    """
    pattern = "*" if name == "*" else glob.escape(name)
    for lock in Path(folder).glob(f".{pattern}.*{LOCK}"):
        with suppress(OSError):  # gone by now, somebody else's, or held
            handle = os.open(lock, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.with_suffix(CONTENT), ignore_errors=True)
                lock.unlink()
            finally:
                os.close(handle)


@contextmanager
def _folder_for(path: Path) -> Iterator[tuple[Path, int]]:
    """(a folder beside `path` that is this process's alone, the mode of new files there). The folder goes at the end.

    A library may write files of its own beside the one it is asked for; all of them lie in that folder.
    """
    lock, handle = _locked(path)
    folder = lock.with_suffix(CONTENT)
    try:
        folder.mkdir()
        yield folder, os.fstat(handle).st_mode & 0o777
    finally:
        try:
            folder.rmdir()
        except OSError:  # a failure, or a library that wrote files beside its own
            shutil.rmtree(folder, ignore_errors=True)
        lock.unlink(missing_ok=True)
        os.close(handle)


def _locked(path: Path) -> tuple[Path, int]:
    """A new lock file beside `path`, and the handle that holds it."""
    while True:
        lock = path.with_name(f".{path.name}.{secrets.token_hex(4)}{LOCK}")
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if lock.exists():
            return lock, handle
        os.close(handle)  # somebody swept it up in the instant before it was locked


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write plain containers as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2, sort_keys=False) + "\n")
