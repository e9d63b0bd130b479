"""Searches: what they vary, how many trials they make over restarts and workers, what they choose, what they prune."""

import functools
import json
from pathlib import Path

import optuna
import pytest
from filelock import FileLock
from hydra.core.override_parser.overrides_parser import OverridesParser

from fisherexp.config.explain import composed, explain
from fisherexp.config.problem import ConfigError
from fisherexp.files import write_json
from fisherexp.runs.identity import run_folder
from fisherexp.runs.prune import Prune
from fisherexp.runs.study import VARIABLE, StudyFile, handle
from fisherexp.runs.study import storage as storage_of
from fisherexp.runs.workbench import Workbench
from fisherexp.stop import Pruned
from fisherexp.sweeps.search import Options, Search
from fisherexp.sweeps.space import Dimension, declared_dimensions, dimension

LINES = ["method=erm", "scenario=none", "data.validation=0.2", "model.width=4"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a=3", None),
        ("a=x,y", Dimension("a", values=("x", "y"))),
        ("a=choice(1,x,[2])", Dimension("a", values=("1", "x", "[2]"))),
        ("a=interval(0,1.5)", Dimension("a", low=0, high=1.5)),
        ("a=tag(log, interval(1e-4, 1))", Dimension("a", low=1e-4, high=1, log=True)),
        ("a=int(interval(1,8))", Dimension("a", low=1, high=8, integer=True)),
        ("a=range(2,9,3)", Dimension("a", low=2, high=8, step=3, integer=True)),
        ("a=range(0.0,1.0,0.25)", Dimension("a", low=0.0, high=0.75, step=0.25)),
    ],
)
def test_ranges_are_hydras(line, expected):
    assert dimension(line) == expected


def test_a_method_and_the_config_declare_ranges():
    found = {d.option: d for d in declared_dimensions(composed(["method=ssd"]), fixed={"method.lambda_"})}
    assert found == {"method.alpha_relative": Dimension("method.alpha_relative", low=0.05, high=1, log=True)}
    drawn = {d.option: d for d in declared_dimensions(composed(["training=domainbed"]), fixed=set())}
    assert drawn["training.lr"] == Dimension("training.lr", low=1e-5, high=10**-3.5, log=True)


def test_declared_ranges_hold_only_valid_values():
    for method in ("ssd", "mixup", "eata"):
        scenario = {"ssd": "class_forgetting", "mixup": "none", "eata": "continual"}[method]
        choices = [f"method={method}", f"scenario={scenario}"]
        dimensions = declared_dimensions(composed(choices), fixed=set())
        assert dimensions
        assert not explain(choices + [f"{d.option}=interval({d.low},{d.high})" for d in dimensions])


def test_an_interval_is_checked_at_its_ends():
    (problem,) = explain(["method=mixup", "scenario=none", "method.alpha=interval(-1,1)"])
    assert "method.alpha=-1" in str(problem)


class Landscape:
    """Stands for the launcher: a run's validation accuracy is 100 - 10 (width - 7)²; counts what is launched."""

    def __init__(self, die_at: int | None = None) -> None:
        self.launched: list[list[str]] = []
        self.die_at = die_at

    def __call__(self, jobs: list[list[str]]) -> None:
        for overrides in jobs:
            self.launched.append([line for line in overrides if not line.startswith("+hydra")])
            if len(self.launched) == self.die_at:
                raise KeyboardInterrupt
            cfg = compose(tuple(self.launched[-1]))
            metrics = {"test_accuracy": 100.0 - 10 * (cfg.model.width - 7) ** 2}
            write_json(run_folder(cfg) / "run.json", {"metrics": {"after": metrics}, "trial": False})


@functools.cache
def _base():
    return composed([line for line in LINES if not line.startswith("model.width")])


@functools.cache
def compose(overrides: tuple[str, ...]):
    """As Hydra would, for values only; composing in earnest takes half a second."""
    cfg = _base().copy()
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.key_or_group not in ("method", "scenario"):
            cfg[override.key_or_group.split(".")[0]]  # KeyError for what is not there
            _set(cfg, override.key_or_group, override.value())
    return cfg


def _set(cfg, key: str, value) -> None:
    from omegaconf import OmegaConf

    OmegaConf.update(cfg, key, value)


def search(tmp_path: Path, launch: Landscape, **options) -> Search:
    lines = [*LINES[:3], "model.width=range(4,13)", f"output_dir={tmp_path}"]
    return Search(lines, Options(**options), lambda overrides: compose(tuple(overrides)), launch)


