"""Where the weights come from that a method starts with: trained here, brought by the model, a file, another run.

Each is named by content, so that what is built on it is never that of other weights.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from fisherexp.config.locations import WEIGHTS, finished_run
from fisherexp.config.nodes import comes_with_weights
from fisherexp.data.datamodule import LabeledData
from fisherexp.methods.method import ModelMethod
from fisherexp.methods.recipe import Recipe
from fisherexp.models.backbone import origin_of
from fisherexp.models.weight_files import read_weights
from fisherexp.models.weights import load_matching, unwrapped
from fisherexp.ranks import say_once
from fisherexp.runs.artefact import Artefact, Damaged, read_tensors, weights_digest
from fisherexp.runs.identity import name_of

CONSTANTS = ("mean", "std")  # of the normalization
FREE = {"seconds": 0.0, "forward_samples": 0, "backward_samples": 0}


class Source(ABC):
    """A choice of the config group `source`. It may declare, read without importing it:

    reads: option -> what it names: 'file' (of the user's) or 'run'. It is looked for before anything is loaded, and
        counts by its content.
    of_the_model: the model must come with weights.
    """

    reads: ClassVar[dict[str, str]] = {}
    of_the_model: ClassVar[bool] = False

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
        try:  # before it is trained
            load_matching(bench.classifier("source"), there.classifier("source").state_dict())
        except ValueError as error:
            raise ValueError(f"source.data: {error}, as their inputs differ: source.data=null") from None
        trained = there.trained("source.method")
        name, options = name_of(bench.cfg, "source.data"), _differing(bench.cfg)
        words = ", ".join(f"{option}={value}" for option, value in options.items() if value is not None)
        described = {"text": f"trained on {name}" + (f"({words})" if words else "")}
        described |= {"data": name, "options": options, "samples": there.problem.checksum(), "weights": trained.key}
        return _fitted(bench, trained.tensors, described, trained.about)

    def initial(self, bench: Any) -> dict[str, Tensor]:
        if self.data is not None:
            raise ValueError("what a source on other data began with had another head: source.data=null")
        return bench.method("source.method").model.state_dict()

    def recipe(self, bench: Any) -> Recipe:
        return self.training


class TrainedHead(Trained):
    """A new head, trained on the run's own data on top of a model that comes with weights. Arguments: see Trained."""

    of_the_model = True


class Pretrained(Source):
    """The weights that came with the model (model.pretrained=true, or model.weights=<file>), and the head, if it came
    with one."""

    of_the_model = True

    def weights(self, bench: Any) -> Artefact:
        if not comes_with_weights(bench.cfg):
            raise ValueError(
                "source=pretrained needs a model that comes with weights, e.g. model=torchvision model.pretrained=true"
            )
        model = bench.classifier("source")
        origin = {"text": "weights that came with the model", "model": bench.semantic["model"]}
        if came := origin_of(model):
            origin |= {"weights": came}
        return _fitted(bench, model.state_dict(), origin)


class Checkpoint(Source):
    """A file of weights: .safetensors, or what torch.save wrote (.pt, .pth, .ckpt, loaded as tensors only).

    path: absolute, in the working directory, or in the data folder.
    """

    reads = {"path": "file"}

    def __init__(self, path: str) -> None:
        self.path = path

    def weights(self, bench: Any) -> Artefact:
        file = bench.locate(self.path, "source.path")
        try:
            return _fitted(bench, unwrapped(_tensors_of(file)), {"text": f"file {file.name}", "file": file.name})
        except ValueError as error:
            raise ValueError(f"source.path={self.path}: {error}") from None


class Run(Source):
    """The final weights of another run. run: its folder, or the beginning of its hash below `output_dir`."""

    reads = {"run": "run"}

    def __init__(self, run: str) -> None:
        self.run = run

    def weights(self, bench: Any) -> Artefact:
        try:
            folder = finished_run(self.run, Path(bench.cfg.output_dir))
            record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            names = record["names"]
            text = f"run {record['identity']} ({names['method']} on {names['data']}, {names['model']})"
            described = {"text": text, "run": record["identity"], "names": names}
            return _fitted(bench, read_tensors(folder / WEIGHTS)[0], described)
        except (KeyError, TypeError) as error:
            raise ValueError(f"source.run={self.run}: its run.json lacks {error}") from None
        except (FileNotFoundError, ValueError) as error:
            raise ValueError(f"source.run={self.run}: {error}") from None


def _tensors_of(file: Path) -> Mapping[str, Any]:
    """What a file of weights holds. Raises ValueError, in one line, for one that holds anything else."""
    if file.suffix != ".safetensors":
        return read_weights(file)
    try:
        return read_tensors(file)[0]
    except Damaged as error:
        raise ValueError(f"no file of safetensors, or a damaged one ({error})") from None


def _differing(cfg: DictConfig) -> dict[str, Any]:
    """Options of the source's data that are others than those of the run's own."""
    here, there = (OmegaConf.to_container(node, resolve=True) for node in (cfg.data, cfg.source.data))
    return {name: value for name, value in there.items() if name != "_target_" and value != here.get(name)}


def _fitted(bench: Any, tensors: dict[str, Tensor], origin: dict, about: dict | None = None) -> Artefact:
    """Weights from elsewhere in the run's network, as an artefact named by its content.

    origin: plain containers for the record; its "text" is shown to the reader.
    """
    model = bench.classifier("source")
    asked = {name: model.state_dict()[name].clone() for name in CONSTANTS if bench.cfg.model.get(name)}
    new = load_matching(model, tensors)
    if any(not torch.equal(constant, model.state_dict()[name]) for name, constant in asked.items()):
        say_once(f"{origin['text']}: images are normalized as these weights say, not by model.mean and model.std")
    state = model.state_dict()
    about = {"cost": FREE, "outcome": {}} | (about or {}) | {"origin": origin, "new": new}
    return Artefact(weights_digest(state), state, about, None, built=False)
