"""Sinkhorn's algorithm in the log domain (Cuturi 2013, arXiv 1306.0895).

    x_i ← (log a_i + 1 - log Σ_j exp(η (y_j - C_ij))) / η, then y in the same way

Each half maximizes the dual exactly over one side's potentials, so rows fit after the first half, columns after the
second. The potentials have units of cost whatever η is: for scaling in ε, sweep at small η first and hand the state on
to the instance with the next larger one.
"""

import math

import torch
from torch import Tensor

from fisherexp.data.transport import CloudInstance, TransportInstance
from fisherexp.methods.numerics.transport_solver import TransportSolver, TransportState
from fisherexp.problems.entropic_transport import exp_above_underflow


def best_rows(y: Tensor, problem: TransportInstance | CloudInstance) -> Tensor:
    """The x (n,) that maximizes the dual for given y (m,)."""
    sums = torch.empty_like(problem.a)
    for rows, part in problem.parts():
        sums[rows] = log_sum_exp(problem.eta * (y - part.cost), dim=1)
    return (problem.a.log() + 1 - sums) / problem.eta


def best_columns(x: Tensor, problem: TransportInstance | CloudInstance) -> Tensor:
    """The y (m,) that maximizes the dual for given x (n,)."""
    sums = torch.full_like(problem.b, -math.inf)
    for rows, part in problem.parts():
        torch.logaddexp(sums, log_sum_exp(problem.eta * (x[rows, None] - part.cost), dim=0), out=sums)
    return (problem.b.log() + 1 - sums) / problem.eta


def sinkhorn_sweep(state: TransportState, problem: TransportInstance | CloudInstance) -> TransportState:
    """Rows, then columns: O(nm)."""
    x = best_rows(state.y, problem)
    return state._replace(x=x, y=best_columns(x, problem), sweeps=state.sweeps + 1)


def log_sum_exp(exponents: Tensor, dim: int) -> Tensor:
    """torch.logsumexp of finite numbers, without the time that exp takes where it underflows."""
    highest = exponents.amax(dim, keepdim=True)
    return exp_above_underflow(exponents - highest).sum(dim).log() + highest.squeeze(dim)


class Sinkhorn(TransportSolver):
    """A step is a sweep. tolerance, max_iterations: when to stop."""

    paper = "Cuturi, NeurIPS 2013, arXiv 1306.0895"
    # Sweeps to machine precision, η = 1200, in Tang et al. (arXiv 2401.12253); read at second hand.
    published = {
        "random_assignment": {"iterations": (56199,)},
        "image_pair": {"iterations": (2041,)},
        "image_pair_absolute": {"iterations": (5748,)},
    }

    def advance(self) -> dict[str, float]:
        self.state = sinkhorn_sweep(self.state, self.instance)
        return {}
