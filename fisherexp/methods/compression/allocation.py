"""How much each layer is pruned, so that all together reach one sparsity.

    s_l = min(cap, c · r_l),    Σ_l n_l s_l = s Σ_l n_l

n_l: weights of layer l, r_l: how much it is to be pruned relative to the others. Lu et al., "AlphaPruning", NeurIPS
2024, arXiv 2410.10912, where c is that of no cap and what the cap cuts off is lost; here c makes up for it.
"""

import torch
from torch import Tensor


def sparsities(relative: Tensor, sizes: Tensor, target: float, cap: float = 0.998) -> Tensor:
    """s (L,), float64. relative: r (L,), positive; sizes: n (L,); target: s. Where the cap is below s it is s."""
    relative, sizes, cap = relative.double(), sizes.double(), max(cap, target)
    found, free = torch.full_like(relative, cap), torch.ones_like(relative, dtype=torch.bool)
    while free.any():
        left = target * sizes.sum() - cap * sizes[~free].sum()
        scaled = relative * (left / (relative * sizes)[free].sum()).clamp(min=0)
        over = free & (scaled > cap)
        if not over.any():
            return torch.where(free, scaled, found)
        free &= ~over
    return found


def counts(shares: Tensor, sizes: Tensor) -> Tensor:
    """Whole numbers (L,) near shares · sizes with the same sum: the largest remainders are rounded up."""
    exact = shares.double() * sizes
    whole = exact.floor().long()
    missing = round(float(exact.sum())) - int(whole.sum())
    whole[(exact - whole).argsort(descending=True, stable=True)[:missing]] += 1
    return whole
