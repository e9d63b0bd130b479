"""How each layer's spectrum falls off: exponents of power-law tails by several estimators, a study of weights alone.

    λ_1 … λ_N: eigenvalues of W Wᵀ,    p(λ) ∝ λ^-α for λ ≥ λ_min

Martin, Mahoney, JMLR 2021, arXiv 1810.01075: well trained layers have α between 2 and 6. How α is estimated decides
much of what it is (fisherexp.metrics.power_law), so each layer is given all of:

    hill   of the larger half of the eigenvalues (`share`)
    ks     of the tail that is nearest to a power law, as weightwatcher's
    farms  hill, of the eigenvalues of square windows together, which does not feel the shape of the layer
           (Hu et al., ICML 2025, arXiv 2506.06280; fisherexp.metrics.fixed_aspect)

Beside them is the null: α of the same weights in random order (farms, shuffled).
"""

import csv
import io
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fisherexp.adapters.layers import adapted_kind
from fisherexp.adapters.targets import layer_names
from fisherexp.config.types import Count, Pattern, Probability, Share, Size
from fisherexp.files import write_text
from fisherexp.methods.spectral.spectra_figure import draw
from fisherexp.methods.spectral.study import Study
from fisherexp.metrics.fixed_aspect import eigenvalues, pooled
from fisherexp.metrics.power_law import Fit, fit, interval

ESTIMATORS = {"hill": "hill", "ks": "ks", "farms": "hill"}  # name -> how its values are fitted
COLUMNS = ("alpha", "low", "high", "x_min", "tail", "distance")


class Spectrum(NamedTuple):
    """A layer's eigenvalues (N,), as one matrix and of all windows."""

    whole: Tensor
    windows: Tensor

    def of(self, estimator: str) -> Tensor:
        return self.windows if estimator == "farms" else self.whole


@torch.no_grad()
def weights_of(model: nn.Module, targets: str, exclude: str | None) -> dict[str, Tensor]:
    """Weights of linear, convolutional and embedding layers by layer name: (outputs, inputs), or kernels
    (outputs, inputs, …)."""
    found = {}
    for name in layer_names(model, targets, exclude):
        layer = model.get_submodule(name)
        weight = layer._parameters["weight"].detach()
        found[name] = weight if weight.ndim > 2 else adapted_kind(layer).to_matrix(weight)
    return found


def shuffled(weight: Tensor, seed: int) -> Tensor:
    """The same numbers in random order."""
    order = torch.randperm(weight.numel(), generator=torch.Generator().manual_seed(seed))
    return weight.flatten()[order.to(weight.device)].view(weight.shape)


