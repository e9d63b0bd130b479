"""How strongly to smooth when denoising: weights of total variation or of fields of experts, learned from clean images.

    h(x, θ) = ½ ‖x - y‖² + Σ_k exp(θ_k) Σ_pixels √(|C_k x|² + ν²),    g(x) = ‖x - x_clean‖² / 2N

C_k are convolutions: one pair of differences between neighbors for (isotropic) total variation, the eight 3×3 cosine
filters but the constant one for fields of experts with fixed filters (Kunisch, Pock, SIAM J. Imaging Sci. 2013). Images
are crops of a photograph that comes with scikit-learn, with noise; the lower level denoises all of them at once.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fisherexp.config.types import Count, Positive
from fisherexp.problems.bilevel import Bilevel, Constants, solve_lower
from fisherexp.problems.sample_figure import draw_samples
from fisherexp.seeds import generator

SHOWN = 8  # images of the picture
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
    `images` of the left half of the photograph to learn from, as many of the right half to judge by.

    smoothing: ν. start_weight: exp(θ) to begin with.
    psnr: in dB, of the images to judge by, denoised with the weights that were learned; noisy_psnr: as they came.
    denoised.png and .pdf show the first of them clean, noisy and denoised, row by row.
    """

    headings = {"upper_loss": "upper\nloss", "psnr": "held-out\ndB", "noisy_psnr": "noisy\ndB"}
    better = {"upper_loss": "lower", "psnr": "higher"}
    shown: Tensor

    def __init__(
        self, images: Count, size: Count, noise: Positive, smoothing: Positive, start_weight: Positive
    ) -> None:
        super().__init__()
        if not 8 <= size <= 320:
            raise ValueError(f"data.size={size}: from 8 to 320 pixels, which is half of the photograph's width")
        self.images, self.size, self.noise = images, size, noise
        self.smoothing, self.start_weight = smoothing, start_weight

    @abstractmethod
    def groups(self) -> list[Tensor]:
        """Filters (c, 3, 3) of each C_k."""

    def read(self, seed: int) -> Mapping[str, Tensor]:
        from sklearn.datasets import load_sample_image

        draw = generator("bilevel_denoising", seed)
        photograph = torch.tensor(load_sample_image("china.jpg"), dtype=torch.float64).mean(2) / 255
        half = photograph.shape[1] // 2
        found = {}
        for name, part in (("", photograph[:, :half]), ("test_", photograph[:, half:])):
            tops = torch.randint(part.shape[0] - self.size + 1, (self.images,), generator=draw).tolist()
            lefts = torch.randint(part.shape[1] - self.size + 1, (self.images,), generator=draw).tolist()
            crops = [
                part[top : top + self.size, left : left + self.size] for top, left in zip(tops, lefts, strict=True)
            ]
            clean = torch.stack(crops)[:, None]
            noise = torch.randn(clean.shape, generator=draw, dtype=torch.float64)
            found |= {f"{name}clean": clean, f"{name}noisy": clean + self.noise * noise}
        return found

    def experts(self, x: Tensor) -> Tensor:
        """Σ_pixels √(|C_k x|² + ν²) for each k: (K,)."""
        found = []
        padded = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="circular")
        for filters in self.groups():
            responses = torch.nn.functional.conv2d(padded, filters[:, None])
            found.append((responses.square().sum(1) + self.smoothing**2).sqrt().sum())
        return torch.stack(found)

    def denoising(self, x: Tensor, noisy: Tensor, theta: Tensor) -> Tensor:
        return (x - noisy).square().sum() / 2 + theta.exp() @ self.experts(x)

    def lower(self, x: Tensor, theta: Tensor) -> Tensor:
        return self.denoising(x, self.instance["noisy"], theta)

    def upper(self, x: Tensor) -> Tensor:
        return (x - self.instance["clean"]).square().sum() / (2 * x.numel())

    @property
    def upper_smoothness(self) -> float:
        return 1 / self.instance["clean"].numel()

    def constants(self, x: Tensor, theta: Tensor) -> Constants:
        # A convolution's norm is at most the sum of its magnitudes; those of a group add in squares.
        norms = torch.stack([filters.abs().sum((1, 2)).square().sum().sqrt() for filters in self.groups()])
        weights = theta.detach().exp()
        curvature = weights * norms.square() / self.smoothing
        third = float((weights * norms**3).sum()) * THIRD / self.smoothing**2
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            experts = self.experts(x)
            slopes = [torch.autograd.grad(expert, x, retain_graph=True)[0].norm() for expert in experts]
        columns = weights * torch.stack(slopes)
        # μ = 1: the inverse's slope is that of the Hessian
        return Constants(1.0, 1 + float(curvature.sum()), float(columns.norm()), float(curvature.norm()), third)

    @property
    def start(self) -> tuple[Tensor, Tensor]:
        return self.instance["noisy"], torch.full((len(self.groups()),), math.log(self.start_weight)).double()

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
        return {name: getattr(self, name) for name in ("images", "size", "noise", "smoothing")}


class TotalVariation(BilevelDenoising):
    """One weight, of the length of the gradient."""

    name = "total_variation"

    def groups(self) -> list[Tensor]:
        return [differences()]


class FieldsOfExperts(BilevelDenoising):
    """Eight weights, of the magnitudes of responses to cosine filters."""

    name = "fields_of_experts"

    def groups(self) -> list[Tensor]:
        return [*cosine_filters()[:, None]]


def _psnr(images: Tensor, clean: Tensor) -> float:
    """In dB, mean over images with pixels in [0, 1]."""
    return float((-10 * (images - clean).square().mean((1, 2, 3)).log10()).mean())
