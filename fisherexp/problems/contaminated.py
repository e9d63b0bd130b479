"""How far an estimate from contaminated samples is from the Gaussians behind them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fisherexp.config.types import Count, Minority, NonNegative
from fisherexp.data.contaminated import Contaminated, contaminated
from fisherexp.data.errors import DataError
from fisherexp.problems.numerical import Numerical
from fisherexp.seeds import generator


class Estimate(NamedTuple):
    """weights: (K,), means: (K, d), covariances: (K, d, d), None where a method estimates none.

    sample_weights: (n,) of sum one, how much of each sample it used; None where it weighs none.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor | None = None
    sample_weights: Tensor | None = None


class ContaminatedGaussians(Numerical):
    """`n` samples in `d` dimensions, drawn from the run's seed; see data/contaminated.py for the options.

    rank: None for d. A solution is an Estimate. Metrics:
    - mean_error: distance of its overall mean from the true one; oracle_error: that of the mean of all inliers.
    - center_error: root mean squared distance of its components' means, each matched with one of the truth;
      covariance_error: Frobenius distance of all covariances, as a share of their norm. For as many components only.
    - outlier_mass: share of its sample weights that lies on outliers.
    """

    provides = ("contaminated_samples",)
    headings = {
        "mean_error": "mean\nerror",
        "oracle_error": "oracle\nerror",
        "center_error": "centers\nerror",
        "covariance_error": "covariance\nerror",
        "outlier_mass": "outlier\nmass",
    }
    better = {"mean_error": "lower", "center_error": "lower", "covariance_error": "lower", "outlier_mass": "lower"}

    def __init__(
        self,
        n: Count = 600,
        d: Count = 10,
        contamination: Minority = 0.1,
        distance: NonNegative = 8.0,
        components: Count = 1,
        rank: Count | None = None,
        noise: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        self.n, self.d, self.contamination, self.distance = n, d, contamination, distance
        self.components, self.rank, self.noise = components, d if rank is None else rank, noise

    def read(self, seed: int) -> Mapping[str, Tensor]:
        if self.rank > self.d:
            raise DataError(f"data.rank={self.rank}: at most data.d={self.d} is expected")
        inliers = self.n - round(self.contamination * self.n)
        if inliers < 2 * self.components:
            raise DataError(f"data.n={self.n} leaves {inliers} inliers for data.components={self.components}")
        shape = (self.n, self.d, self.contamination, self.distance, self.components, self.rank, self.noise)
        return contaminated(*shape, generator("contaminated", seed))._asdict()

    @property
    def drawn(self) -> Contaminated:
        """The samples and what they were drawn from, once loaded."""
        return Contaminated(**self.instance)

    def evaluate(self, solution: Estimate) -> dict[str, float]:
        drawn = self.drawn
        inliers = drawn.component >= 0
        truth = drawn.weights @ drawn.means
        found = {
            "mean_error": float((solution.weights @ solution.means - truth).norm()),
            "oracle_error": float((drawn.samples[inliers].mean(0) - truth).norm()),
        }
        if solution.covariances is not None and len(solution.means) == len(drawn.means):
            found |= self._components(solution, drawn)
        if solution.sample_weights is not None:
            found["outlier_mass"] = float(solution.sample_weights[~inliers].sum())
        return found

    @staticmethod
    def _components(solution: Estimate, drawn: Contaminated) -> dict[str, float]:
        order = linear_sum_assignment(torch.cdist(drawn.means, solution.means).square().numpy())[1]
        centers = (solution.means[order] - drawn.means).square().sum(1).mean().sqrt()
        covariances = (solution.covariances[order] - drawn.covariances).norm() / drawn.covariances.norm()
        return {"center_error": float(centers), "covariance_error": float(covariances)}

    def about(self) -> dict[str, Any]:
        return {"n": self.n, "d": self.d, "contamination": self.contamination, "components": self.components}
