"""The von Mises-Fisher distribution that directions come from, by maximum likelihood, in thousands of dimensions.

Its normalizer has a Bessel function of order p/2 - 1, which SciPy cannot evaluate from p of about a thousand on; with
logarithms of Bessel functions the fit is a few Newton steps (special/von_mises_fisher.py). Plesner, Sørensen, Hauberg,
ICS 2024, arXiv 2409.08729, fit features of networks in 2,048, 8,192 and 32,768 dimensions so.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fisherexp.methods.iterative import IterativeMethod
from fisherexp.problems.directions import Directions
from fisherexp.special import von_mises_fisher as vmf

STEPS = {"closed_form": 0, "two_steps": 2, "maximum_likelihood": vmf.LIMIT}


class VonMisesFisher(IterativeMethod):
    """The mean direction is that of the vectors' mean. A step is one of Newton's for κ, the first the closed form.

    estimator: of κ: the closed form alone (Banerjee et al. 2005), two Newton steps from there (Sra 2012), or Newton's
    method to the end.

    Features of a trained network: `method=feature_directions data=digits model=small_cnn` fits one to each class's;
    features on disk are `data=direction_file`.

    concentration: κ. entropy: of the fit, in nats. moment_error: |A_p(κ) - R̄| / (1 - R̄), zero of the maximum-likelihood
    estimate. cosines.png and .pdf show cosines of the vectors with the mean direction, and what the fit expects.
    """

    paper = "Plesner et al., ICS 2024, arXiv 2409.08729"
    problems = ("numerical",)
    requires = ("directions",)
    headings = {"concentration": "κ", "moment_error": "moment\nerror"}
    better = {"moment_error": "lower"}

    problem: Directions

    def __init__(
        self, estimator: Literal["closed_form", "two_steps", "maximum_likelihood"] = "maximum_likelihood"
    ) -> None:
        super().__init__()
        self.estimator = estimator

    def begin(self, problem: Directions, seed: int) -> None:
        super().begin(problem, seed)
        self.p = problem.train.shape[1]
        self.mean, self.gap = vmf.resultant(problem.train)
        if not 0 < float(self.gap) < 1:
            raise ValueError(f"data: the mean of the vectors has length {1 - float(self.gap):g}; κ is not finite")
        self.kappas: list[Tensor] = []

    @property
    def done(self) -> bool:
        if not self.kappas:
            return False
        still = len(self.kappas) > 1 and abs(self.kappas[-1] / self.kappas[-2] - 1) <= vmf.TOLERANCE
        return still or len(self.kappas) > STEPS[self.estimator]

    def step(self) -> dict[str, float]:
        if self.kappas:
            self.kappas.append(vmf.newton_step(self.kappas[-1], self.gap, self.p))
        else:
            self.kappas.append(vmf.closed_form(self.gap, self.p))
        return {"concentration": float(self.kappas[-1]), "moment_error": self._moment_error()}

    def _moment_error(self) -> float:
        return float((vmf.mean_gap(self.kappas[-1], self.p) / self.gap - 1).abs())

    def state_dict(self) -> dict[str, Any]:
        return {"kappas": self.kappas}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kappas = state["kappas"]

    def solution(self) -> tuple[Tensor, Tensor]:
        return self.mean, self.kappas[-1]

    def tensors(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "concentration": self.kappas[-1]}

    def metrics(self) -> dict[str, float]:
        kappa = self.kappas[-1]
        found = {"concentration": float(kappa), "entropy": float(vmf.entropy(kappa, self.p))}
        return {**found, "moment_error": self._moment_error(), "newton_steps": len(self.kappas) - 1}

    def leave_files(self, folder: Path) -> None:
        from fisherexp.methods.numerics.cosine_figure import draw

        cosines = {name: self.problem.instance[name] @ self.mean for name in ("train", "test")}
        spread = torch.cat([*cosines.values()])
        grid = torch.linspace(float(spread.min()), float(spread.max()), 400, dtype=torch.float64)
        draw(cosines, grid, vmf.cosine_log_density(grid, self.kappas[-1], self.p).exp(), folder / "cosines")
