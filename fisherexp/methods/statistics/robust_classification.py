"""Logistic regression by gradient steps that a minority of wrong samples cannot steer: what aggregates the gradients.

    W ← W - lr Σ_n w_n g_n,    g_n = (softmax(W x_n) - e_y) x_nᵀ,    w of spectral reweighting, or 1/n

Robust Moment-Based Estimation via Spectral Gradient Reweighting, 2026, proposes it as an aggregator of any gradients;
equations: spectral_reweighting.py. This use of it is ours: no figures are published. Gradients are reweighted anew
every few steps, beginning with the weights and the center of the time before. To compare with: the mean, medians and a
trimmed mean of the gradients.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fisherexp.config.types import Count, Minority, Positive
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.methods.memory import announce
from fisherexp.methods.statistics.robust_mean import plain_estimate
from fisherexp.methods.statistics.spectral_reweighting import Reweighted, beginning, reweighted
from fisherexp.problems.contaminated_classes import ContaminatedDigits, LinearClassifier

MOST_PARAMETERS = 400  # the game needs the eigenvectors of a matrix of this size, some thousand times


def logistic_gradients(weights: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
    """Of the cross-entropy of each sample: (n, classes · d). weights (classes, d), inputs (n, d), labels (n,)."""
    errors = (inputs @ weights.T).softmax(1)
    errors[torch.arange(len(labels)), labels] -= 1
    return (errors[:, :, None] * inputs[:, None]).flatten(1)


class RobustClassification(IterativeMethod):
    """A step of gradient descent, from zero, on all samples.

    estimator: what the step follows. contamination: the share ε of outliers to withstand (reweighting, and from either
    end of a coordinate: trimmed_mean). steps, lr: of the descent. reweight_every: steps with the same weights; rounds,
    inner_steps: of a reweighting. training.png and .pdf show the accuracy by step, and how much of each sample is used.
    """

    name = "robust_classification"
    paper = "Robust Moment-Based Estimation via Spectral Gradient Reweighting, 2026"
    problems = ("numerical",)
    requires = ("contaminated_classes",)
    named_by = "estimator"

    problem: ContaminatedDigits

    def __init__(
        self,
        estimator: Literal["sgr", "mean", "coordinate_median", "geometric_median", "trimmed_mean"] = "sgr",
        contamination: Minority = 0.2,
        steps: Count = 100,
        lr: Positive = 0.5,
        reweight_every: Count = 25,
        rounds: Count = 8,
        inner_steps: Count = 200,
    ) -> None:
        super().__init__()
        self.estimator, self.contamination, self.steps, self.lr = estimator, contamination, steps, lr
        self.reweight_every, self.rounds, self.inner_steps = reweight_every, rounds, inner_steps

    def begin(self, problem: ContaminatedDigits, seed: int) -> None:
        super().begin(problem, seed)
        self.inputs, self.labels = problem.instance["inputs"], problem.instance["labels"]
        count, size = self.inputs.shape
        self.parameters = self.inputs.new_zeros(problem.digits, size)
        if self.estimator == "sgr" and self.parameters.numel() > MOST_PARAMETERS:
            what = f"{problem.digits} classes in data.dimension={size - 1} have {self.parameters.numel()} parameters"
            raise ValueError(f"{what}; up to {MOST_PARAMETERS} can be reweighted")
        announce("gradients of samples", count, self.parameters.numel(), copies=4, advice="lower data.n")
        uniform = self.inputs.new_full((count,), 1 / count)
        self.state = Reweighted(uniform, self.parameters.flatten())
        self.curve: list[float] = []

    @property
    def done(self) -> bool:
        return len(self.curve) >= self.steps

    def step(self) -> dict[str, float]:
        rows = logistic_gradients(self.parameters, self.inputs, self.labels)
        self.parameters = self.parameters - self.lr * self._followed(rows).view_as(self.parameters)
        found = self.problem.evaluate(self.solution())
        self.curve.append(found["test_accuracy"])
        return found

    def _followed(self, rows: Tensor) -> Tensor:
        if self.estimator != "sgr":
            return plain_estimate(rows, self.estimator, self.contamination)
        if len(self.curve) % self.reweight_every == 0:
            begun = self.state if self.curve else beginning(rows)
            self.state = reweighted(rows, self.contamination, self.rounds, self.inner_steps, begun)
        return self.state.weights @ rows

    def state_dict(self) -> dict[str, Any]:
        return {"parameters": self.parameters, "curve": self.curve, **self.state._asdict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.parameters, self.curve = state["parameters"], state["curve"]
        self.state = Reweighted(**{name: state[name] for name in Reweighted._fields})

    def solution(self) -> LinearClassifier:
        return LinearClassifier(self.parameters, self.state.weights if self.estimator == "sgr" else None)

    def tensors(self) -> dict[str, Tensor]:
        found = {"weights": self.parameters}
        return found | ({"sample_weights": self.state.weights} if self.estimator == "sgr" else {})

    def leave_files(self, folder: Path) -> None:
        from fisherexp.methods.statistics.reweighting_figure import draw_training

        draw_training(self.curve, self.state.weights, self.problem.instance["outlier"], folder / "training")
