"""A regularized auto-encoder as an estimator of the score, and as a sampler.

    ŝ(x) = (r(x) - x) / σ²,    r trained to denoise or to contract

Alain, Bengio, JMLR 15 (2014), arXiv 1211.4246; the objectives and the sampler: reconstruction.py. Both estimate the
score of the density as σ → 0. At a σ that is not small the denoising one has that of the density smoothed by σ, and
exactly; `noisy_score_error` compares with it.
"""

from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import AtLeastOne, Count, Positive
from fisherexp.methods.generation.reconstruction import contractive_loss, denoising_loss, metropolis, residual_score
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.problems.density import Density
from fisherexp.seeds import generator


class LearnedScore:
    """A trained r as the solution of a problem: see ScoreModel.

    start: points (n, d) of the data; chains begin uniformly in the box around them.
    """

    def __init__(self, network: nn.Module, noise: float, start: Tensor, chain_steps: int, proposal: float) -> None:
        self.network, self.noise, self.start = network, noise, start
        self.chain_steps, self.proposal = chain_steps, proposal

    @torch.no_grad()
    def score(self, points: Tensor) -> Tensor:
        return residual_score(self.network, points, self.noise)

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        low, high = self.start.amin(0), self.start.amax(0)
        begin = low + (high - low) * torch.rand(number, len(low), generator=generator)
        return metropolis(self.score, begin, self.chain_steps, self.proposal, generator)


class ScoreAutoencoder(IterativeMethod):
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
        objective: Literal["denoising", "contractive"] = "denoising",
        noise: Positive = 0.3,
        hidden: AtLeastOne[Count] = (64, 64),
        steps: Count = 2000,
        batch_size: Count = 256,
        learning_rate: Positive = 5e-3,
        chain_steps: Count = 500,
        proposal: Positive = 0.5,
    ) -> None:
        super().__init__()
        self.contracts, self.noise, self.hidden = objective == "contractive", noise, hidden
        self.steps, self.batch_size, self.learning_rate = steps, batch_size, learning_rate
        self.chain_steps, self.proposal = chain_steps, proposal

    def begin(self, problem: Density, seed: int) -> None:
        super().begin(problem, seed)
        self.points, self.updates = problem.instance["train"], 0
        self.generator = generator("score_autoencoder", seed)
        size = self.points.shape[1]
        layers: list[nn.Module] = []
        for before, after in pairwise([size, *self.hidden]):
            layers += [nn.Linear(before, after), nn.Tanh()]
        # The weights are torch's own draws, which a run seeds.
        self.network = nn.Sequential(*layers, nn.Linear(self.hidden[-1], size))
        self.optimizer = torch.optim.Adam(self.network.parameters(), self.learning_rate)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, self.steps)

    @property
    def done(self) -> bool:
        return self.updates == self.steps

    def step(self) -> dict[str, float]:
        batch = self.points[torch.randint(len(self.points), (self.batch_size,), generator=self.generator)]
        if self.contracts:
            loss = contractive_loss(self.network, batch, self.noise)
        else:
            loss = denoising_loss(self.network, batch, self.noise, self.generator)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.updates += 1
        return {"loss": float(loss.detach())}

    def state_dict(self) -> dict[str, Any]:
        parts = {name: getattr(self, name).state_dict() for name in ("network", "optimizer", "schedule")}
        return parts | {"generator": self.generator.get_state(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("network", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["generator"])
        self.updates = state["updates"]

    def solution(self) -> LearnedScore:
        return LearnedScore(self.network, self.noise, self.points, self.chain_steps, self.proposal)

    def tensors(self) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in self.network.state_dict().items()}

    def metrics(self) -> dict[str, float]:
        """Error to the score of the density smoothed by σ."""
        return {"noisy_score_error": self.problem.score_error(self.solution(), self.noise)}
