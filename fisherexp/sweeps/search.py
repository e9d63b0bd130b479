"""`hydra/sweeper=optuna`: search by Optuna's ask and tell, over runs that are found when they are done.

The study is a file (a journal, or SQLite) named by everything that is fixed, so the same line goes on with the same
study until it holds `n_trials` trials in all, after any kill and from any number of machines. A trial is a run
evaluated on validation data (evaluate_on=validation: the share put aside takes the place of the test set). When the
last trial is
told, the best configuration is run as it would be without any search, on the test set; its record says how it was
chosen.
"""

import contextlib
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from filelock import FileLock, Timeout
from omegaconf import DictConfig
from optuna.trial import TrialState

from fisherexp.config.problem import ConfigError, Problem
from fisherexp.config.types import Count, Seed, Size
from fisherexp.config.validate import validate
from fisherexp.files import write_json
from fisherexp.runs.identity import digest, run_folder
from fisherexp.runs.ledger import Ledger
from fisherexp.runs.state import RunFolder, State
from fisherexp.runs.study import VARIABLE, StudyFile, handle, storage
from fisherexp.seeds import derive
from fisherexp.sweeps.compose import Compose
from fisherexp.sweeps.space import Dimension, declared_dimensions, dimension

Launch = Callable[[list[list[str]]], Any]


@dataclass(frozen=True)
class Options:
    """As documented in conf/hydra/sweeper/optuna.yaml."""

    metric: str = "after/test_accuracy"
    direction: Literal["maximize", "minimize"] = "maximize"
    n_trials: Count = 20
    n_jobs: Count = 1
    study: str | None = None
    storage: str | None = None
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["none", "median", "halving"] = "median"
    warmup_epochs: Size = 1
    startup_trials: Size = 5
    seed: Seed | None = 0
    declared: bool = True


