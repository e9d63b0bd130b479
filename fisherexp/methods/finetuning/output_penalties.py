"""Penalties of a classifier's outputs for a batch: near a teacher's, diverse, with a spectrum that is concentrated.

Those of BA-LoRA, Chang et al., arXiv 2408.04556; usable beside any adapter. Logits Z and the teacher's Z⁰ (B, C), of a
language model those of B tokens.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def normalized_distance(logits: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference, over all entries, of rows of length 1."""
    return F.mse_loss(F.normalize(logits, dim=-1), F.normalize(teacher, dim=-1))


def divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    """Mean over samples of KL(softmax Z⁰ ‖ softmax Z)."""
    wanted, given = F.log_softmax(teacher, dim=-1), F.log_softmax(logits, dim=-1)
    return (wanted.exp() * (wanted - given)).sum(-1).mean()


def correlated(logits: Tensor) -> Tensor:
    """Σ_{i ≠ j} Cov(Z)_ij² / C, the covariance over the batch with B - 1; zero for a batch of one."""
    centred = logits - logits.mean(dim=0)
    covariance = centred.T @ centred / max(1, len(logits) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / logits.shape[1]


def negative_entropy(logits: Tensor) -> Tensor:
    """Mean over samples of Σ_c p_c log p_c."""
    given = F.log_softmax(logits, dim=-1)
    return (given.exp() * given).sum(-1).mean()


def spread(logits: Tensor, leading: int) -> Tensor:
    """- Σ_{i ≤ k} σ_i / Σ σ_i of Z's singular values, between -1 (rank k) and 0."""
    values = torch.linalg.svdvals(logits)
    return -values[:leading].sum() / (values.sum() + 1e-10)
