"""What every method owes its users, checked on small data: the same checks for ours and for yours.

`python -m fisherexp contract my_method --search-path pkg://my_package.conf` runs them on a method from outside.
"""

import os
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers.logger import DummyLogger
from safetensors.torch import load_file

from fisherexp.catalogue import Entry
from fisherexp.config.copied import copied
from fisherexp.config.declared import declared
from fisherexp.config.explain import composed, explain
from fisherexp.experiment import run_experiment
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.runs.identity import references
from fisherexp.runs.record import TIMES
from fisherexp.runs.workbench import Workbench

# What makes a method's companions small enough for seconds: each where it is an option of theirs. Deep and noisy enough
# (BatchNorm, several epochs) that shortcuts show.
SMALL = {
    "data.batch_size": 100,
    # Merging chooses on batches of this size, and a fit that is to be stopped needs two.
    "data.eval_batch_size": 200,
    "data.reports": 400,
    "data.test_reports": 20,
    "model.width": 8,
    "model.hidden": [24],
    "model.dim": 16,
    "data.n": 60,
    "method.trees": 6,
    "method.max_iterations": 60,
    "method.steps": 5,
    "method.max_cost": 300,
    "method.total_episodes": 60,
    "training.epochs": 2,
    # Fifty images of each of four corruptions show as much as all.
    "scenario.images": 50,
    "scenario.corruptions": ["gaussian_noise", "fog", "brightness", "contrast"],
}
TASKS = 2  # show as much as many
EPOCHS = 3  # of a method's own: several, and so a schedule, are all it takes
STARTS = {"scratch", "source"}
SECONDS = 10.0
COSTS = {*TIMES, "forward_samples", "backward_samples"}  # a step that was lost with its process is paid twice


class Stopped(Exception):
    """Stands for the end of a process."""


class StopAfter(Checkpoint):
    """Ends a fit after some batches, behind the callback that saves its state."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: object) -> None:
        self.left -= 1
        if self.left == 0:
            raise Stopped


class StopAfterSteps(DummyLogger):
    """Ends a loop of steps as figures come in."""

    def __init__(self, steps: int, **names: object) -> None:
        super().__init__()
        self.left = steps

    def log_metrics(self, *args: object, **options: object) -> None:
        self.left -= 1
        if self.left == 0:
            raise Stopped


def shrunk(config: DictConfig, sizes: dict[str, Any] = SMALL) -> list[str]:
    """Overrides that make what a method is at home with small."""
    small = {option: value for option, value in sizes.items() if _has(config, *option.split("."))}
    if "model.width" in small:  # of a network that is as small as that, half
        small["model.width"] = min(small["model.width"], config.model.width // 2)
    if _has(config, "scenario", "tasks"):
        small["scenario.tasks"] = list(config.scenario.tasks[:TASKS])
    return [f"{option}={_written(value)}" for option, value in small.items()]


def shortened(config: DictConfig) -> list[str]:
    """Overrides that cut a long training of the method's own to EPOCHS."""
    recipes = ["", *(f".{name}" for name in ("finetune", "training") if _own(config, name))]
    options = [f"method{recipe}.epochs" for recipe in recipes]
    return [f"{option}={EPOCHS}" for option in options if (OmegaConf.select(config, option) or 0) > EPOCHS]


def _own(config: DictConfig, recipe: str) -> bool:
    """Whether the method has this recipe and shares it with nobody."""
    return recipe in config.method and not OmegaConf.is_interpolation(config.method, recipe)


def _has(config: DictConfig, node: str, option: str) -> bool:
    return node in config and option in config[node]


def _written(value: object) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


