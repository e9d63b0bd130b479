"""Where the weights come from that a method starts with: trained here, brought by the model, a file, another run.

Each is named by content, so that what is built on it is never that of other weights.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from fisherexp.data.datamodule import LabeledData
from fisherexp.methods.method import ModelMethod
from fisherexp.methods.recipe import Recipe
from fisherexp.models.weights import load_matching, unwrapped
from fisherexp.runs.artefact import Artefact, weights_digest

FREE = {"seconds": 0.0, "forward_samples": 0, "backward_samples": 0}


class Source(ABC):
    """A choice of the config group `source`."""

    # Whether it is the outcome of this run's own training method, of which there can be others: of other seeds, of
    # other parts of the data.
    trained_here = False

    @abstractmethod
    def weights(self, bench: Any) -> Artefact:
        """The weights, for the network of the workbench. Raises ValueError, in one line, where they do not fit."""

    def initial(self, bench: Any) -> dict[str, Tensor]:
        """The state its training began with. Raises ValueError where nobody knows."""
        raise ValueError(f"{type(self).__name__} weights do not say what their training began with: source=trained")

    def recipe(self, bench: Any) -> Recipe:
        """How it was trained, for whoever trains on: that of the run where nobody knows."""
        return bench.make("training")


class Trained(Source):
    """By a training method, once for all runs that want the same.

    method: makes the training method from a model. data: another data set to train on; null for the run's own. Its
        inputs must be of the same shape; with other classes, the head is new.
    training: the recipe, that of the run by default.
    """

    trained_here = True

    def __init__(self, method: Callable[..., ModelMethod], training: Recipe, data: LabeledData | None = None) -> None:
        self.method, self.training, self.data = method, training, data

    def weights(self, bench: Any) -> Artefact:
        if self.data is None:
            return bench.trained("source.method")
        there = bench.on_data("source.data")
        here = there.trained("source.method")
        return _fitted(bench, here.tensors, {"trained_on": there.problem.checksum(), "weights": here.key}, here.about)

    def initial(self, bench: Any) -> dict[str, Tensor]:
        if self.data is not None:
            raise ValueError("what a source on other data began with had another head: source.data=null")
        return bench.method("source.method").model.state_dict()

    def recipe(self, bench: Any) -> Recipe:
        return self.training


class Pretrained(Source):
    """The weights that came with the model (model.pretrained=true), and the head, if it came with one."""

    def weights(self, bench: Any) -> Artefact:
        if not bench.cfg.model.get("pretrained"):
            raise ValueError(
                "source=pretrained needs a model that comes with weights, e.g. model=torchvision model.pretrained=true"
            )
        state = bench.classifier("source").state_dict()
        return _fitted(bench, state, {"pretrained": bench.semantic["model"]})


class Checkpoint(Source):
    """A file of weights: .safetensors, or what torch.save wrote (.pt, .pth, .ckpt, loaded as tensors only).

    path: absolute, in the working directory, or in the data folder.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def weights(self, bench: Any) -> Artefact:
        file = bench.locate(self.path, "source.path")
        try:
            loaded = load_file(file) if file.suffix == ".safetensors" else _torch_file(file)
            return _fitted(bench, unwrapped(loaded), {"file": file.name})
        except Exception as error:
            raise ValueError(f"source.path={self.path}: {' '.join(str(error).split())}") from None


class Run(Source):
    """The final weights of another run. run: its folder, or the beginning of its hash below `output_dir`."""

    def __init__(self, run: str) -> None:
        self.run = run

    def weights(self, bench: Any) -> Artefact:
        folder = run_folder_of(self.run, Path(bench.cfg.output_dir))
        file = folder / "weights.safetensors"
        if not file.is_file():
            raise ValueError(f"source.run={self.run}: {folder} holds no weights (weights.safetensors): is it done?")
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        described = {"run": record["identity"], "names": record["names"]}
        try:
            return _fitted(bench, load_file(file), described)
        except ValueError as error:
            raise ValueError(f"source.run={self.run}: {error}") from None


def run_folder_of(run: str, output_dir: Path) -> Path:
    """The folder of a run given by path or by the beginning of its hash. Raises ValueError for none or several."""
    if Path(run).is_dir():
        return Path(run)
    found = [file.parent for file in sorted(output_dir.glob(f"*/*/{run}*/run.json"))]
    if len(found) != 1:
        what = "no finished run" if not found else f"{len(found)} runs"
        raise ValueError(
            f"source.run={run}: {what} in {output_dir} with a hash that begins so; `fisherexp status` lists them"
        )
    return found[0]


def _torch_file(file: Path) -> dict[str, Any]:
    return torch.load(file, map_location="cpu", weights_only=True)


def _fitted(bench: Any, tensors: dict[str, Tensor], origin: dict, about: dict | None = None) -> Artefact:
    """Weights from elsewhere in the run's network, as an artefact named by its content."""
    model = bench.classifier("source")
    new = load_matching(model, tensors)
    state = model.state_dict()
    about = {"cost": FREE, "outcome": {}} | (about or {}) | {"origin": origin, "new": new}
    return Artefact(weights_digest(state), state, about, None, built=False)
