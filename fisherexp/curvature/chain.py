"""Chains of torch's own layers: where the batch lies in them, and that samples cannot meet, follow from their code.

`proven_steps` gives what the engine would otherwise find out by forward passes and verify by `identity`. What it asks:
every layer is of a class in `_LAYERS` itself, no subclass, with the methods torch gave that class and none hidden by an
attribute; `nn.Sequential` alone puts them together; parameters and inputs are plain dense tensors of the number of axes
that makes axis 0 count samples; no hook is on a layer, on a parameter, on all modules or on saved tensors; nothing
intercepts torch's functions, and those of `torch.nn.functional` are the ones found when this file was imported.

Then row n of each result is a function of row n of the layer's input and the parameters, so samples do not meet, and
each parameter is met where its layer calls the function named here, and nowhere else.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import _has_any_global_hook

from .layout import Axis, Step

Axes = Callable[[nn.Module, int], int]  # how many axes a layer's result has for an input of so many; 0: not proven


def _pointwise(module: nn.Module, axes: int) -> int:
    return axes


def _images(space: int) -> Axes:
    """Convolution and pooling: without its axis of samples, the input would be taken for one image."""

    def images(module: nn.Module, axes: int) -> int:
        unusual = getattr(module, "padding_mode", "zeros") != "zeros" or getattr(module, "return_indices", False)
        return axes if axes == space + 2 and not unusual else 0

    return images


def _linear(module: nn.Module, axes: int) -> int:
    return axes if axes >= 2 else 0


def _flat(module: nn.Flatten, axes: int) -> int:
    start = module.start_dim
    return start + 1 if 1 <= start < axes and module.end_dim in (-1, axes - 1) else 0


def _layer_norm(module: nn.LayerNorm, axes: int) -> int:
    return axes if axes > len(module.normalized_shape) else 0


def _evaluated(module: nn.Module, axes: int) -> int:
    return 0 if module.training else axes


def _batch_norm(module: nn.modules.batchnorm._BatchNorm, axes: int) -> int:
    stored = module.running_mean is not None and module.running_var is not None
    return axes if stored and not module.training else 0


_POINTWISE = (nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish)
_POINTWISE += (nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh)
_POOLS = ((nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d), (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d))
_LAYERS: dict[type, tuple[Axes, Callable | None]] = {  # with the function that is given the parameters
    **dict.fromkeys(_POINTWISE, (_pointwise, None)),
    **dict.fromkeys((nn.Dropout, nn.Dropout1d, nn.Dropout2d), (_evaluated, None)),
    **{pool: (_images(space), None) for space, pools in enumerate(_POOLS, 1) for pool in pools},
    nn.Flatten: (_flat, None),
    nn.Linear: (_linear, F.linear),
    nn.Conv1d: (_images(1), F.conv1d),
    nn.Conv2d: (_images(2), F.conv2d),
    nn.LayerNorm: (_layer_norm, F.layer_norm),
    nn.GroupNorm: (_linear, F.group_norm),
    nn.BatchNorm1d: (_batch_norm, F.batch_norm),
    nn.BatchNorm2d: (_batch_norm, F.batch_norm),
}
_STEPS = {f: Step(f, (Axis(0), None, None, None, None), Axis(0)) for _, f in _LAYERS.values()}
_WEIGHT_AXES = {nn.Linear: 2, nn.Conv1d: 3, nn.Conv2d: 4}


_HIDEABLE = {cls: frozenset(n for n in dir(cls) if callable(getattr(cls, n))) for cls in (*_LAYERS, nn.Sequential)}


def _found(cls: type) -> list[tuple[Any, str, Any]]:
    """(where, name, what is there) of the functions that a forward pass of the class looks up."""
    methods = [n for n in ("__call__", "__getattr__", "_call_impl", "_conv_forward", "__iter__") if hasattr(cls, n)]
    codes = [getattr(cls, name).__code__ for name in ("forward", "_conv_forward") if hasattr(cls, name)]
    functions = {name for code in codes for name in code.co_names if callable(getattr(F, name, None))}
    return [(cls, n, getattr(cls, n)) for n in ("forward", *methods)] + [(F, n, getattr(F, n)) for n in functions]


_FOUND = {cls: _found(cls) for cls in _HIDEABLE}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_compiled_call_impl")


def proven_steps(model: nn.Module, inputs: Any) -> list[Step] | None:
    """The steps with parameters of `model(inputs)`, samples along axis 0; None where its structure proves nothing."""
    if type(model) is not nn.Sequential or type(inputs) is not Tensor or not _dense(inputs) or _intercepted():
        return None
    steps: list[Step] = []
    return steps if _follow(model, inputs.dim(), steps) else None


def _follow(module: nn.Module, axes: int, steps: list[Step]) -> int:
    """Add the steps of a layer or chain; returns the number of axes of its result, 0 where nothing is proven."""
    cls, attributes = module.__class__, module.__dict__
    hideable = _HIDEABLE.get(cls)
    if hideable is None or not hideable.isdisjoint(attributes) or any(map(attributes.get, _HOOKS)):
        return 0
    if any(getattr(owner, name, None) is not f for owner, name, f in _FOUND[cls]):
        return 0
    children = attributes["_modules"]
    if cls is nn.Sequential:
        for child in children.values():
            axes = axes and _follow(child, axes, steps)
        return 0 if attributes["_parameters"] else axes
    axes_of, function = _LAYERS[cls]
    parameters = {name: p for name, p in attributes["_parameters"].items() if p is not None}
    if children or not all(map(_plain, parameters.values())) or not parameters.keys() <= {"weight", "bias"}:
        return 0
    if parameters:
        if function is None or not _fits(cls, **parameters):
            return 0
        steps.append(_STEPS[function])
    return axes_of(module, axes)


def _fits(cls: type, weight: Tensor | None = None, bias: Tensor | None = None) -> bool:
    """Whether the parameters have their usual axes; a bias of more would be added to the samples one by one."""
    if cls not in _WEIGHT_AXES:
        return True  # torch itself checks those of normalization
    return weight is not None and weight.dim() == _WEIGHT_AXES[cls] and (bias is None or bias.shape == weight.shape[:1])


def _dense(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.float32, torch.float64) and tensor.layout is torch.strided and tensor.is_leaf


def _plain(p: Tensor) -> bool:
    return type(p) is nn.Parameter and _dense(p) and not p._backward_hooks


def _intercepted() -> bool:
    """Whether something may stand between the layers and torch's functions."""
    return (
        _has_any_global_hook()
        or torch._C._is_torch_function_mode_enabled()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._autograd._top_saved_tensors_default_hooks(False) is not None
        or torch.is_autocast_enabled("cpu")
        or torch.is_autocast_enabled("cuda")
    )
