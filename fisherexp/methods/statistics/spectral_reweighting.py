"""Spectral gradient reweighting: weights of vectors such that no direction keeps a large second moment.

With vectors g_n (N, P), a center c, x_n = g_n - c and η = 1 / 2K, K the squared diameter, two players move in turn:

    C ← C + Σ w_n x_n x_nᵀ,   ρ = exp(ηC) / tr exp(ηC)                      the direction that varies most
    ℓ_n = x_nᵀ ρ x_n,         w ← Π(w_n max(1 - η ℓ_n, 0))                  weights leave what lies far along it

Π is the projection, in relative entropy, onto {Σ w = 1, 0 ≤ w ≤ 1 / (1-ε)N}: an answer that a minority of a share ε
cannot hold. The mean of w over the inner steps gives the next center Σ w̄ g, from which the game begins anew.

Robust Moment-Based Estimation via Spectral Gradient Reweighting, 2026; re-derived, the authors' code was not copied.
As in theirs: c starts at the geometric median; the mean over inner steps has the starting weights in it and the last
update not; weights are kept above zero before the projection; it stops when two rounds in a row, the fifth or later,
moved weights (ℓ1) and center (relative) by at most 1e-4. Where their description is silent: a round starts from the
mean weights of the one before, and C from zero. Beyond `EXACT` vectors K is 4 max ‖g - mean‖², which bounds the squared
diameter. ε ≥ 1/3 is outside their theory; an ε that is too small is worse than one too large.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

EXACT = 2048  # vectors up to which all distances are measured, block by block
BLOCK = 256
AT_LEAST, IN_A_ROW, STILL = 5, 2, 1e-4
TINY = torch.finfo(torch.float64).tiny


class Reweighted(NamedTuple):
    """Where the game stands after a round. weights: w̄ (N,). center: (P,). rounds: so far. still: rounds in a row that
    moved next to nothing."""

    weights: Tensor
    center: Tensor
    rounds: int = 0
    still: int = 0

    @property
    def done(self) -> bool:
        """A further round would change next to nothing."""
        return self.still >= IN_A_ROW


def capped(weights: Tensor, cap: float) -> Tensor:
    """Projection of positive weights (N,) onto {Σ w = 1, w ≤ cap} in relative entropy: min(s · w, cap) for the right s.

    Raises ValueError for cap · N < 1, which nothing meets.
    """
    count = len(weights)
    if cap * count < 1 - 1e-12:
        raise ValueError(f"cap={cap:g}: {count} weights below it do not sum to one")
    ordered = weights.sort(descending=True).values
    below = ordered.flip(0).cumsum(0).flip(0)  # mass of this weight and all smaller ones
    scales = (1 - cap * torch.arange(count)) / below  # s, were as many weights as come before at the cap
    fits = (scales * ordered <= cap).nonzero()
    if not len(fits):
        return torch.full_like(weights, 1 / count)
    return (weights * scales[int(fits[0])]).clamp(max=cap)


def geometric_median(points: Tensor, rounds: int = 200, tolerance: float = 1e-12) -> Tensor:
    """argmin_c Σ ‖p_n - c‖ of points (N, P) by Weiszfeld's iteration; a sample within 1e-8 of it is the answer."""
    center = points.mean(0)
    for _ in range(rounds):
        distances = (points - center).norm(dim=1)
        if distances.min() < 1e-8:
            return points[int(distances.argmin())]
        moved = (points / distances[:, None]).sum(0) / distances.reciprocal().sum()
        step, center = (moved - center).norm(), moved
        if step <= tolerance * max(1.0, float(center.norm())):
            break
    return center


def squared_diameter(points: Tensor) -> float:
    """Of points (N, P); beyond EXACT of them a bound that is at most four times as large."""
    if len(points) > EXACT:
        return 4 * float((points - points.mean(0)).square().sum(1).max())
    return max(float(torch.cdist(block, points).max()) for block in points.split(BLOCK)) ** 2


def density(sums: Tensor) -> Tensor:
    """exp(S) / tr exp(S) of a symmetric S (P, P), however large its eigenvalues."""
    values, vectors = torch.linalg.eigh(sums)
    return (vectors * torch.softmax(values, 0)) @ vectors.T


def losses(offsets: Tensor, density: Tensor) -> Tensor:
    """x_nᵀ ρ x_n (N,) of x (N, P) and a density (P, P)."""
    return ((offsets @ density) * offsets).sum(1)


def played(offsets: Tensor, weights: Tensor, contamination: float, steps: int, scale: float) -> Tensor:
    """Mean weights (N,) over `steps` moves of the game on x (N, P). scale: K, at least max ‖x‖²."""
    eta, cap = 1 / (2 * scale), 1 / ((1 - contamination) * len(offsets))
    sums, total = offsets.new_zeros(offsets.shape[1], offsets.shape[1]), torch.zeros_like(weights)
    for _ in range(steps):
        total += weights
        sums += (offsets * weights[:, None]).T @ offsets
        loss = losses(offsets, density(eta * sums))
        weights = capped((weights * (1 - eta * loss).clamp(min=0)).clamp(min=TINY), cap)
    return total / steps


def beginning(vectors: Tensor) -> Reweighted:
    """Uniform weights about the geometric median."""
    return Reweighted(torch.full_like(vectors[:, 0], 1 / len(vectors)), geometric_median(vectors))


def reweighted_round(
    state: Reweighted, vectors: Tensor, contamination: float, steps: int, scale: float | None = None
) -> Reweighted:
    """One round: the game about the center, then the center moves. vectors: (N, P) float64. contamination: ε in [0, 1).

    scale: K, where it is known; measured otherwise.
    """
    offsets = vectors - state.center
    if scale is None:
        scale = max(squared_diameter(vectors), float(offsets.square().sum(1).max()))
    if scale == 0:  # all vectors are one
        return Reweighted(state.weights, state.center, AT_LEAST, IN_A_ROW)
    weights = played(offsets, state.weights, contamination, steps, scale)
    center = weights @ vectors
    moved = float((weights - state.weights).abs().sum())
    size = max(math.sqrt(scale), float(state.center.norm()), float(center.norm()))
    shift = float((center - state.center).norm()) / size
    rounds = state.rounds + 1
    still = state.still + 1 if rounds >= AT_LEAST and max(moved, shift) <= STILL else 0
    return Reweighted(weights, center, rounds, still)


def reweighted(
    vectors: Tensor, contamination: float, rounds: int = 10, steps: int = 50, start: Reweighted | None = None
) -> Reweighted:
    """Up to `rounds` rounds of `steps` moves each. start: weights and center, by default those of `beginning`."""
    state = beginning(vectors) if start is None else start._replace(rounds=0, still=0)
    scale = max(squared_diameter(vectors), float((vectors - state.center).square().sum(1).max()))
    while state.rounds < rounds and not state.done:
        state = reweighted_round(state, vectors, contamination, steps, scale)
    return state


def trimmed_mean(points: Tensor, share: float) -> Tensor:
    """Mean of each coordinate (P,) without the `share` smallest and the `share` largest of its N values."""
    cut = int(share * len(points))
    return points.sort(dim=0).values[cut : len(points) - cut].mean(0)
