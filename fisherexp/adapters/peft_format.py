"""Adapters in the file format of Hugging Face's peft: what adapter_config.json and adapter_model.safetensors hold.

LoRA, rsLoRA, EVA and DoRA are what they are there. PiSSA and SoMA are LoRA of twice the rank, B and -B_0 beside each
other, as peft converts them: that fits the original weights. AdaLoRA, MiSS and Bone ("bat") have a type of their own.
The other adapters are not known to peft. Written to the format of peft 0.21.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.adapters.adalora import AdaLoRA
from fisherexp.adapters.adapter import Adapter
from fisherexp.adapters.dora import DoRA
from fisherexp.adapters.eva import EVA
from fisherexp.adapters.layers import AdaptedConv1D, AdaptedConv2d, AdaptedEmbedding, AdaptedLayer, adapted_layers
from fisherexp.adapters.lora import LoRA
from fisherexp.adapters.miss import Bone, MiSS
from fisherexp.adapters.pissa import PiSSA
from fisherexp.adapters.soma import SoMA

PREFIX = "base_model.model."


@dataclass(frozen=True)
class Form:
    """One layer's adapter as peft has it. shared: options that all layers have in common; rank, alpha: those that LoRA
    may have by layer; tensors: by peft's name, A (r, n) and B (m, r) as matrices."""

    shared: dict[str, Any]
    tensors: dict[str, Tensor]
    rank: int = 0
    alpha: float = 0.0
    linear_only: bool = False


def _lora(adapter: LoRA) -> Form:
    rank, stabilized = len(adapter.down), adapter.rank_stabilized
    alpha = adapter.scale * (math.sqrt(rank) if stabilized else rank)
    shared = {"peft_type": "LORA", "use_rslora": stabilized, "use_dora": False, "lora_bias": False}
    return Form(shared, {"lora_A": adapter.down, "lora_B": adapter.up}, rank, alpha)


def _dora(adapter: DoRA) -> Form:
    lora = _lora(adapter)
    tensors = lora.tensors | {"lora_magnitude_vector": adapter.magnitude}
    return Form(lora.shared | {"use_dora": True}, tensors, lora.rank, lora.alpha)


def _pissa(adapter: PiSSA) -> Form:
    """α / r of the doubled rank is the scale again."""
    down = torch.cat([adapter.down, adapter.down_start])
    up = torch.cat([adapter.up, -adapter.up_start], dim=1)
    shared = {"peft_type": "LORA", "use_rslora": False, "use_dora": False, "lora_bias": False}
    return Form(shared, {"lora_A": down, "lora_B": up}, len(down), adapter.scale * len(down))


def _adalora(adapter: AdaLoRA) -> Form:
    """There the scale is α / (r + 1e-5): λ makes up for it. Pruned triplets stay, their λ is zero."""
    rank = len(adapter.values)
    shared = {
        "peft_type": "ADALORA",
        "init_r": rank,
        "target_r": adapter.target,
        "lora_alpha": adapter.scale * rank,
        "orth_reg_weight": adapter.penalty_weight,
        "deltaT": adapter.every,
        "beta1": adapter.betas[0],
        "beta2": adapter.betas[1],
        "total_step": 1,  # peft wants one; the shares of steps are of a training that is over
    }
    values = adapter.values[:, None] * ((rank + 1e-5) / rank)
    return Form(shared, {"lora_A": adapter.right, "lora_B": adapter.left, "lora_E": values}, linear_only=True)


def _miss(adapter: MiSS) -> Form:
    tiled = {"init_weights": "mini", "mini_r": adapter.shard.shape[1]} if adapter.copies > 1 else {"init_weights": True}
    shared = {"peft_type": "MISS", "r": len(adapter.shard)} | tiled
    return Form(shared, {"miss_block": adapter.shard}, linear_only=True)


def _bone(adapter: Bone) -> Form:
    shared = {"peft_type": "MISS", "r": adapter.blocks.shape[1], "init_weights": "bat"}
    return Form(shared, {"miss_block": adapter.blocks}, linear_only=True)


# By the very class: a subclass may be another method.
FORMS: dict[type[Adapter], Callable[[Any], Form]] = {
    LoRA: _lora,
    EVA: _lora,
    DoRA: _dora,
    PiSSA: _pissa,
    SoMA: _pissa,
    AdaLoRA: _adalora,
    MiSS: _miss,
    Bone: _bone,
}


