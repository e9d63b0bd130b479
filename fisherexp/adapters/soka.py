"""SoKA: the leading Kronecker products of a weight, taken out of what is frozen and trained.

Chong and Qu, 2025, arXiv 2506.15251. With m = m1 m2, n = n1 n2 and R(W) (m1 n1, m2 n2), whose rows are W's blocks
(m2, n2), flattened: R(W) = Σ_k σ_k a_k b_kᵀ is W = Σ_k σ_k A_k ⊗ B_k (van Loan), the best sum of so many products, and

    W' = W + Σ_{k ≤ r} (A_k ⊗ B_k - A_k⁰ ⊗ B_k⁰),   A_k⁰ = √σ_k A_k, B_k⁰ = √σ_k B_k the trained ones' start

No code of the authors is known. What they decompose (W, or an estimate of the update) and how σ is shared are left open
in the text; here W, and evenly. The number of terms is the smaller of two: Σ_{k ≤ r} σ_k² ≥ energy · Σ σ_k², and the
elbow, the point of the falling σ that is farthest below the chord from the first to the last.
"""

import math

import torch
from torch import Tensor, nn

from fisherexp.adapters.adapter import Adapter
from fisherexp.adapters.svfit import rank_of_energy


def even_factors(size: int) -> tuple[int, int]:
    """(a, b) with a b = size and a ≤ b as near to each other as can be."""
    small = next(a for a in range(math.isqrt(size), 0, -1) if size % a == 0)
    return small, size // small


def rearranged(weight: Tensor, left: tuple[int, int]) -> Tensor:
    """R(W) (m1 n1, m2 n2) of W (m, n), left = (m1, n1): a row for each block."""
    rows, columns = left
    blocks = weight.unflatten(0, (rows, -1)).unflatten(2, (columns, -1))  # m1, m2, n1, n2
    return blocks.transpose(1, 2).flatten(2).flatten(0, 1)


def elbow(values: Tensor) -> int:
    """How many of falling values lie before the one that is farthest below the chord from first to last; at least 1."""
    if len(values) < 3:
        return 1
    places = torch.arange(len(values)).to(values) / (len(values) - 1)
    chord = values[0] + places * (values[-1] - values[0])
    return max(1, int((chord - values).argmax()))


def kronecker_sum(left: Tensor, right: Tensor) -> Tensor:
    """Σ_k A_k ⊗ B_k (m1 m2, n1 n2) for A (r, m1, n1) and B (r, m2, n2)."""
    return torch.einsum("kab,kcd->acbd", left, right).flatten(2).flatten(0, 1)


class SoKA(Adapter):
    """weight: W (m, n). terms: r; None for the smaller of the ranks by `energy` and by the elbow. m1 and n1 are the
    smaller and the larger of the most even factors of m and n, so that A_k and B_k are of like size.

    Trains r (m1 n1 + m2 n2) numbers. Raises ValueError for more terms than R(W) has rank.
    """

    def __init__(self, weight: Tensor, terms: int | None = None, energy: float = 0.9) -> None:
        super().__init__()
        (m1, m2), (n2, n1) = even_factors(weight.shape[0]), even_factors(weight.shape[1])
        u, s, vt = torch.linalg.svd(rearranged(weight.double(), (m1, n1)), full_matrices=False)
        if terms is None:
            terms = min(rank_of_energy(s, energy), elbow(s))
        if not 1 <= terms <= len(s):
            raise ValueError(f"terms={terms} is not within 1 … {len(s)} for a weight {tuple(weight.shape)}")
        roots = s[:terms].sqrt()
        left = (u[:, :terms] * roots).T.reshape(terms, m1, n1).to(weight)
        right = (roots[:, None] * vt[:terms]).reshape(terms, m2, n2).to(weight)
        for name, factor in (("left", left), ("right", right)):
            self.register_buffer(f"{name}_start", factor)
            setattr(self, name, nn.Parameter(factor.clone()))

    def weight(self, weight: Tensor) -> Tensor:
        moved = kronecker_sum(self.left, self.right) - kronecker_sum(self.left_start, self.right_start)
        return weight + moved
