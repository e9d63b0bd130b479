"""Moments of a mixture of Gaussians, compared with those of samples without a moment tensor being formed.

    M_l = Σ_k π_k E[y^⊗l],  y ~ N(μ_k, Σ_k),  Σ_k = V_k V_kᵀ + σ² I
    F(θ) = Σ_l λ_l ( ⟨M_l, M_l⟩ - 2 Σ_n w_n ⟨M_l, x_n^⊗l⟩ )  =  Σ_l λ_l ‖M_l - Σ_n w_n x_n^⊗l‖² + constant

for orders l = 1 … 4, each inner product in closed form: (xᵀy)^l of a Gaussian y has the moments of a number, and so has
(yᵀy')^l given y; what is left are Gaussian moments of linear and quadratic forms of y (Isserlis).
"""

from typing import NamedTuple

import torch
from torch import Tensor

ORDERS = 4


class Mixture(NamedTuple):
    """logits: (K,) of the weights π. means: (K, d). factors: V (K, d, r)."""

    logits: Tensor
    means: Tensor
    factors: Tensor


def number_moments(mean: Tensor, variance: Tensor) -> list[Tensor]:
    """E z, …, E z⁴ of a Gaussian number z."""
    squared = mean * mean
    return [
        mean,
        squared + variance,
        mean * (squared + 3 * variance),
        squared * (squared + 6 * variance) + 3 * variance * variance,
    ]


def sample_products(mixture: Mixture, samples: Tensor, noise: float) -> Tensor:
    """⟨M_l, x^⊗l⟩ of samples (…, d): (…, 4)."""
    mean = samples @ mixture.means.T
    projected = torch.einsum("...d,kdr->...kr", samples, mixture.factors)
    variance = projected.square().sum(-1) + noise**2 * samples.square().sum(-1, keepdim=True)
    weights = mixture.logits.softmax(0)
    return torch.stack([moment @ weights for moment in number_moments(mean, variance)], dim=-1)


def own_products(mixture: Mixture, noise: float) -> Tensor:
    """⟨M_l, M_l⟩: (4,)."""
    means, dimension = mixture.means, mixture.means.shape[1]
    sigma = mixture.factors @ mixture.factors.mT + noise**2 * torch.eye(dimension, dtype=means.dtype)
    left, right = means[:, None, :], means[None, :, :]  # i of y, j of y'
    inner = (left * right).sum(-1)
    applied = torch.einsum("jab,ib->ija", sigma, means)  # Σ_j μ_i
    turned = applied.transpose(0, 1)  # Σ_i μ_j
    spread = (right * turned).sum(-1)  # variance of a = yᵀμ_j
    product = torch.einsum("iab,jbc->ijac", sigma, sigma)
    # b = yᵀΣ_j y: its mean, covariances with a and a², variance
    b = product.diagonal(dim1=2, dim2=3).sum(-1) + (left * applied).sum(-1)
    with_a = 2 * (turned * applied).sum(-1)
    both = torch.einsum("jab,ijb->ija", sigma, turned)  # Σ_j Σ_i μ_j
    of_square = 2 * (turned * both).sum(-1)
    moved = torch.einsum("iab,ijb->ija", sigma, applied)  # Σ_i Σ_j μ_i
    variance = 2 * torch.einsum("ijac,ijca->ij", product, product) + 4 * (applied * moved).sum(-1)
    first, second, third, fourth = number_moments(inner, spread)
    third = third + 3 * (inner * b + with_a)
    second_b = second * b + 2 * inner * with_a + of_square
    fourth = fourth + 6 * second_b + 3 * (b * b + variance)
    weights = mixture.logits.softmax(0)
    return torch.stack([weights @ pairs @ weights for pairs in (first, second + b, third, fourth)])


def misfit(mixture: Mixture, samples: Tensor, noise: float, order_weights: Tensor, sample_weights: Tensor) -> Tensor:
    """F(θ). samples: (N, d), sample_weights: (N,) of sum one, order_weights: λ (L,) of orders 1 … L ≤ 4."""
    orders = len(order_weights)
    with_samples = sample_weights @ sample_products(mixture, samples, noise)
    return order_weights @ (own_products(mixture, noise) - 2 * with_samples)[:orders]


def misfit_gradients(mixture: Mixture, samples: Tensor, noise: float, order_weights: Tensor) -> Tensor:
    """∇F of each sample by itself: (N, P), P the number of parameters; their weighted sum is that of F."""

    def of_one(sample: Tensor, *parameters: Tensor) -> Tensor:
        one = sample.new_ones(1)
        return misfit(Mixture(*parameters), sample[None], noise, order_weights, one)

    gradients = torch.func.grad(of_one, argnums=(1, 2, 3))
    found = torch.func.vmap(gradients, in_dims=(0, None, None, None))(samples, *mixture)
    return torch.cat([part.flatten(1) for part in found], dim=1)


def inverse_variances(mixture: Mixture, samples: Tensor, noise: float, sample_weights: Tensor, orders: int) -> Tensor:
    """λ (orders,) of sum one: 1 / Σ_n w_n ‖x_n^⊗l - M_l‖², so that no order drowns the others."""
    powers = samples.square().sum(1, keepdim=True) ** torch.arange(1, ORDERS + 1)
    squared = sample_weights @ (powers - 2 * sample_products(mixture, samples, noise))
    weights = (squared + own_products(mixture, noise))[:orders].reciprocal()
    return weights / weights.sum()
