"""Turns a command line that cannot be run into the full list of what is wrong with it."""

import functools
import os
import re
from collections.abc import Iterable
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fisherexp.config import companions, draws, nodes, parsed_once  # noqa: F401 - what they teach Hydra
from fisherexp.config.companions import CONFIG_NAME
from fisherexp.config.copied import copied
from fisherexp.config.locations import conf_dir, groups, search_path
from fisherexp.config.overrides import group_of, repaired, searched, single_lines, telling_lines
from fisherexp.config.problem import Problem, nearest, shortened
from fisherexp.config.shorthand import natives
from fisherexp.config.validate import validate, validate_sweep

# What Hydra raises of files and lines that it cannot make a config of; for some it has no name of its own.
UNCOMPOSABLE = (
    HydraException,
    OmegaConfBaseException,
    YAMLError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    RecursionError,
)
# Groups whose options choose options of other groups.
BRINGS_CHOICES = {"method", "experiment"}


def composed(overrides: list[str], with_hydra: bool = False) -> DictConfig:
    """The config of a single run, as `run.py` would see it. Raises one of UNCOMPOSABLE where it cannot be composed.

    with_hydra: with the node `hydra`, launcher and sweeper.

    Choices of config files decide a composition, values are put in afterwards. What the same choices compose to is
    kept until a config file changes.
    """
    GlobalHydra.instance().clear()  # whoever composed before
    lines = natives(overrides)
    parsed = OverridesParser.create().parse_overrides(lines)
    directories = search_path(searched(parsed))
    known = groups(directories)
    values = [o for o in parsed if not _is_choice(o.input_line, known)]
    if with_hydra or any(o.is_sweep_override() for o in values):
        return by_hydra(lines, with_hydra)  # which says what is wrong with a sweep
    choices = tuple(o.input_line for o in parsed if o not in values)
    return _with_values(_composition(choices, _state_of_files(directories)), values)


