"""A learning rate for each layer, on top of any recipe: groups of parameters, and factors for them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.quantization import has_kernel


def layer_groups(model: nn.Module, lr: float) -> list[dict[str, Any]]:
    """Torch's groups of the trainable parameters: one of what comes before the first layer with a matrix, named "", and
    one for each such layer, named by it. Norms and what else has no matrix go with the layer before."""
    groups: dict[str, list[nn.Parameter]] = {"": []}
    seen: set[int] = set()
    current = ""
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if p.requires_grad and id(p) not in seen]
        seen |= {id(p) for p in own}
        if has_kernel(module) and own:
            current = name
        groups.setdefault(current, []).extend(own)
    return [{"name": name, "params": parameters, "lr": lr} for name, parameters in groups.items() if parameters]


def weights(model: nn.Module, groups: Iterable[Mapping[str, Any]]) -> dict[str, Tensor]:
    """The weight of each group's layer, by name."""
    return {group["name"]: model.get_submodule(group["name"]).weight for group in groups if group["name"]}


def set_rates(scheduler: torch.optim.lr_scheduler.LambdaLR, rates: Sequence[float]) -> None:
    """From here on the schedule multiplies these peak rates, one for each group."""
    scheduler.base_lrs = list(rates)
    for group, rate, factor in zip(scheduler.optimizer.param_groups, rates, scheduler.lr_lambdas, strict=True):
        group["initial_lr"], group["lr"] = rate, rate * factor(scheduler.last_epoch)
