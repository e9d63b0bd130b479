"""Positions at both ends of a sample whose gradient is 0: padding, and all tokens but the one that a classifier reads.

They add nothing to Σ_t g_t x_tᵀ, so that a layer over positions need not multiply them.
"""

import torch
from torch import Tensor


def touched(g: Tensor) -> Tensor:
    """Whether the gradient (..., O) of a position has an entry other than 0; NaN is one."""
    return (g.amax(-1) != 0) | (g.amin(-1) != 0)


def spans(g: Tensor) -> list[tuple[int, int]] | None:
    """For each sample of g (N, T, O) the shortest (start, stop) outside which it is 0; (T, 0) if it is 0 everywhere.

    None where nothing is saved. Looked for on CPUs only, where no kernel waits for the answer, and everywhere only if
    an outermost position is 0.
    """
    length = g.shape[1]
    if g.device.type != "cpu" or length == 1 or bool(touched(g[:, :: length - 1]).all()):
        return None
    found, place = touched(g), torch.arange(length)
    starts, stops = place.where(found, length).amin(1), place.where(found, -1).amax(1) + 1
    return list(zip(starts.tolist(), stops.tolist(), strict=True))
