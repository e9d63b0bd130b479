"""Methods that are a loop of steps of their own: evaluated by their problem, stopped anywhere and gone on with."""

import csv
import importlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fisherexp.callbacks.finite import Diverged
from fisherexp.config.explain import composed, explain
from fisherexp.experiment import run_experiment
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.problems.numerical import Numerical
from fisherexp.runs import solved
from fisherexp.stop import Stopped

SOURCE = Path(__file__)


class Parabola(Numerical):
    """min ½ ‖x - c‖² for a drawn c; its metric is the distance from c."""

    problems = ("numerical",)
    headings = {"distance": "distance"}
    better = {"distance": "lower"}

    def __init__(self, dimension: int = 3) -> None:
        super().__init__()
        self.dimension = dimension

    def read(self, seed):
        return {"center": torch.randn(self.dimension, generator=torch.Generator().manual_seed(seed))}

    def evaluate(self, solution):
        return {"distance": (solution - self.instance["center"]).norm().item()}


class NoisyDescent(IterativeMethod):
    """Gradient descent with noise from torch's global generator, so that a lost random state shows."""

    paper = "Cauchy 1847"
    problems = ("numerical",)

    def __init__(self, steps: int = 8) -> None:
        super().__init__()
        self.steps, self.number = steps, 0

    def begin(self, problem, seed):
        super().begin(problem, seed)
        self.x = torch.zeros_like(problem.instance["center"])

    @property
    def done(self):
        return self.number >= self.steps

    def step(self):
        self.x = self.x - 0.5 * (self.x - self.problem.instance["center"]) + 0.01 * torch.randn(len(self.x))
        self.number += 1
        self.outcome = {"steps": self.number}
        return {"norm": self.x.norm().item()}

    def state_dict(self):
        return {"x": self.x, "number": self.number}

    def load_state_dict(self, state):
        self.x, self.number = state["x"], state["number"]
        self.outcome = {"steps": self.number}

    def solution(self):
        return self.x

    def tensors(self):
        return {"x": self.x}


@pytest.fixture
def lines(tmp_path, monkeypatch):
    """Overrides of a method and a problem from outside, defined in this module."""
    monkeypatch.syspath_prepend(str(SOURCE.parent))
    importlib.invalidate_caches()
    for group, name in (("method", "NoisyDescent"), ("data", "Parabola")):
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "own.yaml").write_text(
            f"# own\n_target_: {SOURCE.stem}.{name}\n", encoding="utf-8"
        )
    searched = f"hydra.searchpath=[file://{tmp_path / 'conf'}]"
    return [searched, "method=own", "data=own", "model=none", "scenario=none", "progress=off", "threads=1"]


def run(lines, folder, *more):
    config = composed([*lines, f"output_dir={folder}", *more])
    return run_experiment(config, folder / "run", lines), load_file(folder / "run" / "weights.safetensors")


def test_is_evaluated_by_its_problem(lines, tmp_path):
    assert explain(lines) == []
    record, weights = run(lines, tmp_path / "a", "seed=3")
    center = Parabola().load(3).instance["center"]
    assert record["metrics"]["after"]["distance"] == pytest.approx((weights["x"] - center).norm().item())
    assert record["metrics"]["after"]["steps"] == 8
    assert record["headings"]["distance"] == "distance"
    assert record["names"] == {"method": "noisy_descent", "data": "parabola", "model": "none", "scenario": "none"}


def test_stopped_and_run_again_it_ends_bit_equal(lines, tmp_path, monkeypatch):
    whole, expected = run(lines, tmp_path / "a")
    asked = iter([False, False, False, True])
    monkeypatch.setattr(solved, "is_asked", lambda: next(asked, False))
    with pytest.raises(Stopped):
        run(lines, tmp_path / "b")
    state = torch.load(tmp_path / "b" / "run" / "last.ckpt", weights_only=True)
    assert state["step"] == 4
    record, found = run(lines, tmp_path / "b")
    assert torch.equal(found["x"], expected["x"])
    assert record["metrics"]["after"]["distance"] == whole["metrics"]["after"]["distance"]
    # The control: without the random state the noise would be another.
    torch.save(state | {"rng": torch.manual_seed(99).get_state()}, tmp_path / "b" / "run" / "last.ckpt")
    assert not torch.equal(run(lines, tmp_path / "b")[1]["x"], expected["x"])


def curve(folder):
    with (folder / "run" / "csv" / "metrics.csv").open(newline="") as file:
        return [(row["step"], row["norm"]) for row in csv.DictReader(file) if row["norm"]]


@pytest.mark.parametrize("every", [0, 1000])
def test_the_curve_of_a_run_that_went_on_has_every_step_once(lines, tmp_path, monkeypatch, every):
    """With a state of every step, and with steps that were logged after the only one."""
    run(lines, tmp_path / "a")
    asked = iter([False] * 4 + [True])
    monkeypatch.setattr(solved, "is_asked", lambda: next(asked, False))
    with pytest.raises(Stopped):
        run(lines, tmp_path / "b", f"checkpoint_every={every}")
    run(lines, tmp_path / "b")
    assert [step for step, _ in curve(tmp_path / "a")] == [str(step) for step in range(1, 9)]
    assert curve(tmp_path / "b") == curve(tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("model=mlp", ["NoisyDescent has no network", "nearest valid: model=none"]),
        ("data=digits", ["NoisyDescent is about a problem of kind numerical", "these data make one of supervised"]),
        ("method=erm", ["ERM is about a problem of kind supervised", "ERM needs a network"]),
    ],
)
def test_what_does_not_fit_is_refused(lines, change, words):
    problems = "\n".join(map(str, explain([*lines, change])))
    assert all(word in problems for word in words), problems


@pytest.mark.parametrize(("method", "where"), [("step", "NoisyDescent, step 3: norm is nan"), ("tensor", "after")])
def test_what_diverges_has_failed(lines, tmp_path, monkeypatch, method, where):
    step = NoisyDescent.step

    def broken(self):
        step(self)
        if self.number == 3:
            self.x = self.x * float("nan")
        return {"norm": self.x.norm().item()} if method == "step" else {}

    monkeypatch.setattr(f"{SOURCE.stem}.NoisyDescent.step", broken)
    with pytest.raises(Diverged, match=where):
        run(lines, tmp_path / "a")
    assert not (tmp_path / "a" / "run" / "run.json").exists()
