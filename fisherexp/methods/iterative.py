"""Methods that are a loop of steps of their own: solvers, samplers, fits of tables."""

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from fisherexp.methods.method import Method
from fisherexp.problems.problem import Problem


class IterativeMethod(Method):
    """A lifecycle: `begin`, then `step` until `done`; the state of it can be saved and restored between two steps.

    headings, better: of what `metrics` answers, too; those of the problem's evaluation come before.
    on_device: it works on the device of a numerical problem's tensors, and is given one on the trainer's.
    """

    uses_model = False
    on_device: ClassVar[bool] = False

    problem: Problem

    def __init__(self) -> None:
        self.outcome = {}

    @abstractmethod
    def begin(self, problem: Problem, seed: int) -> None:
        """Make ready for the first step. Raises ValueError, in one line, for a problem it cannot take."""
        self.problem = problem

    @property
    @abstractmethod
    def done(self) -> bool:
        """No further step is to be made."""

    @abstractmethod
    def step(self) -> dict[str, float]:
        """One step; returns figures for a curve, by name."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything a later `step` depends on: tensors and plain containers."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state, after `begin`."""

    @abstractmethod
    def solution(self) -> Any:
        """What the problem evaluates."""

    def tensors(self) -> dict[str, Tensor]:
        """What is kept of the solution as weights.safetensors; nothing by default."""
        return {}

    def metrics(self) -> dict[str, float]:
        """Figures of the method itself, beside those of the problem's evaluation."""
        return {}
