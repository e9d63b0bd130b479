"""How well scores rank what each user likes."""

import torch
from torch import Tensor


def ndcg(users: Tensor, scores: Tensor, liked: Tensor, top: int = 5) -> float:
    """Mean over users of Σ liked / log₂(1 + place) of their `top` highest scores, as a share of the most there can be.

    users: int64 (n,); scores: (n,); liked: bool (n,). Users who like none of their items are left out; NaN where that
    is all of them. The earlier of equal scores comes first. (Järvelin, Kekäläinen, ACM TOIS 2002.)
    """
    found, most = (_gains(users, order, liked, top) for order in (scores, liked.to(scores.dtype)))
    there = most > 0
    return float((found[there] / most[there]).mean())


def _gains(users: Tensor, scores: Tensor, liked: Tensor, top: int) -> Tensor:
    """Discounted gain of each user (largest user + 1,)."""
    order = scores.argsort(descending=True, stable=True)
    order = order[users[order].argsort(stable=True)]
    counts = users.bincount()
    places = torch.arange(len(users), device=users.device) - (counts.cumsum(0) - counts)[users[order]]
    gains = liked[order] * (places < top) / (places + 2.0).log2()
    return users[order].bincount(gains, minlength=len(counts))
