"""Permutations of hidden units that leave a network's function as it is: which axes of which tensors move together.

A `Spec` names, for every tensor, the permutation of each of its axes, or None for an axis that stays. Streams that
residual connections add to each other share one permutation.
"""

import torch
from torch import Tensor, nn

from fisherexp.models.classifier import Classifier
from fisherexp.models.mlp import MLP
from fisherexp.models.resnet import ResNet18
from fisherexp.models.small_cnn import SmallCNN
from fisherexp.models.wide_resnet import WideResNet

Spec = dict[str, tuple[str | None, ...]]
State = dict[str, Tensor]
Permutations = dict[str, Tensor]


def specification(model: Classifier) -> Spec:
    """The permutations of mlp, small_cnn, resnet18 and wide_resnet, by the layer whose outputs they reorder.

    Raises ValueError for other backbones, and for normalization over groups of units.
    """
    spec: Spec = {}
    backbone = model.backbone
    if isinstance(backbone, MLP | SmallCNN):
        last = _chain(spec, "backbone.layers", backbone.layers, None)
    elif isinstance(backbone, ResNet18):
        last = _chain(spec, "backbone.stem", backbone.stem, None)
        for number, block in enumerate(backbone.stages):
            name = f"backbone.stages.{number}"
            stream = last if isinstance(block.shortcut, nn.Identity) else name
            _chain(spec, f"{name}.residual", block.residual, last, stream)
            if stream != last:
                _chain(spec, f"{name}.shortcut", block.shortcut, last, stream)
            last = stream
    elif isinstance(backbone, WideResNet):
        last = "backbone.stem"
        _layer(spec, last, backbone.stem, last, None)
        for number, block in enumerate(backbone.blocks):
            name = f"backbone.blocks.{number}"
            stream = last if block.shortcut is None else name
            _chain(spec, f"{name}.activate", block.activate, last)
            _chain(spec, f"{name}.residual", block.residual, last, stream)
            if stream != last:
                _layer(spec, f"{name}.shortcut", block.shortcut, stream, last)
            last = stream
        _chain(spec, "backbone.top", backbone.top, last)
    else:
        known = "mlp, small_cnn, resnet18 and wide_resnet"
        raise ValueError(f"hidden units can be matched in {known}, not in {type(backbone).__name__}")
    _layer(spec, "head", model.head, None, last)
    return spec


def _chain(spec: Spec, prefix: str, layers: nn.Sequential, incoming: str | None, outgoing: str | None = None) -> str:
    """Add layers that follow each other. outgoing: the permutation after the last of them, by default its own."""
    names = [name for name, layer in layers.named_children() if isinstance(layer, nn.Linear | nn.Conv2d)]
    for name, layer in layers.named_children():
        full = f"{prefix}.{name}"
        if isinstance(layer, nn.Linear | nn.Conv2d):
            given = outgoing if name == names[-1] and outgoing else full
            _layer(spec, full, layer, given, incoming)
            incoming = given
        elif isinstance(layer, nn.GroupNorm):
            raise ValueError("units that share a group cannot be reordered freely: set model.norm=batch")
        else:  # BatchNorm: one number a unit
            tensors = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
            spec |= {f"{full}.{key}": (incoming,) for key, tensor in tensors if tensor.dim() == 1}
    return incoming


def _layer(spec: Spec, name: str, layer: nn.Module, outgoing: str | None, incoming: str | None) -> None:
    spec[f"{name}.weight"] = (outgoing, incoming, *[None] * (layer.weight.dim() - 2))
    if layer.bias is not None:
        spec[f"{name}.bias"] = (outgoing,)


def permuted(state: State, spec: Spec, permutations: Permutations, but: str | None = None) -> State:
    """The tensors of `state` with their axes reordered; without those of the permutation `but`, which stay."""
    result = {}
    for name, tensor in state.items():
        for axis, which in enumerate(spec.get(name, ())):
            if which is not None and which != but:
                tensor = tensor.index_select(axis, permutations[which].to(tensor.device))
        result[name] = tensor
    return result


def identity(state: State, spec: Spec) -> Permutations:
    """Every permutation of the spec, with nothing reordered."""
    return {which: torch.arange(size) for which, size in sizes(state, spec).items()}


def sizes(state: State, spec: Spec) -> dict[str, int]:
    """Permutation -> number of units, as the tensors of `state` tell."""
    found = {}
    for name, axes in spec.items():
        if name in state:
            shape = zip(axes, state[name].shape, strict=True)
            found |= {which: size for which, size in shape if which is not None}
    return found
