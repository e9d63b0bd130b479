"""Overrides before anything is composed: which of them Hydra can read, what they choose, what they sweep over."""

from dataclasses import dataclass
from pathlib import Path
from types import NoneType

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from yaml import YAMLError

from fisherexp.config.companions import standard
from fisherexp.config.locations import conf_dir, folders_of, groups, options, search_path
from fisherexp.config.problem import Problem, nearest
from fisherexp.config.shorthand import natives
from fisherexp.config.skeleton import instead
from fisherexp.config.yaml_files import read_yaml

SEARCHPATH = "hydra.searchpath"
NOTHING = {"null", "None", ""}
# Choices of a group that fit in a line; of more, only the nearest is named.
FEW = 24


def repaired(lines: list[str]) -> tuple[list[Problem], list[Override]]:
    """What is wrong with the lines themselves, and the lines that are right or can be guessed."""
    parser = OverridesParser.create()
    problems, overrides = [], []
    for line in natives(lines):
        try:
            overrides.append(parser.parse_override(line))
        except HydraException as error:
            key, equals, value = line.partition("=")
            quoted = f'{key}="{value}"'
            if equals and not set(value) & set("\"'[]{}") and _is_readable(quoted):
                problems.append(Problem(line, "needs quotes of its own within those of the shell", f"'{quoted}'"))
                overrides.append(parser.parse_override(quoted))
            else:
                problems.append(Problem(line, " ".join(str(error).split())))
    if lost := _lost(overrides):
        problems += lost
        overrides = [override for override in overrides if override.key_or_group != SEARCHPATH]
    directories = search_path(searched(overrides))
    known = groups(directories)
    good = []
    for override in overrides:
        override.config_loader = _Files(directories)
        group, key = group_of(override.input_line), override.get_key_element()
        if override.is_sweep_override() and not single_lines(override):
            problems.append(Problem(override.input_line, "a sweep over nothing"))
            continue
        valid = options(group, directories) if group in known else {}
        if valid and _chooses_nothing(override):
            problems.append(Problem(override.input_line, f"some {group} has to be chosen", instead(_place(override))))
            continue
        if valid and group in standard() and not isinstance(standard()[group], list) and _are_several(override):
            advice = f"-m {key}=a,b runs one after the other"
            problems.append(Problem(override.input_line, f"a run has one {group}", advice))
            continue
        names = [name for value in _values(override) for name in _names(value)] if valid else []
        wrong = {name: nearest(name, valid) for name in names if name not in valid and name not in NOTHING}
        for name, near in wrong.items():
            there = f"there are: {', '.join(valid)}" if len(valid) <= FEW else f"{len(valid)}: python run.py --help"
            problems.append(Problem(f"{key}={name}", f"there is no such {group} ({there})", near and f"{key}={near}"))
        if empty := [name for name in names if name in valid and not _holds_options(valid[name])]:
            problems += [Problem(f"{key}={name}", f"{valid[name]} holds no options (name: value)") for name in empty]
            return problems, []  # what else is said about a run without it would be no help
        if not wrong:
            good.append(override)
        elif all(wrong.values()):
            values = [_rename(value, wrong) for value in _values(override)]
            good.append(parser.parse_override(f"{override.get_key_element()}={','.join(values)}"))
    return problems, good


@dataclass(frozen=True)
class _Files:
    """What Hydra asks to make the choices of `method=glob(ss*)`."""

    directories: list[Path]

    def get_group_options(self, group: str, results_filter: object = None) -> list[str]:
        return list(options(group, self.directories))


def _is_readable(line: str) -> bool:
    try:
        OverridesParser.create().parse_override(line)
    except HydraException:
        return False
    return True


def _lost(overrides: list[Override]) -> list[Problem]:
    """Entries of the search path where there is nothing."""
    return [
        Problem(
            f"hydra.searchpath=[{entry}]", "there is no such package or folder (pkg://package.conf, file:///folder)"
        )
        for entry in searched(overrides)
        if not any(folder.is_dir() for folder in folders_of(entry))
    ]


def _chooses_nothing(override: Override) -> bool:
    """`method=null`, `method=`, `~method`: Hydra takes it for a choice, or leaves the node out."""
    if override.is_delete():
        return _place(override) == group_of(override.input_line)
    one = not isinstance(standard().get(group_of(override.input_line), []), list)
    return any(value.strip("'\"") in NOTHING or (one and value == "[]") for value in _values(override))


def _holds_options(file: Path) -> bool:
    if file.is_relative_to(conf_dir()):
        return True
    try:
        return isinstance(read_yaml(file), dict | NoneType)
    except (YAMLError, UnicodeDecodeError):
        return True  # composing says why it is none


def _are_several(override: Override) -> bool:
    return any(value.startswith("[") for value in _values(override))


def _place(override: Override) -> str:
    """The node that a choice of a group makes: the oracle of `method@oracle=erm`."""
    return override.package or override.key_or_group


def single_lines(override: Override) -> list[str]:
    """The override as lines without a sweep: one for each swept value."""
    if override.is_sweep_override() and override.is_discrete_sweep():
        if isinstance(steps := override.value(), RangeSweep) and steps.step == 0:
            return []
        return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
    if override.is_sweep_override() and isinstance(interval := override.value(), IntervalSweep):
        return [f"{override.get_key_element()}={bound}" for bound in (interval.start, interval.end)]
    return [override.input_line]


def telling_lines(override: Override) -> list[str]:
    """Of a sweep over numbers only the extremes: valid values are an interval, and seeds come by the hundred."""
    lines = single_lines(override)
    try:
        ranked = sorted(lines, key=lambda line: float(line.partition("=")[2]))
    except ValueError:
        return lines
    return [ranked[0], ranked[-1]]


def _values(override: Override) -> list[str]:
    return [] if override.is_delete() else [line.partition("=")[2] for line in single_lines(override)]


def _names(value: str) -> list[str]:
    """The options in a group choice: `csv`, or each of `[csv,wandb]`."""
    return [name.strip().strip("'\"") for name in value.strip("[]").split(",")]


def _rename(value: str, names: dict[str, str]) -> str:
    renamed = ",".join(names.get(name, name) for name in _names(value))
    return f"[{renamed}]" if value.startswith("[") else renamed


def group_of(line: str) -> str:
    """The config group an override line would choose from: `method@source=erm` chooses from method."""
    return line.lstrip("+~").partition("=")[0].partition("@")[0]


def searched(overrides: list[Override]) -> list[str]:
    """Further entries of the search path."""
    given = [o.value() for o in overrides if o.key_or_group == SEARCHPATH and not o.is_delete()]
    return [str(entry) for entries in given for entry in (entries if isinstance(entries, list) else [entries])]
