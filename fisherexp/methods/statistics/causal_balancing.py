"""Ratings of all pairs from those that users chose to give: weights that undo the choice, then a factorization.

    ips, snips:     (1/n) Σ_chosen w e                  snips: with w divided by their mean
    doubly robust:  mean_all ê + (1/n) Σ_chosen w (e - ê),  ê = (r̂ - g)²,  g fitted to (1/n) Σ w (e - ê)²

e is the squared error of a predicted rating r̂, w ≈ P(chosen) / P(chosen | pair) has mean one, g is another
factorization. Weights: balancing.py. AKB chooses the centers anew from the errors of the model at hand, WKB those that
are worst balanced: theirs learns a mixture of kernels of a batch for that, ours adds the largest gaps in turn.

Li et al., ICLR 2024, arXiv 2404.19596. Coat's published settings are learning rate 1e-2, weight decay 1e-3, C 1e-2, and
features of 4 + 4 learned numbers; theirs is trained on minibatches, ours on all ratings at once. The authors' code
subtracts the imputed errors of chosen pairs unweighted, which is biased unless w is one; ours has w (e - ê).
"""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fisherexp.config.types import Count, NonNegative, Positive
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.methods.memory import announce
from fisherexp.methods.statistics.balancing import (
    adaptive_centers,
    balanced,
    imbalance,
    kernels,
    logistic_weights,
    median_distance,
    naive_bayes_weights,
    worst_centers,
)
from fisherexp.methods.statistics.factorization import Factorization
from fisherexp.problems.ratings import Prediction, Ratings
from fisherexp.seeds import generator

CANDIDATES = 4  # centers to choose from for each one that is chosen
PRETRAINING = 200  # steps by which features are learned where the data have none
RESOLVED = 1e-5  # gap of means that remains in float32 where none is asked for
PROBES = 50  # kernels at random pairs, other than the centers, on which the imbalance is measured


