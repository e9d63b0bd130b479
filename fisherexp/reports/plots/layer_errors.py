"""Error of every layer's outputs after compression, in the order of the model: a line per method."""

from statistics import fmean
from typing import Any

from fisherexp.figures import MOST_NAMES, canvas, named_every
from fisherexp.reports.grouping import Record, rows
from fisherexp.reports.plots import Request
from fisherexp.reports.plots._style import legend, looks, one_problem


def draw(records: list[Record], request: Request) -> Any:
    """Mean over repetitions, on a logarithmic axis; layers with an error of zero are left out. Raises ValueError where
    no run says what its layers lose."""
    with_layers = [record for record in records if errors(record)]
    if not with_layers:
        raise ValueError("no run here keeps the output error of its layers; methods such as qera_exact do")
    problem = one_problem(with_layers, request.over)
    found = rows(with_layers, request.over)
    names = [f"{row.labels[-1]} {row.options}".strip() for row in found]
    style = looks(set(names), request.methods)
    layers = list(dict.fromkeys(layer for record in with_layers for layer in errors(record)))
    every = named_every(len(layers))
    figure, axes = canvas(size=(max(6.4, 0.2 * min(len(layers), MOST_NAMES)) + 2.4, 4.6))
    for row, name in zip(found, names, strict=True):
        means = {layer: fmean(each[layer] for each in map(errors, row.runs) if layer in each) for layer in layers}
        shown = [(number, means[layer]) for number, layer in enumerate(layers) if means[layer] > 0]
        axes.semilogy(*zip(*shown, strict=True), label=name, **style[name] | {"linewidth": 1, "markersize": 4})
    axes.set_xticks(range(0, len(layers), every), layers[::every], rotation=90, fontsize=6)
    axes.set_ylabel("relative error of the outputs")
    axes.set_title(problem, fontsize=10)
    legend(axes, outside=True)  # a line goes from side to side, and several leave no corner free
    return figure


def errors(record: Record) -> dict[str, float]:
    """Layer -> relative error of its outputs, of a run that has them."""
    layers = record.get("outcome", {}).get("layers", {})
    return {name: about["output_error"] for name, about in layers.items() if "output_error" in about}
