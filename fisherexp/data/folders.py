"""Folders of images: which are splits, which are classes, which files are read, and what is not."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from fisherexp.content import files_below
from fisherexp.data.errors import DataError

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".avif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".gif", ".jp2"),
)
# Names under which splits are given, in any case; the first of each is the usual one.
TRAINING, TEST, VALIDATION = ("train", "training"), ("test", "testing"), ("val", "valid", "validation")
# What operating systems leave in folders of images; names with a dot in front are hidden anyway.
SYSTEM = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found")


def hidden(name: str) -> bool:
    """Is a file or folder of that name none that its owner thinks of? .ipynb_checkpoints holds copies, ._1.jpg no
    image."""
    return name.startswith(".") or name in SYSTEM


def folders(folder: Path, of: str = "class") -> list[str]:
    """Names of the folders in a folder, sorted; links to folders are folders. `of` is for the message where there are
    none."""
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not hidden(p.name))
    if not names:
        raise DataError(f"{folder} has no folders; one folder of images per {of} is expected")
    return names


def split_named(folder: Path, known: Collection[str]) -> str | None:
    """The name of the folder in a folder that is one of `known`, in any case. Raises DataError for several."""
    found = [name for name in folders(folder) if name.lower() in known]
    if len(found) > 1:
        raise DataError(f"{folder} has the folders {' and '.join(found)}; which of them is meant? Take one away")
    return found[0] if found else None


def classes(folder: Path) -> list[str]:
    """Names of the classes in a folder, sorted. Raises DataError where they are rather splits, or hold them."""
    names, splits = folders(folder), {*TRAINING, *TEST, *VALIDATION}
    where = [folder] if all(name.lower() in splits for name in names) else [folder / name for name in names]
    for place in where:
        inner = [p.name for p in place.iterdir() if p.is_dir() and p.name.lower() in splits]
        if len(inner) > 1:
            below = " and ".join(sorted(inner))
            raise DataError(f"{place} has folders {below}, which are no classes; <path>/train/<class> is expected")
    return names


def images_below(folder: Path, unread: Counter[str]) -> list[Path]:
    """The image files below a folder, in the order of their paths; links are followed. What is no image or hidden is
    counted in `unread`, by its kind."""
    found = []
    for path in files_below(folder):
        if any(hidden(part) for part in path.relative_to(folder).parts):
            unread["hidden"] += 1
        elif path.suffix.lower() in SUFFIXES:
            found.append(path)
        else:
            unread[path.suffix.lower() or "without a suffix"] += 1
    return sorted(found)


def beside(folder: Path, unread: Counter[str]) -> None:
    """Count in `unread` the image files that lie in a folder of classes itself: they have no class."""
    outside = sum(p.suffix.lower() in SUFFIXES and not hidden(p.name) for p in folder.iterdir() if p.is_file())
    unread.update({"images outside the folders of classes": outside} if outside else {})
