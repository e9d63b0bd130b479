"""In which directions a trained model's features lie: a von Mises-Fisher distribution for each class, as a study.

    x = h / ‖h‖ of last-layer features h,    x | class c ~ vMF(μ_c, κ_c), by maximum likelihood

Plesner, Sørensen, Hauberg, ICS 2024, arXiv 2409.08729, fit features of networks so. The larger κ_c, the closer together
are the directions of a class. With centered=true h is taken from the mean of all training features, as measures of
neural collapse have it; where features are not negative, as after a ReLU, all directions are close otherwise.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fisherexp.files import write_atomically
from fisherexp.methods.need import Costs, Need
from fisherexp.methods.spectral.directions_figure import draw
from fisherexp.methods.spectral.study import Study
from fisherexp.metrics.over_batches import gathered
from fisherexp.models.eval_mode import eval_mode
from fisherexp.special import von_mises_fisher as vmf


class Fits(NamedTuple):
    """Of each class: mean directions (C, p), concentrations κ (C,), mean resultant lengths R̄ (C,)."""

    means: Tensor
    concentrations: Tensor
    lengths: Tensor

    def log_densities(self, x: Tensor) -> Tensor:
        """Of directions (n, p) under each class, in nats: (n, C)."""
        squared = torch.cdist(x, self.means, compute_mode="donot_use_mm_for_euclid_dist").square()
        return vmf.log_peak(self.concentrations, x.shape[1]) - self.concentrations / 2 * squared


def directions(features: Tensor, center: Tensor | None = None) -> Tensor:
    """Features (n, p) less a center (p,), scaled to length 1, in float64.

    Raises ValueError, in one line, for features that have no direction.
    """
    moved = features.double() if center is None else features.double() - center
    lengths = moved.norm(dim=1, keepdim=True)
    if not (lengths > 0).all():
        raise ValueError(f"{int((~(lengths > 0)).sum())} of {len(features)} features are zero and have no direction")
    return moved / lengths


def fit_classes(x: Tensor, labels: Tensor, names: list[str]) -> Fits:
    """Of unit vectors (n, p) with labels (n,). Raises ValueError, in one line, for a class that has no finite κ."""
    found = []
    for label, name in enumerate(names):
        members = x[labels == label]
        if len(members) < 2 or torch.equal(members, members[:1].expand_as(members)):
            raise ValueError(f"class {name}: {len(members)} training samples in one direction have no finite κ")
        found.append(vmf.resultant(members))
    means, gaps = (torch.stack(part) for part in zip(*found, strict=True))
    return Fits(means, vmf.maximum_likelihood(gaps, x.shape[1]), 1 - gaps)


class Seen(NamedTuple):
    """Last-layer features (n, p) and labels (n,) of the training and of the test samples, and names of the classes."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    class_names: list[str]


class Features(Need):
    """What the source makes of all samples, unaugmented, in eval mode. Raises ValueError for weighted samples."""

    def __init__(self) -> None:
        super().__init__("features")

    def resolve(self, bench: Any, method: Any, source: Any) -> tuple[Seen, Costs]:
        begun, model, setting = time.perf_counter(), method.model, bench.setting
        if setting.parts["train"].weights is not None:
            raise ValueError("the samples of 'train' have weights, and FeatureDirections would count all alike")
        with torch.no_grad(), eval_mode(model):
            train, test = (gathered(model.features, setting.loader(part)) for part in ("train", "test"))
        names = setting.data.class_names or [str(label) for label in range(setting.data.num_classes)]
        samples = len(train[1]) + len(test[1])
        cost = {"seconds": time.perf_counter() - begun, "forward_samples": samples, "backward_samples": 0}
        return Seen(train, test, names), [cost]


class FeatureDirections(Study):
    """`given["features"]` is what it is about; training samples are fitted, test samples judge.

    centered: directions as seen from the mean of all training features.
    """

    paper = "Plesner et al., ICS 2024, arXiv 2409.08729"
    requires = ("class_labels", "features")
    needs = (Features(),)

    def __init__(self, model: nn.Module, centered: bool = False) -> None:
        super().__init__(model)
        self.centered = centered

    def leave_files(self, folder: Path) -> None:
        """feature_directions.safetensors, .png and .pdf; κ and R̄ of each class go into the outcome.

        held_out_log_likelihood: mean log-density of test samples under their own class, in nats; uniform: that of the
        uniform distribution. accuracy: in %, of the class with the largest density, on test samples.
        """
        (features, labels), (test_features, test_labels), names = self.given["features"]
        center = features.double().mean(0) if self.centered else None
        fits, test = fit_classes(directions(features, center), labels, names), directions(test_features, center)
        densities = fits.log_densities(test)
        write_atomically(
            folder / "feature_directions.safetensors", lambda temporary: save_file(fits._asdict(), temporary)
        )
        draw(fits.means, fits.concentrations, names, folder / "feature_directions")
        each = zip(fits.concentrations.tolist(), fits.lengths.tolist(), labels.bincount().tolist(), strict=True)
        self.outcome = {
            "dimensions": test.shape[1],
            "classes": {
                name: {"concentration": kappa, "resultant_length": length, "samples": count}
                for name, (kappa, length, count) in zip(names, each, strict=True)
            },
            "held_out_log_likelihood": float(densities.gather(1, test_labels[:, None]).mean()),
            "uniform_log_likelihood": float(vmf.log_peak(torch.zeros(()).double(), test.shape[1])),
            "accuracy": 100 * float((densities.argmax(1) == test_labels).double().mean()),
        }
