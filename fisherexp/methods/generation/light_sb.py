"""Light Schrödinger Bridge: a mixture of Gaussians fitted, without simulation, to samples of two distributions.

    min over α, r, S of  E log c(x) - E log v(y),   x ~ p₀ and y ~ p₁ drawn independently

Korotin, Gushchin, Burnaev, ICLR 2024, arXiv 2310.01174; the formulas: light_bridge.py. As in the authors' code, ε log α
is what is stored, so that Adam changes log α by lr/ε: at small ε the weights move much faster than the rest. The loss
is KL(π* ‖ π) up to a constant: differences of it mean something, its value does not.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fisherexp.config.types import Count, Positive
from fisherexp.methods.generation.light_bridge import (
    Mixture,
    bridge_loss,
    conditional_moments,
    plan_sample,
    trajectories,
)
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.problems.unpaired import Unpaired
from fisherexp.seeds import generator


class LightCoupling:
    """A fitted mixture as the solution of a problem: see Coupling."""

    def __init__(self, mixture: Mixture, epsilon: float) -> None:
        self.mixture, self.epsilon = mixture, epsilon

    def sample(self, points: Tensor, generator: torch.Generator) -> Tensor:
        return plan_sample(self.mixture, points, self.epsilon, generator)

    def moments(self, points: Tensor) -> tuple[Tensor, Tensor]:
        return conditional_moments(self.mixture, points, self.epsilon)


class LightSB(IterativeMethod):
    """A step is one update of Adam on a batch of each distribution.

    components: K. covariance: of a component, diagonal or full. initial_variance: S at the start. initial_means:
    points of p₁, or draws of N(0, 1). steps, batch_size, learning_rate: of the fit.

    bridge.png and .pdf show the first two coordinates: where points of p₀ are carried, on which paths, and points of
    p₁ beside.
    """

    name = "light_sb"
    paper = "Korotin et al., ICLR 2024, arXiv 2310.01174"
    problems = ("numerical",)
    requires = ("unpaired",)

    problem: Unpaired

    def __init__(
        self,
        components: Count = 100,
        covariance: Literal["diagonal", "full"] = "diagonal",
        initial_variance: Positive = 0.1,
        initial_means: Literal["target", "normal"] = "target",
        steps: Count = 2000,
        batch_size: Count = 128,
        learning_rate: Positive = 1e-3,
    ) -> None:
        super().__init__()
        self.components, self.full = components, covariance == "full"
        self.initial_variance, self.initial_means = initial_variance, initial_means
        self.steps, self.batch_size, self.learning_rate = steps, batch_size, learning_rate

    def begin(self, problem: Unpaired, seed: int) -> None:
        super().begin(problem, seed)
        self.source, self.target = problem.instance["source"], problem.instance["target"]
        self.generator, self.updates = generator("light_sb", seed), 0
        size = self.components, self.target.shape[1]
        if self.initial_means == "target":
            means = self.target[torch.randint(len(self.target), (self.components,), generator=self.generator)]
        else:
            means = torch.randn(size, generator=self.generator)
        uniform = torch.full((self.components,), 1 / self.components).log()
        self.parameters = {
            "scaled_log_weights": problem.epsilon * uniform,
            "means": means.clone(),
            "log_variances": torch.full(size, self.initial_variance).log(),
        }
        if self.full:
            self.parameters["rotations"] = torch.zeros(*size, size[1])
        self.optimizer = torch.optim.Adam([p.requires_grad_() for p in self.parameters.values()], self.learning_rate)

    @property
    def mixture(self) -> Mixture:
        """Rotations are exponentials of skew-symmetric matrices."""
        named = self.parameters
        skew = named["rotations"] - named["rotations"].mT if self.full else None
        log_weights = named["scaled_log_weights"] / self.problem.epsilon
        axes = None if skew is None else torch.matrix_exp(skew)
        return Mixture(log_weights, named["means"], named["log_variances"].exp(), axes)

    @property
    def done(self) -> bool:
        return self.updates == self.steps

    def step(self) -> dict[str, float]:
        loss = bridge_loss(self.mixture, self._batch(self.source), self._batch(self.target), self.problem.epsilon)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.updates += 1
        return {"loss": float(loss.detach())}

    def _batch(self, points: Tensor) -> Tensor:
        return points[torch.randint(len(points), (self.batch_size,), generator=self.generator)]

    def state_dict(self) -> dict[str, Any]:
        return {
            "parameters": {name: tensor.detach() for name, tensor in self.parameters.items()},
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, tensor in self.parameters.items():
            tensor.detach().copy_(state["parameters"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.updates = state["updates"]

    def solution(self) -> LightCoupling:
        fitted = Mixture(**self.tensors())
        return LightCoupling(fitted, self.problem.epsilon)

    def tensors(self) -> dict[str, Tensor]:
        """The mixture: log α normalized to sum α = 1, r, eigenvalues of S, and its axes where it is full."""
        found = self.mixture
        named = found._replace(log_weights=found.log_weights.log_softmax(0))._asdict()
        return {name: tensor.detach() for name, tensor in named.items() if tensor is not None}

    def leave_files(self, folder: Path) -> None:
        from fisherexp.methods.generation.bridge_figure import PATHS, POINTS, STEPS, draw

        source, target = (self.problem.instance[f"{side}_test"][:POINTS] for side in ("source", "target"))
        draws = generator("bridge_figure", "paths")
        fitted = self.solution()
        paths = trajectories(fitted.mixture, source[:PATHS], self.problem.epsilon, STEPS, draws)
        mapped = fitted.sample(source, draws)
        draw(source, target, mapped, paths, folder / "bridge")
