"""Neural collapse of last-layer features: NC1 to NC4 in every published variant, from sums of one pass.

Features h_i (n, d), class means μ_c, their mean μ_G (every class counts alike), M rows μ_c - μ_G, classifier W (C, d)
and b. From Papyan, Han, Donoho (PNAS 2020, arXiv 2008.08186), where their notebook differs from the paper both are
given, and from Zhu et al. (NeurIPS 2021, arXiv 2105.02375):

    nc1                 Tr(Σ_W Σ_B⁺) / C, Σ_W within and Σ_B = MᵀM / C between classes; the notebook leaves out 1/C
    nc2_equinorm        std / mean of the lengths of the rows of M (_means) or W (_weights)
    nc2_equiangular     std of the cosines between different rows, divided by n - 1 as torch has it for all deviations
                        here; with _population by n, as numpy has it
    nc2_angle           mean |cos + 1/(C-1)|: the distance from the widest possible angle (the notebook's coherence)
    nc3                 ‖W/‖W‖ - M/‖M‖‖ in Frobenius norms; the notebook shows its square
    nc4                 share of points whose class by W and b is not that of the nearest class mean
    zhu_nc2, zhu_nc3    ‖A/‖A‖ - (I - J/C)/√(C-1)‖ for A = WWᵀ and A = WMᵀ;  zhu_bias ‖W μ_G + b‖
    _samples            with the mean of all samples for μ_G, as Zhu et al.'s code has it; for classes of equal size,
                        as in their paper, it is the same

All are zero for a collapsed network, zhu_nc3_samples and zhu_bias_samples only for classes of equal size. All but nc4
are made of the class means and sizes and the covariance within classes. Which class mean is nearest is known only after
a pass, so nc4 asks for a second look at the features.
"""

import torch
from torch import Tensor

BLOCK = 4096  # rows converted to float64 at a time: memory does not grow with the batch
NAMES = (
    "nc1",
    "nc1_notebook",
    "nc2_equinorm_means",
    "nc2_equinorm_weights",
    "nc2_equiangular_means",
    "nc2_equiangular_weights",
    "nc2_equiangular_means_population",
    "nc2_equiangular_weights_population",
    "nc2_angle_means",
    "nc2_angle_weights",
    "nc3",
    "nc3_notebook",
    "zhu_nc2",
    "zhu_nc3",
    "zhu_bias",
    "nc1_samples",
    "zhu_nc3_samples",
    "zhu_bias_samples",
)


