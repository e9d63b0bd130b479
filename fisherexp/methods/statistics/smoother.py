"""What smoothers of tables share: outcomes as numbers, a curve of effective parameters and errors, one step at a time.

    effective parameters on inputs I:  (n / |I|) Σ_{x in I} ‖s(x)‖²,   predictions S y

Curth, Jeffares, van der Schaar, arXiv 2402.01502; the smoothers themselves are in forest_smoothers.py.
"""

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fisherexp.data.tensors import TensorSet
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.methods.statistics.forest_smoothers import EnsembleMetrics
from fisherexp.problems.supervised import Supervised


class Smoother(IterativeMethod):
    """A step reveals the next size of an ensemble, or of a neighborhood: how it smooths and errs.

    A subclass fits at the beginning (`fit`), says how many steps there are (`sizes`) and what each finds (`curves`).
    What is fitted follows from the data and the run's seed, so that a saved state holds the curve alone.

    Outcomes are numbers: those of a regression as they are, two classes as -½ and ½ (as in the paper), more of them as
    ones in a row of zeros. Metrics, after the last step: effective parameters and mean squared error on training and
    test inputs, and the generalization gap, test error less training error. The evaluation of the problem comes beside
    them; of classes it is that of probabilities cut off at 1 / 2n from below, n the number of training samples.
    smoothing.png and .pdf show both over the steps.
    """

    problems = ("supervised",)
    scenarios = ("plain",)
    requires = ("floats",)
    size: str = "trees"
    headings = {
        "train_parameters": "train\nparameters",
        "test_parameters": "test\nparameters",
        "generalization_gap": "MSE gap,\ntest - train",
    }
    better = {"generalization_gap": "lower"}

    problem: Supervised

    @property
    @abstractmethod
    def sizes(self) -> int:
        """How many steps there are."""

    @abstractmethod
    def fit(self, inputs: np.ndarray, outcomes: np.ndarray, seed: int) -> Any:
        """What `predict` of inputs (m, d) gives outcomes (m,) or (m, k). Raises ValueError for outcomes it cannot."""

    @abstractmethod
    def curves(self, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> Iterator[Any]:
        """EnsembleMetrics of each size, from inputs and outcomes of both parts."""

    def begin(self, problem: Supervised, seed: int) -> None:
        super().begin(problem, seed)
        parts = problem.setting.parts
        self.classes = problem.data.num_classes if "class_labels" in problem.data.provides else None
        train, test = (
            (parts[name].inputs.flatten(1).double().numpy(), outcomes(parts[name], self.classes))
            for name in ("train", "test")
        )
        self.count = len(train[0])
        self.fitted = self.fit(*train, seed)
        self.remaining = self.curves(train, test)
        self.curve: list[dict[str, float]] = []

    @property
    def done(self) -> bool:
        return len(self.curve) >= self.sizes

    def step(self) -> dict[str, float]:
        found: EnsembleMetrics = next(self.remaining)
        self.curve.append(found._asdict() | {"generalization_gap": found.test_error - found.train_error})
        self.outcome = {"curve": self.curve}
        return dict(self.curve[-1])

    def state_dict(self) -> dict[str, Any]:
        return {"curve": self.curve}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for _ in state["curve"]:
            self.step()

    def solution(self) -> Any:
        """A function from inputs (B, …) to the outputs that the objective evaluates."""

        def outputs(inputs: Tensor) -> Tensor:
            predicted = torch.from_numpy(self.fitted.predict(inputs.flatten(1).double().numpy()))
            if self.classes is None:
                return predicted.float().view(len(inputs), -1)
            if predicted.ndim == 1:
                predicted = torch.stack([0.5 - predicted, 0.5 + predicted], dim=1)
            return predicted.clamp(min=1 / (2 * self.count)).log().float()

        return outputs

    def metrics(self) -> dict[str, float]:
        return {name: value for name, value in self.curve[-1].items() if name != "trees"}

    def leave_files(self, folder: Path) -> None:
        from fisherexp.methods.statistics.smoothing_figure import draw

        draw(self.curve, self.size, folder / "smoothing")


def outcomes(samples: TensorSet, classes: int | None) -> np.ndarray:
    """Targets as float64 (n,) or (n, k): numbers, -½ and ½ for two classes, one-hot rows for more."""
    targets = samples.targets
    if classes is None:
        return targets.double().squeeze(1).numpy()
    if classes == 2:
        return targets.double().numpy() - 0.5
    return torch.nn.functional.one_hot(targets, classes).double().numpy()
