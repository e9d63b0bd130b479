"""How to smooth when denoising: the weight of total variation, weights and filters of fields of experts, learned.

    h(x, θ) = ½ ‖x - y‖² + Σ_k exp(θ_k) Σ_pixels √(|C_k x|² + ν²),    g(x) = ‖x - x_clean‖² / 2N

C_k are convolutions: one pair of differences between neighbors for (isotropic) total variation, the eight 3×3 cosine
filters but the constant one for fields of experts (Kunisch, Pock, SIAM J. Imaging Sci. 2013), which stay as they are or
are learned as combinations of these, so that they have mean zero (Chen, Pock, Ranftl, Bischof, GCPR 2013). Images are
crops of a photograph that comes with scikit-learn, or of a data set, with noise; the lower level denoises all at once.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fisherexp.config.types import Count, Positive
from fisherexp.data.datamodule import LabeledData
from fisherexp.data.errors import DataError
from fisherexp.problems.bilevel import Bilevel, Constants, solve_lower
from fisherexp.problems.sample_figure import draw_samples
from fisherexp.seeds import generator

SHOWN = 8  # images of the picture
EXPERTS = 8
REACH = 1.0  # distance within which constants of learned filters hold
# max |φ'''| ν² of φ(u) = √(|u|² + ν²): at |u| = ν/2, along u.
THIRD = 1.5 / 1.25**2.5


def cosine_filters() -> Tensor:
    """The 3×3 products of cosines, without the constant one, each of Euclidean norm 1: (8, 3, 3)."""
    places = torch.arange(3, dtype=torch.float64)
    rows = torch.stack([((places + 0.5) * k * math.pi / 3).cos() for k in range(3)])
    rows = rows / rows.norm(dim=1, keepdim=True)
    return torch.einsum("ai,bj->abij", rows, rows).reshape(9, 3, 3)[1:]


def differences() -> Tensor:
    """To the right and to the lower neighbor: (2, 3, 3)."""
    filters = torch.zeros(2, 3, 3, dtype=torch.float64)
    filters[:, 1, 1] = -1
    filters[0, 1, 2] = filters[1, 2, 1] = 1
    return filters


class BilevelDenoising(Bilevel):
    """Crops of `size` × `size` pixels in [0, 1] with normal noise of deviation `noise`, drawn from the run's seed:
    `images` of the left half of the photograph to learn from, as many of the right half to judge by; or of a data set's
    training and test images, in gray, where `pictures` is one.

    smoothing: ν. start_weight: exp(θ) to begin with.
    psnr: in dB, of the images to judge by, denoised with the weights that were learned; noisy_psnr: as they came.
    denoised.png and .pdf show the first of them clean, noisy and denoised, row by row.
    """

    headings = {"upper_loss": "upper\nloss", "psnr": "held-out\ndB", "noisy_psnr": "noisy\ndB"}
    better = {"upper_loss": "lower", "psnr": "higher"}
    shown: Tensor

    def __init__(
        self,
        images: Count,
        size: Count,
        noise: Positive,
        smoothing: Positive,
        start_weight: Positive,
        pictures: LabeledData | None = None,
    ) -> None:
        super().__init__()
        if not 8 <= size <= 320:
            raise ValueError(f"data.size={size}: from 8 to 320 pixels, which is half of the photograph's width")
        self.images, self.size, self.noise, self.pictures = images, size, noise, pictures
        self.smoothing, self.start_weight = smoothing, start_weight

    @abstractmethod
    def groups(self, theta: Tensor) -> list[Tensor]:
        """Filters (c, 3, 3) of each C_k. The first entries of θ are the logarithms of their weights."""

    def read(self, seed: int) -> Mapping[str, Tensor]:
        draw = generator("bilevel_denoising", seed)
        found = {}
        for name, part in zip(("", "test_"), self._sources(draw), strict=True):
            tops = torch.randint(part.shape[1] - self.size + 1, (self.images,), generator=draw).tolist()
            lefts = torch.randint(part.shape[2] - self.size + 1, (self.images,), generator=draw).tolist()
            crops = [
                image[top : top + self.size, left : left + self.size]
                for image, top, left in zip(part, tops, lefts, strict=True)
            ]
            clean = torch.stack(crops)[:, None]
            noise = torch.randn(clean.shape, generator=draw, dtype=torch.float64)
            found |= {f"{name}clean": clean, f"{name}noisy": clean + self.noise * noise}
        return found

    def _sources(self, draw: torch.Generator) -> list[Tensor]:
        """What crops are taken from, to learn and to judge: (images, H, W) each, in [0, 1]."""
        if self.pictures is None:
            from sklearn.datasets import load_sample_image

            photograph = torch.tensor(load_sample_image("china.jpg"), dtype=torch.float64).mean(2) / 255
            half = photograph.shape[1] // 2
            return [part.expand(self.images, -1, -1) for part in (photograph[:, :half], photograph[:, half:])]
        data, found = self.pictures.load(), []
        for part in (data.train, data.test):
            places = torch.randperm(len(part), generator=draw)[: self.images]
            inputs = part.subset(places).inputs
            if len(inputs) < self.images or min(inputs.shape[2:]) < self.size:
                said = f"{len(part)} images of {inputs.shape[2]} x {inputs.shape[3]} pixels"
                raise DataError(f"data.images={self.images} data.size={self.size}: {data.title} has {said}")
            found.append(inputs.double().mean(1) / (1 if inputs.is_floating_point() else 255))
        return found

    def experts(self, x: Tensor, groups: list[Tensor]) -> Tensor:
        """Σ_pixels √(|C_k x|² + ν²) for each k: (K,)."""
        found = []
        padded = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="circular")
        for filters in groups:
            responses = torch.nn.functional.conv2d(padded, filters[:, None])
            found.append((responses.square().sum(1) + self.smoothing**2).sqrt().sum())
        return torch.stack(found)

    def denoising(self, x: Tensor, noisy: Tensor, theta: Tensor) -> Tensor:
        groups = self.groups(theta)
        return (x - noisy).square().sum() / 2 + theta[: len(groups)].exp() @ self.experts(x, groups)

    def lower(self, x: Tensor, theta: Tensor) -> Tensor:
        return self.denoising(x, self.instance["noisy"], theta)

    def upper(self, x: Tensor) -> Tensor:
        return (x - self.instance["clean"]).square().sum() / (2 * x.numel())

    @property
    def upper_smoothness(self) -> float:
        return 1 / self.instance["clean"].numel()

    def constants(self, x: Tensor, theta: Tensor) -> Constants:
        # A convolution's norm is at most the sum of its magnitudes; those of a group add in squares.
        theta = theta.detach()
        groups = self.groups(theta)
        norms = torch.stack([filters.abs().sum((1, 2)).square().sum().sqrt() for filters in groups])
        weights = theta[: len(groups)].exp()
        curvature = weights * norms.square() / self.smoothing
        third = float((weights * norms**3).sum()) * THIRD / self.smoothing**2
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            experts = self.experts(x, groups)
            slopes = [torch.autograd.grad(expert, x, retain_graph=True)[0].norm() for expert in experts]
        columns = weights * torch.stack(slopes)
        # μ = 1: the inverse's slope is that of the Hessian
        return Constants(1.0, 1 + float(curvature.sum()), float(columns.norm()), float(curvature.norm()), third)

    @property
    def start(self) -> tuple[Tensor, Tensor]:
        return self.instance["noisy"], self.first_theta()

    @abstractmethod
    def first_theta(self) -> Tensor:
        """θ to begin with."""

    def denoised(self, noisy: Tensor, theta: Tensor) -> Tensor:
        """Other images by the same weights."""
        known = self.constants(noisy, theta)

        def gradient(x: Tensor) -> Tensor:
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                return torch.autograd.grad(self.denoising(x, noisy, theta), x)[0]

        return solve_lower(gradient, noisy, known.mu, known.smoothness, 1e-4).x

    def evaluate(self, solution: Tensor) -> dict[str, float]:
        clean, noisy = self.instance["test_clean"], self.instance["test_noisy"]
        denoised = self.denoised(noisy, solution)
        self.shown = torch.cat([part[:SHOWN] for part in (clean, noisy, denoised)])
        found = {"psnr": _psnr(denoised, clean), "noisy_psnr": _psnr(noisy, clean)}
        return {**super().evaluate(solution), **found}

    def leave_files(self, folder: Path) -> None:
        draw_samples(2 * self.shown - 1, folder / "denoised", columns=len(self.shown) // 3)

    def about(self) -> dict[str, Any]:
        source = "photograph" if self.pictures is None else self.pictures.title
        return {"of": source, **{name: getattr(self, name) for name in ("images", "size", "noise", "smoothing")}}


class TotalVariation(BilevelDenoising):
    """One weight, of the length of the gradient."""

    name = "total_variation"

    def groups(self, theta: Tensor) -> list[Tensor]:
        return [differences()]

    def first_theta(self) -> Tensor:
        return torch.tensor([math.log(self.start_weight)], dtype=torch.float64)


class FieldsOfExperts(BilevelDenoising):
    """Eight weights, of the magnitudes of responses to filters; the cosine filters to begin with.

    learn: weights alone, or filters, too: then the last 64 entries of θ are their coefficients in cosine filters, and
    filters.png and .pdf show them, those to begin with above.
    """

    name = "fields_of_experts"

    def __init__(
        self,
        images: Count,
        size: Count,
        noise: Positive,
        smoothing: Positive,
        start_weight: Positive,
        pictures: LabeledData | None = None,
        learn: Literal["weights", "filters"] = "weights",
    ) -> None:
        super().__init__(images, size, noise, smoothing, start_weight, pictures)
        self.learn = learn

    def groups(self, theta: Tensor) -> list[Tensor]:
        filters = cosine_filters()
        if self.learn == "filters":
            filters = torch.einsum("kb,bij->kij", theta[EXPERTS:].reshape(EXPERTS, EXPERTS), filters)
        return [*filters[:, None]]

    def first_theta(self) -> Tensor:
        weights = torch.full((EXPERTS,), math.log(self.start_weight), dtype=torch.float64)
        if self.learn == "weights":
            return weights
        return torch.cat([weights, torch.eye(EXPERTS, dtype=torch.float64).flatten()])

    def constants(self, x: Tensor, theta: Tensor) -> Constants:
        """With filters, slopes by them, too: of w Cᵀφ'(C x) by C in a direction D, w (Dᵀφ'(C x) + Cᵀ(φ''(C x) D x)),
        φ(u) = √(u² + ν²). D has norm 1, so its convolution at most 3, and D x is at most the norm of a patch of x."""
        known = super().constants(x, theta)
        if self.learn == "weights":
            return known
        theta, x = theta.detach(), x.detach()
        weights, filters = theta[:EXPERTS].exp(), torch.cat(self.groups(theta))
        norms = filters.abs().sum((1, 2))
        padded = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="circular")
        responses = torch.nn.functional.conv2d(padded, filters[:, None])
        patches = torch.nn.functional.conv2d(padded.square(), torch.ones(1, 1, 3, 3, dtype=x.dtype))
        roots = (responses.square() + self.smoothing**2).sqrt()
        first = (responses / roots).square().sum((0, 2, 3)).sqrt()
        second = ((self.smoothing**2 / roots**3).square() * patches).sum((0, 2, 3)).sqrt()
        columns = weights * (3 * first + norms * second)
        # Within REACH of x no patch grows by more than that.
        furthest = float(patches.max()) ** 0.5 + REACH
        slopes = weights * norms * (6 / self.smoothing + norms * furthest * THIRD / self.smoothing**2)
        jacobian = math.hypot(known.jacobian, float(columns.norm()))
        return known._replace(
            jacobian=jacobian, jacobian_slope=math.hypot(known.jacobian_slope, float(slopes.norm())), reach=REACH
        )

    def evaluate(self, solution: Tensor) -> dict[str, float]:
        self.learned = torch.cat([*self.groups(self.first_theta()), *self.groups(solution)])[:, None]
        return super().evaluate(solution)

    def leave_files(self, folder: Path) -> None:
        super().leave_files(folder)
        if self.learn == "filters":
            largest = self.learned.abs().amax((1, 2, 3), keepdim=True)
            draw_samples(self.learned / largest, folder / "filters", columns=EXPERTS)

    def about(self) -> dict[str, Any]:
        return {**super().about(), "learn": self.learn}


def _psnr(images: Tensor, clean: Tensor) -> float:
    """In dB, mean over images with pixels in [0, 1]."""
    return float((-10 * (images - clean).square().mean((1, 2, 3)).log10()).mean())
