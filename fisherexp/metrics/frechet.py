"""Fréchet distance of two sets of samples, in whatever feature space the caller names.

    ‖m - m'‖² + tr(C + C' - 2 (C C')^{1/2})

Dowson, Landau, J. Multivariate Analysis 1982, for Gaussians; on Inception features it is the FID of Heusel et al.,
NeurIPS 2017, arXiv 1706.08500. On other features it is no FID: say which they are, and compare only within one space.
Computed from symmetric square roots, where the usual code takes a general one that can turn out complex.
"""

import torch
from torch import Tensor


def frechet_distance(features: Tensor, others: Tensor) -> float:
    """Of features (n, d) and (m, d), of which the Gaussians' means and covariances (with n - 1) are taken; float64.

    It is the squared distance, as usual. Few samples make it larger: compare at equal numbers. Raises ValueError for
    shapes that do not fit and for less than two samples.
    """
    if features.ndim != 2 or others.ndim != 2 or features.shape[1] != others.shape[1]:
        raise ValueError(f"features must be (n, d) and (m, d), got {tuple(features.shape)} and {tuple(others.shape)}")
    if min(len(features), len(others)) < 2:
        raise ValueError("a covariance needs at least two samples")
    features, others = features.double(), others.double()
    return frechet_of_gaussians(features.mean(0), features.mT.cov(), others.mean(0), others.mT.cov())


def frechet_of_gaussians(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> float:
    """Of N(m, C) and N(m', C'); means (d,), covariances (d, d), singular ones too."""
    covariance, other_covariance = torch.atleast_2d(covariance), torch.atleast_2d(other_covariance)
    # tr (C C')^{1/2} is the sum of the singular values of C^{1/2} C'^{1/2}: exact for singular covariances too.
    crossed = torch.linalg.svdvals(_root(covariance) @ _root(other_covariance)).sum()
    traces = covariance.trace() + other_covariance.trace()
    return ((mean - other_mean).square().sum() + traces - 2 * crossed).item()


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.mT
