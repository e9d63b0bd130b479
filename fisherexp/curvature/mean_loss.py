"""The mean loss of one batch, and its weight in the mean over batches."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .inputs import move, outputs_of
from .likelihood import Likelihood
from .resolve import resolve

Loss = str | Likelihood | Callable[[Tensor, Tensor], Tensor] | None


def loss_of_batch(model: nn.Module, loss: Loss, batch: Any) -> tuple[Tensor, float]:
    """Mean loss of one batch and its weight in the mean over batches."""
    inputs, targets, weights = unpack(model, batch)
    return mean_loss(loss, outputs_of(model, inputs), targets, weights)


def unpack(model: nn.Module, batch: Any) -> tuple[Any, Any, Tensor | None]:
    """Inputs, targets and weights (or None) of a batch, on the model's device."""
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        raise ValueError(f"a batch must be (inputs, targets) or (inputs, targets, weights), got {_form(batch)}")
    inputs, targets, *weights = move(batch, next(model.parameters()).device)
    return inputs, targets, weights[0] if weights else None


def mean_loss(loss: Loss, outputs: Tensor, targets: Any, weights: Tensor | None) -> tuple[Tensor, float]:
    """The mean loss of a batch and what it counts; FloatingPointError if it is not finite."""
    value, count = _unchecked_mean_loss(loss, outputs, targets, weights)
    if not bool(value.isfinite()):
        raise FloatingPointError("the loss is NaN or infinite")
    return value, count


def _unchecked_mean_loss(loss: Loss, outputs: Tensor, targets: Any, weights: Tensor | None) -> tuple[Tensor, float]:
    if loss is None or isinstance(loss, (str, Likelihood)):
        likelihood = resolve(loss, "empirical")
        likelihood.check(outputs, targets)
        count = likelihood.count(outputs.detach(), targets, weights)
        return likelihood.mean(outputs, targets, weights), float(count)
    values = loss(outputs, targets)
    if weights is None:
        return values.mean(), float(values.numel() if values.ndim else len(targets))
    if values.shape != weights.shape:
        raise ValueError(f"losses {tuple(values.shape)} do not fit weights {tuple(weights.shape)}")
    return (values * weights).sum() / weights.sum(), float(weights.sum())


def _form(batch: Any) -> str:
    return type(batch).__name__ + (f" of {len(batch)}" if isinstance(batch, (tuple, list)) else "")
