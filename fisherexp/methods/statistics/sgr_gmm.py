"""A mixture of Gaussians fitted by its moments, with samples that no minority can pull along: SGR-GMM.

The moments of orders 1 … L are matched (mixture_moments.py). Before every few steps of the optimizer the gradients of
single samples at the parameters at hand are reweighted (spectral_reweighting.py), beginning with the weights and the
center of the time before; then the order weights λ are made anew from the weighted samples. `dgmm` is the same with all
samples alike: the generalized method of moments with diagonal weights.

Robust Moment-Based Estimation via Spectral Gradient Reweighting, 2026; re-derived, the authors' code was not copied.
Known noise enters as in theirs, as covariance that every component has besides its low-rank part. Where their
description is silent, or ours is simpler:
- λ are inverse weighted variances of the moments, one per order.
- The optimizer is SciPy's L-BFGS, afresh after each reweighting, so that a saved state is parameters and weights.
- Samples are centered at the coordinate medians and scaled by the median norm, which gives orders one unit.
- The start is k-means (scikit-learn) on the share 1-ε of the samples that are nearest the coordinate medians.
- The logits of the weights π have no temperature; theirs are divided by 1.5.

What it withstands: gradients of outliers must stand out from those with which the components differ. An outlier at a
distance like that between two components does not.
"""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.cluster import KMeans
from torch import Tensor

from fisherexp.config.types import Count, Minority
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.methods.memory import announce
from fisherexp.methods.statistics.mixture_moments import Mixture, inverse_variances, misfit, misfit_gradients
from fisherexp.methods.statistics.spectral_reweighting import BLOCK, Reweighted, beginning, reweighted
from fisherexp.problems.contaminated import ContaminatedGaussians, Estimate
from fisherexp.seeds import derive

MOST_PARAMETERS = 400  # the game needs the eigenvectors of a matrix of this size, some thousand times


def start(samples: Tensor, components: int, rank: int, contamination: float, noise: float, seed: int) -> Mixture:
    """Clusters of the samples (n, d) nearest zero: their shares, centers and leading variances beyond the noise."""
    core = samples[samples.norm(dim=1).argsort()[: round((1 - contamination) * len(samples))]]
    found = KMeans(components, n_init=10, random_state=seed).fit(core.numpy())
    labels, factors, counts = torch.from_numpy(found.labels_), [], []
    for component in range(components):
        cluster = core[labels == component]
        values, vectors = torch.linalg.eigh(torch.cov(cluster.T, correction=0).reshape(core.shape[1], core.shape[1]))
        # A factor of zero would have no gradient.
        kept = (values[-rank:] - noise**2).clamp(min=1e-4).sqrt()
        factors.append(vectors[:, -rank:] * kept)
        counts.append(len(cluster))
    means = torch.from_numpy(found.cluster_centers_).to(samples)
    return Mixture(torch.tensor(counts, dtype=samples.dtype).log(), means, torch.stack(factors))


def flat(mixture: Mixture) -> Tensor:
    """Its parameters (P,), in the order of the gradients."""
    return torch.cat([part.flatten() for part in mixture])


def shaped(parameters: Tensor, like: Mixture) -> Mixture:
    """The mixture of parameters (P,)."""
    parts = parameters.split([part.numel() for part in like])
    return Mixture(*(part.view(other.shape) for part, other in zip(parts, like, strict=True)))


