"""A bridge from one distribution to another as a problem: samples of both, unpaired, and a temperature ε."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from fisherexp.config.locations import user_file
from fisherexp.config.types import Count, Positive, Size
from fisherexp.data import unpaired
from fisherexp.data.errors import DataError
from fisherexp.data.image_data import ImageData
from fisherexp.metrics.energy import energy_distance
from fisherexp.metrics.gaussian_bridge import bures_wasserstein, conditional_moments
from fisherexp.problems.numerical import Numerical
from fisherexp.problems.sample_figure import draw_samples
from fisherexp.seeds import generator

COMPARED = 4000  # the energy distance of so many is known to about 1 % of that of p₀ in the problems below
PAIRS_SHOWN = 30


class Coupling(Protocol):
    """A solution: for each x a distribution of y."""

    def sample(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """A y for each x: (n, d) -> (n, d)."""

    def moments(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (n, d) and covariance (n, d, d) of y for each x."""


class Unpaired(Numerical):
    """min over plans π with the marginals p₀, p₁ of KL(π ‖ Brownian motion of variance ε from p₀), from samples.

    epsilon: ε, in units of squared distance; the cost is |x - y|²/2.

    Metrics: energy_distance of held-out points of p₀, carried over by a solution, to held-out points of p₁, and
    energy_share, that as a share of the distance of p₀ itself: 0 is a perfect second marginal, 1 none at all.
    """

    provides = ("unpaired",)
    headings = {"energy_distance": "energy\ndistance", "energy_share": "energy,\nshare of p₀'s"}
    better = {"energy_distance": "lower", "energy_share": "lower"}

    mapped: Tensor

    def __init__(self, epsilon: Positive) -> None:
        super().__init__()
        self.epsilon = epsilon

    @abstractmethod
    def draw(self, seed: int) -> dict[str, Tensor]:
        """source, target, source_test and target_test, each (…, d) and float32; what else the evaluation needs."""

    def read(self, seed: int) -> Mapping[str, Tensor]:
        self.seed = seed
        return self.draw(seed)

    def evaluate(self, solution: Coupling) -> dict[str, float]:
        source, target = self.instance["source_test"], self.instance["target_test"]
        self.mapped = solution.sample(source, generator("mapped", self.seed))
        distance = float(energy_distance(self.mapped, target))
        return {"energy_distance": distance, "energy_share": distance / float(energy_distance(source, target))}

    def about(self) -> dict[str, Any]:
        size, dimension = self.instance["source"].shape
        return {"n": size, "m": len(self.instance["target"]), "dimension": dimension, "epsilon": self.epsilon}


class GaussianPair(Unpaired):
    """N(0, 1) and a shifted, tilted Gaussian, whose bridge is known in closed form.

    n: points of each to learn from. dimension: d. shift: of the mean in every coordinate. scale: the largest deviation
    of p₁; the smallest is ½ where d > 1. Axes are drawn from the run's seed.

    plan_error: mean over x of the squared Bures-Wasserstein distance between y's conditional moments and the true
    ones, in % of half of p₁'s variance (cBW-UVP).
    """

    headings = {**Unpaired.headings, "plan_error": "plan error\n%"}
    better = {"energy_distance": "lower", "energy_share": "lower", "plan_error": "lower"}

    def __init__(
        self,
        n: Count = 20_000,
        dimension: Count = 2,
        shift: float = 2.0,
        scale: Positive = 2.0,
        epsilon: Positive = 1.0,
    ) -> None:
        super().__init__(epsilon)
        self.n, self.dimension, self.shift, self.scale = n, dimension, shift, scale

    def draw(self, seed: int) -> dict[str, Tensor]:
        draws = generator("gaussian_pair", seed)
        source = unpaired.standard_normal(self.dimension)
        target = unpaired.tilted_gaussian(self.dimension, self.shift, self.scale, draws)
        sizes = {"": self.n, "_test": COMPARED}
        drawn = {f"source{part}": source.sample(size, draws).float() for part, size in sizes.items()}
        drawn |= {f"target{part}": target.sample(size, draws).float() for part, size in sizes.items()}
        return drawn | {"target.mean": target.mean, "target.covariance": target.covariance}

    def evaluate(self, solution: Coupling) -> dict[str, float]:
        points = self.instance["source_test"]
        target = self.instance["target.mean"], self.instance["target.covariance"]
        true = conditional_moments(points.double(), unpaired.standard_normal(self.dimension), target, self.epsilon)
        found = tuple(part.double() for part in solution.moments(points))
        error = bures_wasserstein(found, true).mean() / (target[1].trace() / 2)
        return super().evaluate(solution) | {"plan_error": 100 * float(error)}