class CausalBalancing(IterativeMethod):
    """A step of Adam on all chosen ratings.

    weights: adaptive_kernel, worst_kernel and kernel balance kernels at centers chosen by the errors, by the largest
    gaps, or at random; moments the features themselves; logistic and naive_bayes are inverse propensities; uniform
    none. estimator: see above.
    centers, kernel, tolerance (C): of the balance. pairs: random pairs that stand for all. steps; refit_every: steps
    after which adaptive centers are chosen anew. factors, lr, weight_decay: of the factorization.

    Metrics beside those of the data: imbalance, the largest gap of kernels at other random pairs; effective_share, of
    ratings that count, (Σ w)² / n Σ w². weights.png and .pdf show the ratings, weighted and not.

    Types are those of the data (`data.dtype`); a `tolerance` that these do not resolve is refused.
    """

    name = "causal_balancing"
    paper = "Li et al., ICLR 2024, arXiv 2404.19596"
    problems = ("numerical",)
    requires = ("ratings",)
    named_by = "weights"
    headings = {"imbalance": "imbalance", "effective_share": "effective\nshare"}
    better = {"imbalance": "lower"}
    on_device = True
    counts_with = {"estimator": {"weights": "logistic"}, "refit_every": {"steps": 60}}

    problem: Ratings

    def __init__(
        self,
        weights: Literal[
            "adaptive_kernel", "worst_kernel", "kernel", "moments", "logistic", "naive_bayes", "uniform"
        ] = "adaptive_kernel",
        estimator: Literal["ips", "snips", "doubly_robust"] = "ips",
        centers: Count = 30,
        kernel: Literal["gaussian", "exponential"] = "gaussian",
        tolerance: NonNegative = 1e-4,
        pairs: Count = 4000,
        steps: Count = 200,
        refit_every: Count = 50,
        factors: Count = 4,
        lr: Positive = 1e-2,
        weight_decay: NonNegative = 1e-3,
    ) -> None:
        super().__init__()
        self.weights, self.estimator, self.centers, self.kernel = weights, estimator, centers, kernel
        self.tolerance, self.pairs, self.steps, self.refit_every = tolerance, pairs, steps, refit_every
        self.factors, self.lr, self.weight_decay = factors, lr, weight_decay

    def begin(self, problem: Ratings, seed: int) -> None:
        super().begin(problem, seed)
        self.chosen, shape = problem.part("chosen"), problem.shape
        kind = self.chosen.ratings.dtype
        if kind != torch.float64 and self.tolerance < RESOLVED:
            reason = f"gaps of kernels in {kind} are known to {RESOLVED:g}"
            remedy = f"method.tolerance={RESOLVED:g}, or data.dtype=float64"
            raise ValueError(f"method.tolerance={self.tolerance:g}: {reason}; {remedy}")
        announce(
            "kernels of ratings",
            len(self.chosen.users),
            CANDIDATES * self.centers,
            copies=3,
            dtype=kind,
            advice="lower method.centers",
        )
        draw = generator("causal_balancing", seed)
        mean = float(self.chosen.ratings.mean())
        self.model, self.imputed = (
            Factorization(*shape, self.factors, mean, draw).to(self.chosen.ratings) for _ in range(2)
        )
        self.optimizers = [self._adam(model) for model in (self.model, self.imputed)]
        self.drawn = [torch.randint(n, (self.pairs,), generator=draw).to(self.chosen.users) for n in shape]
        self._features(shape, mean, draw)
        self.taken, self.curve = 0, []
        points = self.candidates[: CANDIDATES * self.centers]
        self.functions, self.means = self._kernels(points)
        self.probed = self._kernels(self.candidates[-PROBES:])
        self.current = self._weights()

    def _adam(self, model: Factorization) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), lr=self.lr, weight_decay=self.weight_decay)

    def _features(self, shape: tuple[int, int], mean: float, draw: torch.Generator) -> None:
        """Of chosen and random pairs; those of the data, or factors learned from the chosen ratings."""
        features = [self.problem.instance[f"{name}_features"] for name in ("user", "item")]
        if not any(part.shape[1] for part in features):
            learned = Factorization(*shape, self.factors, mean, draw).to(self.chosen.ratings)
            optimizer = self._adam(learned)
            for _ in range(PRETRAINING):
                optimizer.zero_grad()
                errors = learned(*self.chosen[:2]) - self.chosen.ratings
                errors.square().mean().backward()
                optimizer.step()
            features = [
                torch.cat([factors, term[:, None]], 1).detach()
                for factors, term in ((learned.users, learned.of_user), (learned.items, learned.of_item))
            ]
        users, items = features
        every = torch.cat([users[self.drawn[0]], items[self.drawn[1]]], dim=1)
        here = torch.cat([users[self.chosen.users], items[self.chosen.items]], dim=1)
        middle, scale = every.mean(0), every.std(0).clamp(min=1e-12)
        self.every, self.here = (every - middle) / scale, (here - middle) / scale
        self.candidates = self.every[torch.randperm(len(self.every), generator=draw)]
        self.width = median_distance(self.every)

    def _kernels(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """At `points`, of the chosen pairs, and their means over all pairs."""
        there = (kernels(pairs, points, self.width, self.kernel) for pairs in (self.here, self.every))
        return next(there), next(there).mean(0)

    def _weights(self) -> Tensor:
        """Of the chosen ratings, given the model at hand."""
        if self.weights == "uniform":
            return torch.ones_like(self.chosen.ratings)
        if self.weights == "naive_bayes":
            return naive_bayes_weights(self.chosen.ratings, self.problem.part("unbiased").ratings)
        if self.weights == "logistic":
            return logistic_weights(self.here, self.every)
        if self.weights == "moments":
            return balanced(self.here, self.every.mean(0), self.tolerance)
        places = torch.arange(min(self.centers, len(self.means)), device=self.means.device)
        if self.weights == "adaptive_kernel":
            errors = (self.model(*self.chosen[:2]).detach() - self.chosen.ratings).square()
            places = adaptive_centers(self.functions, errors, torch.ones_like(errors), self.centers)
        if self.weights == "worst_kernel":
            places = worst_centers(self.functions, self.means, self.centers, self.tolerance)
        return balanced(self.functions[:, places], self.means[places], self.tolerance)

    @property
    def done(self) -> bool:
        return self.taken >= self.steps

    def step(self) -> dict[str, float]:
        if self.weights == "adaptive_kernel" and self.taken and self.taken % self.refit_every == 0:
            self.current = self._weights()
        weights = self.current / self.current.mean() if self.estimator == "snips" else self.current
        errors = (self.model(*self.chosen[:2]) - self.chosen.ratings).square()
        if self.estimator == "doubly_robust":
            self._impute(errors.detach(), weights)
            imputed = (self.model(*self.chosen[:2]) - self.imputed(*self.chosen[:2]).detach()).square()
            everywhere = (self.model(*self.drawn) - self.imputed(*self.drawn).detach()).square()
            loss = everywhere.mean() + (weights * (errors - imputed)).mean()
        else:
            loss = (weights * errors).mean()
        self._follow(self.optimizers[0], loss)
        self.taken += 1
        figures = {"loss": float(loss.detach())} | self.problem.evaluate(self.solution())
        self.curve.append(figures["mse"])
        return figures

    def _impute(self, errors: Tensor, weights: Tensor) -> None:
        predicted = self.model(*self.chosen[:2]).detach()
        guessed = (predicted - self.imputed(*self.chosen[:2])).square()
        self._follow(self.optimizers[1], (weights * (errors - guessed).square()).mean())

    @staticmethod
    def _follow(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        parts = {"model": self.model, "imputed": self.imputed}
        state = {name: part.state_dict() for name, part in parts.items()}
        state["optimizers"] = [optimizer.state_dict() for optimizer in self.optimizers]
        return state | {"taken": self.taken, "weights": self.current, "curve": self.curve}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.imputed.load_state_dict(state["imputed"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.taken, self.current, self.curve = state["taken"], state["weights"].to(self.current), state["curve"]

    def solution(self) -> Prediction:
        test = self.problem.part("test")
        mean = float((self.current * self.chosen.ratings).sum() / self.current.sum())
        with torch.no_grad():
            return Prediction(self.model(test.users, test.items), mean)

    def metrics(self) -> dict[str, float]:
        weights = self.current
        share = float(weights.sum().square() / weights.square().sum() / len(weights))
        scaled = weights / weights.mean()
        return {"imbalance": imbalance(*self.probed, scaled), "effective_share": share}

    def tensors(self) -> dict[str, Tensor]:
        return {**self.model.state_dict(), "weights": self.current}

    def leave_files(self, folder: Path) -> None:
        from fisherexp.methods.statistics.balancing_figure import draw

        test, unbiased = self.problem.part("test"), self.problem.part("unbiased")
        shown = (self.chosen.ratings, self.current, torch.cat([test.ratings, unbiased.ratings]))
        draw(*(part.cpu() for part in shown), self.curve, folder / "weights")
