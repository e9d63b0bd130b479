"""The rows of a low-rank Fisher, collected batch by batch: gradients of the mean loss of a few samples each."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .accumulating import refuse_weights
from .diagonal import Estimator
from .inputs import batch_size, select
from .low_rank import LowRankFisher, batch_gradients
from .products import trainable_parameters
from .resolve import resolve
from .vectors import ravel


class LowRankAccumulator:
    """Collects `rows` gradients, each of the mean loss of `batch` samples (1: single samples); then it is full.

    What `update` is given is cut into such batches; a rest of fewer samples is left out. loss, parameters, errors: as
    in `batch_gradients`. The rows are kept as one matrix (rows, d), allocated at once.
    """

    generator = None  # it draws no labels

    def __init__(self, model: nn.Module, *, rows: int, batch: int = 1, loss: Any = None, parameters: Any = None):
        self.model, self.batch, self.names = model, batch, parameters
        self.loss = resolve(loss, "empirical")
        chosen = trainable_parameters(model, parameters)
        self.shapes = {name: p.shape for name, p in chosen.items()}
        like = ravel(chosen).detach()
        self.gradients = like.new_zeros(rows, len(like))
        self.count = 0

    def update(self, inputs: Any, targets: Tensor, weights: Tensor | None = None) -> None:
        """Add the batches in the inputs (N samples first) and their targets, in order, while there are rows to fill.

        Raises ValueError for weights of samples.
        """
        refuse_weights(self, weights)
        size, room = batch_size(inputs), len(self.gradients) - self.count
        starts = range(0, size - self.batch + 1, self.batch)[:room]
        parts = [slice(start, start + self.batch) for start in starts]
        batches = ((select(inputs, rows, size), targets[rows]) for rows in parts)
        for row in batch_gradients(self.model, self.loss, batches, self.names):
            self.gradients[self.count] = row
            self.count += 1

    def sums(self) -> dict[str, Tensor]:
        """The state, for `load_sums`: `gradients`, the rows so far, not copied. Nothing here is a sum over ranks."""
        return {"gradients": self.gradients[: self.count]}

    def load_sums(self, state: Mapping[str, Tensor]) -> None:
        """Replace the state by a copy of what `sums` returned. Raises ValueError where it does not fit."""
        found = {name: tuple(tensor.shape) for name, tensor in state.items()}
        rows, dim = self.gradients.shape
        if set(found) != {"gradients"} or found["gradients"][1:] != (dim,) or found["gradients"][0] > rows:
            raise ValueError(f"state does not fit the accumulator of {rows} rows of {dim}: {found}")
        self.count = len(state["gradients"])
        self.gradients[: self.count] = state["gradients"]

    def result(self) -> LowRankFisher:
        """The Fisher of the rows so far, which share its memory. Raises ValueError without any."""
        if not self.count:
            raise ValueError("no samples were added")
        mean = self.batch > 1
        gradients, size = ("batch_mean", self.batch) if mean else ("per_sample", None)
        estimator = Estimator("empirical", gradients, self.loss.name, size)
        return LowRankFisher(self.gradients[: self.count], estimator=estimator, shapes=self.shapes)