def by_hydra(lines: list[str], with_hydra: bool = False) -> DictConfig:
    """The same, by Hydra alone."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(CONFIG_NAME, overrides=lines, return_hydra_config=with_hydra)


@functools.lru_cache(maxsize=128)
def _composition(choices: tuple[str, ...], state: tuple) -> DictConfig:
    return by_hydra(list(choices))


def _state_of_files(directories: list[Path]) -> tuple:
    """Equal as long as no config file has changed."""
    found = []
    for folder, _, names in (part for directory in directories for part in os.walk(directory)):
        for file in (os.path.join(folder, name) for name in names if name.endswith(".yaml")):
            found.append((file, (stat := os.stat(file)).st_mtime_ns, stat.st_size))
    return tuple(sorted(found))


def unknown_choices(lines: list[str]) -> list[Problem]:
    """Group choices (`method=sdd`) that name no config file; needs no composition, so it answers at once."""
    return repaired(lines)[0]


def explain(lines: list[str]) -> list[Problem]:
    """Every problem of a command line's overrides, each value of a sweep included; empty when all is well.

    A wrong choice is replaced by its nearest neighbor, so that the options behind it are checked as well.
    Swept dimensions are checked one value at a time, not as a product: what only a combination gets wrong
    is reported when its turn comes.
    """
    problems, overrides = repaired(lines)
    problems += _problems_of_sweep([o.input_line for o in overrides if o.is_hydra_override()])
    first = [single_lines(o)[0] for o in overrides]
    trials = {tuple(first)}
    for i, override in enumerate(overrides):
        trials |= {(*first[:i], line, *first[i + 1 :]) for line in telling_lines(override)}
    known = groups(search_path(searched(overrides)))
    swept = [i for i, override in enumerate(overrides) if len(single_lines(override)) > 1]
    bases = [base for trial in trials if isinstance(base := _base(trial, known), DictConfig)]
    for trial in sorted(trials, key=lambda t: t != tuple(first)):
        problems += _explain_single(list(trial), known, {trial[i] for i in swept}, bases)
    return list(dict.fromkeys(problems))


def several_values(overrides: list[str]) -> list[str]:
    """The overrides that give several values, as only a sweep takes them."""
    parsed = OverridesParser.create().parse_overrides(natives(overrides))
    return [o.input_line for o in parsed if o.is_sweep_override()]


def is_experiments_sweep(overrides: list[str]) -> bool:
    """Whether the experiment that a line without `-m` chooses is a sweep.

    Hydra asks the same of the whole line but what is swept, and takes it for a single run where the rest does not fit
    the experiment's own method: `experiment=… method=a,b method.rank=8` with a default method that has no rank.
    """
    parsed = OverridesParser.create().parse_overrides(natives(overrides))
    known = groups(search_path(searched(parsed)))
    choices = [o for o in parsed if o.is_hydra_override() or _is_choice(o.input_line, known)]
    lines = [o.input_line for o in choices if not o.is_sweep_override()]
    try:
        return composed(lines, with_hydra=True).hydra.mode == RunMode.MULTIRUN
    except UNCOMPOSABLE:
        return False  # what is wrong is said where the whole line is composed


def within_sweeps(line: str, overrides: list[str]) -> str:
    """The override `line`, so written that Hydra applies it to each choice of a swept group.

    Hydra checks `method.epochs=5` of `-m method=a,b method.epochs=5` against the default method before it looks at
    a and b; an override that is itself a sweep, of one value, it leaves alone. A method brings companions and an
    experiment any choice: where one of them is swept, so may be every group.
    """
    if line not in overrides:
        return line
    parser = OverridesParser.create()
    swept = {o.key_or_group for o in parser.parse_overrides(overrides) if o.is_sweep_override()}
    override = parser.parse_override(line)
    group, _, option = override.key_or_group.partition(".")
    may_differ = group in swept or (swept & BRINGS_CHOICES and group != "hydra")
    if not option or not may_differ or override.is_sweep_override() or override.is_delete():
        return line
    key, _, value = line.partition("=")
    return f"{key}=choice({value})"


def _explain_single(lines: list[str], known: set[str], swept: set[str], bases: list[DictConfig]) -> list[Problem]:
    """Problems of one run. Of a sweep: swept are those of its lines that differ between runs, bases what their
    choices compose to."""
    base = _base(lines, known)
    if not isinstance(base, DictConfig):
        return [Problem(" ".join(lines), _one_line(base))]
    problems, good = [], []
    for line in (line for line in lines if not _is_choice(line, known)):
        key = line.partition("=")[0]
        if line.startswith(("+", "~")) or _exists(base, key):
            good.append(line)
        elif any(_exists(other, key) for other in bases):
            problems.append(_lacking(key, [line for line in lines if line in swept and _is_choice(line, known)], base))
        else:
            problems.append(Problem(key, "there is no such option", nearest(key, {*_keys(base), *known})))
    try:
        found = validate(_with_values(base, OverridesParser.create().parse_overrides(good)))
    except UNCOMPOSABLE as error:
        return [*problems, Problem(" ".join(good), _one_line(error))]
    return problems + [_advise_default(problem, base) for problem in found]


def _problems_of_sweep(lines: list[str]) -> list[Problem]:
    """Problems of the launcher and the sweeper that lines about Hydra itself choose and set."""
    if not any(re.match(r"[+~]*hydra[./](launcher|sweeper)", line) for line in lines):
        return []
    try:
        return validate_sweep(composed(lines, with_hydra=True).hydra)
    except UNCOMPOSABLE:
        return []  # every composition fails by it, and says so


def _base(lines: Iterable[str], known: set[str]) -> DictConfig | Exception:
    """What the choices among the lines compose to, before any value is set; or why they do not."""
    try:
        return _composed_once(tuple(line for line in lines if _is_choice(line, known)))
    except UNCOMPOSABLE as error:
        return error


def _is_choice(line: str, known: set[str]) -> bool:
    return group_of(line) in known or line.lstrip("+").startswith("hydra")


def _lacking(key: str, chosen: list[str], base: DictConfig) -> Problem:
    """An option that some choices of a sweep have, and those chosen have not."""
    group = key.partition(".")[0]
    reason = f"there is no such option with {' '.join(chosen)}"
    if group in {group_of(line) for line in chosen}:
        return Problem(key, reason, "a sweep for each")
    reason += f", whose {group} is {base[group]._target_.rpartition('.')[2]}"
    return Problem(key, reason, f"one {group} for all ({group}=…), or a sweep for each")


@functools.lru_cache(maxsize=128)
def _composed_once(choices: tuple[str, ...]) -> DictConfig:
    # A sweep asks for the same group choices again and again; composing is the slow part.
    return composed(list(choices))


def _with_values(base: DictConfig, values: list[Override]) -> DictConfig:
    cfg = copied(base)
    ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
    return cfg


def _advise_default(problem: Problem, base: DictConfig) -> Problem:
    """Where no bound suggests a value, the default of the chosen config is the nearest valid one."""
    option, _, given = problem.option.partition("=")
    if problem.nearest or "=" not in problem.option or not _exists(base, option):
        return problem
    default = OmegaConf.select(base, option)
    text = "null" if default is None else default
    if given in (str(text), shortened(str(text))) or isinstance(default, DictConfig):  # the default itself; no value
        return problem
    return Problem(problem.option, problem.reason, f"{option}={text}")


def _exists(cfg: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    return isinstance(node, DictConfig) and name in node.keys()  # noqa: SIM118 - `in` is false for a missing value


def _keys(cfg: DictConfig, prefix: str = "") -> list[str]:
    found = []
    for key, value in OmegaConf.to_container(cfg, resolve=False).items() if prefix == "" else cfg.items():
        if key != "_target_":
            found.append(f"{prefix}{key}")
        if isinstance(value, dict):
            found += _keys(value, f"{prefix}{key}.")
    return found


def _one_line(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "a config file names itself in its defaults"
    # Hydra would list every option of a group.
    return " ".join(str(error).partition("Available options")[0].split())
