"""Losses of sequences: a language model's logits (B, T, V) with next tokens (B, T), of which -100 does not count.

A sample with a class, logits (B, C) and classes (B,), is a sequence of one token.
"""

from torch import Tensor
from torch.nn import functional as F

from fisherexp.objectives.token_prediction import IGNORED, wide


def counted(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(logits (N, V), targets (N,)) of the N tokens that count, all sequences together."""
    kept = targets != IGNORED
    return wide(logits[kept]), targets[kept]


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each token, (B, T); 0 where none counts. Of samples with a class (B, 1)."""
    options = {"reduction": "none", "ignore_index": IGNORED}
    each = F.cross_entropy(wide(logits).flatten(0, -2), targets.flatten(), **options)
    return each.view(len(targets), -1)


def sequence_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """L_i, the sum over the tokens of each sequence, (B,)."""
    return token_losses(logits, targets).sum(1)


def lengths(targets: Tensor) -> Tensor:
    """n_i, how many tokens of each sequence count, (B,)."""
    return (targets.view(len(targets), -1) != IGNORED).sum(1)
