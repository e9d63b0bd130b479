"""Turns a command line that cannot be run into the full list of what is wrong with it."""

import copy
import functools
from collections.abc import Iterable

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fisherexp.config import companions, draws  # noqa: F401 - what they teach Hydra
from fisherexp.config.locations import conf_dir, groups, options, search_path
from fisherexp.config.problem import Problem, nearest
from fisherexp.config.shorthand import native
from fisherexp.config.validate import validate

CONFIG_NAME = "run"
NOTHING = {"null", "None", ""}
# Groups whose options choose options of other groups.
BRINGS_CHOICES = {"method", "experiment"}


def composed(overrides: list[str]) -> DictConfig:
    """The config of a single run, as `run.py` would see it. Raises HydraException where it cannot be composed."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(CONFIG_NAME, overrides=[native(line) for line in overrides])


def unknown_choices(lines: list[str]) -> list[Problem]:
    """Group choices (`method=sdd`) that name no config file; needs no composition, so it answers at once."""
    return _parse_and_repair(lines)[0]


def explain(lines: list[str]) -> list[Problem]:
    """Every problem of a command line's overrides, each value of a sweep included; empty when all is well.

    A wrong choice is replaced by its nearest neighbor, so that the options behind it are checked as well.
    Swept dimensions are checked one value at a time, not as a product: what only a combination gets wrong
    is reported when its turn comes.
    """
    problems, overrides = _parse_and_repair(lines)
    first = [_single(o)[0] for o in overrides]
    trials = {tuple(first)}
    for i, override in enumerate(overrides):
        trials |= {(*first[:i], line, *first[i + 1 :]) for line in _telling(override)}
    known = groups(search_path(_extra(overrides)))
    swept = [i for i, override in enumerate(overrides) if len(_single(override)) > 1]
    bases = [base for trial in trials if isinstance(base := _base(trial, known), DictConfig)]
    for trial in sorted(trials, key=lambda t: t != tuple(first)):
        problems += _explain_single(list(trial), known, {trial[i] for i in swept}, bases)
    return list(dict.fromkeys(problems))


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
        found = validate(_with_values(base, good))
    except (HydraException, OmegaConfBaseException) as error:
        return [*problems, Problem(" ".join(good), _one_line(error))]
    return problems + [_advise_default(problem, base) for problem in found]


def _base(lines: Iterable[str], known: set[str]) -> DictConfig | Exception:
    """What the choices among the lines compose to, before any value is set; or why they do not."""
    try:
        return _composed_once(tuple(line for line in lines if _is_choice(line, known)))
    except (HydraException, OmegaConfBaseException) as error:
        return error


def _is_choice(line: str, known: set[str]) -> bool:
    return _group(line) in known or line.lstrip("+").startswith("hydra")


def _lacking(key: str, chosen: list[str], base: DictConfig) -> Problem:
    """An option that some choices of a sweep have, and those chosen have not."""
    group = key.partition(".")[0]
    reason = f"there is no such option with {' '.join(chosen)}"
    if group in {_group(line) for line in chosen}:
        return Problem(key, reason, "a sweep for each")
    reason += f", whose {group} is {base[group]._target_.rpartition('.')[2]}"
    return Problem(key, reason, f"one {group} for all ({group}=…), or a sweep for each")


@functools.lru_cache(maxsize=128)
def _composed_once(choices: tuple[str, ...]) -> DictConfig:
    # A sweep asks for the same group choices again and again; composing is the slow part.
    return composed(list(choices))


def _with_values(base: DictConfig, lines: list[str]) -> DictConfig:
    cfg = copy.deepcopy(base)
    ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides(lines), cfg)
    return cfg


def _advise_default(problem: Problem, base: DictConfig) -> Problem:
    """Where no bound suggests a value, the default of the chosen config is the nearest valid one."""
    option, given, _ = problem.option.partition("=")
    if problem.nearest or not given or not _exists(base, option):
        return problem
    default = OmegaConf.select(base, option)
    text = "null" if default is None else default
    return Problem(problem.option, problem.reason, f"{option}={text}")


def _parse_and_repair(lines: list[str]) -> tuple[list[Problem], list[Override]]:
    parser = OverridesParser.create()
    problems, overrides = [], []
    for line in map(native, lines):
        try:
            overrides.append(parser.parse_override(line))
        except HydraException as error:
            problems.append(Problem(line, _one_line(error)))
    directories = search_path(_extra(overrides))
    known = groups(directories)
    repaired = []
    for override in overrides:
        group = _group(override.input_line)
        valid = options(group, directories) if group in known else {}
        names = [name for value in _values(override) for name in _names(value)] if valid else []
        wrong = {name: nearest(name, valid) for name in names if name not in valid and name not in NOTHING}
        for name, near in wrong.items():
            reason = f"there is no such {group} (there are: {', '.join(valid)})"
            key = override.get_key_element()
            problems.append(Problem(f"{key}={name}", reason, near and f"{key}={near}"))
        if not wrong:
            repaired.append(override)
        elif all(wrong.values()):
            values = [_rename(value, wrong) for value in _values(override)]
            repaired.append(parser.parse_override(f"{override.get_key_element()}={','.join(values)}"))
    return problems, repaired


def _single(override: Override) -> list[str]:
    """The override as lines without a sweep: one for each swept value."""
    if override.is_sweep_override() and override.is_discrete_sweep():
        return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
    if override.is_sweep_override() and isinstance(interval := override.value(), IntervalSweep):
        return [f"{override.get_key_element()}={bound}" for bound in (interval.start, interval.end)]
    return [override.input_line]


def _telling(override: Override) -> list[str]:
    """Of a sweep over numbers only the extremes: valid values are an interval, and seeds come by the hundred."""
    lines = _single(override)
    try:
        ranked = sorted(lines, key=lambda line: float(line.partition("=")[2]))
    except ValueError:
        return lines
    return [ranked[0], ranked[-1]]


def _values(override: Override) -> list[str]:
    return [] if override.is_delete() else [line.partition("=")[2] for line in _single(override)]


def _names(value: str) -> list[str]:
    """The options in a group choice: `csv`, or each of `[csv,wandb]`."""
    return [name.strip().strip("'\"") for name in value.strip("[]").split(",")]


def _rename(value: str, names: dict[str, str]) -> str:
    renamed = ",".join(names.get(name, name) for name in _names(value))
    return f"[{renamed}]" if value.startswith("[") else renamed


def _group(line: str) -> str:
    """The config group an override line would choose from: `method@source=erm` chooses from method."""
    return line.lstrip("+~").partition("=")[0].partition("@")[0]


def _extra(overrides: list[Override]) -> list[str]:
    return [str(p) for o in overrides if o.key_or_group == "hydra.searchpath" for p in o.value()]


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
    return " ".join(str(error).split())
