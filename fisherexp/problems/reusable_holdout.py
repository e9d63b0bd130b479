"""Variables chosen with the help of a holdout that then judges the classifier: is what it reports true?"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fisherexp.config.types import Count
from fisherexp.data.biased_gaussians import HoldoutInstance, Sample, holdout_instance
from fisherexp.problems.numerical import Numerical
from fisherexp.seeds import generator

PUBLISHED_SIZE = 10_000


class ReusableHoldout(Numerical):
    """Training, holdout and fresh samples of `n` points and `d` variables each, drawn from the run's seed.

    signal: twenty variables lean towards the label; without, nothing predicts it and the truth is 50 %.

    A solution is a tensor (K, 3) of accuracies in [0, 1] on train, as the holdout reports it and on fresh data, for
    growing numbers of variables. Metrics in %: the three in the last row, and holdout_bias, by how much the reports
    exceed the truth on average over the rows.
    """

    provides = ("reusable_holdout",)
    headings = {
        "train_accuracy": "train\nacc. %",
        "holdout_accuracy": "holdout\nreports %",
        "fresh_accuracy": "fresh\nacc. %",
        "holdout_bias": "mean\nbias %",
    }
    better = {"fresh_accuracy": "higher"}

    def __init__(self, n: Count = 2000, d: Count = 2000, signal: bool = False) -> None:
        super().__init__()
        self.n, self.d, self.signal = n, d, signal

    @property
    def altered(self) -> bool:
        return (self.n, self.d, self.signal) != (PUBLISHED_SIZE, PUBLISHED_SIZE, False)

    def read(self, seed: int) -> Mapping[str, Tensor]:
        parts = holdout_instance(self.n, self.d, self.signal, generator("reusable_holdout", seed))._asdict()
        tensors = {name: part._asdict() for name, part in parts.items()}
        return {f"{name}.{kind}": tensor for name, found in tensors.items() for kind, tensor in found.items()}

    @property
    def samples(self) -> HoldoutInstance:
        """The three samples, once loaded."""
        named = self.instance
        parts = (Sample(named[f"{name}.inputs"], named[f"{name}.labels"]) for name in HoldoutInstance._fields)
        return HoldoutInstance(*parts)

    def evaluate(self, solution: Tensor) -> dict[str, float]:
        train, holdout, fresh = (100 * solution[-1]).tolist()
        bias = 100 * float((solution[:, 1] - solution[:, 2]).mean())
        found = {"train_accuracy": train, "holdout_accuracy": holdout, "fresh_accuracy": fresh}
        return found | {"holdout_bias": bias}

    def about(self) -> dict[str, Any]:
        return {"n": self.n, "d": self.d, "signal": self.signal}
