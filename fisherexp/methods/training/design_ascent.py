"""Offline optimization by a surrogate: learn the values of known designs, then climb what was learned.

    min_β  Σ_i -log h_β(y_i | x_i),   then   x ← x + η √d ∇_x E h_β(x)   from the best known designs

The baseline of IGNITE and of conservative models, as in the benchmark of Trabucco, Geng, Kumar, Levine, ICML 2022,
arXiv 2202.08450. Designs and values are standardized. Nothing keeps the search where the surrogate is right.
"""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import AtLeastOne, Count, Positive, Size
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.methods.training.gradient_norm import mean_output_gradient, norm
from fisherexp.methods.training.surrogate import Surrogate, ascend, scaled, surrogate_loss
from fisherexp.problems.offline_design import OfflineDesign
from fisherexp.seeds import generator


class DesignAscent(IterativeMethod):
    """A step is a pass over the known designs. A subclass has gradients of its own (`set_gradients`), and says which of
    its attributes, numbers, are `state`.

    loss: of the surrogate, which predicts a Gaussian, or the mean alone. hidden: its widths, between which is
    LeakyReLU. epochs, batch_size, lr: of Adam.
    designs: how many of the best known are climbed from, search_steps times; search_lr: η, in units of the designs'
    deviation; it is multiplied by √d.

    Metrics beside those of the designs, over all known designs: surrogate_mse, in units of the values' variance;
    output_gradient_norm, ‖∇_β mean h_β(x)‖. The search starts anew in `solution`: it draws nothing.
    """

    name = "design_ascent"
    paper = "baseline of Trabucco et al., ICML 2022, arXiv 2202.08450"
    problems = ("numerical",)
    requires = ("offline_designs",)
    headings = {"surrogate_mse": "MSE of the\nsurrogate", "output_gradient_norm": "‖∇ mean\noutput‖"}
    state: ClassVar[tuple[str, ...]] = ()

    problem: OfflineDesign

    def __init__(
        self,
        loss: Literal["gaussian", "squared"] = "squared",
        hidden: AtLeastOne[Count] = (64, 64),
        epochs: Count = 60,
        batch_size: Count = 128,
        lr: Positive = 1e-3,
        designs: Count = 128,
        search_steps: Size = 200,
        search_lr: Positive = 0.01,
    ) -> None:
        super().__init__()
        self.loss, self.hidden, self.epochs, self.batch_size, self.lr = loss, hidden, epochs, batch_size, lr
        self.designs, self.search_steps, self.search_lr = designs, search_steps, search_lr

    def begin(self, problem: OfflineDesign, seed: int) -> None:
        super().begin(problem, seed)
        self.inputs, self.values = scaled(problem.instance["designs"]), scaled(problem.instance["values"])
        # The weights are torch's own draws, which a run seeds.
        self.network: nn.Module = Surrogate(self.inputs.values.shape[1], self.hidden)
        self.optimizer = torch.optim.Adam(self.network.parameters(), self.lr)
        self.generator, self.passes = generator("surrogate", seed), 0

    @property
    def done(self) -> bool:
        return self.passes == self.epochs

    def set_gradients(self, designs: Tensor, values: Tensor) -> dict[str, float]:
        """Leave the gradients of a step in the parameters, which have none; returns figures for the curve."""
        loss = surrogate_loss(self.network, designs, values, self.loss)
        loss.backward()
        return {"loss": loss.item()}

    def step(self) -> dict[str, float]:
        figures: dict[str, float] = {}
        order = torch.randperm(len(self.values.values), generator=self.generator)
        for chosen in order.split(self.batch_size):
            self.optimizer.zero_grad()
            figures = self.set_gradients(self.inputs.values[chosen], self.values.values[chosen])
            self.optimizer.step()
        self.passes += 1
        return figures

    def state_dict(self) -> dict[str, Any]:
        trained = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        own = {name: getattr(self, name) for name in self.state}
        return trained | own | {"generator": self.generator.get_state(), "passes": self.passes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        for name in ("passes", *self.state):
            setattr(self, name, state[name])

    def solution(self) -> Tensor:
        """Designs (N, d) in the problem's units."""
        best = self.values.values[:, 0].argsort(descending=True)[: self.designs]
        rate = self.search_lr * self.inputs.values.shape[1] ** 0.5
        found = ascend(self.network, self.inputs.values[best], self.search_steps, rate)
        return found * self.inputs.std + self.inputs.mean

    def tensors(self) -> dict[str, Tensor]:
        return {"designs": self.solution()} | {n: t.detach() for n, t in self.network.state_dict().items()}

    def metrics(self) -> dict[str, float]:
        with torch.no_grad():
            error = surrogate_loss(self.network, self.inputs.values, self.values.values, "squared")
        gradient = mean_output_gradient(self.network, dict(self.network.named_parameters()), self.inputs.values)
        return {"surrogate_mse": error.item(), "output_gradient_norm": norm(gradient).item()}
