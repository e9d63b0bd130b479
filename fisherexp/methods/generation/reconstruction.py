"""What auto-encoders learn: their residual is the score of the data, and the score is enough to draw more.

    denoising:    min E ‖r(x + σξ) - x‖²              r*(x) = x + σ² ∇log p_σ(x), exactly, p_σ = p ∗ N(0, σ² I)
    contractive:  min E [‖r(x) - x‖² + σ² ‖∂r/∂x‖²]    r*(x) = x + σ² ∇log p(x) + o(σ²)
    score:        ŝ(x) = (r(x) - x) / σ²
    matching:     min E ‖σ ŝ(x + σξ) + ξ‖²            ŝ*(x) = ∇log p_σ(x), of a network that is the score itself
    sampling:     log p(x') - log p(x) ≈ ½ (ŝ(x) + ŝ(x'))ᵀ (x' - x) in Metropolis' rule, with a symmetric proposal

Alain, Bengio: What Regularized Auto-Encoders Learn from the Data-Generating Distribution, JMLR 15 (2014), arXiv
1211.4246. The contraction is that of the whole reconstruction r: contracting an encoder alone (Rifai et al., ICML 2011)
has another minimum. Denoising score matching: Vincent, Neural Computation 2011.
Points are (n, d), r maps them to (n, d), σ is in their units.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]


def denoising_loss(reconstruct: Map, points: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Mean over the points of ‖r(x + σξ) - x‖², one ξ each."""
    drawn = torch.randn(points.shape, dtype=points.dtype, generator=generator)
    return (reconstruct(points + noise * drawn) - points).square().sum(1).mean()


def contractive_loss(reconstruct: Map, points: Tensor, noise: float) -> Tensor:
    """Mean over the points of ‖r(x) - x‖² + σ² ‖∂r/∂x‖², the Jacobian exact: a backward pass for each dimension."""
    points = points.detach().requires_grad_()
    outputs = reconstruct(points)
    rows = [torch.autograd.grad(part.sum(), points, create_graph=True)[0] for part in outputs.unbind(1)]
    squared = sum(row.square().sum(1) for row in rows)
    return ((outputs - points).square().sum(1) + noise**2 * squared).mean()


def encoder_contractive_loss(encode: Map, decode: Map, points: Tensor, noise: float) -> Tensor:
    """Mean over the points of ‖r(x) - x‖² + σ² ‖∂h/∂x‖² with r = decode ∘ encode and h = encode: (n, d) -> (n, k)."""
    points = points.detach().requires_grad_()
    codes = encode(points)
    # A product with the Jacobian is the gradient of one with its transpose: two passes for each dimension of a point.
    pull = torch.zeros_like(codes, requires_grad=True)
    (pulled,) = torch.autograd.grad(codes, points, pull, create_graph=True)
    directions = torch.eye(points.shape[1], dtype=points.dtype).unbind()
    columns = [torch.autograd.grad(pulled, pull, way.expand_as(points), create_graph=True)[0] for way in directions]
    squared = sum(column.square().sum(1) for column in columns)
    return ((decode(codes) - points).square().sum(1) + noise**2 * squared).mean()


def score_matching_loss(score: Map, points: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Mean over the points of ‖σ ŝ(x + σξ) + ξ‖², one ξ each."""
    drawn = torch.randn(points.shape, dtype=points.dtype, generator=generator)
    return (noise * score(points + noise * drawn) + drawn).square().sum(1).mean()


def residual_score(reconstruct: Map, points: Tensor, noise: float) -> Tensor:
    """ŝ at the points: (n, d)."""
    return (reconstruct(points) - points) / noise**2


def metropolis(score: Map, start: Tensor, steps: int, proposal: float, generator: torch.Generator) -> Tensor:
    """Where chains from `start` (n, d) are after `steps` proposals N(x, proposal² I) each: (n, d)."""
    points, here = start, score(start)
    for _ in range(steps):
        moves = proposal * torch.randn(points.shape, dtype=points.dtype, generator=generator)
        there = score(points + moves)
        rise = ((here + there) * moves).sum(1, keepdim=True) / 2
        accepted = torch.rand(rise.shape, dtype=points.dtype, generator=generator).log() < rise
        points, here = torch.where(accepted, points + moves, points), torch.where(accepted, there, here)
    return points
