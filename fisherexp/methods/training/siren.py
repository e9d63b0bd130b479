"""A signal as a network of sines: fit its values at all coordinates at once.

    min_θ  mean_i |f_θ(x_i) - y_i|²

Sitzmann, Martel, Bergman, Lindell, Wetzstein, NeurIPS 2020, arXiv 2006.09661; the network: models/siren.py.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from fisherexp.config.types import AtLeastOne, Count, Positive
from fisherexp.methods.generation.network_by_steps import NetworkBySteps
from fisherexp.models.siren import Siren
from fisherexp.problems.signal import Signal


class SirenFit(NetworkBySteps):
    """A step is one of Adam, over all points, its rate falling along a cosine. A subclass changes the weights it begins
    with (`initialize`).

    first_omega, omega: of the first and of the other layers. hidden: widths. steps, learning_rate: of the training.
    """

    name = "siren"
    paper = "Sitzmann et al., NeurIPS 2020, arXiv 2006.09661"
    problems = ("numerical",)
    requires = ("signal",)

    problem: Signal

    def __init__(
        self,
        first_omega: Positive = 30.0,
        omega: Positive = 30.0,
        hidden: AtLeastOne[Count] = (64, 64, 64, 64),
        steps: Count = 300,
        learning_rate: Positive = 1e-3,
    ) -> None:
        super().__init__()
        self.first_omega, self.omega, self.hidden = first_omega, omega, hidden
        self.steps, self.learning_rate = steps, learning_rate

    def initialize(self, network: Siren, signal: Tensor) -> None:
        """Change the first weights. signal: its values on the grid. As it stands, they stay."""

    def begin(self, problem: Signal, seed: int) -> None:
        super().begin(problem, seed)
        self.coordinates, self.values = problem.fitted
        # The weights are torch's own draws, which a run seeds.
        sizes = self.coordinates.shape[1], self.values.shape[1]
        network = Siren(*sizes, self.hidden, self.first_omega, self.omega)
        self.initialize(network, problem.instance["signal"])
        self.train(network, self.learning_rate, "siren", seed)

    def loss(self) -> Tensor:
        return F.mse_loss(self.network(self.coordinates), self.values)

    def solution(self) -> Callable[[Tensor], Tensor]:
        return torch.no_grad()(self.network)