def improved(
    mixture: Mixture, samples: Tensor, noise: float, orders: Tensor, weights: Tensor, steps: int
) -> tuple[Mixture, float]:
    """After `steps` iterations of L-BFGS on the misfit, and its value there."""

    def value(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        given = torch.from_numpy(parameters).requires_grad_()
        found = misfit(shaped(given, mixture), samples, noise, orders, weights)
        (gradient,) = torch.autograd.grad(found, given)
        return float(found.detach()), gradient.numpy()

    found = minimize(value, flat(mixture).numpy(), jac=True, method="L-BFGS-B", options={"maxiter": steps})
    return shaped(torch.from_numpy(found.x), mixture), float(found.fun)


class SgrGmm(IterativeMethod):
    """A step reweights the samples, then goes `optimizer_steps` iterations of L-BFGS.

    components, rank: of the mixture. orders: moments of orders 1 … orders are matched, up to 4. steps: how many.
    contamination: ε, the share of outliers to withstand. rounds, inner_steps: of each reweighting. The noise is that of
    the data. weights.png and .pdf show the samples and their weights.
    """

    name = "sgr_gmm"
    paper = "Robust Moment-Based Estimation via Spectral Gradient Reweighting, 2026"
    problems = ("numerical",)
    requires = ("contaminated_samples",)
    headings = {"misfit": "moment\nmisfit"}
    better = {"misfit": "lower"}
    reweights: ClassVar[bool] = True

    problem: ContaminatedGaussians

    def __init__(
        self,
        components: Count = 2,
        rank: Count = 2,
        orders: Count = 3,
        steps: Count = 12,
        optimizer_steps: Count = 5,
        contamination: Minority = 0.1,
        rounds: Count = 8,
        inner_steps: Count = 50,
    ) -> None:
        super().__init__()
        self.components, self.rank, self.orders, self.steps = components, rank, orders, steps
        self.optimizer_steps, self.contamination = optimizer_steps, contamination
        self.rounds, self.inner_steps = rounds, inner_steps

    def begin(self, problem: ContaminatedGaussians, seed: int) -> None:
        super().begin(problem, seed)
        raw = problem.drawn.samples
        self._check(*raw.shape)
        self.center = raw.quantile(0.5, dim=0)
        self.scale = float((raw - self.center).norm(dim=1).quantile(0.5)) or 1.0
        self.samples, self.noise = (raw - self.center) / self.scale, problem.noise / self.scale
        shape = (self.components, self.rank, self.contamination, self.noise)
        self.mixture = start(self.samples, *shape, derive("mixture_start", seed))
        self.state = Reweighted(self.samples.new_full((len(raw),), 1 / len(raw)), flat(self.mixture) * 0)
        self.taken, self.value = 0, 0.0

    def _check(self, n: int, d: int) -> None:
        """Raises ValueError, in one line, for options that do not go together or with the samples."""
        parameters = self.components * (1 + d + d * self.rank)
        for option, value, most in (
            ("orders", self.orders, 4),
            ("rank", self.rank, d),
            ("components", self.components, n),
        ):
            if value > most:
                raise ValueError(f"method.{option}={value}: at most {most} is expected")
        if parameters > MOST_PARAMETERS:
            what = f"method.components={self.components} of method.rank={self.rank} in {d} dimensions"
            raise ValueError(f"{what} have {parameters} parameters; up to {MOST_PARAMETERS} can be reweighted")
        if self.reweights:
            announce("gradients of samples", n, parameters, copies=4, advice="lower data.n or method.rank")

    @property
    def done(self) -> bool:
        return self.taken >= self.steps

    def step(self) -> dict[str, float]:
        orders = inverse_variances(self.mixture, self.samples, self.noise, self.state.weights, self.orders)
        if self.reweights:
            vectors = misfit_gradients(self.mixture, self.samples, self.noise, orders)
            begun = beginning(vectors) if self.taken == 0 else self.state
            self.state = reweighted(vectors, self.contamination, self.rounds, self.inner_steps, begun)
            orders = inverse_variances(self.mixture, self.samples, self.noise, self.state.weights, self.orders)
        given = (self.samples, self.noise, orders, self.state.weights, self.optimizer_steps)
        self.mixture, _ = improved(self.mixture, *given)
        self.value = self._misfit(orders)
        self.taken += 1
        return {"misfit": self.value, **self.problem.evaluate(self.solution())}

    def _misfit(self, orders: Tensor) -> float:
        """Distance ‖M_l - Σ w x^⊗l‖ of all orders, weighted: what is left of F's constant put back."""
        weights = self.state.weights
        constant = 0.0
        for block, shares in zip(self.samples.split(BLOCK), weights.split(BLOCK), strict=True):
            inner = block @ self.samples.T
            powers = [shares @ inner**order @ weights for order in range(1, self.orders + 1)]
            constant = constant + torch.stack(powers) @ orders
        found = misfit(self.mixture, self.samples, self.noise, orders, weights)
        return float((found + constant).clamp(min=0).sqrt())

    def state_dict(self) -> dict[str, Any]:
        state = {"parameters": flat(self.mixture), "taken": self.taken, "misfit": self.value}
        return state | self.state._asdict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mixture, self.taken = shaped(state["parameters"], self.mixture), state["taken"]
        self.value = state["misfit"]
        self.state = Reweighted(**{name: state[name] for name in Reweighted._fields})

    def metrics(self) -> dict[str, float]:
        return {"misfit": self.value}

    def solution(self) -> Estimate:
        """In the units of the samples."""
        mixture = self.mixture
        eye = torch.eye(mixture.means.shape[1], dtype=mixture.means.dtype)
        covariances = mixture.factors @ mixture.factors.mT + self.noise**2 * eye
        means = self.center + self.scale * mixture.means
        return Estimate(mixture.logits.softmax(0), means, self.scale**2 * covariances, self.state.weights)

    def tensors(self) -> dict[str, Tensor]:
        return {name: part for name, part in self.solution()._asdict().items() if part is not None}

    def leave_files(self, folder: Path) -> None:
        from fisherexp.methods.statistics.reweighting_figure import draw

        draw(self.problem.drawn.samples, self.solution(), self.problem.drawn, folder / "weights")


class Dgmm(SgrGmm):
    """The same without reweighting: every sample counts alike."""

    name = "dgmm"
    paper = "Diagonally weighted generalized method of moments for Gaussian mixtures; the baseline of SGR-GMM, 2026"
    reweights = False

    def __init__(
        self,
        components: Count = 2,
        rank: Count = 2,
        orders: Count = 3,
        steps: Count = 12,
        optimizer_steps: Count = 5,
        contamination: Minority = 0.0,
    ) -> None:
        super().__init__(components, rank, orders, steps, optimizer_steps, contamination)
