"""Where the Fisher's mass lies, by layer, and its sorted entries (runs of method=fisher)."""

from pathlib import Path
from typing import Any

from fisherexp.figures import canvas
from fisherexp.reports.grouping import Record, rows
from fisherexp.reports.plots import Request
from fisherexp.reports.plots._left import tensors
from fisherexp.reports.plots._style import looks, one_problem

POINTS = 400  # of a spectrum that are drawn


def draw(records: list[Record], request: Request) -> Any:
    """A bar and a line per estimator, of the first seed."""
    import numpy as np

    problem = one_problem(records, request.over)
    masses, spectra = {}, {}
    for row in rows(records, request.over):
        run = min(row.runs, key=lambda run: run["seed"])
        file = Path(run["folder"]) / "fisher.safetensors"
        if "trace_by_layer" in run["outcome"] and file.is_file():
            importance = run["config"]["method"]["importance"]
            name = row.options or f"{importance['gradients']}, {importance['labels']} labels"
            masses[name] = run["outcome"]["trace_by_layer"]
            spectra[name] = np.sort(np.concatenate([v.ravel() for v in tensors(file).values()]).astype(float))[::-1]
    if not masses:
        raise ValueError("no run left a Fisher: run method=fisher")
    layers = list(next(iter(masses.values())))
    figure, (bars, curve) = canvas(1, 2, (11, max(3.8, 0.24 * len(layers) + 1.2)))
    height = 0.8 / len(masses)
    for i, (name, look) in enumerate(looks(masses).items()):
        places = [j + height * (i - (len(masses) - 1) / 2) for j in range(len(layers))]
        bars.barh(
            places, [100 * masses[name].get(layer, 0.0) for layer in layers], height, color=look["color"], label=name
        )
        positive = spectra[name][spectra[name] > 0]
        ranks = np.unique(np.geomspace(1, max(len(positive), 1), POINTS).astype(int))
        curve.loglog(ranks, positive[ranks - 1], color=look["color"], linestyle=look["linestyle"], label=name)
    bars.set_yticks(range(len(layers)), layers, fontsize=7)
    bars.invert_yaxis()
    bars.set_xlabel("share of the trace (%)")
    curve.set(xlabel="rank of the entry", ylabel="entry of the diagonal (nats²)")
    curve.legend(frameon=False, fontsize=8)
    figure.suptitle(problem, fontsize=10)
    return figure