class SwissRoll(Unpaired):
    """N(0, 1) in the plane and a spiral, n points of each to learn from."""

    def __init__(self, n: Count = 20_000, epsilon: Positive = 0.1) -> None:
        super().__init__(epsilon)
        self.n = n

    def target(self, number: int, generator: torch.Generator) -> Tensor:
        return unpaired.swiss_roll(number, generator)

    def draw(self, seed: int) -> dict[str, Tensor]:
        draws, normal = generator("unpaired", seed), unpaired.standard_normal(2)
        return {
            "source": normal.sample(self.n, draws).float(),
            "source_test": normal.sample(COMPARED, draws).float(),
            "target": self.target(self.n, draws),
            "target_test": self.target(COMPARED, draws),
        }


class RingOfModes(SwissRoll):
    """N(0, 1) in the plane and `modes` narrow Gaussians on a circle."""

    def __init__(self, n: Count = 20_000, modes: Count = 8, epsilon: Positive = 0.1) -> None:
        super().__init__(n, epsilon)
        self.modes = modes

    def target(self, number: int, generator: torch.Generator) -> Tensor:
        return unpaired.ring_of_modes(number, self.modes, generator)


class ImageLatents(Unpaired):
    """Images of one class and of another, in their first principal components.

    images: a data set of images. source_class, target_class: labels. dimension: of the latent space; latents are
    scaled so that a coordinate has variance 1 on average. latents.png and .pdf show held-out images of the source
    class, each above the image it is carried to.
    """

    def __init__(
        self,
        images: ImageData,
        source_class: Size = 3,
        target_class: Size = 8,
        dimension: Count = 8,
        epsilon: Positive = 0.1,
    ) -> None:
        super().__init__(epsilon)
        self.images, self.dimension = images, dimension
        self.classes = {"source": source_class, "target": target_class}

    def draw(self, seed: int) -> dict[str, Tensor]:
        data = self.images.load()
        flat = {part: getattr(data, part).inputs.flatten(1).float() / 127.5 - 1 for part in ("train", "test")}
        if self.dimension > flat["train"].shape[1]:
            pixels = flat["train"].shape[1]
            raise DataError(f"data.dimension={self.dimension}: images have {pixels} pixels; data.dimension={pixels}")
        mean = flat["train"].mean(0)
        axes = torch.linalg.eigh((flat["train"] - mean).T @ (flat["train"] - mean)).eigenvectors
        axes = axes[:, -self.dimension :].flip(1)
        scale = ((flat["train"] - mean) @ axes).var(0).mean().sqrt()
        drawn = {"mean": mean, "axes": axes * scale}
        for side, label in self.classes.items():
            for part, name in (("train", side), ("test", f"{side}_test")):
                chosen = flat[part][getattr(data, part).targets == label][:COMPARED]
                if len(chosen) < 2:
                    reason = f"{len(chosen)} {part} images of this class; there are {data.num_classes} classes"
                    raise DataError(f"data.{side}_class={label}: {reason}, from 0")
                drawn[name] = (chosen - mean) @ axes / scale
        return drawn

    def decoded(self, latents: Tensor) -> Tensor:
        """Images (n, C, H, W), pixels in about [-1, 1]."""
        pixels = self.instance["mean"] + latents @ self.instance["axes"].T
        return pixels.unflatten(1, tuple(self.images.input_shape))

    def leave_files(self, folder: Path) -> None:
        shown = min(PAIRS_SHOWN, len(self.mapped))
        pairs = [self.decoded(latents[:shown]) for latents in (self.instance["source_test"], self.mapped)]
        columns = min(10, shown)
        rows = [part[first : first + columns] for first in range(0, shown - columns + 1, columns) for part in pairs]
        draw_samples(torch.cat(rows), folder / "latents", columns)


class UnpairedFile(Unpaired):
    """The user's own .npz file with arrays source (n, d) and target (m, d). One point of four is held out.

    path: absolute, in the working directory or in the data folder. epsilon: in the file's units of squared distance.
    root: see LabeledData.
    """

    paths = ("path",)

    def __init__(self, path: str, epsilon: Positive, root: str | None = None) -> None:
        super().__init__(epsilon)
        self.path, self.root = path, root

    def draw(self, seed: int) -> dict[str, Tensor]:
        try:
            file = user_file(self.path, self.root)
        except FileNotFoundError as error:
            raise DataError(f"data.path={self.path}: {error}") from None
        drawn = {}
        for name, points in zip(("source", "target"), unpaired.read_unpaired(file), strict=True):
            points = points[torch.randperm(len(points), generator=generator("unpaired_file", name))]
            held_out = min(COMPARED, max(2, len(points) // 4))
            drawn |= {f"{name}_test": points[:held_out], name: points[held_out:]}
        return drawn
