"""Give layers of a model adapters, and merge them into its weights."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear  # MultiheadAttention's out_proj

from fisherexp.adapters.adapter import Adapter
from fisherexp.adapters.layers import AdaptedEmbedding, AdaptedLayer, Rows, adapted_kind, adapted_layers
from fisherexp.adapters.targets import Targets, first_match, layer_names


def inject(
    model: nn.Module,
    targets: Targets,
    make: Callable[..., Adapter],
    *,
    exclude: str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    rows: Mapping[str, Sequence[Rows]] | None = None,
    dropout: float = 0.0,
    factored: bool = True,
    trained: str | None = None,
) -> dict[str, AdaptedLayer]:
    """Give each layer that is meant an adapter and freeze the rest. In place; returns the layers by name.

    targets, exclude: see `layer_names`. A layer that has an adapter gets one more, applied after it.
    make: of an adapter for the weight matrix (m, n) that the layer has now, such as `partial(LoRA, rank=4)`.
    options: more arguments of `make` for layers whose name has a pattern in it, the first that matches: other ranks
        for some, {"mlp": {"rank": 8}}.
    rows: for layers whose name has a pattern in it, ranges [start, stop) of W's rows that get an adapter each, the
        others none: query and value of a fused projection, {"qkv$": [(0, d), (2 * d, 3 * d)]}.
    dropout: probability, on the inputs of the update W' - W; the frozen W sees all inputs.
    factored: False forms W' also where low-rank factors could be applied to the inputs: another rounding.
    trained: pattern of names of parameters that stay as they are, as r"bias$|^head". A shared one has its first name.

    Raises ValueError with all that is wrong; the model is then as it was.
    """
    options, rows = options or {}, rows or {}
    layers = {name: model.get_submodule(name) for name in layer_names(model, targets, exclude)}
    spans = {name: _spans(layer, first_match(rows, name)) for name, layer in layers.items()}
    problems = [*_unmatched(layers, options, rows), *_unfit(model, layers, spans, dropout, factored)]
    if trained is not None and not finds_parameters(model, trained):
        problems.append(f"trained: '{trained}' is found in no name of a parameter")
    if problems:
        raise ValueError("; ".join(problems))
    made = {}
    for name, layer in layers.items():
        matrix = adapted_kind(layer).to_matrix(layer.weight).detach()
        arguments = first_match(options, name) or {}
        made[name] = [make(matrix[start:stop], **arguments) for start, stop in spans[name]]
    of_adapters = {id(p) for layer in adapted_layers(model).values() for p in layer.adapters.parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) not in of_adapters and (trained is None or not re.search(trained, name)):
            parameter.requires_grad_(False)
    for name, layer in layers.items():
        if not isinstance(layer, AdaptedLayer):
            adapted_kind(layer).adapt(layer, dropout, factored)
        for adapter, span in zip(made[name], spans[name], strict=True):
            layer.add(adapter.train(layer.training), span)
    return layers


def finds_parameters(model: nn.Module, pattern: str) -> bool:
    """Whether the name of a parameter has the pattern in it, or one of the names of a shared one."""
    return any(re.search(pattern, name) for name, _ in model.named_parameters(remove_duplicate=False))


def merge(model: nn.Module) -> nn.Module:
    """Put W' in the place of W and take the adapters away; in place, returns the model.

    The layers are again those of the class they had. What was frozen stays so.
    """
    for layer in adapted_layers(model).values():
        layer.merge()
    return model


def _spans(layer: nn.Module, rows: Sequence[Rows] | None) -> list[Rows]:
    size = adapted_kind(layer).to_matrix(layer._parameters["weight"]).shape[0]
    return [(0, size)] if rows is None else sorted((int(start), int(stop)) for start, stop in rows)


def _unmatched(layers: Mapping[str, nn.Module], *given: Mapping[str, Any]) -> list[str]:
    patterns = [pattern for mapping in given for pattern in mapping]
    unused = [pattern for pattern in patterns if not any(re.search(pattern, name) for name in layers)]
    return [f"'{pattern}' matches none of the layers that are meant: {', '.join(layers)}" for pattern in unused]


def _unfit(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    spans: Mapping[str, list[Rows]],
    dropout: float,
    factored: bool,
) -> list[str]:
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for key, parameter in module._parameters.items():
            owners.setdefault(id(parameter), []).append(f"{name}.{key}".lstrip("."))
    problems = [] if 0 <= dropout < 1 else [f"dropout={dropout} is no probability below 1"]
    for name, layer in layers.items():
        weight: Tensor = layer._parameters["weight"]
        others = [owner for owner in owners[id(weight)] if owner != f"{name}.weight".lstrip(".")]
        if others:
            problems.append(f"'{name}' shares its weight with {', '.join(others)}, which a merge would change too")
        if adapted_kind(layer) is AdaptedEmbedding and dropout:
            problems.append(f"'{name}' is an embedding, whose inputs dropout cannot act on: set dropout=0")
        if adapted_kind(layer) is AdaptedEmbedding and (layer.max_norm is not None or layer.scale_grad_by_freq):
            problems.append(f"'{name}' has max_norm or scale_grad_by_freq, which have no meaning for a frozen weight")
        if isinstance(layer, NonDynamicallyQuantizableLinear) and dropout:
            problems.append(f"'{name}' is applied by its attention, where dropout cannot act on it: set dropout=0")
        if isinstance(layer, AdaptedLayer) and (layer.dropout.p, layer.factored) != (dropout, factored):
            problems.append(f"'{name}' has adapters with dropout={layer.dropout.p}, factored={layer.factored} already")
        ranges, size = spans[name], adapted_kind(layer).to_matrix(weight).shape[0]
        ends = [end for span in ranges for end in span]
        if not ranges or ends != sorted(ends) or ends[0] < 0 or ends[-1] > size or any(a == b for a, b in ranges):
            problems.append(f"rows {ranges} of '{name}' are not separate ranges within 0 … {size}")
    return problems