@torch.no_grad()
def peft_format(model: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """(adapter_config.json, tensors of adapter_model.safetensors) of a model's adapters and what is trained beside.

    `peft.PeftModel.from_pretrained(model, folder)` puts them on the same model with its original weights. Modules that
    are trained as a whole, as a head, are `modules_to_save`; other parameters go by their own names, as biases do.

    None where peft has no such adapters: another method, layers of several adapters or of rows, groups of a
    convolution, AdaLoRA or shards beside anything but plain linear layers or with options by layer.
    """
    layers = adapted_layers(model)
    forms = {name: form for name, layer in layers.items() if (form := _form(layer))}
    if not forms or len(forms) < len(layers):
        return None
    config, *others = [form.shared for form in forms.values()]
    if any(other != config for other in others):
        return None
    modules, tensors = trained_beside(model, layers)
    config = config | {
        "target_modules": [*forms],
        "modules_to_save": modules or None,
        "bias": "none",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
    }
    dropout = next(iter(layers.values())).dropout.p
    if config["peft_type"] == "MISS":
        config["miss_dropout"] = dropout
    else:
        transposed = all(isinstance(layer, AdaptedConv1D) for layer in layers.values())
        config |= {"lora_dropout": dropout, "fan_in_fan_out": transposed}
    if config["peft_type"] == "LORA":
        config |= _by_layer("r", "rank_pattern", {name: form.rank for name, form in forms.items()})
        config |= _by_layer("lora_alpha", "alpha_pattern", {name: form.alpha for name, form in forms.items()})
    for name, form in forms.items():
        for key, tensor in form.tensors.items():
            named, shaped = _placed(layers[name], key, tensor)
            tensors[f"{PREFIX}{name}.{named}"] = shaped
    return config, {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _form(layer: AdaptedLayer) -> Form | None:
    if len(layer.adapters) != 1 or layer.rows[0] != (0, len(layer.matrix)):
        return None
    adapter = layer.adapters[0]
    if type(adapter) not in FORMS or (isinstance(layer, AdaptedConv2d) and layer.groups > 1):
        return None
    form = FORMS[type(adapter)](adapter)
    return form if isinstance(layer, nn.Linear) or not form.linear_only else None


def _by_layer(option: str, pattern: str, values: dict[str, float]) -> dict[str, Any]:
    """The value most layers have, and the others by name."""
    ((common, _),) = Counter(values.values()).most_common(1)
    return {option: common, pattern: {name: value for name, value in values.items() if value != common}}


def _placed(layer: AdaptedLayer, key: str, tensor: Tensor) -> tuple[str, Tensor]:
    """Name and shape that a tensor has in a layer of this kind."""
    if isinstance(layer, AdaptedEmbedding) and key in ("lora_A", "lora_B"):
        return key.replace("lora", "lora_embedding"), tensor
    if isinstance(layer, AdaptedConv2d):
        shapes = {"lora_A": (-1, *layer.frozen_weight.shape[1:]), "lora_B": (*tensor.shape, 1, 1)}
        tensor = tensor.reshape(shapes.get(key, (1, -1, 1, 1)))
    is_layer = key in ("lora_A", "lora_B") and not isinstance(layer.adapters[0], AdaLoRA)
    return (f"{key}.weight" if is_layer else key), tensor


def trained_beside(model: nn.Module, layers: Mapping[str, nn.Module]) -> tuple[list[str], dict[str, Tensor]]:
    """Names of modules that are trained as a whole, and all tensors that are trained beside the adapters.

    layers: those that have adapters, by name.
    """
    modules, tensors = [], {}
    names = [name for name, _ in model.named_modules()]
    for name, module in model.named_modules():
        if isinstance(module, Adapter) or any(name.startswith(f"{layer}.") for layer in layers):
            continue
        own = dict(module.named_parameters(recurse=False))
        trained = {key: parameter for key, parameter in own.items() if parameter.requires_grad}
        # peft takes every module whose name ends so.
        alone = name not in layers and sum(other.endswith(name) for other in names) == 1
        if trained and trained.keys() == own.keys() and alone and not [*module.children()]:
            modules.append(name)
            trained = module.state_dict()
        base = f"{name}.base_layer" if name in layers else name
        tensors |= {f"{PREFIX}{base}.{key}": tensor for key, tensor in trained.items()}
    return modules, tensors
