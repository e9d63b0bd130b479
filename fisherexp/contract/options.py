"""Every option a method declares changes its result, is refused, or says why it does not: checked one option at a time.

Each is set to another valid value, on the method's companions made tiny, and weights, outcome and metrics are compared
with those of the run before. `python -m fisherexp contract my_method` ends with it, for a method of yours too.

What a class says about its options, as attributes that its subclasses add to:

    counts_with    option -> values of other options with which it has an effect (momentum: optimizer=sgd). A value
                   under the option's own name is the other to try, where none can be made up from its type.
    without_effect option -> why no value changes the result: a matter of speed, or of memory.

Both may name options of nested nodes with a dot (penalty.over). Values of `counts_with` may be those of other groups,
with a slash before them (/scenario.images), or what is chosen of a group (/model: small_cnn).
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file
from torch import Tensor

from fisherexp.catalogue import Entry
from fisherexp.config.alternatives import alternatives
from fisherexp.config.copied import copied
from fisherexp.config.declared import declared
from fisherexp.config.explain import composed
from fisherexp.config.validate import HYDRA_KEYS, validate
from fisherexp.contract.method import SMALL, shrunk
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.runs.finished import finished
from fisherexp.runs.record import TIMES
from fisherexp.runs.solved import outcome_of, solved
from fisherexp.runs.workbench import Workbench

# Smaller still than what the contract runs on: an option shows in a few steps on a few images.
TINY = SMALL | {
    "data.train_size": 60,
    "data.batch_size": 20,
    "data.train_images": 40,
    "data.test_images": 20,
    "data.reports": 60,
    "data.test_reports": 8,
    "data.n": 30,
    "model.hidden": [12],
    "training.epochs": 2,
    "scenario.images": 20,
    "scenario.shared": 20,
    "scenario.few": 20,
    "scenario.corruptions": ["gaussian_noise", "fog"],
}


class Options:
    """The options of one method, and the check of each.

    entry: the method's config file. scratch: a folder for artefacts, which several methods may share. extra: search
    path of methods from outside. further: overrides with which its options show on so little data.
    """

    def __init__(self, entry: Entry, scratch: Path, extra: list[str], further: list[str] = ()) -> None:
        self.entry, self.scratch = entry, scratch
        searched = [f"hydra.searchpath=[{','.join(extra)}]"] if extra else []
        self.overrides = [*searched, f"method={entry.name}", "callbacks=[]", "logger=none", "progress=off"]
        self.overrides += ["threads=1", "checkpoint_every=3600", f"output_dir={scratch}", *further]
        self.config = self._composed({})
        self.results: dict[str, dict[str, Any]] = {}

    def names(self) -> list[str]:
        """Options of the method and of what it is made of, with dots: what the check is to be run for."""
        return [name for name, _, _ in self._leaves()]

    def check(self, name: str) -> None:
        """Raises AssertionError where an option's other values leave the result as it was."""
        given = self._said("counts_with").get(name, {})
        own = given.get(name)
        base = self._with({option: value for option, value in given.items() if option != name})
        first = self._result(base)
        value = _plain(OmegaConf.select(base, f"method.{name}"))
        others = [own] if name in given else alternatives(self._annotation(name), value)
        tried = []
        for other in others:
            config = self._with({name: other}, base)
            if validate(config):
                continue
            tried.append(other)
            try:
                same = _same(first, self._result(config))
            except ValueError as error:
                same = name.rpartition(".")[2] not in str(error)
                if same:
                    raise
            # Of a few choices each one counts, of many values any; None may mean one of the choices.
            closed = isinstance(other, bool | str) and value is not None
            if same and closed:
                raise AssertionError(f"method.{name}={other} is as method.{name}={value}")
            if not same and not closed:
                return
        assert tried, f"method.{name}={value}: no other valid value is known; name one in `counts_with`"
        assert not same, f"method.{name} has no effect: {value} is as {tried}"

    def faults(self) -> list[str]:
        """A line for each option that has no effect, or breaks the run, without a word about it in the class."""
        found = []
        for name in self.names():
            try:
                if not self.reason(name):
                    self.check(name)
            except AssertionError as error:
                found.append(str(error))
            except ValueError as error:  # neither a refusal that names the option, nor a result
                found.append(f"method.{name} cannot be changed alone: {error}")
        return found

    def reason(self, name: str) -> str | None:
        """Why the option has no effect, where its class says so."""
        return self._said("without_effect").get(name)

    def _leaves(self) -> Iterator[tuple[str, type, str]]:
        """(name with dots, class that takes the option, its annotation)."""

        def of(node: DictConfig, path: str) -> Iterator[tuple[str, type, str]]:
            for key, value in node.items():
                if OmegaConf.is_dict(value) and "_target_" in value:
                    yield from of(value, f"{path}{key}.")
                elif key not in HYDRA_KEYS:
                    yield f"{path}{key}", node._target_, declared(node._target_).parameters.get(key) or "Any"

        yield from of(self.config.method, "")

    def _annotation(self, name: str) -> str:
        return next(annotation for leaf, _, annotation in self._leaves() if leaf == name)

    @functools.cache  # noqa: B019 - lives as long as its tests
    def _said(self, attribute: str) -> dict[str, Any]:
        """What the classes of the method and of its nested nodes say, by name with dots; outer ones come last."""
        found: dict[str, Any] = {}

        def of(node: DictConfig, path: str) -> None:
            for key, value in node.items():
                if OmegaConf.is_dict(value) and "_target_" in value:
                    of(value, f"{path}{key}.")
            for base in reversed(get_class(node._target_).__mro__):
                for option, said in vars(base).get(attribute, {}).items():
                    if isinstance(said, dict):
                        said = {key if _elsewhere(key) else path + key: value for key, value in said.items()}
                    found[path + option] = said

        of(self.config.method, "")
        return found

    def _composed(self, choices: dict[str, str]) -> DictConfig:
        """The config with other choices of groups, its sizes made tiny."""
        overrides = [*self.overrides, *(f"{group}={choice}" for group, choice in choices.items())]
        config = composed([*overrides, *_tiny(composed(overrides))])
        # A run is to know nothing of the nodes it was interpolated from.
        config.method = OmegaConf.create(OmegaConf.to_container(config.method, resolve=True))
        return config

    def _with(self, values: dict[str, Any], base: DictConfig | None = None) -> DictConfig:
        """Another config in which these options have these values."""
        choices = {option[1:]: value for option, value in values.items() if _elsewhere(option) and "." not in option}
        config = self._composed(choices) if choices else copied(self.config if base is None else base)
        for option, value in values.items():
            if option[1:] in choices:
                continue
            OmegaConf.update(config, option[1:] if _elsewhere(option) else f"method.{option}", value, force_add=True)
        return config

    def _result(self, config: DictConfig) -> dict[str, Any]:
        key = OmegaConf.to_yaml(config)
        if key not in self.results:
            self.results[key] = result(config, self.scratch / self.entry.name / str(len(self.results)))
        return self.results[key]