class Contract:
    """The checks of one method, on its companions made small and without their callbacks. Each `check_…` raises
    AssertionError with what is wrong.

    entry: the method's config file. scratch: an empty folder. extra: search path of methods from outside. artefacts:
    the folder of the first run's; one for several contracts builds reference models that they share once.
    """

    def __init__(self, entry: Entry, scratch: Path, extra: list[str], artefacts: Path | None = None) -> None:
        self.entry, self.scratch = entry, scratch
        if artefacts:
            (scratch / "a").mkdir()
            (scratch / "a" / "artefacts").symlink_to(artefacts)
        searched = [f"hydra.searchpath=[{','.join(extra)}]"] if extra else []
        self.overrides = [*searched, f"method={entry.name}", "progress=off", "threads=1"]
        home = composed(self.overrides)
        self.overrides += [*shrunk(home), *shortened(home)]
        self.by_steps = issubclass(get_class(home.method._target_), IterativeMethod)

    def check_declaration(self) -> None:
        """One-line description, paper, and only declarations the runner knows."""
        attributes = self.entry.attributes
        assert self.entry.description, f"{self.entry.file} does not begin with a one-line comment"
        assert self.entry.paper, "the class declares no `paper`"
        if not self.by_steps:
            assert attributes.get("start") in STARTS, f"unknown start: {attributes.get('start')}"

    def check_config(self) -> None:
        """The YAML gives every option the constructor requires, and the default composition is valid."""
        method = self._composed.method
        missing = declared(method._target_).required - {"model"} - {*method}
        assert not missing, f"options without a value in {self.entry.file}: {sorted(missing)}"
        problems = explain(self.overrides)
        assert not problems, "; ".join(map(str, problems))

    def check_bad_values(self) -> None:
        """An ill-typed or misspelt option is refused in one line that names it and the nearest valid choice."""
        (wrong,) = explain([*self.overrides, "method.no_such_option=1"])
        assert "no_such_option" in str(wrong)
        given = self._composed.method
        typed = [name for name, kind in declared(given._target_).parameters.items() if kind and "str" not in kind]
        typed = [name for name in typed if name in given and not OmegaConf.is_dict(given[name])]
        # The open bracket is for options that are regular expressions, which take any other word.
        problems = explain([*self.overrides, *(f"method.{name}='no_such_value('" for name in typed)])
        for name in typed:
            found = [problem for problem in problems if problem.option.startswith(f"method.{name}=")]
            assert len(found) == 1, f"method.{name}='no_such_value(': {len(found)} problems instead of one"
            assert found[0].nearest is not None, f"no advice: {found[0]}"
        assert len(problems) == len(typed), "; ".join(map(str, problems))

    def check_runs_in_seconds(self) -> None:
        """Runs offline on the processor within the processor time a test may take."""
        begun = time.process_time()  # of this process: others may run beside it
        metrics = self.first[1]["metrics"]["after"]
        assert time.process_time() - begun < SECONDS, f"took more than {SECONDS:.0f} s on small data"
        assert all(value == value for value in metrics.values()), f"NaN in {metrics}"

    def check_changes_something(self) -> None:
        """The result is not the model it started from; a study leaves the model and has an outcome. Of a method
        by steps, there are several, and metrics that a table shows."""
        if self.by_steps:
            record = self.first[1]
            assert record["metrics"]["after"]["steps"] > 1, "nothing to interrupt: it made one step"
            shown = {*record["headings"]} & {*record["metrics"]["after"]} - COSTS
            assert shown, f"no metric has a heading: {[*record['metrics']['after']]}"
            return
        start = self._bench.method("method")
        from_scratch = start.start == "scratch"
        before = start.model.state_dict() if from_scratch else self._bench.reference(start.start).tensors
        after, record = self.first
        moved = any(not torch.equal(before[name], tensor) for name, tensor in after.items())
        if start.adapts_at_test and "before" in record["metrics"]:
            evaluated = [{n: v for n, v in record["metrics"][s].items() if n not in TIMES} for s in ("before", "after")]
            moved = moved or evaluated[0] != evaluated[1]
        if start.study:
            assert not moved, "a study must leave every weight as it was"
            assert record["outcome"], "a study must say what it found"
        else:
            assert moved, "the method left every weight as it was"

    def check_repeats_and_resumes_exactly(self) -> None:
        """A second run from nothing, stopped in the middle of its fit and run again, gives the weights and metrics of
        the first, bit for bit; the saved state holds plain containers and tensors only. (A study without a fit has
        nothing to resume.) The first saved no state, the second does after every batch or step until it is stopped.
        Reference models, whose methods have contracts of their own, the first run built and the second finds."""
        if not self.by_steps:
            self._lend_references()
        if self.by_steps or self._bench.method("method").epochs:
            try:
                self.run("b", stop=True)
            except Stopped:
                pass
            else:
                raise AssertionError("its fit has fewer than two batches or steps: nothing to interrupt")
            states = list((self.scratch / "b").rglob("last.ckpt"))
            assert len(states) == 1, f"expected one saved state, found {len(states)}"
            torch.load(states[0], weights_only=True)
        weights, record = self.run("b")
        self._same(weights, self.first[0])
        for name, value in record["metrics"]["after"].items():
            assert name in COSTS or value == self.first[1]["metrics"]["after"][name], name

    def checks(self) -> dict[str, Callable[[], None]]:
        """Name -> check, in the order in which they make sense."""
        return {
            name.removeprefix("check_"): getattr(self, name) for name in vars(type(self)) if name.startswith("check_")
        }

    @cached_property
    def first(self) -> tuple[dict[str, torch.Tensor], dict]:
        """Weights and record of an undisturbed run."""
        return self.run("a")

    @cached_property
    def _bench(self) -> Workbench:
        """What the first run describes, for looking at what it began with and left."""
        return Workbench(self.config("a"))

    def config(self, name: str, save_states: bool = False) -> DictConfig:
        """The small config, with outputs below the scratch folder. save_states: after every batch or step."""
        config = copied(self._composed)
        config.output_dir, config.checkpoint_every = str(self.scratch / name), 0 if save_states else 3600
        return config

    @cached_property
    def _composed(self) -> DictConfig:
        config = composed(self.overrides)
        config.callbacks = {}  # have tests of their own
        return config

    def _lend_references(self) -> None:
        """Give the second run the first one's reference models and how they were evaluated, but no method."""
        self.first  # noqa: B018 - builds them
        bench, method = self._bench, self._bench.method("method")
        own = bench.trained("method").path if method.start == "scratch" else None
        # A source on other data is in no store; what it was made from, the second run makes again.
        lent = {bench.reference(name).path for name in references(bench.cfg)} - {own, None}
        for file in [*lent, *bench.store.root.glob("metrics/*.safetensors")]:
            there = self.scratch / "b" / "artefacts" / file.parent.name
            there.mkdir(parents=True, exist_ok=True)
            os.link(file, there / file.name)

    def run(self, name: str, stop: bool = False) -> tuple[dict[str, torch.Tensor], dict]:
        """Weights and record of a run in its own output folder. stop: as if killed after two batches or steps."""
        folder, config, callbacks = self.scratch / name / "run", self.config(name, save_states=stop), []
        if stop and not self.by_steps:
            callbacks = [StopAfter(batches=2)]
        elif stop:
            config.logger = {"stop": {"_target_": f"{__name__}.StopAfterSteps", "steps": 2}}
        record = run_experiment(config, folder, self.overrides, callbacks)
        weights = folder / "weights.safetensors"
        return load_file(weights) if weights.is_file() else {}, record

    @staticmethod
    def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
        differing = [name for name in other if not torch.equal(one[name], other[name])]
        assert not differing, f"weights differ: {', '.join(differing)}"
