"""Terms of AlignGuard-LoRA, arXiv 2508.02079: what splits an update in two, and what the parts are charged.

Equations: continual_learning/alignguard_lora.py, which trains task after task, and finetuning/alignguard.py, which
begins from a source.
"""

import torch
from torch import Tensor


def term_weights(lambda_: float, lambda_t: float, lambda_nc: float, mix: float) -> dict[str, float]:
    """Term -> its weight: λ_A, λ_T, and λ_NC shared out by a."""
    return {"alignment": lambda_, "task": lambda_t, "overlap": lambda_nc * mix, "coherence": lambda_nc * (1 - mix)}


def top_eigenvectors(matrix: Tensor, share: float) -> Tensor:
    """U (d, m) of a symmetric matrix (d, d), m = the share of d, at least one."""
    count = max(1, round(share * len(matrix)))
    return torch.linalg.eigh(matrix.double()).eigenvectors[:, -count:].to(matrix.dtype)


def largest_entries(values: Tensor, share: float) -> Tensor:
    """Mask of the largest `share` of the entries, at least one."""
    count = max(1, round(share * values.numel()))
    mask = torch.zeros(values.numel(), dtype=torch.bool, device=values.device)
    mask[values.flatten().topk(count).indices] = True
    return mask.view_as(values)


def overlap(aligned: Tensor, rest: Tensor, weight: Tensor, beta: float, tau: float) -> Tensor:
    """E_rm of three matrices of one shape."""
    return ((1 + beta * torch.sigmoid(weight.abs() - tau)) * (aligned * rest).abs()).sum()


def coherence(aligned: Tensor, rest: Tensor, epsilon: float = 1e-12) -> Tensor:
    """E_geo: the squared cosine between two matrices, in [0, 1]."""
    return (aligned * rest).sum().square() / (aligned.square().sum() * rest.square().sum() + epsilon)