class ClassMoments:
    """Class means and covariance within classes, streamed, in float64.

    num_classes: C. num_features: d. Memory is O(d² + C d), whatever the number of samples. Sums are of differences
    to the class means of the first batch, so that collapsed features far from the origin lose no digits.
    """

    def __init__(self, num_classes: int, num_features: int, device: torch.device | str | None = None) -> None:
        options = {"dtype": torch.float64, "device": device}
        self.count = torch.zeros(num_classes, **options)
        self.total = torch.zeros(num_classes, num_features, **options)
        self.scatter = torch.zeros(num_features, num_features, **options)
        self.origin: Tensor | None = None

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add features (B, d) with labels (B,)."""
        if self.origin is None:
            self.origin = self._first_means(features[:BLOCK].double(), labels[:BLOCK])
        for block, members in zip(features.detach().split(BLOCK), labels.split(BLOCK), strict=True):
            shifted = block.double() - self.origin[members]
            self.count += members.bincount(minlength=len(self.count))
            self.total.index_add_(0, members, shifted)
            self.scatter.addmm_(shifted.T, shifted)

    @property
    def means(self) -> Tensor:
        """μ_c, shape (C, d). Raises ValueError for a class without samples."""
        if self.origin is None or not self.count.all():
            missing = torch.nonzero(self.count == 0).flatten().tolist()
            raise ValueError(f"no samples of class {', '.join(map(str, missing))}: it has no mean")
        return self.origin + self.total / self.count[:, None]

    @property
    def within(self) -> Tensor:
        """Σ_W = (1/n) Σ_i (h_i - μ_{y_i})(h_i - μ_{y_i})ᵀ, shape (d, d)."""
        moved = self.total / self.count.clamp(min=1).sqrt()[:, None]
        return (self.scatter - moved.T @ moved) / self.count.sum()

    def _first_means(self, features: Tensor, labels: Tensor) -> Tensor:
        count = labels.bincount(minlength=len(self.count))[:, None]
        total = torch.zeros_like(self.total).index_add_(0, labels, features)
        return torch.where(count > 0, total / count.clamp(min=1), features.mean(0))


def collapse(moments: ClassMoments, weight: Tensor, bias: Tensor | None = None) -> dict[str, float]:
    """Every metric of NAMES; weight W (C, d), bias b (C,) or None."""
    weight, means = weight.detach().double(), moments.means
    center = means.mean(0)
    centered, classes = means - center, len(means)
    offset = 0.0 if bias is None else bias.detach().double()
    of_samples = moments.count @ means / moments.count.sum()
    trace = _trace_of_ratio(moments.within, centered)
    found = {"nc1": trace / classes, "nc1_notebook": trace}
    for name, rows in (("means", centered), ("weights", weight)):
        lengths = rows.norm(dim=1)
        cosines = _off_diagonal((rows / lengths[:, None]) @ (rows / lengths[:, None]).T)
        found[f"nc2_equinorm_{name}"] = lengths.std() / lengths.mean()
        found[f"nc2_equiangular_{name}"] = cosines.std()
        found[f"nc2_equiangular_{name}_population"] = cosines.std(correction=0)
        found[f"nc2_angle_{name}"] = (cosines + 1 / (classes - 1)).abs().mean()
    found["nc3"] = (weight / weight.norm() - centered / centered.norm()).norm()
    found["nc3_notebook"] = found["nc3"].square()
    found["zhu_nc2"] = _distance_to_etf(weight @ weight.T)
    found["zhu_nc3"] = _distance_to_etf(weight @ centered.T)
    found["zhu_bias"] = (weight @ center + offset).norm()
    found["nc1_samples"] = _trace_of_ratio(moments.within, means - of_samples) / classes
    found["zhu_nc3_samples"] = _distance_to_etf(weight @ (means - of_samples).T)
    found["zhu_bias_samples"] = (weight @ of_samples + offset).norm()
    return {name: found[name].item() for name in NAMES}


def disagreements(features: Tensor, means: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """NC4 point by point: does the class by W h + b differ from that of the nearest mean? Bool (n,)."""
    weight, bias = weight.double(), None if bias is None else bias.double()
    found = []
    for block in features.split(BLOCK):
        block = block.double()
        # ‖h - μ‖² without ‖h‖², which is the same for every class
        nearest = (block @ means.T - means.square().sum(1) / 2).argmax(1)
        found.append(torch.nn.functional.linear(block, weight, bias).argmax(1) != nearest)
    return torch.cat(found)


def _trace_of_ratio(within: Tensor, centered: Tensor) -> Tensor:
    """Tr(Σ_W Σ_B⁺), with the pseudo-inverse made of exactly the C - 1 leading eigenpairs (d, if fewer) of Σ_B.

    They are read off the singular value decomposition of M. A cut-off by size would drop real directions or keep noise.
    """
    classes, features = centered.shape
    _, values, directions = torch.linalg.svd(centered, full_matrices=False)
    rank = min(classes - 1, features)
    variances = values[:rank].square() / classes
    return ((directions[:rank] @ within * directions[:rank]).sum(1) / variances).sum()


def _off_diagonal(square: Tensor) -> Tensor:
    return square[~torch.eye(len(square), dtype=torch.bool, device=square.device)]


def _distance_to_etf(products: Tensor) -> Tensor:
    classes = len(products)
    ideal = torch.eye(classes, dtype=products.dtype, device=products.device) - 1 / classes
    return (products / products.norm() - ideal / (classes - 1) ** 0.5).norm()
