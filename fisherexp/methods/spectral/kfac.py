"""The Kronecker-factored Fisher (KFAC) of a trained model, as a study: how each layer's block B ⊗ A is spread.

    F_l ≈ B_l ⊗ A_l,   λ(F_l) = products of the eigenvalues of A_l and B_l

Martens & Grosse, ICML 2015, arXiv 1503.05671; weights shared over positions: Eschenhagen et al. 2023, arXiv 2311.00636.
They draw one label from the model for each sample; labels='expected' is the mean over draws. The result is an artefact
that other methods find (`needs = ("kfac",)`).
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from fisherexp.curvature import KFAC
from fisherexp.methods.needs import Curvature
from fisherexp.methods.spectral.study import Study
from fisherexp.methods.structured import KroneckerFactors


def spread(fisher: KFAC) -> dict[str, dict[str, float]]:
    """Of each block, by weight name: trace, largest eigenvalue, and effective rank (Σλ)² / Σλ² (0 for a zero block)."""
    found = {}
    for name, f in fisher.factors.items():
        a, b = f.a.double(), f.b.double()
        trace = f.diagonal().sum(dtype=torch.float64).item()
        squares = (a.square().sum((-2, -1)) * b.square().sum((-2, -1))).sum().item()  # over groups of channels too
        largest = (torch.linalg.eigvalsh(a)[..., -1] * torch.linalg.eigvalsh(b)[..., -1]).max().item()
        rank = trace**2 / squares if squares else 0.0
        found[name] = {"trace": trace, "largest_eigenvalue": largest, "effective_rank": rank}
    return found


class KroneckerFisher(Study):
    """`given["kfac"]` is what it is about."""

    name = "kfac"
    paper = "Martens & Grosse, ICML 2015, arXiv 1503.05671; Eschenhagen et al., NeurIPS 2023, arXiv 2311.00636"
    needs = (Curvature("kfac", "factors"),)

    def __init__(self, model: nn.Module, factors: KroneckerFactors) -> None:
        super().__init__(model)
        self.factors = factors

    def leave_files(self, folder: Path) -> None:
        """kfac.safetensors; the spread of each block and the parameters that have none go into the outcome."""
        fisher: KFAC = self.given["kfac"]
        fisher.save(folder / "kfac.safetensors")
        layers = spread(fisher)
        trace = sum(layer["trace"] for layer in layers.values())
        self.outcome: dict[str, Any] = {"trace": trace, "layers": layers, "skipped": list(fisher.skipped)}
