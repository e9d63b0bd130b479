"""Samples of Gaussians, some of them replaced by a far cluster of outliers: instances of robust estimation.

After the experiments of spectral gradient reweighting (see methods/statistics/spectral_reweighting.py): variances
exp(-linspace(0, 2)), outliers of covariance 0.1 I at a distance of 8 along the axis of least variance, where they
harm most and stand out least from the total spread.
"""

from typing import NamedTuple

import torch
from torch import Tensor

SPREAD = 6.0  # of the centers of further Gaussians from the first, root mean square
OUTLIER_VARIANCE = 0.1


class Contaminated(NamedTuple):
    """samples: (n, d). component: int64 (n,), which Gaussian drew a sample; -1 for outliers.

    weights: (K,), means: (K, d), covariances: (K, d, d) of the Gaussians.
    """

    samples: Tensor
    component: Tensor
    weights: Tensor
    means: Tensor
    covariances: Tensor


def contaminated(
    n: int,
    d: int,
    contamination: float,
    distance: float,
    components: int,
    rank: int,
    noise: float,
    draw: torch.Generator,
) -> Contaminated:
    """round(contamination · n) outliers, the other samples from Gaussians of equal weight, all of them float64.

    The first Gaussian lies at the origin. Each covariance has `rank` variances exp(-linspace(0, 2)) on axes of its own
    (those of the coordinates for one component), and noise² on every axis.
    """
    outliers = round(contamination * n)
    normal = {"generator": draw, "dtype": torch.float64}
    axes = [torch.eye(d, dtype=torch.float64)[:, :rank]]
    axes += [torch.linalg.qr(torch.randn(d, rank, **normal)).Q for _ in range(components - 1)]
    scale = torch.exp(-torch.linspace(0, 2, rank, dtype=torch.float64)).sqrt()
    factors = torch.stack(axes) * scale
    covariances = factors @ factors.mT + noise**2 * torch.eye(d, dtype=torch.float64)
    means = SPREAD * torch.randn(components, d, **normal) / d**0.5
    means[0] = 0
    component = torch.arange(n) % components
    component[n - outliers :] = -1
    samples = means[component] + noise * torch.randn(n, d, **normal)
    samples += torch.einsum("nir,nr->ni", factors[component], torch.randn(n, rank, **normal))
    # Along the axis on which the inliers vary least.
    values, vectors = torch.linalg.eigh(covariances.mean(0))
    center = means.mean(0) + distance * vectors[:, int(values.argmin())]
    far = torch.randn(outliers, d, **normal) * OUTLIER_VARIANCE**0.5
    samples[n - outliers :] = center + far
    return Contaminated(
        samples, component, torch.full((components,), 1 / components, dtype=torch.float64), means, covariances
    )
