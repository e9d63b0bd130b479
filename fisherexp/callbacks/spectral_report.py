"""What a training did to each weight matrix: spectra of the change, and intruder dimensions."""

import csv
import io
import re
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn

from fisherexp.adapters.layers import adapted_kind
from fisherexp.adapters.targets import layer_names
from fisherexp.callbacks.spectral_figure import draw
from fisherexp.callbacks.watcher import Watcher
from fisherexp.config.types import Count, Pattern, Probability, Size
from fisherexp.files import write_text
from fisherexp.methods.finetuning.lost_linear import LostLinear
from fisherexp.metrics.weight_change import weight_changes

COLUMNS = ("rank", "stable_rank", "relative_norm", "intruders", "overlap", "share_in_top", "rest", "undecided")


class SpectralReport(Watcher):
    """Compares each weight matrix of the finished model, adapters merged, with what it was before the training; the
    figures are those of fisherexp.metrics.weight_change. Linear, convolutional and embedding layers, each weight as
    the matrix of output times input dimensions.

    Leaves spectral_report.csv, a row for each layer with its largest singular values, and spectral_report.png and
    .pdf.
    In the record: outcome.spectral_report holds the options and the layers; among the metrics are change_rank,
    stable_rank, relative_norm, overlap and share_in_top, means over the layers that changed, and intruders, their sum.

    top: k. epsilon: ε of an intruder. targets, exclude: which layers, as fisherexp.adapters has it; the head, which may
        be new, is none by default. components: None for exact decompositions; else randomized ones of so many
        components, and `undecided` intruders and the mean `rest` of ‖ΔW‖² join the metrics. seed: of these.

    A weight that is all zeros at the start is left out. Raises ValueError for a run that trains nothing, and for layers
    of LOST, which are no one matrix.
    """

    watches_fit = True
    headings: ClassVar[dict[str, str]] = {"stable_rank": "stable\nrank", "intruders": "intruders"}

    def __init__(
        self,
        top: Count = 10,
        epsilon: Probability = 0.5,
        targets: Pattern = ".",
        exclude: Pattern | None = "^head$",
        components: Count | None = None,
        seed: Size = 0,
    ) -> None:
        self.options = {"top": top, "epsilon": epsilon, "components": components, "seed": seed}
        self.targets, self.exclude = targets, exclude
        self.start: dict[str, Tensor] | None = None

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Keep the weights as they are before the first training, and before a saved state is loaded."""
        if self.start is None and (stage == "fit" or module.adapts_at_test):
            self._refuse_branches(module.model)
            names = layer_names(module.model, self.targets, self.exclude)
            matrices = {name: _matrix(module.model, name) for name in names}
            self.start = {name: matrix.cpu().clone() for name, matrix in matrices.items() if matrix.any()}

    def _refuse_branches(self, model: nn.Module) -> None:
        found = [name for name, layer in model.named_modules() if isinstance(layer, LostLinear)]
        if left := [name for name in found if not (self.exclude and re.search(self.exclude, name))]:
            raise ValueError(
                f"callbacks=spectral_report compares weight matrices, and {', '.join(left)} are LostLinear, branches "
                "with an activation in between: leave it out, or exclude them"
            )

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        if self.start is None:
            name = type(module).__name__
            raise ValueError(f"callbacks=spectral_report looks at what a training changed: {name} trains nothing")

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        end = {name: _matrix(module.model, name) for name in self.start}
        found = weight_changes(self.start, end, **self.options)
        layers = {name: {key: value.tolist() for key, value in each.items()} for name, each in found.items()}
        self.start = None
        metrics = module.outcome.get("metrics", {}) | summary(layers, self.options["components"] is not None)
        module.outcome |= {"metrics": metrics, "spectral_report": {"options": self.options, "layers": layers}}
        folder = Path(trainer.default_root_dir)
        write_text(folder / "spectral_report.csv", table({name: (*end[name].shape, layers[name]) for name in layers}))
        draw(layers, self.options["epsilon"], folder / "spectral_report")


def summary(layers: dict[str, dict[str, Any]], randomized: bool = False) -> dict[str, float]:
    """Means over the layers that changed, 0 where none did, and the sum of intruders."""
    changed = [each for each in layers.values() if each["relative_norm"] > 0]
    means = {name: fmean([each[name] for each in changed]) if changed else 0.0 for name in COLUMNS}
    found = {"change_rank": means.pop("rank"), "changed_layers": len(changed)} | means
    found["intruders"] = sum(each["intruders"] for each in layers.values())
    found["undecided"] = sum(each["undecided"] for each in layers.values())
    return found if randomized else {name: found[name] for name in found if name not in ("rest", "undecided")}


def table(layers: dict[str, tuple[int, int, dict[str, Any]]]) -> str:
    """Name -> (m, n, figures) as CSV, a row for each layer."""
    most = max((len(figures["values_change"]) for *_, figures in layers.values()), default=0)
    spectra = {"before": "values_before", "after": "values_after", "change": "values_change"}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    numbered = [f"{name}_{i + 1}" for name in spectra for i in range(most)]
    writer.writerow(["layer", "rows", "columns", *COLUMNS, *numbered])
    for name, (rows, columns, figures) in layers.items():
        values = [figures[spectrum][i : i + 1] for spectrum in spectra.values() for i in range(most)]
        shown = [f"{figures[column]:.6g}" for column in COLUMNS]
        writer.writerow([name, rows, columns, *shown, *(f"{value[0]:.6g}" if value else "" for value in values)])
    return text.getvalue()


@torch.no_grad()
def _matrix(model: nn.Module, name: str) -> Tensor:
    """A layer's own weight (m, n), without adapters it may have."""
    layer = model.get_submodule(name)
    return adapted_kind(layer).to_matrix(layer._parameters["weight"].detach())
