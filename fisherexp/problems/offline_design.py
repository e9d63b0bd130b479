"""Designs with their values, of which only the worse are known: find better ones without asking for another value."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from fisherexp.config.types import Count, Probability
from fisherexp.problems.numerical import Numerical
from fisherexp.seeds import generator


def negative_styblinski_tang(designs: Tensor) -> Tensor:
    """-½ Σ_j (x_j⁴ - 16 x_j² + 5 x_j) of rows (n, d): (n, 1). At most 39.166 d, where every x_j is -2.9035."""
    return -(designs**4 - 16 * designs**2 + 5 * designs).sum(1, keepdim=True) / 2


def negative_ackley(designs: Tensor) -> Tensor:
    """20 exp(-0.2 √mean x²) + exp(mean cos 2πx) - 20 - e of rows (n, d): (n, 1). At most 0, at the origin."""
    distance = designs.square().mean(1, keepdim=True).sqrt()
    waves = (2 * torch.pi * designs).cos().mean(1, keepdim=True)
    return 20 * (-0.2 * distance).exp() + waves.exp() - 20 - torch.e


FUNCTIONS = {"styblinski_tang": negative_styblinski_tang, "ackley": negative_ackley}
BOX = 4.0


class OfflineDesign(Numerical):
    """`n` designs drawn uniformly from [-4, 4]^dim by the run's seed, of which the share `keep` with the lowest values
    is known. function: what is to be maximized; it falls steeply outside the box, or is flat there.

    A solution is a tensor of designs (N, dim). Metrics: best, percentile_80 and median of their true values; outside,
    the share of their coordinates that left the box, in %.
    """

    provides = ("offline_designs",)
    headings = {
        "best": "best",
        "percentile_80": "80th\npercentile",
        "median": "median",
        "outside": "outside\nthe box %",
    }
    better = {"best": "higher", "percentile_80": "higher", "median": "higher"}

    def __init__(
        self,
        function: Literal["styblinski_tang", "ackley"] = "styblinski_tang",
        dim: Count = 8,
        n: Count = 2500,
        keep: Probability = 0.6,
    ) -> None:
        super().__init__()
        self.function, self.dim, self.n, self.keep = function, dim, n, keep

    def read(self, seed: int) -> Mapping[str, Tensor]:
        draws = torch.rand(self.n, self.dim, generator=generator("offline_design", seed))
        designs = BOX * (2 * draws - 1)
        values = FUNCTIONS[self.function](designs)
        known = values[:, 0].argsort()[: max(2, round(self.keep * self.n))]
        return {"designs": designs[known], "values": values[known]}

    def evaluate(self, solution: Tensor) -> dict[str, float]:
        values = FUNCTIONS[self.function](solution.double())
        found = {"best": values.max(), "percentile_80": values.quantile(0.8), "median": values.quantile(0.5)}
        found["outside"] = 100 * (solution.abs() > BOX).double().mean()
        return {name: float(value) for name, value in found.items()}

    def about(self) -> dict[str, Any]:
        best = float(self.instance["values"].max())
        return {"function": self.function, "dim": self.dim, "designs": len(self.instance["designs"]), "best": best}
