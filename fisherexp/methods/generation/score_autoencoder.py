"""A regularized auto-encoder as an estimator of the score, and as a sampler.

    ŝ(x) = (r(x) - x) / σ²,    r trained to denoise or to contract

Alain, Bengio, JMLR 15 (2014), arXiv 1211.4246; the objectives and the sampler: reconstruction.py. Both estimate the
score of the density as σ → 0. At a σ that is not small the denoising one has that of the density smoothed by σ, and
exactly; `noisy_score_error` compares with it. Beside them: a network that is the score itself (score_matching), and an
auto-encoder of which the encoder alone is contracted, whose residual is no score.
"""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import AtLeastOne, Count, Positive
from fisherexp.methods.generation.network_by_steps import NetworkBySteps
from fisherexp.methods.generation.reconstruction import (
    contractive_loss,
    denoising_loss,
    encoder_contractive_loss,
    metropolis,
    residual_score,
    score_matching_loss,
)
from fisherexp.problems.density import Density


class LearnedScore:
    """A trained network as the solution of a problem: see ScoreModel.

    noise: σ, where the network is a reconstruction r; None where it is the score. start: points (n, d) of the data;
    chains begin uniformly in the box around them.
    """

    def __init__(
        self, network: nn.Module, noise: float | None, start: Tensor, chain_steps: int, proposal: float
    ) -> None:
        self.network, self.noise, self.start = network, noise, start
        self.chain_steps, self.proposal = chain_steps, proposal

    @torch.no_grad()
    def score(self, points: Tensor) -> Tensor:
        return self.network(points) if self.noise is None else residual_score(self.network, points, self.noise)

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        low, high = self.start.amin(0), self.start.amax(0)
        begin = low + (high - low) * torch.rand(number, len(low), generator=generator)
        return metropolis(self.score, begin, self.chain_steps, self.proposal, generator)


class ScoreAutoencoder(NetworkBySteps):
    """A step is one update of Adam, whose rate falls to zero along a cosine: residuals are small, and σ² divides them.

    objective, noise: σ, in units of the data: see above. hidden: widths of r, with tanh between.
    steps, batch_size, learning_rate: of the training. chain_steps, proposal: Metropolis steps of each sample, and the
    standard deviation of a move.
    """

    name = "score_autoencoder"
    paper = "Alain, Bengio, JMLR 2014, arXiv 1211.4246"
    problems = ("numerical",)
    requires = ("density",)
    headings = {"noisy_score_error": "error to score\nof smoothed"}
    better = {"noisy_score_error": "lower"}

    problem: Density

    def __init__(
        self,
        objective: Literal["denoising", "contractive", "score_matching", "contractive_encoder"] = "denoising",
        noise: Positive = 0.3,
        hidden: AtLeastOne[Count] = (64, 64),
        steps: Count = 2000,
        batch_size: Count = 256,
        learning_rate: Positive = 5e-3,
        chain_steps: Count = 500,
        proposal: Positive = 0.5,
    ) -> None:
        super().__init__()
        self.objective, self.noise, self.hidden = objective, noise, hidden
        self.steps, self.batch_size, self.learning_rate = steps, batch_size, learning_rate
        self.chain_steps, self.proposal = chain_steps, proposal

    def begin(self, problem: Density, seed: int) -> None:
        super().begin(problem, seed)
        self.points = problem.instance["train"]
        size = self.points.shape[1]
        layers: list[nn.Module] = []
        for before, after in pairwise([size, *self.hidden]):
            layers += [nn.Linear(before, after), nn.Tanh()]
        # The weights are torch's own draws, which a run seeds.
        network = nn.Sequential(*layers, nn.Linear(self.hidden[-1], size))
        self.train(network, self.learning_rate, "score_autoencoder", seed)

    def loss(self) -> Tensor:
        batch = self.points[torch.randint(len(self.points), (self.batch_size,), generator=self.generator)]
        if self.objective == "contractive":
            return contractive_loss(self.network, batch, self.noise)
        if self.objective == "contractive_encoder":
            return encoder_contractive_loss(self.network[:-1], self.network[-1], batch, self.noise)
        if self.objective == "score_matching":
            return score_matching_loss(self.network, batch, self.noise, self.generator)
        return denoising_loss(self.network, batch, self.noise, self.generator)

    def solution(self) -> LearnedScore:
        noise = None if self.objective == "score_matching" else self.noise
        return LearnedScore(self.network, noise, self.points, self.chain_steps, self.proposal)

    def metrics(self) -> dict[str, float]:
        """Error to the score of the density smoothed by σ."""
        return {"noisy_score_error": self.problem.score_error(self.solution(), self.noise)}
