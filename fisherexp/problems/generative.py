"""Data to draw more of: a network that makes samples, and how like the held-out images they are."""

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fisherexp.metrics.frechet import frechet_distance
from fisherexp.metrics.random_convolutions import NAME, random_convolutions
from fisherexp.metrics.spectrum import fisher_rao_distance, power_spectrum, radial_average
from fisherexp.problems.of_data import OfData
from fisherexp.problems.sample_figure import draw_samples
from fisherexp.problems.spectrum_figure import draw_spectra
from fisherexp.seeds import generator

# Samples and held-out images compared, where there are as many: enough for means and covariances of 128 features.
COMPARED = 1000
SHOWN = 60


class Sampler(Protocol):
    """What the problem evaluates."""

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """That many images (n, C, H, W), pixels in [-1, 1]; every draw is from the generator."""


def scaled(images: Tensor) -> Tensor:
    """Pixels 0…255 as float32 in [-1, 1], which is what networks and samplers of this problem work with."""
    return images.float() / 127.5 - 1


class Generative(OfData):
    """Evaluated by as many samples as there are test images, at most 1000.

    frechet: squared Fréchet distance of samples and test images, in the space of random convolutions. It is no FID.
    spectrum_error: Fisher-Rao distance of their radially averaged power spectra.
    Both are those of training images, as many as samples, under `about`: what a perfect sampler would have.
    The first samples are left as samples.png and .pdf, the spectra as spectra.png and .pdf.
    """

    kind = "generative"
    headings = {"frechet": f"Fréchet distance\n({NAME})", "spectrum_error": "spectrum\nerror"}
    better = {"frechet": "lower", "spectrum_error": "lower"}

    samples: Tensor

    def load(self, seed: int) -> "Generative":
        self.seed = seed
        super().load(seed)
        return self

    def build_model(self) -> nn.Module:
        return self.backbone(**self.data.architecture_options)

    def example(self) -> tuple[Tensor, Tensor]:
        (images,) = super().example()
        return scaled(images), torch.zeros(len(images))

    def evaluate(self, solution: Sampler) -> dict[str, float]:
        held_out = self._images("test")
        self.samples = solution.sample(len(held_out), generator("samples", self.seed))
        return compared(self.samples, held_out)

    def about(self) -> dict[str, Any]:
        held_out, train = self._images("test"), self._images("train")
        few = min(len(held_out), len(train))
        of_training_images = compared(train[:few], held_out[:few])
        return super().about() | {"compared": len(held_out), "features": NAME, "training_images": of_training_images}

    def leave_files(self, folder: Path) -> None:
        draw_samples(self.samples[:SHOWN], folder / "samples")
        spectra = {"test images": self._images("test"), "samples": self.samples}
        draw_spectra({name: power_spectrum(images) for name, images in spectra.items()}, folder / "spectra")

    def _images(self, part: str) -> Tensor:
        # The same draw for all methods and seeds: files may be sorted by class or by difficulty.
        samples = self.setting.parts[part]
        order = torch.randperm(len(samples), generator=generator("compared", part))[:COMPARED]
        return scaled(samples.subset(order.sort().values).inputs)


def compared(images: Tensor, others: Tensor) -> dict[str, float]:
    """Metrics of images against others, both (n, C, H, W) in [-1, 1]."""
    spectra = [radial_average(power_spectrum(some)) for some in (images, others)]
    return {
        "frechet": frechet_distance(random_convolutions(images), random_convolutions(others)),
        "spectrum_error": fisher_rao_distance(*spectra).item(),
    }
