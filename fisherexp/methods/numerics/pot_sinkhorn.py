"""Sinkhorn's algorithm as the package POT has it, the baseline from outside (Flamary et al., JMLR 2021).

The same sweeps in the log domain as in sinkhorn.py, columns first and then rows, from NumPy arrays or tensors.
"""

from types import ModuleType

from fisherexp.config.types import Count, Positive
from fisherexp.methods.numerics.transport_solver import TransportSolver
from fisherexp.problems.transport import Transport


class PotSinkhorn(TransportSolver):
    """A step is one call of POT, of `sweeps_per_step` sweeps that go on where the last call ended.

    tolerance, max_iterations: when to stop.
    """

    paper = "Cuturi, NeurIPS 2013, arXiv 1306.0895; POT: Flamary et al., JMLR 2021"

    def __init__(self, sweeps_per_step: Count = 10, tolerance: Positive = 1e-10, max_iterations: Count = 1000) -> None:
        super().__init__(tolerance, max_iterations)
        self.sweeps_per_step = sweeps_per_step

    def begin(self, problem: Transport, seed: int) -> None:
        self.library = pot()
        if not problem.transport.whole:
            count = len(problem.transport.a)
            raise ValueError(f"method=pot_sinkhorn needs the whole matrix of costs at once: data.rows_at_once={count}")
        super().begin(problem, seed)

    def advance(self) -> dict[str, float]:
        a, b, cost, eta = self.instance
        sweeps = min(self.sweeps_per_step, self.max_iterations - self.iterations)
        _, log = self.library.bregman.sinkhorn_log(
            *(a, b, cost, 1 / eta),
            numItermax=sweeps,
            stopThr=0,
            log=True,
            warn=False,
            warmstart=(eta * self.state.x - 1, eta * self.state.y),
        )
        potentials = {"x": (log["log_u"] + 1) / eta, "y": log["log_v"] / eta}
        self.state = self.state._replace(**potentials, sweeps=self.state.sweeps + sweeps)
        return {}


def pot() -> ModuleType:
    """The package. Raises ModuleNotFoundError, in one line, where it is not installed."""
    try:
        import ot
    except ImportError:
        raise ModuleNotFoundError("method=pot_sinkhorn needs POT: pip install 'fisherexp[ot]'") from None
    return ot
