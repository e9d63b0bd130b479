"""The transfer measure between two domains, restricted to heads near the present one.

    T_Γ(S || T) = sup_{h ∈ Γ} [ε_T(h) - ε_T(h_0)] - [ε_S(h) - ε_S(h_0)],      Γ = {h : ||h - h_0|| ≤ δ}

Zhang, Zhao, Yu, Poupart, NeurIPS 2021, arXiv 2106.03632, with the excess over the present head h_0 in place of the
excess over each domain's optimum. To second order around a head that is stationary in both domains,
T_Γ ≤ δ²/2 ||H_T - H_S||_2 (Hemati et al., ICCV 2023, arXiv 2308.11778).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

Samples = tuple[Tensor, Tensor]  # features (n, d), labels (n,)


def head_loss(weight: Tensor, samples: Samples) -> Tensor:
    """Mean cross-entropy of a head (C, d + 1), bias last; a head of one row is a sigmoid's."""
    features, labels = samples
    logits = features @ weight[:, :-1].T + weight[:, -1]
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0], labels.to(logits.dtype))
    return F.cross_entropy(logits, labels)


def transfer_measure(source: Samples, target: Samples, head: Tensor, delta: float, steps: int = 50) -> float:
    """The transfer measure found by projected gradient ascent from `head` (C, d + 1): a lower bound, at least 0.

    delta: radius of the ball. steps: of length shrinking from delta to delta / steps, along the normalized gradient.
    """
    head = head.detach()
    with torch.enable_grad():
        at_head = (head_loss(head, target) - head_loss(head, source)).detach()
        offset, best = torch.zeros_like(head), 0.0
        for step in range(steps + 1):
            offset.requires_grad_()
            excess = head_loss(head + offset, target) - head_loss(head + offset, source) - at_head
            best = max(best, excess.item())
            (slope,) = torch.autograd.grad(excess, offset)
            moved = offset.detach() + delta * (1 - step / (steps + 1)) * slope / slope.norm().clamp_min(1e-30)
            offset = moved * (delta / moved.norm().clamp_min(delta))
    return best
