"""The diagonal Fisher of a trained model, as a study: its trace by layer and how it is spread.

    F_j = E_{(x, y)} [ (∂ log p(y | x) / ∂θ_j)² ]

With labels='expected' this is the Fisher (Amari, Neural Computation 1998); with labels='empirical' the quantity
Kunstner et al. (NeurIPS 2019, arXiv 1905.12558) warn of confusing with it. The estimator is `importance`; the result
is an artefact that other methods find.
"""

from pathlib import Path

import torch
from torch import nn

from fisherexp.curvature import FisherDiagonal
from fisherexp.methods.importance import Importance
from fisherexp.methods.needs import Curvature
from fisherexp.methods.spectral.study import Study

QUANTILES = (0.5, 0.9, 0.99, 0.999)


def trace_by_layer(fisher: FisherDiagonal) -> dict[str, float]:
    """Share of the trace in each parameter tensor, by name; sums to 1 (all 0 where the Fisher vanishes)."""
    mass = {name: values.double().sum().item() for name, values in fisher.items()}
    total = sum(mass.values())
    return {name: value / total if total else 0.0 for name, value in mass.items()}


def spectrum(fisher: FisherDiagonal) -> torch.Tensor:
    """All entries in falling order, float64, shape (number of parameters,): the spectrum of the diagonal matrix."""
    return torch.cat([values.double().flatten() for values in fisher.values()]).sort(descending=True).values


class Fisher(Study):
    """`given["fisher"]` is what it is about."""

    paper = "Amari, Neural Computation 1998; Kunstner et al., NeurIPS 2019, arXiv 1905.12558"
    needs = (Curvature("fisher", "importance"),)

    def __init__(self, model: nn.Module, importance: Importance) -> None:
        super().__init__(model)
        self.importance = importance

    def leave_files(self, folder: Path) -> None:
        """fisher.safetensors, fisher.png, fisher.pdf; the figures behind them go into the outcome."""
        fisher: FisherDiagonal = self.given["fisher"]
        fisher.save(folder / "fisher.safetensors")
        entries = spectrum(fisher)
        total = entries.sum()
        self.outcome = {
            "trace": fisher.trace().item(),
            "trace_by_layer": trace_by_layer(fisher),
            "zero_share": (entries == 0).double().mean().item(),
            # How many of the largest entries carry this share of the mass, as a share of all.
            "share_of_entries_with_half_the_trace": ((entries.cumsum(0) < total / 2).double().mean().item()),
            "quantiles": dict(zip(map(str, QUANTILES), _quantiles(entries), strict=True)),
        }
        draw(fisher, folder / "fisher")


def _quantiles(falling: torch.Tensor) -> list[float]:
    return [falling[round((1 - q) * (len(falling) - 1))].item() for q in QUANTILES]


def draw(fisher: FisherDiagonal, stem: Path) -> None:
    """Two panels, as `stem`.png and `stem`.pdf: share of the trace by tensor, and the sorted entries."""
    from fisherexp.figures import BLUE, ORANGE, canvas, save_both

    shares, entries = trace_by_layer(fisher), spectrum(fisher)
    height = max(3.6, 0.22 * len(shares))
    figure, (bars, curve) = canvas(1, 2, (11, height))
    bars.barh(list(shares), [100 * share for share in shares.values()], color=BLUE)
    bars.invert_yaxis()
    bars.set_xlabel("share of the trace (%)")
    bars.tick_params(axis="y", labelsize=7)
    positive = entries[entries > 0]
    curve.loglog(torch.arange(1, len(positive) + 1), positive, color=ORANGE)
    curve.set_xlabel("rank of the entry")
    curve.set_ylabel("entry of the diagonal (nats²)")
    zeros = len(entries) - len(positive)
    curve.set_title(f"{len(entries):,} entries, {zeros:,} of them zero", fontsize=9)
    estimator = fisher.estimator
    figure.suptitle(f"{estimator.gradients}, {estimator.labels} labels, n = {fisher.count:g}", fontsize=10)
    save_both(figure, stem)
