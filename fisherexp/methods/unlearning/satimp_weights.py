"""The weights of SatImp (Yang et al., ICML 2025, arXiv 2505.11953), one a token or coarser, and hard choices of tokens.

With ℓ_t the cross-entropy of token t of a sequence, p_t = exp(-ℓ_t), L = Σ_t ℓ_t, all weights without gradient:

    token     mean_t w_t ℓ_t,   w_t = p_t^β₁ (1 - p_t)^β₂
    group     the same, with each w_t replaced by the mean of its group: the weights of a sequence, sorted from large to
              small, are cut into groups of `group_size`, the last one shorter
    batch     mean_t w_t · mean_t ℓ_t
    instance  mean_i w_i L_i over sequences,   w_i = P_i^β₁ (1 - P_i)^β₂,   P_i = exp(-L_i)

and with a hard choice tokens that are not kept have the weight 0 and still count in the mean (the authors' code has the
sum, a constant factor). P_i of a long sequence is about zero: its weight then needs a small β₁.
"""

from typing import Literal

import torch
from torch import Tensor

from fisherexp.methods.unlearning.sequence_losses import token_losses
from fisherexp.objectives.token_prediction import IGNORED, wide

Granularity = Literal["token", "group", "batch", "instance"]
Kept = Literal["all", "largest", "smallest", "random"]


def satimp_weights(logits: Tensor, labels: Tensor, saturation: float, importance: float) -> Tensor:
    """p^saturation (1 - p)^importance of each token, without gradient: logits (N, V), labels (N,) -> (N,).

    log(1 - p) is the log-sum-exp over the other tokens. 1 - p itself is zero in single precision for the surest
    tokens, which would then never move.
    """
    log_probabilities = logits.detach().log_softmax(1)
    own = log_probabilities.gather(1, labels[:, None]).squeeze(1)
    others = log_probabilities.scatter(1, labels[:, None], -torch.inf).logsumexp(1)
    return (saturation * own + importance * others).exp()


def sequence_weights(losses: Tensor, saturation: float, importance: float) -> Tensor:
    """P^saturation (1 - P)^importance, P = exp(-L), without gradient: losses L (B,) -> (B,)."""
    losses = losses.detach()
    return (-saturation * losses).exp() * (-torch.expm1(-losses)) ** importance


def grouped(weights: Tensor, size: int) -> Tensor:
    """Weights (n,) of one sequence, each replaced by the mean of its group in descending order."""
    order = weights.argsort(descending=True, stable=True)
    means = [group.mean().expand(len(group)) for group in weights[order].split(size)]
    return torch.empty_like(weights).scatter(0, order, torch.cat(means))


def kept_tokens(losses: Tensor, kept: Kept, share: float) -> Tensor:
    """Mask (n,) of the tokens of one sequence, by their losses (n,): those strictly above the (1 - share) quantile,
    strictly below the `share` quantile, or round(share · n) at random."""
    losses = losses.detach()
    if kept == "largest":
        return losses > losses.quantile(1 - share)
    if kept == "smallest":
        return losses < losses.quantile(share)
    mask = torch.zeros_like(losses, dtype=torch.bool)
    mask[torch.randperm(len(losses))[: round(share * len(losses))]] = True
    return mask


def weighted_loss(
    logits: Tensor,
    targets: Tensor,
    saturation: float,
    importance: float,
    *,
    granularity: Granularity = "token",
    group_size: int = 8,
    kept: Kept = "all",
    share: float = 0.5,
) -> Tensor:
    """The mean above, a scalar to be ascended: logits (B, T, V) or (B, C), targets (B, T) or (B,)."""
    losses, mask = token_losses(logits, targets), targets.view(len(targets), -1) != IGNORED
    rows = [losses[i, row] for i, row in enumerate(mask)]
    rows = [row for row in rows if len(row)]
    if kept != "all":
        rows = [row * kept_tokens(row, kept, share) for row in rows]
    if granularity == "instance":
        sums = torch.stack([row.sum() for row in rows])
        return (sequence_weights(sums, saturation, importance) * sums).mean()
    weights = satimp_weights(wide(logits[targets != IGNORED]), targets[targets != IGNORED], saturation, importance)
    each = torch.cat(rows)
    if granularity == "group":
        weights = torch.cat([grouped(of_row, group_size) for of_row in weights.split([len(row) for row in rows])])
    if granularity == "batch":
        weights = weights.mean()
    return (weights * each).mean()
