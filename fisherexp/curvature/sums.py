"""Where squared gradients are summed: a tensor of zeros for each parameter, laid out as its rule forms them."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from .rules.base import accumulation_dtype


def zero_sums(parameters: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Sums of each parameter's shape, and what to check for infinity: all vectors (they lie in one tensor of each
    dtype), or everything where there are none.
    """
    groups: dict[tuple, list[str]] = defaultdict(list)
    for n, p in parameters.items():
        groups[accumulation_dtype(p.dtype), p.device].append(n)
    sums, flat = {}, []
    for (dtype, device), names in groups.items():
        vectors = {n: parameters[n] for n in names if parameters[n].dim() <= 1}
        flat.append(torch.zeros(sum(p.numel() for p in vectors.values()), dtype=dtype, device=device))
        parts = flat[-1].split([p.numel() for p in vectors.values()])
        sums |= {n: part.view(p.shape) for (n, p), part in zip(vectors.items(), parts, strict=True)}
    for n, p in parameters.items():
        if n not in sums:
            sums[n] = _zeros_like(p, accumulation_dtype(p.dtype))
    checked = [f for f in flat if len(f)]
    return {n: sums[n] for n in parameters}, checked or list(sums.values())


def _zeros_like(p: Tensor, dtype: torch.dtype) -> Tensor:
    """Sums of convolution weights are kept as their rule forms them: channels last.

    On a CPU they take memory as they are written, in the backward pass, when the activations of the forward pass go.
    """
    order = (0, 2, 3, 1) if p.dim() == 4 else range(p.dim())
    shape = [p.shape[d] for d in order]
    if p.device.type == "cpu":
        sums = torch.from_numpy(np.zeros(shape, "float64" if dtype == torch.float64 else "float32"))
    else:
        sums = torch.zeros(shape, dtype=dtype, device=p.device)
    return sums.permute(0, 3, 1, 2) if p.dim() == 4 else sums