@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_the_number_of_trials_is_a_target_over_restarts(tmp_path, storage):
    options = {"n_trials": 6, "storage": f"sqlite:///{tmp_path}/study.db" if storage == "sqlite" else None}
    killed = Landscape(die_at=3)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, killed, **options).run()
    resumed = Landscape()
    again = search(tmp_path, resumed, **options)
    again.run()
    trials = again.study.trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 6
    assert resumed.launched[0] == killed.launched[2]  # the trial that was killed comes first
    assert len(resumed.launched) == 4 + 1  # and the chosen configuration last

    # That one alone is evaluated on the test set, and its record says how it was chosen.
    assert all("evaluate_on=validation" in overrides for overrides in killed.launched + resumed.launched[:-1])
    chosen = resumed.launched[-1]
    assert "evaluate_on=validation" not in chosen
    record = json.loads((run_folder(compose(tuple(chosen))) / "run.json").read_text())
    best = max(trials, key=lambda trial: trial.value)
    assert record["search"]["value"] == best.value
    assert record["search"]["trial"] == best.number
    assert record["search"]["evaluated_on"] == "validation"
    assert record["search"]["trials"] == {"complete": 6}
    assert f"model.width={best.params['model.width']}" in chosen

    finished = Landscape()
    search(tmp_path, finished, **options).run()
    assert finished.launched == [chosen]
    more = Landscape()
    search(tmp_path, more, **options | {"n_trials": 7}).run()
    assert len(more.launched) == 2  # one further trial, and the choice


def test_workers_share_a_study_and_the_last_one_chooses(tmp_path):
    other = search(tmp_path, Landscape(), n_trials=3)
    other.folder.mkdir(parents=True)
    other.study = other._open()
    with FileLock(other._worker_file(other.worker)):
        ((number, overrides),) = other._next()
        first = Landscape()
        search(tmp_path, first, n_trials=3).run()
        assert len(first.launched) == 2  # the third trial is the other worker's, and so is the choice
        assert overrides not in first.launched
        other.launch([overrides])
        other._tell(number, overrides)
        other._choose()
    assert "evaluate_on=validation" not in other.launch.launched[-1]


def test_a_study_of_another_line_is_not_mixed_with_this_one(tmp_path):
    search(tmp_path, Landscape(), n_trials=1, study="mine").run()
    with pytest.raises(ConfigError, match="made for another line"):
        search(tmp_path, Landscape(), n_trials=1, study="mine", direction="minimize", metric="after/test_nll").run()


def test_a_database_that_is_none_is_one_line():
    with pytest.raises(ValueError, match=r"^hydra\.sweeper\.storage=nope://x: .*nope$"):
        storage_of("nope://x")


def test_a_search_without_validation_data_is_refused(tmp_path):
    lines = ["method=erm", "scenario=none", "model.width=4,5", f"output_dir={tmp_path}"]
    with pytest.raises(ConfigError, match=r"data\.validation=0\.0.*nearest valid: data\.validation=0\.1"):
        Search(lines, Options(), composed, Landscape()).run()
    with pytest.raises(ConfigError, match="no such metric"):
        search(tmp_path, Landscape(), metric="after/accuracy").run()


@pytest.mark.parametrize(("earlier", "pruned"), [(100.0, True), (0.0, False)])
def test_a_trial_worse_than_the_median_is_given_up(tmp_path, monkeypatch, earlier, pruned):
    file = StudyFile(str(tmp_path / "journal"), "study", "after/test_accuracy", "median", 1, 0)
    file.write(tmp_path / "study.json")
    from fisherexp.runs.study import storage

    study = optuna.create_study(storage=storage(file.storage), study_name="study", direction="maximize")
    first = study.ask()
    first.report(earlier, 1)
    study.tell(first, earlier)
    second = study.ask()
    monkeypatch.setenv(VARIABLE, handle(tmp_path / "study.json", second.number))
    (callback,) = Prune.of_environment()

    cfg = composed([*LINES, "evaluate_on=validation", "training.epochs=2", "threads=1", f"output_dir={tmp_path}"])
    bench = Workbench(cfg, callbacks=[callback])
    assert len(bench.setting.parts["test"]) == 240  # of the 1200 training images; the test set is out of reach
    method = bench.method("method")
    if pruned:
        with pytest.raises(Pruned, match="after epoch 1"):
            bench.fit(method, tmp_path / "fit", "trial", own=True)
    else:
        bench.fit(method, tmp_path / "fit", "trial", own=True)
    reported = study.trials[second.number].intermediate_values
    assert list(reported) == [1]
    assert 0 <= reported[1] <= 100
