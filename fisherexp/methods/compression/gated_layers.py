"""Which convolutions of a network have filters that can be left out image by image, and what an image then costs."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from fisherexp.models.resnet import BasicBlock

ResidualMask = Literal["before", "after"]


class GatedLayer(NamedTuple):
    """conv: whose filters are left out. gate: the module whose output is masked. block: the residual block that the
    convolution ends. Layers stand in their order, and each has the outputs of the one before it as inputs."""

    conv: nn.Conv2d
    gate: nn.Module
    block: BasicBlock | None = None


def gated_layers(model: nn.Module, residual: ResidualMask = "before") -> dict[str, GatedLayer]:
    """Convolutions of chains of convolution, BatchNorm and ReLU, and of residual blocks, by name and in order.

    residual: filters of a block's last convolution are masked before its shortcut is added, or after that and the ReLU.

    Raises ValueError, in one line, for a model with other convolutions: their inputs would have other owners.
    """
    found: dict[str, GatedLayer] = {}
    shortcuts = set()
    for name, module in model.named_modules():
        if isinstance(module, BasicBlock):
            last, norm = module.residual[3:]
            if isinstance(norm, nn.BatchNorm2d):
                found |= _chains(module.residual, f"{name}.residual")
                found[f"{name}.residual.3"] = GatedLayer(last, norm if residual == "before" else module, module)
                shortcuts.add(f"{name}.shortcut.0")
        elif isinstance(module, nn.Sequential):
            found |= {each: layer for each, layer in _chains(module, name).items() if each not in found}
    convolutions = {name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    others = convolutions - found.keys() - shortcuts
    if not found or others:
        lacks = f"{min(others)} is not" if others else "there is none"
        raise ValueError(
            "ftwt needs convolutions that are each followed by BatchNorm and ReLU, in a chain or in residual blocks of "
            f"this house; {lacks}; nearest: model=small_cnn, model=resnet18"
        )
    return found


def _chains(layers: nn.Sequential, name: str) -> dict[str, GatedLayer]:
    """Each step of convolution, BatchNorm and ReLU, by the convolution's name."""
    found, items = {}, list(layers.named_children())
    for (child, conv), (_, norm), (_, relu) in zip(items, items[1:], items[2:], strict=False):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and isinstance(relu, nn.ReLU):
            found[f"{name}.{child}".lstrip(".")] = GatedLayer(conv, relu)
    return found


def active_multiply_adds(conv: nn.Conv2d, active_in: Tensor, active_out: Tensor, places: int) -> Tensor:
    """(B,) of one convolution: active filters · places · ⌊active inputs / groups⌋ · kernel size, for each image."""
    kernel = conv.weight[0, 0].numel()
    return active_out * places * active_in.div(conv.groups, rounding_mode="floor") * kernel


def gated_multiply_adds(
    layers: Iterable[GatedLayer], masks: Iterable[Tensor], places: Iterable[int]
) -> tuple[Tensor, int]:
    """Of all convolutions, those of shortcuts as well: with masks (B, n), for each image (B,), and without for any.

    A layer's inputs are active where the mask before it is. Where a block is masked before its shortcut is added, its
    outputs are active where its inputs are, too, and all behind a shortcut's convolution; that computes all of them.
    Masked after it, both paths of a block compute its active filters alone.
    """
    gated: Tensor | int = 0
    dense, before, active = 0, None, None
    for (conv, gate, block), mask, number in zip(layers, masks, places, strict=True):
        inputs = mask.new_ones(len(mask), conv.in_channels) if active is None else active
        gated = gated + active_multiply_adds(conv, inputs.sum(1), mask.sum(1), number)
        dense += number * conv.weight.numel()
        active = mask
        if block is not None:  # `before` is what the block was given
            convolved = isinstance(block.shortcut, nn.Sequential)
            if gate is not block:
                active = torch.ones_like(mask) if convolved else before | mask
            if convolved:
                gated = gated + active_multiply_adds(block.shortcut[0], before.sum(1), active.sum(1), number)
                dense += number * block.shortcut[0].weight.numel()
        before = inputs
    return gated, dense
