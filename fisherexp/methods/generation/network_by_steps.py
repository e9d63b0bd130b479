"""A network that is trained by a number of Adam's steps with a cosine schedule, and what a stopped run goes on from."""

from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.methods.iterative import IterativeMethod
from fisherexp.seeds import generator


class NetworkBySteps(IterativeMethod):
    """A subclass says the loss of a step (`loss`), and begins with `train`."""

    steps: int
    network: nn.Module

    def train(self, network: nn.Module, learning_rate: float, stream: str, seed: int) -> None:
        """Begin. Batches come from the named random stream of the run, `generator`."""
        self.network, self.generator, self.updates = network, generator(stream, seed), 0
        self.optimizer = torch.optim.Adam(network.parameters(), learning_rate)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, self.steps)

    def loss(self) -> Tensor:
        """Of a batch that is drawn."""
        raise NotImplementedError

    @property
    def done(self) -> bool:
        return self.updates == self.steps

    def step(self) -> dict[str, float]:
        loss = self.loss()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.updates += 1
        return {"loss": float(loss.detach())}

    def state_dict(self) -> dict[str, Any]:
        parts = {name: getattr(self, name).state_dict() for name in ("network", "optimizer", "schedule")}
        return parts | {"generator": self.generator.get_state(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("network", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["generator"])
        self.updates = state["updates"]

    def tensors(self) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in self.network.state_dict().items()}
