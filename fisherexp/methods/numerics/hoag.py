"""HOAG: hyperparameters by descent with a lower level whose accuracy follows a schedule.

Pedregosa: Hyperparameter optimization with approximate gradient, ICML 2016, arXiv 1602.02355. Step k solves the lower
level and the linear system to ε_k = ε₀ · 0.9^k, ε₀ / k² or ε₀ / k³, whatever the gradient is. The rule for the step
size is ours: halved, and the step undone, where the upper loss has grown; a tenth longer elsewhere.
"""

from typing import Literal

from fisherexp.config.types import Count, Positive
from fisherexp.methods.numerics.bilevel_descent import BilevelDescent

LEAST = 1e-10  # accuracy and step size below which it ends


class Hoag(BilevelDescent):
    """A step is one of the schedule, undone or not.

    schedule: geometric, quadratic or cubic. epsilon: ε₀, of both. step_size: the first. max_cost: see BilevelDescent.
    """

    name = "hoag"
    paper = "Pedregosa, ICML 2016, arXiv 1602.02355"

    def __init__(
        self,
        schedule: Literal["geometric", "quadratic", "cubic"] = "quadratic",
        epsilon: Positive = 0.1,
        step_size: Positive = 1.0,
        max_cost: Count = 1000,
    ) -> None:
        super().__init__(epsilon, epsilon, step_size, max_cost)
        self.schedule = schedule

    def step(self) -> dict[str, float]:
        k = len(self.curve)
        shares = {"geometric": 0.9**k, "quadratic": 1 / k**2, "cubic": 1 / k**3}
        self.epsilon = self.delta = max(LEAST, self.first["epsilon"] * shares[self.schedule])
        self.x = self.lower_level(self.theta)
        theta = self.theta - self.step_size * self.gradient().z
        x, before = self.lower_level(theta), float(self.problem.upper(self.x))
        if float(self.problem.upper(x)) <= before:
            self.theta, self.x, self.step_size = theta, x, 1.1 * self.step_size
            self.accepted += 1
        else:
            self.step_size /= 2
            if self.step_size < LEAST:
                self.stopped = "step size"
        self.note()
        return self.figures()
