"""Parameters in groups with a learning rate and a weight decay of their own: by the network's width, and by name.

Width (arXiv 2510.15262, for AdamW, whose decay is W ← (1 - ηλ) W): from a network of width d₀ with rate η and decay λ
to one of width d, matrices take η d₀/d and λ √(d/d₀), all else η and 0. The size at which a matrix settles goes as
√(η/λ), and its largest singular value there as √(η/λ) d^¾, which then does not change with d.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from fisherexp.config.problem import nearest

SETTINGS = ("lr", "weight_decay")


def matrices(model: nn.Module) -> set[nn.Parameter]:
    """Weights of linear and convolution layers that are no embedding as well: the matrix-like parameters."""
    layers = list(model.modules())
    embedded = {layer.weight for layer in layers if isinstance(layer, nn.Embedding)}
    return {layer.weight for layer in layers if isinstance(layer, nn.Linear | _ConvNd)} - embedded


def scaled_to_width(model: nn.Module, lr: float, weight_decay: float, ratio: float) -> dict[nn.Parameter, dict]:
    """Rate and decay of every parameter; ratio: d/d₀."""
    as_matrix = {"lr": lr / ratio, "weight_decay": weight_decay * ratio**0.5}
    as_vector = {"lr": lr, "weight_decay": 0.0}
    found = matrices(model)
    return {p: as_matrix if p in found else as_vector for p in model.parameters()}


def changed_by_name(
    named: Mapping[str, nn.Parameter],
    settings: Mapping[nn.Parameter, dict[str, float]],
    changes: Mapping[str, Mapping[str, Any]],
) -> dict[nn.Parameter, dict[str, float]]:
    """The settings of named parameters, those whose name an expression is found in changed; the first one counts.

    Raises ValueError for a setting that is none, and for an expression that is found in no name.
    """
    for pattern, given in changes.items():
        for name in given:
            if name not in SETTINGS:
                near = nearest(name, SETTINGS)
                raise ValueError(
                    f"training.groups: {pattern!r} sets {name}, which is none of {SETTINGS}; nearest: {near}"
                )
        if not any(re.search(pattern, name) for name in named):
            raise ValueError(
                f"training.groups: {pattern!r} is in no name of a trained parameter, such as {next(iter(named))}"
            )
    found = {}
    for name, parameter in named.items():
        change = next((given for pattern, given in changes.items() if re.search(pattern, name)), {})
        found[parameter] = settings[parameter] | {key: float(value) for key, value in change.items()}
    return found


def in_groups(settings: Mapping[nn.Parameter, dict[str, float]]) -> list[dict[str, Any]]:
    """torch's groups, one for each pair of settings, in the order in which they first appear."""
    groups: dict[tuple[float, ...], dict[str, Any]] = {}
    for parameter, each in settings.items():
        key = tuple(each[name] for name in SETTINGS)
        groups.setdefault(key, {"params": [], **each})["params"].append(parameter)
    return list(groups.values())
