"""MAID: hyperparameters by descent in which accuracy of the lower level and step size find themselves.

    while ω > (1 - η) ‖z‖: make ε and δ smaller                     z descends for certain
    accept θ - α z where U₊(new) ≤ U₋(old) - λ α ‖z‖²               g at x̂ has fallen for certain; α tried downwards
    none accepted: ε and δ smaller, try again.  Accepted: both larger, α larger

Salehi, Mukherjee, Roberts, Ehrhardt: An adaptively inexact first-order method for bilevel optimization with application
to hyperparameter learning, SIMODS 2025, arXiv 2308.10098. z, ω and the bounds U of g(x̂): hypergradient.py. Conditions
are those of the paper with valid constants. The authors' code (github.com/MohammadSadeghSalehi/MAID) differs: its ω
lacks L_g in the first term and is no bound, its line search leaves (L_g / 2) ε² out on the old side, and starts from a
reference that is not a lower-level solution.
"""

from fisherexp.methods.numerics.bilevel_descent import BilevelDescent
from fisherexp.methods.numerics.hypergradient import Hypergradient, upper_bounds

ETA = 1e-4  # of the descent condition
ARMIJO = ETA / 2  # λ, which must be below η for a step to exist
SHRINK, GROW = 0.5, 1.25  # of ε and δ
TRY_SHORTER, STEP_GROWS = 0.5, 10 / 9  # of α
TRIALS = 10  # step sizes of a first attempt; each further attempt has one more
LEAST = 1e-10  # accuracy below which rounding decides


class Maid(BilevelDescent):
    """A step is an accepted step on θ. epsilon, delta: ε and δ, with which it begins. step_size: the first α.
    max_cost: see BilevelDescent."""

    name = "maid"
    paper = "Salehi et al., SIMODS 2025, arXiv 2308.10098"

    def step(self) -> dict[str, float]:
        attempt = 0
        while not self.stopped:
            found = self.certain()
            if found is None or self.searched(found, TRIALS + attempt):
                break
            attempt += 1
            self.tighten()
        self.note()
        return self.figures()

    def certain(self) -> Hypergradient | None:
        """A gradient that is known to descend; None where the accuracy for it, or `max_cost`, ends."""
        found = self.gradient()
        while found.bound > (1 - ETA) * float(found.z.norm()):
            self.tighten()
            if self.stopped:
                return None
            self.x = self.lower_level(self.theta)
            found = self.gradient()
        return found

    def tighten(self) -> None:
        self.epsilon, self.delta = SHRINK * self.epsilon, SHRINK * self.delta
        if min(self.epsilon, self.delta) < LEAST:
            self.stopped = "accuracy"
        elif self.cost >= self.max_cost:
            self.stopped = "max_cost"

    def searched(self, found: Hypergradient, trials: int) -> bool:
        """Whether a step was accepted; then the state is that after it."""
        lowest, _ = upper_bounds(self.problem, self.x, self.epsilon)
        size = self.step_size
        for _ in range(trials):
            theta = self.theta - size * found.z
            x = self.lower_level(theta)
            _, highest = upper_bounds(self.problem, x, self.epsilon)
            if highest <= lowest - ARMIJO * size * float(found.z.square().sum()):
                self.theta, self.x, self.step_size = theta, x, size * STEP_GROWS
                self.accepted += 1
                self.loosen()
                return True
            size *= TRY_SHORTER
        return False

    def loosen(self) -> None:
        self.epsilon, self.delta = GROW * self.epsilon, GROW * self.delta


class FixedAccuracy(Maid):
    """The baseline: the same line search, while ε and δ stay as they are given; it stops where no step is accepted.
    Options: see Maid."""

    name = "fixed_accuracy"

    def certain(self) -> Hypergradient:
        return self.gradient()

    def tighten(self) -> None:
        self.stopped = "no step"

    def loosen(self) -> None:
        pass
