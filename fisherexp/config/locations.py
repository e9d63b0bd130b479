"""Where files lie: configs in conf/ and in directories a user adds with hydra.searchpath, data in a folder."""

import contextlib
import glob
import importlib.metadata
import importlib.util
import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

WEIGHTS = "weights.safetensors"  # what a run leaves in its folder
PACKAGED = "pkg://"  # begins the name of a file of an installed package: pkg://<distribution>/<path>
TARGET = re.compile(r"^_target_: *(\S+)", re.MULTILINE)
BASE = re.compile(r"^defaults: *\[(\w+)\]", re.MULTILINE)


def conf_dir() -> Path:
    """conf/ inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def search_path(extra: list[str] | tuple[str, ...] = ()) -> list[Path]:
    """Config directories in Hydra's order: conf/ first, then `extra` (pkg://… or file://… or a path)."""
    return [conf_dir(), *(folder for entry in extra for folder in folders_of(entry))]


def folders_of(entry: str) -> list[Path]:
    """The directories that an entry of the search path stands for; none of a package that is not there."""
    if not entry.startswith("pkg://"):
        return [Path(entry.removeprefix("file://"))]
    try:
        spec = importlib.util.find_spec(entry.removeprefix("pkg://").replace("/", "."))
    except (ImportError, ValueError):  # of a package around it
        return []
    return [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []


def allow_namespaces(lines: Iterable[str]) -> None:
    """Hydra warns that a package without __init__.py is not available, and then reads its configs: keep that quiet for
    those that the lines name and that are there."""
    for name in re.findall(r"pkg://([\w.]+)", " ".join(lines)):
        if folders_of(f"pkg://{name}"):
            told = f"provider=hydra.searchpath in command-line, path={re.escape(name)} is not available"
            warnings.filterwarnings("ignore", message=told)


def searched(sources: Iterable[Mapping[str, str]]) -> list[str]:
    """The override `hydra.searchpath=[…]` of the directories that a user has added, by whatever means, so that a line
    finds the same configs from anywhere; nothing where there are none. sources: `hydra.runtime.config_sources`."""
    added = [source for source in sources if "command-line" in source["provider"]]
    places = [(source["schema"], source["path"]) for source in added]
    found = [f"{schema}://{Path(path).resolve() if schema == 'file' else path}" for schema, path in places]
    return [f"hydra.searchpath=[{','.join(map(_quoted, found))}]"] if found else []


def _quoted(text: str) -> str:
    """A text as Hydra's overrides take it, whatever is in it."""
    return text if re.fullmatch(r"[\w./:-]+", text, re.ASCII) else "'" + text.replace("'", "\\'") + "'"


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
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            return line.lstrip("# ").strip()
    return ""


def target(file: Path) -> str | None:
    """What a config file instantiates: its `_target_`, else that of the file it extends (`defaults: [base]`); None
    where neither has one. Read without a parser of YAML: `--help` asks every file."""
    text = file.read_text(encoding="utf-8", errors="replace")
    if found := TARGET.search(text):
        return None if found[1] == "null" else found[1]
    base = BASE.search(text)
    if not base or base[1] == file.stem or not (extended := file.with_stem(base[1])).is_file():
        return None
    return target(extended)


def located(path: str, root: str | None) -> Path | None:
    """A file or folder the user names: absolute, in the working directory, in the data folder, or in an installed
    package (`PACKAGED`); None where it is in none. root: as for `data_folder`."""
    if path.startswith(PACKAGED):
        return _packaged(*path.removeprefix(PACKAGED).partition("/")[::2])
    given = Path(path).expanduser()
    try:
        return next((place for place in (given, data_folder(root) / given) if place.exists()), None)
    except OSError:  # a name longer than any file's
        return None


def _packaged(distribution: str, inside: str) -> Path | None:
    """What an installed package holds, found without importing it."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):  # not installed, no name
        place = Path(str(importlib.metadata.distribution(distribution).locate_file(inside)))
        return place if place.exists() else None
    return None


def data_folder(root: str | None) -> Path:
    """Where data files are looked for: `root`, else FISHEREXP_DATA, else ~/.cache/fisherexp."""
    return Path(root or os.environ.get("FISHEREXP_DATA") or "~/.cache/fisherexp").expanduser()


def user_file(path: str, root: str | None) -> Path:
    """A file given by the user: absolute, in the working directory, or in the data folder. Raises FileNotFoundError,
    which says where it was looked for."""
    file = located(path, root)
    if file is None or not file.is_file():
        raise FileNotFoundError(f"there is no such file in {Path.cwd()} or {data_folder(root)}")
    return file


def files_nearby(root: str | None, suffix: str) -> list[str]:
    """Names of the files that `user_file` would find by name alone, of those that end so."""
    folders = [folder for folder in (Path.cwd(), data_folder(root)) if folder.is_dir()]
    return [file.name for folder in folders for file in sorted(folder.iterdir()) if suffix and file.suffix == suffix]


def finished_run(run: str, output_dir: Path) -> Path:
    """The folder of a run that has left weights, given by the folder or by the beginning of its hash. Raises
    FileNotFoundError, in one line, for none or several, or one that is not done."""
    if os.path.isdir(run):  # of a name longer than any file's, Path.is_dir raises an error
        folder = Path(run)
    else:
        found = [folder for folder in sorted(output_dir.glob(f"*/*/{glob.escape(run)}*")) if folder.is_dir()]
        if len(found) != 1:
            what = f"{len(found)} runs" if found else "no run"
            raise FileNotFoundError(f"{what} in {output_dir} with a hash that begins so (python -m fisherexp status)")
        folder = found[0]
    if not (folder / "run.json").is_file() or not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"{folder} is not done, or left no weights (run.json, {WEIGHTS})")
    try:
        json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise FileNotFoundError(f"{folder} is not done: its run.json cannot be read ({error})") from None
    return folder
