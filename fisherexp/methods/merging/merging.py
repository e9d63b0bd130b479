"""What every method that merges experts shares: candidates, and the choice between them on validation images.

A rule is a pure function of dictionaries of tensors (`State`). What it has to be told, a scale for instance, is chosen
from a declared grid by accuracy on the validation images of all tasks, of which each has equally many.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from fisherexp.data.batch import Batch
from fisherexp.methods.merging.batch_norm import MergedStatistics
from fisherexp.methods.merging.experts import Experts
from fisherexp.methods.method import ModelMethod
from fisherexp.ranks import over_ranks
from fisherexp.scenarios.setting import Setting

State = dict[str, Tensor]


def mean_of(states: Sequence[Mapping[str, Tensor]], weights: Sequence[float] | None = None) -> State:
    """Σ_k c_k θ_k by name, in each tensor's own precision. weights: c, all equal by default; normalized to sum 1."""
    weights = [1.0] * len(states) if weights is None else weights
    shares = [weight / sum(weights) for weight in weights]
    return {n: sum(c * state[n] for c, state in zip(shares, states, strict=True)) for n in states[0]}


def task_vectors(base: State, models: Sequence[State]) -> list[State]:
    """δ_k = θ_k - θ_0, by name."""
    return [{name: model[name] - start for name, start in base.items()} for model in models]


def moved(base: State, delta: State, scale: float = 1.0) -> State:
    """θ_0 + scale · δ, by name."""
    return {name: start + scale * delta[name] for name, start in base.items()}


class Merging(MergedStatistics):
    """Subclasses give the rule (`merged`) and the grid of what it has to be told.

    experts: makes a training method from a model; each task's expert is what it arrives at from the source.

    Buffers are no parameters: floating-point ones, the statistics of BatchNorm, are averaged over the experts, or
    taken anew on the training images of all tasks, as batch_norm says.
    """

    scenarios = ("tasks",)
    start = "source"
    steps_itself = True
    needs = (Experts(),)
    fits_on = "validation"
    statistics_of = "every_task"

    def __init__(self, experts: Callable[..., ModelMethod], **options: Any) -> None:
        super().__init__(**options)
        self.experts = experts
        self.choices: list[dict[str, Any]] = []
        self.candidates: list[State] = []
        self.correct: Tensor | None = None
        self.seen = torch.zeros(())

    @abstractmethod
    def merged(self, base: State, models: list[State], **choice: Any) -> State:
        """Parameters by name, from those of the source and of the experts in the order of their tasks."""

    def grid(self) -> list[dict[str, Any]]:
        """The choices: keyword arguments of `merged`."""
        return [{}]

    def merged_buffers(self, base: State, models: list[State], **choice: Any) -> State:
        return mean_of(models)

    def batches(self, setting: Setting) -> Any:
        super().batches(setting)
        return setting.loader(self.fits_on)

    def on_train_start(self) -> None:
        self.choices = self.grid()
        experts = [{n: t.to(self.device) for n, t in state.items()} for state in self.given["experts"].values()]
        parameters = {name: parameter.detach() for name, parameter in self.model.named_parameters()}
        statistics = {name: buffer for name, buffer in self.model.named_buffers() if buffer.is_floating_point()}
        split = [[{n: state[n] for n in part} for state in experts] for part in (parameters, statistics)]
        self.candidates = [
            self.with_statistics(
                self.merged(parameters, split[0], **choice) | self.merged_buffers(statistics, split[1], **choice)
            )
            for choice in self.choices
        ]
        if self.correct is None:
            self.correct = torch.zeros(len(self.choices), dtype=torch.float64)
        self.correct, self.seen = self.correct.to(self.device), self.seen.to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.model.eval()
        with torch.no_grad():
            for number, state in enumerate(self.candidates):
                logits = functional_call(self.model, state, batch.inputs)
                self.correct[number] += (logits.argmax(1) == batch.targets).sum()
        self.seen += batch.size

    def on_train_end(self) -> None:
        totals = over_ranks({"correct": self.correct, "seen": self.seen})
        accuracy = 100 * totals["correct"] / totals["seen"]
        best = int(accuracy.argmax())
        self.model.load_state_dict(self.candidates[best], strict=False)
        self.candidates = []
        tried = [{**choice, "accuracy": a} for choice, a in zip(self.choices, accuracy.tolist(), strict=True)]
        self.outcome |= {"chosen": tried[best], "validation": tried}

    def configure_optimizers(self) -> None:
        return None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["correct"], checkpoint["seen"] = self.correct.clone(), self.seen.clone()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.correct, self.seen = checkpoint["correct"], checkpoint["seen"]
