"""What a loader hands out: inputs, targets, and what a scenario has to say of each sample."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fisherexp.objectives.token_prediction import IGNORED

Inputs = Tensor | Mapping[str, Tensor]


class Batch(NamedTuple):
    """inputs: Tensor (B, …), or several by name (token ids and attention mask). targets: (B, …).
    weights: of the samples in a mean of losses, (B,), not negative; None for equal ones. Methods that weight nothing
        refuse them (ModelMethod.weighs_samples); metrics of an evaluation count every sample alike.
    tags: name -> one value per sample (B,): what a scenario adds, such as 'domain' or 'forgotten'.
    """

    inputs: Any
    targets: Tensor
    weights: Tensor | None = None
    tags: Mapping[str, Tensor] = {}

    @property
    def size(self) -> int:
        """B, the number of samples."""
        return len(self.targets)

    @property
    def attention_mask(self) -> Tensor | None:
        """Tokens (B, T) that count, padding being 0; None where the inputs have no such mask."""
        return self.inputs.get("attention_mask") if isinstance(self.inputs, Mapping) else None

    def select(self, mask: Tensor) -> "Batch":
        """The samples of a boolean mask (B,)."""
        return self.map(lambda tensor: tensor[mask])

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Every tensor of it changed alike."""
        weights = None if self.weights is None else change(self.weights)
        tags = {name: change(tag) for name, tag in self.tags.items()}
        return Batch(mapped(self.inputs, change), change(self.targets), weights, tags)


def mapped(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Any:
    """Inputs with every tensor of them changed alike."""
    if isinstance(inputs, Mapping):
        return {name: change(tensor) for name, tensor in inputs.items()}
    return change(inputs)


def joined(batches: Sequence[Batch]) -> Batch:
    """Several batches as one, in their order; rows of tokens are filled up to the longest.

    Raises ValueError where one has tags or weights that another lacks.
    """
    first = batches[0]
    carried = [sorted(b.tags) + ["weights"] * (b.weights is not None) for b in batches]
    if any(names != carried[0] for names in carried):
        raise ValueError(f"batches that carry different things cannot be joined: {carried}")
    if isinstance(first.inputs, Mapping):
        inputs = {name: _stacked([b.inputs[name] for b in batches]) for name in first.inputs}
    else:
        inputs = _stacked([b.inputs for b in batches])
    weights = None if first.weights is None else torch.cat([b.weights for b in batches])
    tags = {name: torch.cat([b.tags[name] for b in batches]) for name in first.tags}
    return Batch(inputs, _stacked([b.targets for b in batches], IGNORED), weights, tags)


def _stacked(tensors: Sequence[Tensor], filling: int = 0) -> Tensor:
    """One behind the other; integers (B, T) of different T get `filling` at their end."""
    widths = {tensor.shape[-1] for tensor in tensors}
    if len(widths) > 1 and all(tensor.dim() == 2 and not tensor.is_floating_point() for tensor in tensors):
        tensors = [F.pad(tensor, (0, max(widths) - tensor.shape[1]), value=filling) for tensor in tensors]
    return torch.cat(list(tensors))


def spread(tags: Mapping[str, Tensor | bool | int], targets: Tensor) -> dict[str, Tensor]:
    """Tags of all samples, (N,) each, beside their targets (N, …): a single value becomes that of every sample.

    Raises ValueError for a tensor of another length.
    """
    found = {}
    for name, tag in tags.items():
        values = tag if isinstance(tag, Tensor) else torch.full((len(targets),), tag)
        if values.shape != (len(targets),):
            raise ValueError(f"tag {name} must be ({len(targets)},), one value a sample, not {tuple(values.shape)}")
        found[name] = values.to(targets.device)
    return found
