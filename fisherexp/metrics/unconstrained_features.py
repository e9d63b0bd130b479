"""The unconstrained-features model of mixup: which feature would be best if the network could choose it freely.

With the head frozen at a simplex ETF of rows of length m (W Wᵀ = m² C/(C-1) (I - J/C), no bias), each mixture with
target y minimizes over its own feature h

    CE(W h, y) + (μ/2) ‖h‖².

Its stationary point is h = Wᵀ(y - p)/μ with p = softmax(W h), and since the entries of y - p sum to zero the logits
are κ (y - p), κ = m² C / ((C-1) μ). What is left is p = softmax(κ (y - p)): C scalar equations
log p_c + κ p_c = κ y_c + t with one common t, fixed by Σ p = 1. With ½ ‖W h - y‖² instead of the cross-entropy the
optimum is linear in y: features of mixtures are convex combinations. The model is that of Fisher, Meng, Papyan (ICLR
2024, arXiv 2402.06171), the solution in this form our own.
"""

import torch
from torch import Tensor

STEPS = 100  # of the bisection; an interval of length κ shrinks below the last bit of a float64
NEWTON = 40


def optimal_probabilities(target: Tensor, kappa: Tensor | float) -> Tensor:
    """p (…, C) with p = softmax(κ (target - p)), for targets (…, C) that sum to one. kappa broadcasts to (…, 1)."""
    target = target.double()
    kappa = torch.as_tensor(kappa, dtype=torch.float64, device=target.device).expand(*target.shape[:-1], 1)
    classes = target.shape[-1]
    uniform = kappa / classes - torch.as_tensor(float(classes), dtype=torch.float64).log()
    low = uniform - kappa * target.amax(-1, keepdim=True)  # no probability exceeds 1/C: the sum is at most one
    high = uniform - kappa * target.amin(-1, keepdim=True)
    for _ in range(STEPS):
        middle = (low + high) / 2
        too_much = _balanced(kappa * target + middle, kappa).sum(-1, keepdim=True) > 1
        low, high = torch.where(too_much, low, middle), torch.where(too_much, middle, high)
    return _balanced(kappa * target + (low + high) / 2, kappa)


def optimal_features(weight: Tensor, target: Tensor, decay: float) -> Tensor:
    """The best features h (…, d) for targets (…, C), a simplex-ETF head W (C, d) and decay μ > 0."""
    weight, target = weight.double(), target.double()
    return (target - optimal_probabilities(target, _eigenvalue(weight) / decay)) @ weight / decay


def optimal_features_squared_error(weight: Tensor, target: Tensor, decay: float) -> Tensor:
    """The same for ½ ‖W h - y‖²: h = Wᵀy / (a + μ), where a is the one eigenvalue of W Wᵀ that is not zero.

    A bias does not change it: the best one is 1/C, and Wᵀ takes every constant to zero.
    """
    weight = weight.double()
    return target.double() @ weight / (_eigenvalue(weight) + decay)


def mixed_targets(lam: Tensor, classes: int, first: int = 0, second: int = 1) -> Tensor:
    """Targets λ e_first + (1 - λ) e_second, shape (len(lam), classes), float64."""
    target = torch.zeros(len(lam), classes, dtype=torch.float64)
    target[:, first] += lam.double()
    target[:, second] += 1 - lam.double()
    return target


def _eigenvalue(weight: Tensor) -> Tensor:
    """m² C/(C-1), the eigenvalue of the Gram matrix of a simplex ETF of rows of length m."""
    return weight.square().sum(1).mean() * len(weight) / (len(weight) - 1)


def _balanced(level: Tensor, kappa: Tensor) -> Tensor:
    """The p > 0 with log p + κ p = level: Lambert's W(κ e^level) / κ.

    Newton's method on u = log(κ p), where u + e^u = level + log κ: convex and increasing, so that from the right
    of the root it falls onto it. No exponential is taken of anything larger than the root's logarithm allows.
    """
    level = level + kappa.log()
    log_product = torch.where(level > 1, level.clamp(min=1).log(), level)
    for _ in range(NEWTON):
        product = log_product.exp()
        log_product = log_product - (log_product + product - level) / (1 + product)
    return log_product.exp() / kappa
