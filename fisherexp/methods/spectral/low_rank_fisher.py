"""A low-rank Fisher of a trained model, as a study: the eigenvalues of m stored gradients.

    F = Gᵀ G / m,   G the gradients (m, d) of the mean loss of small batches

Frantar, Kurtic, Alistarh, NeurIPS 2021, arXiv 2107.03356. The m eigenvalues of Gᵀ G / m that need not be zero are those
of the Gram matrix G Gᵀ / m. Rows and Gram matrix are an artefact that other methods find (`needs = ("low_rank",)`).
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fisherexp.curvature import LowRankFisher
from fisherexp.files import write_atomically
from fisherexp.methods.needs import Curvature
from fisherexp.methods.spectral.study import Study
from fisherexp.methods.structured import GradientRows


def spectrum(fisher: LowRankFisher) -> Tensor:
    """The m largest eigenvalues of F, in falling order, float64."""
    return torch.linalg.eigvalsh(fisher.gram).flip(0).clamp(min=0) / fisher.divisor


class LowRankStudy(Study):
    """`given["low_rank"]` is what it is about."""

    name = "low_rank_fisher"
    paper = "Frantar et al., NeurIPS 2021, arXiv 2107.03356"
    needs = (Curvature("low_rank", "rows"),)

    def __init__(self, model: nn.Module, rows: GradientRows) -> None:
        super().__init__(model)
        self.rows = rows

    def leave_files(self, folder: Path) -> None:
        """low_rank.safetensors: eigenvalues (m,), diagonal (d,) of F, that of (F + λ I)⁻¹ as inverse_diagonal. The
        rows, m times the size of the model, stay in the store."""
        fisher: LowRankFisher = self.given["low_rank"]
        eigenvalues = spectrum(fisher)
        diagonals = {"diagonal": fisher.diagonal(), "inverse_diagonal": fisher.inverse_diagonal(self.rows.damping)}
        tensors = diagonals | {"eigenvalues": eigenvalues}
        write_atomically(folder / "low_rank.safetensors", lambda temporary: save_file(tensors, temporary))
        total, squares = eigenvalues.sum().item(), eigenvalues.square().sum().item()
        self.outcome = {
            "trace": total,
            "effective_rank": total**2 / squares if squares else 0.0,
            "eigenvalues": eigenvalues.tolist(),
        }
