"""Which likelihood a name or a function stands for, and which samples of a batch it counts."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .choices import check_choice
from .custom_loss import Custom
from .inputs import select
from .likelihood import Classification, Likelihood, Regression
from .sequences import Sequence, Token

_NAMED = {c.name: c for c in (Classification, Regression, Sequence, Token)}


def resolve(loss: str | Callable | Likelihood | None, labels: str) -> Likelihood:
    """The likelihood called `loss` (None: cross-entropy); checks that it knows the estimator `labels`."""
    if loss is None:
        loss = Classification()
    elif isinstance(loss, str):
        loss = _NAMED[check_choice("loss", loss, _NAMED)]()
    elif not isinstance(loss, Likelihood):
        loss = Custom(loss)
    check_choice(f"labels of loss {loss.name!r},", labels, loss.labels)
    return loss


def check_tensor(loss: Likelihood, targets: Any) -> None:
    """Raises ValueError for targets that are no tensor, unless the loss is a function of one's own."""
    if targets is not None and not isinstance(targets, Tensor) and not isinstance(loss, Custom):
        raise ValueError(f"targets of {loss.name} must be a tensor, got {type(targets).__name__}")


def counted(
    loss: Likelihood, labels: str, inputs: Any, targets: Tensor | None, weights: Tensor | None, size: int
) -> tuple[Any, Tensor | None, Tensor | None, int]:
    """A batch without the samples that its targets ignore, and how many are left. Errors as in `check_tensor`."""
    check_tensor(loss, targets)
    kept = loss.kept(targets, labels)
    if kept is None or len(kept) != size:
        return inputs, targets, weights, size
    return *(None if t is None else select(t, kept, size) for t in (inputs, targets, weights)), int(kept.sum())
