"""Reaching into a network: its activations after a stage, changed on their way."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from fisherexp.models.backbone import Backbone


def stage(model: nn.Module, number: int) -> nn.Module:
    """The module at whose output stage `number` (1, 2, …) of a Classifier's backbone ends; for 0 the backbone.

    Raises ValueError, in one line, for a stage it does not have.
    """
    ends = model.backbone.stage_ends if isinstance(model.backbone, Backbone) else ()
    if number > len(ends):
        there = f"the last one is {len(ends)}" if ends else "it names none"
        raise ValueError(f"{type(model.backbone).__name__} has no stage {number}: {there}")
    return model.backbone.get_submodule(ends[number - 1]) if number else model.backbone


@contextmanager
def changed_after(model: nn.Module, number: int, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within this context `change` is applied before the backbone (number 0), or to the output of its stage."""
    module = stage(model, number)
    if number:
        hook = module.register_forward_hook(lambda module, inputs, output: change(output))
    else:
        hook = module.register_forward_pre_hook(lambda module, inputs: (change(inputs[0]),))
    try:
        yield
    finally:
        hook.remove()
