"""Points of a density whose score is known: how well is it learned from the points, and what does it draw?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from fisherexp.config.types import Count, Positive
from fisherexp.data.gaussian_mixture import GaussianMixture
from fisherexp.metrics.energy import energy_distance
from fisherexp.problems.numerical import Numerical
from fisherexp.problems.score_figure import draw_scores
from fisherexp.seeds import generator

COMPARED = 2000


class ScoreModel(Protocol):
    """A solution."""

    def score(self, points: Tensor) -> Tensor:
        """∇ log p at points (n, d): (n, d)."""

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """That many points (number, d)."""


class Density(Numerical):
    """Three Gaussians in the plane, one of them narrow, one slanted; n points to learn from are drawn from the seed.

    deviation: of the widest, which scales all of them; their means are 3 apart.

    Metrics on 2000 held-out points: score_cosine, the median of the cosine between learned and true score; score_error,
    ‖ŝ - s‖ / ‖s‖ with norms over all points; energy_distance of as many samples to the held-out points.
    scores.png and .pdf show both scores, and the samples.
    """

    provides = ("density",)
    headings = {
        "score_cosine": "score\ncosine",
        "score_error": "score\nerror",
        "energy_distance": "energy\ndistance",
    }
    better = {"score_cosine": "higher", "score_error": "lower", "energy_distance": "lower"}

    samples: Tensor

    def __init__(self, n: Count = 10_000, deviation: Positive = 0.6) -> None:
        super().__init__()
        self.n, self.deviation = n, deviation

    def read(self, seed: int) -> Mapping[str, Tensor]:
        self.seed = seed
        scales = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.7, 0.0], [0.0, 0.7]], [[1.0, 0.5], [0.5, 0.5]]])
        angles = 2 * torch.pi / 3 * torch.arange(3)
        means = 3**0.5 * torch.stack([angles.cos(), angles.sin()], dim=1)
        mixture = GaussianMixture(torch.tensor([0.4, 0.3, 0.3]), means, self.deviation**2 * scales)
        draws = generator("density", seed)
        sizes = {"train": self.n, "test": COMPARED}
        return mixture._asdict() | {part: mixture.sample(size, draws) for part, size in sizes.items()}

    @property
    def mixture(self) -> GaussianMixture:
        """The density, once loaded."""
        return GaussianMixture(**{name: self.instance[name] for name in GaussianMixture._fields})

    def score_error(self, model: ScoreModel, noise: float = 0.0) -> float:
        """‖ŝ - s‖ / ‖s‖ over the held-out points; s of the density smoothed by `noise`, in units of the points."""
        true = self.mixture.smoothed(noise).score(self.instance["test"])
        return float((model.score(self.instance["test"]) - true).norm() / true.norm())

    def evaluate(self, solution: ScoreModel) -> dict[str, float]:
        test = self.instance["test"]
        self.learned, self.samples = solution, solution.sample(COMPARED, generator("density samples", self.seed))
        cosines = torch.cosine_similarity(solution.score(test), self.mixture.score(test))
        return {
            "score_cosine": float(cosines.median()),
            "score_error": self.score_error(solution),
            "energy_distance": float(energy_distance(self.samples, test)),
        }

    def about(self) -> dict[str, Any]:
        few = self.instance["train"][:COMPARED]
        of_training_points = float(energy_distance(few, self.instance["test"])) if len(few) > 1 else None
        return {"n": self.n, "deviation": self.deviation, "training_points": {"energy_distance": of_training_points}}

    def leave_files(self, folder: Path) -> None:
        draw_scores(self.mixture, self.learned.score, self.samples, folder / "scores")