def _tiny(config: DictConfig) -> list[str]:
    """Data that are made, or know domains, have sizes of their own."""
    own = {"n", "train_images", "people"} & {*config.data}
    return shrunk(config, {option: size for option, size in TINY.items() if not (own and option == "data.train_size")})


def _elsewhere(option: str) -> bool:
    return option.startswith("/")


def result(config: DictConfig, folder: Path) -> dict[str, Any]:
    """What a run arrives at: weights or solution, outcome, and metrics where it works as it is evaluated."""
    folder.mkdir(parents=True, exist_ok=True)
    bench = Workbench(config)
    if issubclass(get_class(config.method._target_), IterativeMethod):
        method, _ = solved(bench, folder)
        return {"tensors": method.tensors(), "outcome": method.outcome, "metrics": outcome_of(bench, method)}
    method, _ = finished(bench, folder, own=True)
    metrics, kept = {}, {}
    if method.adapts_at_test:
        metrics = bench.test(method, folder, "test", own=True)
    elif not bench.problem.has_test_loop:
        metrics = bench.problem.evaluate(method)
    if method.study:  # which looks at what it has as it writes its files
        method.leave_files(folder)
        kept = {file.stem: load_file(file) for file in sorted(folder.glob("*.safetensors"))}
    metrics = {name: value for name, value in metrics.items() if name not in TIMES}
    return {
        "tensors": dict(method.model.state_dict()),
        "files": kept,
        "outcome": _timeless(method.outcome),
        "metrics": metrics,
    }


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _timeless(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: _timeless(value) for name, value in found.items() if name not in TIMES}
    return found


def _same(one: Any, other: Any) -> bool:
    """Equal to the last bit, NaN with NaN."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other or (one != one and other != other)
