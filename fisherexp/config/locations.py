"""Where files lie: configs in conf/ and in directories a user adds with hydra.searchpath, data in a folder."""

import importlib.util
import os
import re
from pathlib import Path

TARGET = re.compile(r"^_target_: *(\S+)", re.MULTILINE)
BASE = re.compile(r"^defaults: *\[(\w+)\]", re.MULTILINE)


def conf_dir() -> Path:
    """conf/ inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def search_path(extra: list[str] | tuple[str, ...] = ()) -> list[Path]:
    """Config directories in Hydra's order: conf/ first, then `extra` (pkg://… or file://… or a path)."""
    found = [conf_dir()]
    for entry in extra:
        if entry.startswith("pkg://"):
            spec = importlib.util.find_spec(entry.removeprefix("pkg://").replace("/", "."))
            found += [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
        else:
            found.append(Path(entry.removeprefix("file://")))
    return found


def options(group: str, directories: list[Path]) -> dict[str, Path]:
    """Name -> file of every option of a config group; the first directory that has a name wins."""
    found: dict[str, Path] = {}
    for directory in directories:
        for file in sorted((directory / group).glob("*.yaml")):
            found.setdefault(file.stem, file)
    return dict(sorted(found.items()))


def groups(directories: list[Path]) -> set[str]:
    """Names of the config groups (sub-directories with at least one option)."""
    return {
        d.name for directory in directories if directory.is_dir() for d in directory.iterdir() if any(d.glob("*.yaml"))
    }


def headline(file: Path) -> str:
    """The first comment line of a config file that is not a Hydra directive: its one-line description."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            return line.lstrip("# ").strip()
    return ""


def target(file: Path) -> str | None:
    """What a config file instantiates: its `_target_`, else that of the file it extends (`defaults: [base]`); None
    where neither has one. Read without a parser of YAML: `--help` asks every file."""
    text = file.read_text(encoding="utf-8")
    if found := TARGET.search(text):
        return found[1]
    base = BASE.search(text)
    return target(file.with_stem(base[1])) if base else None


def located(path: str, root: str | None) -> Path | None:
    """A file or folder the user names: absolute, in the working directory, or in the data folder; None where it is in
    neither. root: as for `data_folder`."""
    given = Path(path).expanduser()
    return next((place for place in (given, data_folder(root) / given) if place.exists()), None)


def data_folder(root: str | None) -> Path:
    """Where data files are looked for: `root`, else FISHEREXP_DATA, else ~/.cache/fisherexp."""
    return Path(root or os.environ.get("FISHEREXP_DATA") or "~/.cache/fisherexp").expanduser()
