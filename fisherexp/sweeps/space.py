"""What a search varies, and between which values.

A range is written in Hydra's own syntax, on the command line or by the method: a class attribute
`search = {"alpha_relative": "interval(0.1, 1)"}`, options relative to the method's node. What the config marks as
`${drawn:…}` (config/draws.py) has declared its range already.
"""

from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf

from fisherexp.config.nodes import attribute


@dataclass(frozen=True)
class Dimension:
    """One searched option: a choice among `values`, or a number in [low, high], whole if `integer`, uniform in its
    logarithm if `log`, in steps of `step` if given."""

    option: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    integer: bool = False

    def suggest(self, trial) -> str:
        """Ask an Optuna trial for a value; returns it as an override."""
        if self.values:
            return f"{self.option}={trial.suggest_categorical(self.option, self.values)}"
        if self.integer:
            bounds = int(self.low), int(self.high)
            return f"{self.option}={trial.suggest_int(self.option, *bounds, step=int(self.step or 1), log=self.log)}"
        return f"{self.option}={trial.suggest_float(self.option, self.low, self.high, step=self.step, log=self.log)!r}"


def dimension(line: str) -> Dimension | None:
    """The dimension that an override describes; None for one that fixes a value.

    Raises ValueError for a sweep that is no range.
    """
    override = OverridesParser.create().parse_override(line)
    if not override.is_sweep_override():
        return None
    key, sweep = override.get_key_element(), override.value()
    match sweep:
        case ChoiceSweep():
            values = (override_value.partition("=")[2] for override_value in _lines(override))
            return Dimension(key, values=tuple(values))
        case IntervalSweep():
            integer = isinstance(sweep.start, int) and isinstance(sweep.end, int)
            return Dimension(key, low=sweep.start, high=sweep.end, log="log" in sweep.tags, integer=integer)
        case RangeSweep():
            numbers = list(sweep.range())
            integer = all(isinstance(number, int) for number in numbers)
            step = None if "log" in sweep.tags else abs(sweep.step)
            low, high = min(numbers), max(numbers)
            return Dimension(key, low=low, high=high, step=step, log="log" in sweep.tags, integer=integer)
    raise ValueError(f"{line}: a search wants choice(…), interval(…) or range(…)")


def declared_dimensions(cfg: DictConfig, fixed: set[str]) -> list[Dimension]:
    """What the method of a composed config declares and the ranges marked in the config, but for `fixed` options."""
    found = [dimension(f"method.{option}={text}") for option, text in attribute(cfg, "method", "search", {}).items()]
    found += _drawn(OmegaConf.to_container(cfg, resolve=False))
    return [d for d in {d.option: d for d in found}.values() if d.option not in fixed]


def _drawn(node: Any, path: str = "") -> list[Dimension]:
    if isinstance(node, dict):
        # A group that others point to with ${training} is searched where it stands, once.
        return [d for key, value in node.items() for d in _drawn(value, f"{path}.{key}" if path else str(key))]
    if isinstance(node, str) and node.startswith("${drawn:"):
        _, _, low, high, _ = (part.strip() for part in node.removeprefix("${drawn:").split(",", 4))
        return [Dimension(path, low=10 ** float(low), high=10 ** float(high), log=True)]
    return []


def _lines(override: Override) -> list[str]:
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
