"""How well the singular vectors of two networks' layers point the same way."""

from collections.abc import Mapping

import torch
from torch import Tensor


def alignment(first: Mapping[str, Tensor], second: Mapping[str, Tensor], threshold: float) -> float:
    """R = Σ_layers Σ_ij (u_i·u'_j)(v_i·v'_j) / Σ_layers k, over the singular values that are at least `threshold` times
    the largest one of their matrix; k is the larger number of them in the two. 1 for equal networks.

    After Ito et al., ICLR 2025, arXiv 2402.04051, whose normalization may be another. Convolutions are matrices with a
    row for each output channel; tensors with fewer than two axes play no part.
    """
    total, count = 0.0, 0
    for name, one in first.items():
        if one.dim() < 2:
            continue
        left, right = (torch.linalg.svd(m.flatten(1).double(), full_matrices=False) for m in (one, second[name]))
        kept = [values >= threshold * values[0] for _, values, _ in (left, right)]
        outputs = left[0][:, kept[0]].T @ right[0][:, kept[1]]
        inputs = left[2][kept[0]] @ right[2][kept[1]].T
        total += (outputs * inputs).sum().item()
        count += max(int(mask.sum()) for mask in kept)
    return total / count
