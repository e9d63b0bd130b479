"""One pass over batches with a function from inputs to outputs: a network, or what a method found instead of one.

Modes and gradients are the caller's. A pass that no costs are to be counted of is given `model.forward`: the counting
hook is on the call of the model.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from fisherexp.metrics.evaluation import Evaluation


def evaluated(
    function: Callable[[Any], Tensor], parts: Iterable[Iterable[Any]], evaluation: Evaluation
) -> dict[str, float]:
    """Metrics of `function` on parts of the data, each some batches, in the order in which `evaluation` numbers them.

    Of several processes each has to go through all batches: nothing is reduced.
    """
    for number, batches in enumerate(parts):
        for batch in batches:
            evaluation.update(number, function(batch.inputs), batch.targets)
    evaluation.sync_on_compute = False
    return {name: float(value) for name, value in evaluation.compute().items()}


def gathered(function: Callable[[Any], Tensor], batches: Iterable[Any]) -> tuple[Tensor, Tensor]:
    """Outputs (N, …) of `function` and targets (N, …) of all batches."""
    outputs, targets = zip(*((function(batch.inputs), batch.targets) for batch in batches), strict=True)
    return torch.cat(outputs), torch.cat(targets)
