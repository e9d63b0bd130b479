"""Three ways to ask a holdout set, as methods: as it is, through Thresholdout, and each question on a part of its own.

The experiment and its equations: reusable_holdout.py.
"""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from fisherexp.config.types import Size
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.methods.statistics.reusable_holdout import (
    SIZES,
    Mechanism,
    answered,
    filtered_correlations,
    share_of_holdout,
)
from fisherexp.problems.reusable_holdout import ReusableHoldout
from fisherexp.seeds import generator


class NaiveHoldout(IterativeMethod):
    """A step asks for the accuracy with the next number of variables. sizes: these numbers, growing.

    accuracies.png and .pdf show what train, holdout and fresh data say.
    """

    name = "naive_holdout"
    paper = "Dwork et al., Science 349 (2015), arXiv 1506.02629"
    problems = ("numerical",)
    requires = ("reusable_holdout",)
    mechanism: ClassVar[Mechanism] = "naive"
    # At k = 500 without signal, n = d = 10,000, mean and deviation over 100 repetitions; read at second hand.
    published = {"reusable_holdout": {"holdout_accuracy": (63.0, 0.4), "fresh_accuracy": (50.0,)}}

    problem: ReusableHoldout

    counts_with = {"sizes": {"sizes": [0, 10, 20]}}

    def __init__(self, sizes: list[Size] | None = None) -> None:
        super().__init__()
        self.sizes = list(SIZES) if sizes is None else sizes

    def begin(self, problem: ReusableHoldout, seed: int) -> None:
        super().begin(problem, seed)
        if not self.sizes:
            raise ValueError("method.sizes=[]: numbers of variables are expected, e.g. [0,10,100]")
        self.samples, self.generator = problem.samples, generator("holdout", seed)
        self.correlation = filtered_correlations(self.samples, self.mechanism, self.generator)
        self.rows: list[Tensor] = []

    @property
    def done(self) -> bool:
        return len(self.rows) == len(self.sizes)

    def step(self) -> dict[str, float]:
        number = len(self.rows)
        part = share_of_holdout(self.samples.holdout, self.mechanism, number, len(self.sizes))
        asked = self.samples, part, self.correlation, self.sizes[number], self.mechanism, self.generator
        self.rows.append(answered(*asked))
        named = zip(("train", "holdout", "fresh"), self.rows[-1].tolist(), strict=True)
        found = {"variables": self.sizes[number], **{name: 100 * share for name, share in named}}
        self.outcome = {"selected": int((self.correlation != 0).sum())}
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "correlation": self.correlation, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.correlation = state["rows"], state["correlation"]
        self.generator.set_state(state["generator"])
        self.outcome = {"selected": int((self.correlation != 0).sum())}

    def solution(self) -> Tensor:
        return torch.stack(self.rows)

    def tensors(self) -> dict[str, Tensor]:
        return {"accuracies": self.solution(), "sizes": torch.tensor(self.sizes)}

    def leave_files(self, folder: Path) -> None:
        from fisherexp.methods.statistics.holdout_figure import draw

        draw(self.sizes, self.solution(), folder / "accuracies")


class Thresholdout(NaiveHoldout):
    """The holdout answers only where it differs from the training set, and then with noise. Options: see
    NaiveHoldout."""

    name = "thresholdout"
    mechanism = "thresholdout"
    published = {"reusable_holdout": {"fresh_accuracy": (50.0,)}}


class SplitHoldout(NaiveHoldout):
    """Each accuracy is asked of a part of the holdout that is used once; the variables are chosen naively. Options: see
    NaiveHoldout."""

    name = "split_holdout"
    mechanism = "split"
    published = {}
