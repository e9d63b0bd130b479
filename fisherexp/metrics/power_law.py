"""The exponent of a power-law tail, p(λ) ∝ λ^-α for λ ≥ λ_min, by named estimators.

Of the n values that are not below λ_min, as Hill (Annals of Statistics 1975) and Clauset, Shalizi, Newman (SIAM Review
2009, arXiv 0706.1062) have it:

    α = 1 + n / Σ_i ln(λ_i / λ_min)

The estimators differ in λ_min, and their α differ, often by more than 1 on one spectrum: an α says little without the
name of its estimator and n.

    hill   the ⌈share · N⌉ largest of N values are the tail; share = 1/2 is FARMS' median rule
    ks     the value at which tail and power law are nearest, by the Kolmogorov-Smirnov distance (Clauset et al.)
    peak   the same among values from 0.95 to 1.5 times the peak of the histogram of ln λ in 100 bins

ks: the packages powerlaw and weightwatcher compare the steps of the tail's distribution on their lower side only and
may choose another λ_min; powerlaw 2 wants α ≤ 3 by default; weightwatcher 0.7.7 has another rule below 20 values.
peak: FARMS' code (Hu et al., ICML 2025, arXiv 2506.06280) compares log10(0.95 peak) with the values themselves, which
is hardly a bound; this is the rule as it was meant.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Estimator = Literal["hill", "ks", "peak"]
BINS = 100
NEAR_PEAK = (0.95, 1.5)
NUMBERS_AT_ONCE = 2**18  # of what a batch of fits compares: what fits into a processor's cache


class Fit(NamedTuple):
    """Each of shape (…): α, λ_min, n, and the Kolmogorov-Smirnov distance of the tail from its power law."""

    alpha: Tensor
    x_min: Tensor
    tail: Tensor
    distance: Tensor


def fit(values: Tensor, estimator: Estimator = "hill", share: float = 0.5) -> Fit:
    """Of positive values (…, N), in float64. share: of hill.

    α is infinite where the tail is one value only. Raises ValueError for values that are not positive, or fewer than
    two.
    """
    if values.shape[-1] < 2 or not bool((values > 0).all()):
        raise ValueError(f"a power law is fitted to two or more positive values, got {values.shape[-1]}")
    logs = values.double().log().sort().values
    count = logs.shape[-1]
    if estimator == "hill":
        start = torch.full(logs.shape[:-1], count - max(2, math.ceil(share * count - 1e-9)), device=logs.device)
        return _from(logs, start[..., None], _distances(logs, start[..., None]))
    flat = logs.flatten(0, -2) if logs.ndim > 1 else logs[None]
    parts = [_nearest(part, estimator) for part in flat.split(max(1, NUMBERS_AT_ONCE // count**2))]
    return Fit(*(torch.cat(part).view(logs.shape[:-1]) for part in zip(*parts, strict=True)))


def interval(
    values: Tensor,
    estimator: Estimator = "hill",
    share: float = 0.5,
    resamples: int = 200,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> tuple[float, float]:
    """Between which α lies, by the percentile bootstrap: fits of so many samples of N out of N values (N,).

    λ_min is found anew in each. The values are taken as independent. Eigenvalues of one matrix are not: they keep apart
    from each other, and their α varies less from matrix to matrix than this says.
    """
    drawn = torch.randint(len(values), (resamples, len(values)), generator=generator)
    alphas = _hill(values.cpu(), drawn, share) if estimator == "hill" else fit(values.cpu()[drawn], estimator).alpha
    low, high = alphas.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2]).double())
    return float(low), float(high)


def survival(values: Tensor) -> tuple[Tensor, Tensor]:
    """Rising values (N,) and the share of them that is not smaller, (N,): what is drawn of a spectrum."""
    rising = values.sort().values
    return rising, torch.arange(len(values), 0, -1, dtype=torch.float64) / len(values)


def _hill(values: Tensor, drawn: Tensor, share: float) -> Tensor:
    """α (B,) by hill of values (N,) at `drawn` (B, N), by how often each is drawn: no resample is sorted."""
    logs, order = values.double().log().sort(descending=True)
    times = torch.zeros_like(drawn).scatter_add_(1, order.argsort()[drawn], torch.ones_like(drawn))
    tail = max(2, math.ceil(share * len(values) - 1e-9))
    taken = times.cumsum(1).clamp(max=tail)
    x_min = logs[(taken < tail).sum(1)]
    taken = torch.diff(taken, dim=1, prepend=taken.new_zeros(len(taken), 1))
    return 1 + tail / (taken.double() @ logs - tail * x_min).clamp(min=0)


def _nearest(logs: Tensor, estimator: Estimator) -> Fit:
    """Of rising logs (B, N): the fit at the start with the least distance, some starts at a time if N is large."""
    starts = torch.arange(logs.shape[-1] - 1, device=logs.device).expand(len(logs), -1)
    at_once = max(1, NUMBERS_AT_ONCE // logs.numel())
    distances = torch.cat([_distances(logs, some) for some in starts.split(at_once, dim=1)], 1)
    repeated = torch.zeros_like(starts, dtype=torch.bool)
    repeated[:, 1:] = logs[:, 1:-1] == logs[:, :-2]  # a tail has all values that equal its λ_min
    flat = logs[:, :-1] == logs[:, -1:]
    allowed = ~repeated & ~flat
    if estimator == "peak":
        peak = _peak(logs)[:, None]
        low, high = (peak + math.log(factor) for factor in NEAR_PEAK)
        near = allowed & (logs[:, :-1] >= low) & (logs[:, :-1] <= high)
        allowed = torch.where(near.any(1, keepdim=True), near, allowed)
    best = distances.masked_fill(~allowed, math.inf).argmin(1, keepdim=True)
    return _from(logs, best, distances.gather(1, best))


def _peak(logs: Tensor) -> Tensor:
    """Lower edge of the fullest of BINS bins, (B,)."""
    low, high = logs[:, :1], logs[:, -1:]
    width = ((high - low) / BINS).clamp(min=torch.finfo(logs.dtype).tiny)
    bins = ((logs - low) / width).long().clamp(max=BINS - 1)
    counts = torch.zeros(len(logs), BINS, dtype=torch.int64, device=logs.device)
    fullest = counts.scatter_add_(1, bins, torch.ones_like(bins)).argmax(1)
    return low[:, 0] + fullest * width[:, 0]


def _from(logs: Tensor, start: Tensor, distance: Tensor) -> Fit:
    """The fit whose tail begins at place `start` (…, 1) of rising logarithms (…, N)."""
    alpha, n = _alphas(logs, start)
    return Fit(alpha[..., 0], logs.gather(-1, start)[..., 0].exp(), n[..., 0], distance[..., 0])


def _alphas(logs: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """α and n of tails that begin at `starts` (…, S)."""
    sums = logs.flip(-1).cumsum(-1).flip(-1)
    n = logs.shape[-1] - starts
    excess = sums.gather(-1, starts) - n * logs.gather(-1, starts)
    return 1 + n / excess.clamp(min=0), n


def _distances(logs: Tensor, starts: Tensor) -> Tensor:
    """Kolmogorov-Smirnov distances of tails from their power laws, (…, S): steps of the tail's distribution are
    compared on both sides."""
    alphas, n = _alphas(logs, starts)
    places = torch.arange(logs.shape[-1], dtype=logs.dtype, device=logs.device)
    fitted = logs[..., None, :] - logs.gather(-1, starts)[..., None]  # (…, S, N), negative before λ_min
    fitted = fitted.clamp_(min=0).mul_(1 - alphas[..., None]).expm1_().neg_()
    gap = ((places - starts[..., None]) / n[..., None]).sub_(fitted)  # what the tail's distribution has more, before
    step = 1 / n[..., None]
    return torch.maximum(gap + step, -gap).masked_fill_(places < starts[..., None], 0).amax(-1)