class Search:
    """One worker of a study. compose: the config of a run from its overrides. launch: runs such lines and returns
    when they are done."""

    def __init__(self, lines: list[str], options: Options, compose: Compose, launch: Launch) -> None:
        self.options, self.compose, self.launch = options, compose, launch
        swept = {line: dimension(line) for line in lines}
        self.fixed = [line for line, found in swept.items() if found is None]
        self.given = [found for found in swept.values() if found is not None]
        about = {"fixed": sorted(self.fixed), "given": [str(d) for d in self.given], "metric": options.metric}
        about |= {"direction": options.direction, "declared": options.declared}
        self.signature = digest(about)
        self.name = options.study or self.signature
        self.folder = Path(self._composed([])[0].output_dir) / ".sweep" / "search"
        self.worker = secrets.token_hex(4)

    def run(self) -> None:
        """Work on the study until its trials are done; then run the chosen configuration. Raises ConfigError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.study = self._open()
        options = self.options
        described = (options.metric, options.pruner, options.startup_trials, options.warmup_epochs)
        StudyFile(self._storage(), self.name, *described).write(self._study_file)
        with FileLock(self._worker_file(self.worker)):
            while batch := self._next():
                self.launch([[*overrides, self._announced(number)] for number, overrides in batch])
                for number, overrides in batch:
                    self._tell(number, overrides)
                if self._is_stopped():
                    return
        self._worker_file(self.worker).unlink(missing_ok=True)
        self._choose()

    def _open(self) -> optuna.Study:
        options = self.options
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            storage=storage(self._storage()),
            study_name=self.name,
            direction=options.direction,
            load_if_exists=True,
        )
        if study.user_attrs.setdefault("signature", self.signature) != self.signature:
            reason = "this study was made for another line (other options, space, metric or direction)"
            raise ConfigError([Problem(f"hydra.sweeper.study={self.name}", reason, "hydra.sweeper.study=null")])
        study.set_user_attr("signature", self.signature)
        samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
        study.sampler = samplers[options.sampler](seed=self._seed(len(study.trials)))
        return study

    def _seed(self, trials: int) -> int | None:
        """Of the sampler: after a restart, and in another worker, it must not repeat what it suggested before."""
        workers = len(list(self.folder.glob(f"{self.name}.worker-*")))
        return None if self.options.seed is None else derive("search", self.options.seed, trials, workers)

    def _storage(self) -> str:
        return self.options.storage or str((self.folder / f"{self.name}.journal").resolve())

    def _next(self) -> list[tuple[int, list[str]]]:
        """(trial, overrides) of the next batch: trials whose worker is dead first, then new ones."""
        with FileLock(self.folder / f"{self.name}.lock"):
            trials = self.study.get_trials(deepcopy=False)
            running = [t for t in trials if t.state is TrialState.RUNNING]
            orphans = [t for t in running if not self._is_alive(t.user_attrs.get("worker"))][: self.options.n_jobs]
            for orphan in orphans:
                self._set(orphan._trial_id, "worker", self.worker)
            batch = [(t.number, t.user_attrs["overrides"]) for t in orphans if "overrides" in t.user_attrs]
            for _ in range(min(self.options.n_jobs - len(orphans), self.options.n_trials - len(trials))):
                trial = self.study.ask()
                trial.set_user_attr("worker", self.worker)
                overrides = self._suggest(trial)
                trial.set_user_attr("overrides", overrides)
                batch.append((trial.number, overrides))
            return batch

    def _suggest(self, trial: optuna.Trial) -> list[str]:
        chosen = [given.suggest(trial) for given in self.given]
        if self.options.declared:
            cfg, _ = self._composed(chosen)
            fixed = {line.partition("=")[0] for line in [*self.fixed, *chosen]}
            # The same option of two methods is two dimensions of the study.
            chosen += [d.suggest(_Named(trial, cfg.method._target_, d)) for d in declared_dimensions(cfg, fixed)]
        if not chosen:
            reason = "nothing to search: the method declares no ranges, and the line gives none"
            raise ConfigError([Problem("hydra/sweeper=optuna", reason, "method.alpha=interval(0,1)")])
        cfg, overrides = self._composed(chosen)
        if problems := validate(cfg):
            raise ConfigError(problems)
        return overrides

    def _composed(self, chosen: list[str]) -> tuple[DictConfig, list[str]]:
        overrides = [*self.fixed, *chosen, "evaluate_on=validation"]
        cfg = self.compose(overrides)
        if cfg.scenario.get("published") == "auto":  # published corruptions are of the test set
            overrides.append("scenario.published=null")
            cfg = self.compose(overrides)
        return cfg, overrides

    @property
    def _study_file(self) -> Path:
        return self.folder.resolve() / f"{self.name}.json"

    def _announced(self, number: int) -> str:
        """The override that tells a run which trial it is; Hydra puts it into the environment of the run."""
        return f"+hydra.job.env_set.{VARIABLE}='{handle(self._study_file, number)}'"

    def _tell(self, number: int, overrides: list[str]) -> None:
        folder = RunFolder(run_folder(self.compose(overrides)))
        if folder.state() is State.DONE:
            self.study.tell(number, _value(folder, self.options.metric))
        elif folder.state() is State.PRUNED:
            self.study.tell(number, state=TrialState.PRUNED)
        else:
            self.study.tell(number, state=TrialState.FAIL)
        told = self.study.trials[number]
        shown = "" if told.value is None else f"  {self.options.metric} {told.value:.6g}"
        chosen = [line for line in overrides if line not in self.fixed and line != "evaluate_on=validation"]
        print(f"trial {number + 1}/{self.options.n_trials}  {told.state.name.lower()}{shown}  {' '.join(chosen)}")

    def _choose(self) -> None:
        """Run the best configuration on the test set, unless other workers are still at it."""
        trials = self.study.get_trials(deepcopy=False)
        if busy := sum(t.state is TrialState.RUNNING for t in trials):
            print(f"{busy} trials are being worked on elsewhere: the last worker runs the chosen configuration")
            return
        complete = [t for t in trials if t.state is TrialState.COMPLETE]
        if not complete:
            print("no trial came to a result: there is nothing to choose", file=sys.stderr)
            return
        best = self.study.best_trial
        trial_only = {"evaluate_on=validation", "scenario.published=null"} - set(self.fixed)
        overrides = [line for line in best.user_attrs["overrides"] if line not in trial_only]
        self.launch([overrides])
        folder = RunFolder(run_folder(self.compose(overrides)))
        if folder.state() is not State.DONE:
            return
        counts = {state.name.lower(): sum(t.state is state for t in trials) for state in TrialState}
        about = {
            "study": self.name,
            "storage": self._storage(),
            "metric": self.options.metric,
            "evaluated_on": "validation",
            "value": best.value,
            "trial": best.number,
            "trials": {state: count for state, count in counts.items() if count},
        }
        record = folder.record()
        if record.get("search") != about:
            write_json(folder.record_file, record | {"search": about})
        print(f"chosen: trial {best.number + 1} of {len(trials)}, {self.options.metric} {best.value:.6g} on validation")

    def _is_stopped(self) -> bool:
        ledger = Ledger.of_sweep()
        return ledger is not None and self._composed([])[0].on_error == "stop" and ledger.has_failures()

    def _set(self, trial_id: int, key: str, value: Any) -> None:
        self.study._storage.set_trial_user_attr(trial_id, key, value)

    def _worker_file(self, worker: str) -> Path:
        return self.folder / f"{self.name}.worker-{worker}"

    def _is_alive(self, worker: str | None) -> bool:
        if worker is None or not self._worker_file(worker).is_file():
            return False
        lock = FileLock(self._worker_file(worker))
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0)
            lock.release()
            return False
        return True


class _Named:
    """A trial in which a dimension bears the name of the method that declares it."""

    def __init__(self, trial: optuna.Trial, method: str, found: Dimension) -> None:
        self._trial, self._prefix = trial, f"{method.rpartition('.')[2]}: "

    def __getattr__(self, suggestion: str) -> Callable:
        return lambda name, *rest, **options: getattr(self._trial, suggestion)(self._prefix + name, *rest, **options)


def _value(folder: RunFolder, metric: str) -> float:
    stage, _, name = metric.partition("/")
    metrics = folder.record()["metrics"]
    if name not in metrics.get(stage, {}):
        there = ", ".join(f"{s}/{n}" for s, found in metrics.items() for n in found)
        raise ConfigError(
            [Problem(f"hydra.sweeper.metric={metric}", f"the runs have no such metric (they have: {there})")]
        )
    return metrics[stage][name]
