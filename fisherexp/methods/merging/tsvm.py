"""TSVM: merge the leading singular directions of the experts' changes, made orthogonal to each other first.

For each matrix, with T experts and D_t = θ_t - θ_0:

    D_t ≈ U_t Σ_t V_tᵀ, of rank ⌊min(n, m) / T⌋;   U = [U_1 … U_T], V = [V_1 … V_T], Σ = diag(Σ_1, …, Σ_T)
    θ = θ_0 + α · polar(U) Σ polar(V)ᵀ,   polar(U) = P Qᵀ where U = P S Qᵀ

Gargiulo et al., CVPR 2025, arXiv 2412.00081. As in the authors' code, tensors of any other shape are averaged, so
convolutions are, too, unless kernels=matrix makes matrices of them (output channels × everything else).
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fisherexp.config.types import AtLeastOne, Positive
from fisherexp.methods.merging.merging import Merging, State, mean_of, moved, task_vectors


def polar(matrix: Tensor) -> Tensor:
    """The nearest matrix with orthonormal columns (or rows, where there are fewer of these)."""
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    return left @ right


def merged_matrix(deltas: Sequence[Tensor], rank: int) -> Tensor:
    """polar(U) Σ polar(V)ᵀ of matrices (n, m), each first cut to `rank`; computed in float64."""
    parts = [torch.linalg.svd(delta.double(), full_matrices=False) for delta in deltas]
    left = torch.cat([u[:, :rank] for u, _, _ in parts], 1)
    values = torch.cat([s[:rank] for _, s, _ in parts])
    right = torch.cat([vh[:rank] for _, _, vh in parts])
    return (polar(left) * values @ polar(right)).to(deltas[0].dtype)


def full_rank(shape: Sequence[int], models: int) -> int:
    """⌊min(n, m) / T⌋, at least 1."""
    return max(1, min(shape) // models)


def matrices(delta: State, kernels: str) -> dict[str, Tensor]:
    """Views (n, m) of the tensors that are merged as matrices."""
    wanted = {name: values for name, values in delta.items() if values.dim() == 2 or kernels == "matrix"}
    return {name: values.flatten(1) for name, values in wanted.items() if values.dim() >= 2}


def singular_merge(deltas: Sequence[State], kernels: str = "average") -> State:
    """The merged change by name: TSVM of matrices, the mean of everything else."""
    merged = mean_of(deltas)
    views = [matrices(delta, kernels) for delta in deltas]
    for name, first in views[0].items():
        matrix = merged_matrix([view[name] for view in views], full_rank(first.shape, len(deltas)))
        merged[name] = matrix.view_as(merged[name])
    return merged


class TSVM(Merging):
    """scales: α to choose from. kernels: 'average', or 'matrix' to merge convolutions like matrices."""

    counts_with = {"kernels": {"/model": "small_cnn"}}
    paper = "Gargiulo et al., CVPR 2025, arXiv 2412.00081"

    def __init__(
        self, scales: AtLeastOne[Positive], kernels: Literal["average", "matrix"] = "average", **options: Any
    ) -> None:
        super().__init__(**options)
        self.scales, self.kernels = scales, kernels

    def grid(self) -> list[dict[str, Any]]:
        return [{"scale": scale} for scale in self.scales]

    def merged(self, base: State, models: list[State], scale: float) -> State:
        return moved(base, self.change(task_vectors(base, models)), scale)

    def change(self, deltas: list[State]) -> State:
        """The merged change by name."""
        return singular_merge(deltas, self.kernels)
