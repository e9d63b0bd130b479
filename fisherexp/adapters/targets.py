"""Which layers of a model are meant: by a pattern of names, by names, by role, or by a function."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from fisherexp.adapters.layers import (
    AdaptedConv1D,
    AdaptedConv2d,
    AdaptedEmbedding,
    AdaptedLayer,
    AdaptedLinear,
    adapted_kind,
)

Targets = str | Iterable[str] | Callable[[str, nn.Module], bool]

# What a layer is for, by the names that torch, timm, transformers and this project give it.
ROLES: dict[str, str] = {
    "query": r"(^|\.)(q|query|q_proj|query_proj|to_q|q_lin)$",
    "key": r"(^|\.)(k|key|k_proj|key_proj|to_k|k_lin)$",
    "value": r"(^|\.)(v|value|v_proj|value_proj|to_v|v_lin)$",
    "fused_qkv": r"(^|\.)(qkv|qkv_proj|c_attn|query_key_value|in_proj)$",
    "attention_output": r"(^|\.)(attn|attention|self_attn|self_attention)\."
    r"(out|proj|o_proj|out_proj|out_lin|c_proj|dense|output\.dense)$",
    "mlp": r"(^|\.)(mlp\.[\w.]+|fc\d|linear\d|ffn\.lin\d|up_proj|down_proj|gate_proj|c_fc"
    r"|(intermediate|(?<!attention\.)output)\.dense)$",
}
KINDS: dict[str, tuple[type[AdaptedLayer], ...]] = {
    "linear": (AdaptedLinear, AdaptedConv1D),
    "convolution": (AdaptedConv2d,),
    "embedding": (AdaptedEmbedding,),
}


def layer_names(model: nn.Module, targets: Targets, exclude: str | None = None) -> list[str]:
    """Names of the layers that can be adapted and are meant, in the order of the model, a shared layer once.

    targets: a regular expression to be found in a name; names, or endings of names at a dot; a role ("query", "key",
    "value", "fused_qkv", "attention_output", "mlp") or a kind ("linear", "convolution", "embedding"); or a function of
    name and layer. exclude: an expression for layers that are left out after all.
    Raises ValueError if a name, or everything, meets no such layer.
    """
    known = {name: layer for name, layer in model.named_modules() if adapted_kind(layer)}
    if callable(targets):
        found = [name for name, layer in known.items() if targets(name, layer)]
    elif isinstance(targets, str) and targets in KINDS:
        found = [name for name, layer in known.items() if adapted_kind(layer) in KINDS[targets]]
    elif isinstance(targets, str):
        found = [name for name in known if re.search(ROLES.get(targets, targets), name)]
    else:
        endings = {target: [n for n in known if n == target or n.endswith(f".{target}")] for target in targets}
        if missing := [target for target, names in endings.items() if not names]:
            raise ValueError("; ".join(_no_layer(model, t, rf"(^|\.){re.escape(t)}$", known) for t in missing))
        found = [name for name in known if any(name in names for names in endings.values())]
    found = [name for name in found if not (exclude and re.search(exclude, name))]
    if not found:
        meant = targets if isinstance(targets, str) else "targets"
        raise ValueError(_no_layer(model, meant, ROLES.get(meant, meant), known))
    return found


def first_match(patterns: Mapping[str, Any], name: str) -> Any | None:
    """The value of the first pattern that is found in `name`, or None."""
    return next((value for pattern, value in patterns.items() if re.search(pattern, name)), None)


def _no_layer(model: nn.Module, target: str, pattern: str, known: Mapping[str, nn.Module]) -> str:
    present = dict(model.named_modules())
    for name, module in present.items():
        fused = [f"{name}.{part}".lstrip(".") for part in ("in_proj", "in_proj_weight")]
        if isinstance(module, nn.MultiheadAttention) and any(re.search(pattern, part) for part in fused):
            return (
                f"'{target}' means {fused[1]}, a parameter of a {type(module).__name__} and no layer, which cannot be "
                "adapted; its out_proj can"
            )
    if target in present and target not in known:
        return f"'{target}' is a {type(present[target]).__name__}, which cannot be adapted"
    near = difflib.get_close_matches(target, [*known, *(name.rpartition(".")[2] for name in known)], 1)
    hint = f", nearest: '{near[0]}'" if near else f", there are: {', '.join(known) or 'none'}"
    return f"'{target}' matches no linear, convolutional or embedding layer of {type(model).__name__}{hint}"
