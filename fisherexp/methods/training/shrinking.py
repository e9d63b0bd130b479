"""Fewer classes for a sample to be sure of the likeliest one (Yang et al., ICCV 2023, arXiv 2308.06777)."""

import torch
from torch import Tensor


def shrunk(probabilities: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """(mask (B,) of samples that are to be shrunk, mask (B, C) of the classes they keep) for probabilities (B, C).

    Of a sample whose likeliest class is below the threshold, the runners-up go, as few as it takes for the likeliest
    class to have at least the threshold among what is left: p₁ / (p₁ + Σ_{j > k} p_j) ≥ τ with ranks 2 … k gone. One at
    least goes and one other class stays; a sample for which that is not enough is not in the mask.
    """
    ordered, order = probabilities.sort(1, descending=True)
    top = ordered[:, :1]
    rest = ordered.flip(1).cumsum(1).flip(1)  # of the class at each rank and all behind
    enough = top / (top + rest) >= threshold
    enough[:, :2] = False
    chosen = enough.any(1) & (top[:, 0] < threshold)
    ranks = torch.arange(probabilities.shape[1], device=probabilities.device)
    kept = (ranks >= enough.int().argmax(1, keepdim=True)) | (ranks == 0)
    return chosen, torch.zeros_like(kept).scatter(1, order, kept)


def shrunk_losses(probabilities: Tensor, logits: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """max p · cross-entropy of logits (B, C) with the likeliest class, among the classes that are kept, (B,); 0 for
    samples that are not shrunk. And the mask (B,) of those that are."""
    chosen, kept = shrunk(probabilities, threshold)
    confidence, classes = probabilities.max(1)
    own = logits.gather(1, classes[:, None])[:, 0]
    losses = logits.masked_fill(~kept, -torch.inf).logsumexp(1) - own
    return torch.where(chosen, confidence * losses, 0), chosen