class WeightSpectra(Study):
    """targets, exclude: which layers, as fisherexp.adapters has it; the head, of few rows, is none by default.

    fewest: layers with fewer eigenvalues are left out, and counted in the outcome.
    share: of the eigenvalues that are the tail of hill and farms. window, positions: of farms, see `pooled`.
    resamples, level: of the bootstrap interval. seed: of it, and of the shuffled weights.

    outcome: layers, the figures of each by estimator; metrics are means over layers, and how far the α of layers are
    apart. Raises ValueError for a model without a layer of enough eigenvalues.
    """

    paper = "Martin, Mahoney, JMLR 2021, arXiv 1810.01075"
    headings = {
        "alpha_hill": "α\nhill",
        "alpha_ks": "α\nks",
        "alpha_farms": "α\nfarms",
        "alpha_shuffled": "α\nshuffled",
    }

    counts_with = {
        "targets": {"exclude": None, "targets": "^head$"},
        "fewest": {"exclude": None, "fewest": 11},  # a head of ten classes
    }

    def __init__(
        self,
        model: nn.Module,
        targets: Pattern = ".",
        exclude: Pattern | None = "^head$",
        fewest: Count = 10,
        share: Probability = 0.5,
        window: Count | None = None,
        positions: Count = 9,
        resamples: Count = 200,
        level: Share = 0.95,
        seed: Size = 0,
    ) -> None:
        super().__init__(model)
        self.targets, self.exclude, self.fewest = targets, exclude, fewest
        self.share, self.window, self.positions = share, window, positions
        self.resamples, self.level, self.seed = resamples, level, seed
        sizes = {name: min(len(w), w[0].numel()) for name, w in weights_of(model, targets, exclude).items()}
        if max(sizes.values()) < fewest:
            most = max(sizes, key=sizes.get)
            raise ValueError(f"method.fewest={fewest}: the most eigenvalues has layer {most}, {sizes[most]}")
        self.spectra: dict[str, Spectrum] = {}

    def source_loaded(self) -> None:
        self.look()

    def look(self) -> None:
        """Find the outcome."""
        weights = weights_of(self.model, self.targets, self.exclude)
        spectra = {name: Spectrum(eigenvalues(w.flatten(1)), self._pooled(w)) for name, w in weights.items()}
        self.spectra = {name: found for name, found in spectra.items() if len(found.whole) >= self.fewest}
        if not self.spectra:
            most = max(spectra, key=lambda name: len(spectra[name].whole))
            what = f"the most eigenvalues that are not zero has layer {most}, {len(spectra[most].whole)}"
            raise ValueError(f"method.fewest={self.fewest}: {what}")
        layers = {}
        for name, spectrum in self.spectra.items():
            null = fit(self._pooled(shuffled(weights[name], self.seed)), "hill", self.share)
            found = {estimator: self._figures(spectrum.of(estimator), kind) for estimator, kind in ESTIMATORS.items()}
            shape = {"rows": len(weights[name]), "columns": weights[name][0].numel()}
            layers[name] = {**shape, "eigenvalues": len(spectrum.whole), **found, "shuffled": float(null.alpha)}
        self.outcome = {
            "layers": layers,
            "left_out": [name for name in weights if name not in layers],
            "metrics": summary(layers),
        }

    def leave_files(self, folder: Path) -> None:
        """weight_spectra.csv, a row for each layer and estimator, and weight_spectra.png and .pdf."""
        if not self.spectra:  # of a scenario with requests, nobody says when the source is loaded
            self.look()
        layers = self.outcome["layers"]
        write_text(folder / "weight_spectra.csv", table(layers))
        draw(self.spectra, layers, folder / "weight_spectra")

    def _pooled(self, weight: Tensor) -> Tensor:
        return pooled(weight, self.window, self.positions)

    def _figures(self, values: Tensor, kind: str) -> dict[str, float]:
        found: Fit = fit(values, kind, self.share)
        draws = torch.Generator().manual_seed(self.seed)
        low, high = interval(values, kind, self.share, self.resamples, self.level, draws)
        return {
            "alpha": float(found.alpha),
            "low": low,
            "high": high,
            "x_min": float(found.x_min),
            "tail": int(found.tail),
            "distance": float(found.distance),
        }


def summary(layers: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Means of α over layers by estimator, and the largest less the smallest."""
    alphas = {name: [layer[name]["alpha"] for layer in layers.values()] for name in ESTIMATORS}
    alphas["shuffled"] = [layer["shuffled"] for layer in layers.values()]
    means = {f"alpha_{name}": sum(values) / len(values) for name, values in alphas.items()}
    return means | {f"spread_{name}": max(values) - min(values) for name, values in alphas.items()}


def table(layers: dict[str, dict[str, Any]]) -> str:
    """As CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["layer", "rows", "columns", "eigenvalues", "estimator", *COLUMNS, "shuffled"])
    for name, layer in layers.items():
        about = [name, layer["rows"], layer["columns"], layer["eigenvalues"]]
        for estimator in ESTIMATORS:
            null = f"{layer['shuffled']:.6g}" if estimator == "farms" else ""
            writer.writerow([*about, estimator, *(f"{layer[estimator][column]:.6g}" for column in COLUMNS), null])
    return text.getvalue()
