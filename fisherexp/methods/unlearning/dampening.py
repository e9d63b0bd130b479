"""Selective Synaptic Dampening and its relatives share this: the rule, the edit, both importances in one fit."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.data.composite import InTurn
from fisherexp.methods.importance import Importance
from fisherexp.scenarios.setting import Setting

log = logging.getLogger(__name__)


def dampen(
    weight: Tensor, importance_forget: Tensor, importance_all: Tensor, alpha: float, lambda_: float
) -> tuple[Tensor, Tensor]:
    """One tensor of weights after SSD, and the boolean mask of the selected ones (equations 3 and 4 of the paper).

    All tensors have the weight's shape. No sign changes, no magnitude grows, unselected weights keep every bit.
    """
    selected = importance_forget > alpha * importance_all
    shrink = (lambda_ * importance_all / importance_forget).clamp(max=1.0)
    return torch.where(selected, shrink.to(weight.dtype) * weight, weight), selected


def one_then_forgotten(setting: Setting, part: str, importance: Importance, batches_per_update: int = 1) -> InTurn:
    """Batches of `part`, then of the forgotten samples, `batches_per_update` of them as one; the tag 'forget_pass' says
    which of the two passes a sample is from."""

    def tagged(forget_pass: bool) -> Setting:
        parts = {name: samples.tagged(forget_pass=forget_pass) for name, samples in setting.parts.items()}
        return dataclasses.replace(setting, parts=parts)

    passes = ((tagged(False), part), (tagged(True), "forget"))
    return InTurn(*(importance.batches(*each, batches_per_update) for each in passes))


@torch.no_grad()
def dampen_model(
    model: nn.Module, forget: Mapping[str, Tensor], reference: Mapping[str, Tensor], alpha: float, lambda_: float
) -> dict[str, Any]:
    """Dampen every weight with an importance, in place. Returns what was selected, in numbers.

    ratio_max: the largest ratio of importances, of weights whose reference is not zero. left_by_layer: what the edit
    left of the selected weights, as a share of their magnitude (sum of absolute values).
    """
    by_layer, left, largest = {}, {}, 0.0
    for name, weight in model.named_parameters():
        if name in forget:
            forgotten, referred = forget[name].to(weight.device), reference[name].to(weight.device)
            edited, selected = dampen(weight, forgotten, referred, alpha, lambda_)
            alive = referred > 0
            if alive.any():
                largest = max(largest, (forgotten[alive] / referred[alive]).max().item())
            by_layer[name] = int(selected.sum())
            magnitude = weight[selected].abs().sum().item()
            if magnitude:
                left[name] = edited[selected].abs().sum().item() / magnitude
            weight.copy_(edited)
    weights = sum(weight.numel() for weight in model.parameters())
    return {
        "alpha": alpha,
        "selected": sum(by_layer.values()),
        "weights": weights,
        "ratio_max": largest,
        "selected_by_layer": by_layer,
        "left_by_layer": left,
    }


def warn_if_idle(name: str, outcome: Mapping[str, Any]) -> None:
    """Say so, and name the bound, where α left next to nothing to dampen. outcome: of `dampen_model`, and 'bound'."""
    selected, alpha, bound = (outcome[key] for key in ("selected", "alpha", "bound"))
    if selected and alpha < bound:
        return
    log.warning(
        "%s %s: with α = %.4g, %d of %d weights have I_f > α I_D. Ratios are bounded by |D|/|D_f| = %.4g "
        "(largest here %.4g): choose α below it, e.g. method.alpha=null method.alpha_relative=0.7.",
        name,
        "changed next to nothing" if selected else "changed nothing",
        alpha,
        selected,
        outcome["weights"],
        bound,
        outcome["ratio_max"],
    )
