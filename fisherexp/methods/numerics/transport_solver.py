"""What every solver of optimal transport with entropy shares: a state, and the loop of a run around its steps."""

import logging
from abc import abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fisherexp.config.types import Count, Positive
from fisherexp.data.transport import CloudInstance, TransportInstance
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.problems.entropic_transport import error_of
from fisherexp.problems.transport import Transport

log = logging.getLogger(__name__)


class TransportState(NamedTuple):
    """Where a solver stands: all that its next step depends on.

    x: (n,), y: (m,) potentials, in units of cost. sweeps, newton_steps: steps taken of either kind.
    step_size: of the last Newton step; 0 when its line search found no ascent, and then every further step fails, too.
    """

    x: Tensor
    y: Tensor
    sweeps: int = 0
    newton_steps: int = 0
    step_size: float = 1.0


def zero_potentials(problem: TransportInstance | CloudInstance) -> TransportState:
    """The usual start, x = 0 and y = 0."""
    return TransportState(torch.zeros_like(problem.a), torch.zeros_like(problem.b))


class TransportSolver(IterativeMethod):
    """Takes steps until the marginals' L1 error is at most `tolerance`, no step ascends, or `max_iterations` are made.

    A subclass says what a step is (`advance`). Iterations are Sinkhorn sweeps and Newton steps together; as a metric
    they are there only where the tolerance was reached, and `reached` (1 or 0) says whether it was. The outcome says
    why it stopped, and where that is not the tolerance, a line says how far it is and what to change (`remedy`);
    convergence.png and .pdf show the error over iterations.

    Types are those of the instance (`data.dtype`). A tolerance below the rounding of its masses is refused.
    """

    problems = ("numerical",)
    requires = ("transport",)
    headings = {"iterations": "iterations", "reached": "reached\ntolerance"}
    better = {"iterations": "lower", "reached": "higher"}
    on_device = True

    problem: Transport

    def __init__(self, tolerance: Positive = 1e-10, max_iterations: Count = 1000) -> None:
        super().__init__()
        self.tolerance, self.max_iterations = tolerance, max_iterations

    @abstractmethod
    def advance(self) -> dict[str, float]:
        """Replace `self.state` by the next one; returns figures of the step beyond its error."""

    def begin(self, problem: Transport, seed: int) -> None:
        super().begin(problem, seed)
        self.instance, self.curve = problem.transport, []
        masses = self.instance.a
        least = torch.finfo(masses.dtype).eps * float(masses.sum())
        if self.tolerance < least:
            reason = f"masses in {masses.dtype} are rounded by {least:.1e}"
            remedy = f"method.tolerance={10 * least:.0e}{self._or_float64}"
            raise ValueError(f"method.tolerance={self.tolerance:g}: {reason}; {remedy}")
        self.state = zero_potentials(self.instance)
        self._note_error()

    @property
    def iterations(self) -> int:
        """Sweeps and Newton steps so far."""
        return self.state.sweeps + self.state.newton_steps

    @property
    def stopped(self) -> str | None:
        """Why no further step is made; None while one is."""
        if self.curve[-1][1] <= self.tolerance:
            return "tolerance"
        if self.state.step_size == 0:
            return "no ascent"
        return "limit" if self.iterations >= self.max_iterations else None

    @property
    def done(self) -> bool:
        return self.stopped is not None

    def step(self) -> dict[str, float]:
        further = self.advance()
        self._note_error()
        if self.stopped in ("limit", "no ascent"):
            reached = f"marginal error {self.curve[-1][1]:.2e} after {self.iterations} iterations"
            wanted = f"method.tolerance={self.tolerance:g} was asked"
            remedy = self.remedy + self._or_float64
            log.warning("%s has not converged: %s, where %s; %s", type(self).__name__, reached, wanted, remedy)
        return {"marginal_error": self.curve[-1][1], "iterations": self.iterations, **further}

    @property
    def remedy(self) -> str:
        """What to change after a run that has stopped before the tolerance."""
        return f"method.max_iterations={10 * self.max_iterations}, or method=sinkhorn_newton"

    @property
    def _or_float64(self) -> str:
        return ", or data.dtype=float64" * (self.instance.a.dtype != torch.float64)

    def _note_error(self) -> None:
        error = float(error_of(self.state.x, self.state.y, self.instance))
        self.curve.append([self.iterations, error])
        self.outcome = {"stopped": self.stopped}

    def state_dict(self) -> dict[str, Any]:
        return {**self.state._asdict(), "curve": self.curve}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        saved = {name: state[name] for name in TransportState._fields}
        self.state = TransportState(**saved | {side: saved[side].to(self.instance.a) for side in ("x", "y")})
        self.curve = state["curve"]
        self.outcome = {"stopped": self.stopped}

    def solution(self) -> tuple[Tensor, Tensor]:
        return self.state.x, self.state.y

    def tensors(self) -> dict[str, Tensor]:
        return {"x": self.state.x, "y": self.state.y}

    def metrics(self) -> dict[str, float]:
        reached = self.stopped == "tolerance"
        found = {"reached": float(reached), "sweeps": self.state.sweeps, "newton_steps": self.state.newton_steps}
        return found | ({"iterations": self.iterations} if reached else {})

    def leave_files(self, folder: Path) -> None:
        from fisherexp.methods.numerics.convergence_figure import draw

        draw(self.curve, self.state.sweeps, self.tolerance, folder / "convergence")
