"""What a training loop asks of all adapters of a model: penalty, hooks, how much is trained."""

from torch import Tensor, nn, zeros

from fisherexp.adapters.adapter import Adapter
from fisherexp.adapters.layers import adapted_layers


def adapters(model: nn.Module) -> list[Adapter]:
    """All adapters, layer by layer."""
    return [adapter for layer in adapted_layers(model).values() for adapter in layer.adapters]


def penalty(model: nn.Module) -> Tensor:
    """The sum of the adapters' penalties, a scalar to add to the loss."""
    return sum((adapter.penalty() for adapter in adapters(model)), start=zeros(()))


def after_backward(model: nn.Module, step: int, total: int) -> None:
    """To be called between the backward pass of update `step` of `total` and the optimizer's step."""
    for adapter in adapters(model):
        adapter.after_backward(step, total)


def after_step(model: nn.Module, step: int, total: int) -> None:
    """To be called after the optimizer's step, before gradients are cleared."""
    found = adapters(model)
    for adapter in found:
        adapter.after_step(step, total)
    for layer in adapted_layers(model).values():
        for adapter, weight in layer.chain():
            adapter.renew(weight, step, total)
    for kind in dict.fromkeys(type(adapter) for adapter in found):
        kind.after_step_across([adapter for adapter in found if type(adapter) is kind], step, total)


def num_trainable(model: nn.Module) -> int:
    """Numbers that the adapters train, without other parameters that are trained beside them."""
    return sum(adapter.num_trainable() for adapter in adapters(model))
