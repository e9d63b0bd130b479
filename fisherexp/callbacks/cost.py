"""What a phase costs: samples sent forward and backward through the model, and seconds."""

import time
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn


class Cost(Callback):
    """Counts samples at the model's output: one forward for each sample that reaches it, one backward for each
    gradient that leaves it. A method that walks back through the graph C times pays C backward passes.
    A loop that is resumed goes on counting from what its saved state had cost.
    """

    def __init__(self) -> None:
        self.forward_samples = 0
        self.backward_samples = 0
        self.seconds = 0.0
        self._begun = 0.0
        self._hook: Any = None

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._begin(module.model)

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._end()

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._begin(module.model)

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._end()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._end()

    def counts(self) -> dict[str, float]:
        """The figures as plain numbers."""
        return {
            "seconds": self.seconds,
            "forward_samples": self.forward_samples,
            "backward_samples": self.backward_samples,
        }

    def state_dict(self) -> dict[str, float]:
        return self.counts() | {"seconds": self.seconds + time.perf_counter() - self._begun}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.seconds = state["seconds"]
        self.forward_samples = int(state["forward_samples"])
        self.backward_samples = int(state["backward_samples"])

    def __deepcopy__(self, memo: dict[int, Any]) -> "Cost":
        """For a copy of the model, as the curvature engine makes to compare with: its passes are not counted here, and
        neither the trainer nor its batches, which Lightning ties to a callback, are copied."""
        return Cost()

    def _begin(self, model: nn.Module) -> None:
        self._begun = time.perf_counter()
        self._hook = model.register_forward_hook(self._count)

    def _end(self) -> None:
        if self._hook is not None:
            self.seconds += time.perf_counter() - self._begun
            self._hook.remove()
            self._hook = None

    def _count(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if torch._C._functorch.is_batchedtensor(output):
            return  # inside vmap a "sample" is a batch of them; the engine that uses it counts its own
        samples = len(output)
        self.forward_samples += samples
        if output.requires_grad:

            def count(gradient: Tensor) -> None:
                self.backward_samples += samples

            output.register_hook(count)
