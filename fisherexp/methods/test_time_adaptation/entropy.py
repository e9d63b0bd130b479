"""Entropy of predictions and its gradient, in closed form."""

import torch
from torch import Tensor


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities (B, C), in at least 32 bits."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(1)


def entropy(log_p: Tensor) -> Tensor:
    """H_i (B,), in nats, of log-probabilities (B, C)."""
    return -(log_p.exp() * log_p).sum(1)


def entropy_gradient(log_p: Tensor, weights: Tensor) -> Tensor:
    """∂ Σ_i w_i H_i / ∂z = -w_i p_i (log p_i + H_i), shape (B, C), for log-probabilities of logits z and constant
    weights (B,)."""
    return -weights[:, None] * log_p.exp() * (log_p + entropy(log_p)[:, None])
