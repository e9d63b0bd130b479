"""Channels: where features of mixtures of two different classes lie, as a function of λ.

Fisher, Meng, Papyan (ICLR 2024, arXiv 2402.06171) show that with mixup and cross-entropy they are not the convex
combinations of the two class means, but pushed outwards along the decision boundary.
"""

import torch
from torch import Tensor

from fisherexp.metrics.unconstrained_features import mixed_targets, optimal_probabilities

LAMBDAS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
# p_*: probability of the two classes, and the largest of any other; along_*: component of the centered feature along
# the unit rows of the centered head; across, along: standard deviation between samples of (along_first ∓
# along_second)/√2, the width and the length of the channel; outside: share of its squared length that lies outside
# the plane of the two rows; length: of the centered feature.
COLUMNS = (
    "p_first",
    "p_second",
    "p_other",
    "along_first",
    "along_second",
    "across",
    "along",
    "outside",
    "length",
)
KAPPAS = torch.logspace(-2, 4, 241, dtype=torch.float64)


def channel_row(features: Tensor, probabilities: Tensor, pairs: Tensor, weight: Tensor, center: Tensor) -> Tensor:
    """The COLUMNS for mixtures at one λ: float64, shape (9,).

    features (n, d), probabilities (n, C), pairs (n, 2) of classes, weight (C, d), center (d,) of the features.
    """
    features, weight = features.double() - center, weight.double()
    probabilities, samples = probabilities.double(), torch.arange(len(pairs), device=pairs.device)
    directions = unit_rows(weight)
    first, second = directions[pairs[:, 0]], directions[pairs[:, 1]]
    a, b = (features * first).sum(1), (features * second).sum(1)
    cosine = (first * second).sum(1)
    inside = (a**2 - 2 * cosine * a * b + b**2) / (1 - cosine**2)  # squared length of the projection on the plane
    others = probabilities.clone()
    others[samples[:, None], pairs] = -torch.inf
    return torch.stack(
        [
            probabilities[samples, pairs[:, 0]].mean(),
            probabilities[samples, pairs[:, 1]].mean(),
            others.amax(1).mean(),
            a.mean(),
            b.mean(),
            (a - b).std() / 2**0.5,
            (a + b).std() / 2**0.5,
            1 - inside.sum() / features.square().sum(),
            features.norm(dim=1).mean(),
        ]
    )


def unit_rows(weight: Tensor) -> Tensor:
    """The rows of W (C, d) minus their mean, scaled to length one."""
    centered = weight - weight.mean(0)
    return centered / centered.norm(dim=1, keepdim=True)


def outward(table: Tensor) -> float:
    """How far features at λ = ½ lie outside the chord between λ = 0 and λ = 1, as a share of the chord's value.

    table (len(LAMBDAS), 9). 0 for convex combinations, positive for channels that bulge outwards.
    """
    along = table[:, 3:5].mean(1)
    chord = (along[LAMBDAS.index(0.0)] + along[LAMBDAS.index(1.0)]) / 2
    return (along[LAMBDAS.index(0.5)] / chord - 1).item()


def fitted_cross_entropy(table: Tensor, classes: int, lam: Tensor) -> tuple[float, Tensor]:
    """(κ, curves (len(lam), 5)): the unconstrained-features optimum that is nearest to a measured table.

    κ fits the probabilities of the two classes, then one scale fits along_first and along_second, both by least
    squares. The curves are p_first, p_second, p_other, along_first, along_second at the given λ.
    """
    measured = table.double().cpu()
    at = mixed_targets(torch.tensor(LAMBDAS, dtype=torch.float64), classes)
    candidates = optimal_probabilities(at.expand(len(KAPPAS), *at.shape), KAPPAS[:, None, None])
    kappa = KAPPAS[(candidates[..., :2] - measured[:, :2]).square().sum((1, 2)).argmin()]
    # cos(w_c, w_c') = -1/(C-1) and Σ(y - p) = 0: Wᵀ(y - p) along a row is proportional to its own y_c - p_c.
    scale = _ratio(measured[:, 3:5], (at - optimal_probabilities(at, kappa))[:, :2])
    target = mixed_targets(lam, classes)
    p = optimal_probabilities(target, kappa)
    return kappa.item(), torch.cat([p[:, :2], p[:, 2:].amax(1, keepdim=True), scale * (target - p)[:, :2]], 1)


def fitted_squared_error(table: Tensor, classes: int, lam: Tensor) -> tuple[float, Tensor]:
    """(s, curves as above) under the squared error: outputs 1/C + s (y - 1/C), features along Wᵀ(y - 1/C)."""
    measured = table.double().cpu()
    at = mixed_targets(torch.tensor(LAMBDAS, dtype=torch.float64), classes)[:, :2] - 1 / classes
    shrinkage, scale = _ratio(measured[:, :2] - 1 / classes, at), _ratio(measured[:, 3:5], at)
    target = mixed_targets(lam, classes)[:, :3] - 1 / classes
    return shrinkage.item(), torch.cat([1 / classes + shrinkage * target, scale * target[:, :2]], 1)


def weights_of_rows(along: Tensor, classes: int) -> Tensor:
    """(α, β) of h = α w_first + β w_second, two unit rows of a simplex ETF, from the components of h along them (…, 2).

    Inverts their Gram matrix, whose entries are 1 and -1/(C-1); needs C > 2.
    """
    return (classes - 1) / classes * (along + along.sum(-1, keepdim=True) / (classes - 2))


def _ratio(measured: Tensor, unit: Tensor) -> Tensor:
    """The factor with which `unit` comes nearest to `measured` in least squares."""
    return (unit * measured).sum() / unit.square().sum()
