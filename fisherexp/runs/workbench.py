"""The tools of one run: its data, its models, its artefacts, its loops."""

import copy
import dataclasses
import functools
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn

from fisherexp.callbacks.cost import Cost
from fisherexp.callbacks.meter import Meter
from fisherexp.callbacks.progress import PhaseProgress
from fisherexp.callbacks.resumable import Resumable
from fisherexp.callbacks.watcher import Watcher
from fisherexp.config.locations import user_file
from fisherexp.config.validate import attribute
from fisherexp.data.datamodule import LabeledData
from fisherexp.methods.curvature import Curvature
from fisherexp.methods.importance import FisherPass
from fisherexp.methods.method import ModelMethod
from fisherexp.metrics.predictions import Predictions
from fisherexp.problems.generative import Generative
from fisherexp.problems.problem import Problem
from fisherexp.problems.supervised import Supervised
from fisherexp.ranks import is_follower, take_buffers_of_first
from fisherexp.runs.artefact import Artefact
from fisherexp.runs.code import code_of, targets
from fisherexp.runs.identity import is_audited, name_of, run_folder, semantic
from fisherexp.runs.sources import Source
from fisherexp.runs.store import ArtefactStore
from fisherexp.runs.threads import choose_threads
from fisherexp.runs.trainer import steps_per_epoch
from fisherexp.scenarios.plain import Plain
from fisherexp.scenarios.setting import Setting
from fisherexp.seeds import derive
from fisherexp.stop import finishing_the_step, interruptible

# Evaluating a model is seldom worth a line of a log; a stream to adapt on is.
SHORT_EVALUATION = 5.0  # seconds


class Workbench:
    """Made from a validated config; nothing is read or built before it is asked for.

    loggers, callbacks: attached to the loops of the run's own method, not to those of its artefacts.
    """

    def __init__(
        self, cfg: DictConfig, loggers: list[Logger] | None = None, callbacks: list[Callback] | None = None
    ) -> None:
        self.cfg = cfg
        self.store = ArtefactStore(Path(cfg.output_dir) / "artefacts")
        self.loggers, self.callbacks = loggers or [], callbacks or []
        self.costs: dict[str, dict[str, float]] = {}
        self.threads: int | None = None
        self.started_from: Artefact | None = None  # set once the run's method has its first weights
        self.seed, self.label = cfg.seed, ""
        self.semantic = semantic(cfg)

    def on_data(self, node: str) -> "Workbench":
        """This workbench on the data set that a config node describes, as it comes, with the same network."""
        other = copy.copy(self)
        for name in ("problem", "setting"):
            other.__dict__.pop(name, None)
        other.loggers, other.callbacks, other.costs = [], [], {}
        other.label = f"{name_of(self.cfg, node)}: "
        other.problem = self._problem(self.make(node), Plain())
        return other

    def variation(self, label: str, seed: int, setting: Setting | None = None) -> "Workbench":
        """This workbench with the random streams of another seed and, if given, other parts of the data.

        It makes further oracles and shadow models, which share the artefact store. `label` announces their loops.
        """
        other = copy.copy(self)
        other.loggers, other.callbacks, other.costs = [], [], {}
        other.seed, other.label = seed, f"{label} "
        other.setting = dataclasses.replace(setting or self.setting, seed=seed)
        return other

    # --- what the config describes ---------------------------------------------------------------------

    @cached_property
    def problem(self) -> Any:
        """What the run is about, as yet unread."""
        return self._problem(self.make("data"), self.make("scenario"))

    @property
    def data(self) -> LabeledData:
        """The data set, read. Also settles the number of threads, before the first heavy operation."""
        data = self.problem.read()
        self._settle_threads()
        return data

    @cached_property
    def setting(self) -> Setting:
        """The data as the scenario cuts it."""
        self.data  # noqa: B018 - threads are settled first
        return self.problem.load(self.cfg.seed).setting

    @cached_property
    def source(self) -> Source:
        """Where the weights come from that the method starts with."""
        return self.make("source")

    @property
    def references(self) -> dict[str, str]:
        """Stage -> which model the outcome is compared with: 'source' or 'oracle'."""
        return self.problem.references

    @property
    def headings(self) -> dict[str, str]:
        """Metric -> heading, for those that tables show."""
        return self.problem.headings | (self.audit.headings if self.audit else {})

    @property
    def better(self) -> dict[str, str]:
        """Metric -> 'higher' or 'lower', where an extreme is the goal."""
        return self.problem.better | (self.audit.better if self.audit else {})

    @cached_property
    def audit(self) -> Any:
        """What compares the outcome with other models, beyond the test loop; None where nothing does."""
        return self.make("audit") if is_audited(self.cfg) else None

    def make(self, node: str, **options: Any) -> Any:
        """What a config node describes."""
        return instantiate(OmegaConf.select(self.cfg, node), _convert_="all", **options)

    def method(self, node: str) -> ModelMethod:
        """The method that a config node describes, around new weights drawn from the seed and its name."""
        make = self.make(node, _partial_=True)
        return make(model=self.classifier(make.func.stream_name()))

    def classifier(self, stream: str) -> nn.Module:
        """A new network, its weights drawn from the seed and the name of a random stream."""
        self.data  # noqa: B018 - its shape is that of the data
        return self.network(stream)

    def network(self, stream: str) -> nn.Module:
        """The same, of a problem that is read already."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive("weights", self.seed, stream))
            return self.problem.build_model()

    def locate(self, path: str, option: str) -> Path:
        """A file given by the user: absolute, in the working directory, or in the data folder. Raises ValueError."""
        try:
            return user_file(path, self.cfg.data.get("root"))
        except FileNotFoundError as error:
            raise ValueError(f"{option}={path}: {error}") from None

    def published(self) -> dict[str, tuple[float, ...]]:
        """Metric -> (mean, standard deviation) or (mean,) that the run's method declares as published for these data
        and this scenario; none where options alter either.
        """
        if self.problem.load(self.cfg.seed).altered:
            return {}
        found, data = attribute(self.cfg, "method", "published", {}), name_of(self.cfg, "data")
        return found.get(data, {}) | found.get(f"{data}/{name_of(self.cfg, 'scenario')}", {})

    # --- loops -----------------------------------------------------------------------------------------

    def fit(
        self, method: ModelMethod, folder: Path, phase: str, own: bool = False, setting: Setting | None = None
    ) -> None:
        """Run a method's fit loop, going on from the state a killed process left in `folder`.

        setting: that of one request among several; by default the scenario's.
        """
        folder.mkdir(parents=True, exist_ok=True)
        resumable, cost = Resumable(folder / "last.ckpt", self.cfg.checkpoint_every), Cost()
        progress = PhaseProgress(self.meter(phase))
        trainer = self._trainer(method, folder, [resumable, cost, progress], own)
        torch.manual_seed(derive("fit", self.seed, method.stream_name()))
        placed = self._placed(trainer, setting)
        for watcher in _watchers(trainer.callbacks):
            watcher.fit_begins(placed)
        method.objective = placed.data.objective
        batches = method.batches(placed)
        method.steps_per_epoch = steps_per_epoch(len(batches), trainer)
        with interruptible(), finishing_the_step():
            trainer.fit(method, train_dataloaders=batches, ckpt_path=resumable.checkpoint, weights_only=True)
        take_buffers_of_first(method.model)
        self.costs[phase] = cost.counts()
        if trainer.is_global_zero:
            resumable.file.unlink(missing_ok=True)

    def test(self, method: ModelMethod, folder: Path, phase: str, own: bool = False) -> dict[str, float]:
        """Run a method's test loop over the parts the scenario evaluates; returns the metrics."""
        cost = Cost()
        progress = PhaseProgress(self.meter(phase, SHORT_EVALUATION))
        trainer = self._trainer(method, folder, [cost, progress], own)
        if method.adapts_at_test and trainer.world_size > 1:  # of trainer.devices=auto only Lightning knows
            raise ValueError(f"{type(method).__name__} adapts to one stream in its order: set trainer.devices=1")
        setting = self._placed(trainer)
        method.objective = setting.data.objective
        method.evaluate(setting)
        with interruptible():
            loaders = [setting.loader(part, batch_size=setting.stream_batch_size) for part in setting.evaluated]
            trainer.test(method, loaders, verbose=False, weights_only=True)
        self.costs[phase] = cost.counts()
        return {name: float(value) for name, value in method.evaluation.compute().items()}

    # --- artefacts -------------------------------------------------------------------------------------

    def trained(self, node: str, folder: Path | None = None) -> Artefact:
        """Weights of the model that the method of a config node trains from scratch. `about` holds its cost and its
        outcome.

        folder: of the run, for its own method. Where a callback watches the training, it then takes place there
        even if its result is known.
        """
        method = self.method(node)
        phase = f"training {name_of(self.cfg, node) if node == 'method' else node.removesuffix('.method')}"

        def build(scratch: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
            self.fit(method, scratch, phase, own=node == "method")
            return method.model.state_dict(), {"cost": self.costs[phase], "outcome": method.outcome}

        described = OmegaConf.to_container(OmegaConf.select(self.cfg, node), resolve=True)
        described.pop("_partial_", None)  # of a source's node; the same training as the run's own is the same artefact
        # They are to watch; but nothing keeps one of a user's from changing what it sees.
        callbacks = self.semantic["callbacks"] if node == "method" and self.callbacks else {}
        parts = {
            "method": described,
            "model": self.semantic["model"],
            "head": self.semantic.get("head"),
            "batches": [self.data.batch_size, self.data.augment],
            "samples": self.setting.checksum(method.fits_on),
            "trainer": self.semantic["trainer"],
            "seed": self.seed,
            "code": self.code_of(Workbench.trained, *targets([described, callbacks])),
        }
        if callbacks:
            parts["callbacks"] = callbacks
        if method.looks_at:
            parts["looks_at"] = {part: self.setting.checksum(part) for part in method.looks_at}
        if folder is not None and any(watcher.watches_fit for watcher in _watchers(self.callbacks)):
            tensors, about = build(folder)
            known = self.store.get("weights", parts, lambda scratch: (tensors, about))
            return dataclasses.replace(known, about=known.about | about)
        return self.store.get("weights", parts, build)

    def reference(self, name: str) -> Artefact:
        """Weights of the model a run starts from ('source') or is compared with ('oracle')."""
        return self.source.weights(self) if name == "source" else self.trained(name)

    def fisher(self, importance: Curvature, weights: Artefact) -> tuple[Any, dict[str, float]]:
        """The Fisher at `weights`, and what building it cost. `importance` names structure, estimator and samples, by
        default the whole training part."""
        phase = "Fisher" if importance.kind == "fisher" else f"Fisher, {importance.kind}"

        def build(scratch: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
            model = self.classifier("fisher")
            model.load_state_dict(weights.tensors)
            fisher_pass = FisherPass(model, importance)
            self.fit(fisher_pass, scratch, phase)
            fisher = fisher_pass.fisher
            return fisher.tensors(), fisher.about() | {"cost": self.costs[phase]}

        parts = {
            "weights": weights.key,
            "estimator": importance.key(),
            "samples": importance.checksum(self.setting),
            "forgotten": self.semantic["scenario"] if "order" in importance.key() else None,
            "trainer": self.semantic["trainer"],
            "seed": self.seed,
            "code": self.code_of(Workbench.fisher, type(importance)),
        }
        artefact = self.store.get(importance.kind, parts, build)
        return importance.read(artefact.tensors, artefact.about), artefact.about["cost"]

    def evaluated(self, name: str) -> dict[str, float]:
        """Metrics of a reference model under this run's scenario."""
        weights = self.reference(name)
        return self.evaluation(name, weights.key, lambda scratch: weights.tensors).about["metrics"]

    def evaluation(self, name: str, key: Any, weights: Callable[[Path], dict[str, Tensor]]) -> Artefact:
        """A model's test loop: metrics in `about`, and the logits of each evaluated part where the evaluation keeps
        them.

        key: what decides the weights, plain containers; `weights(scratch)` are they, asked for only if needed.
        """

        def build(scratch: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
            method = ModelMethod(self.classifier("evaluated"))
            method.model.load_state_dict(weights(scratch))
            metrics = self.test(method, scratch, f"evaluating {name}")
            kept = method.evaluation.predictions() if isinstance(method.evaluation, Predictions) else {}
            return kept, {"metrics": metrics}

        parts = {
            "weights": key,
            "samples": {part: self.setting.checksum(part) for part in self.setting.evaluated},
            "order": list(self.setting.evaluated),
            "trainer": self.semantic["trainer"],
            "code": self.code_of(
                Workbench.evaluation, type(self.setting.evaluation()), *targets(self.semantic["scenario"])
            ),
        }
        return self.store.get("metrics", parts, build)

    def code_of(self, *producers: Any) -> str:
        """Hash of the code that producers work with in this run: theirs, and that of its model, data and loops."""
        described = [self.semantic[node] for node in ("model", "head", "trainer") if node in self.semantic]
        return code_of(*producers, Workbench.fit, type(self.setting), type(self.problem.data), *targets(described))

    # --- pieces ----------------------------------------------------------------------------------------

    def _problem(self, data: Any, scenario: Any) -> Any:
        network = OmegaConf.select(self.cfg, "model._target_") is not None
        backbone, head = (self.make(node, _partial_=True) if network else None for node in ("model", "head"))
        if isinstance(data, Problem):
            data.backbone = backbone
            return data
        on_validation = self.cfg.evaluate_on == "validation"
        if "supervised" in attribute(self.cfg, "method", "problems", ("supervised",)):
            return Supervised(data, scenario, backbone, head, on_validation, self.store)
        return Generative(data, scenario, backbone, on_validation, self.store)

    def _settle_threads(self) -> None:
        if self.threads is not None:
            return
        self.threads = torch.get_num_threads()
        if self.problem.backbone is None:
            return
        self.threads, why = choose_threads(self.cfg.threads, self.network("threads"), *self.problem.example())
        torch.set_num_threads(self.threads)
        _say_once(f"{self.threads} thread{'s' if self.threads > 1 else ''} ({why})")

    def _trainer(self, method: ModelMethod, folder: Path, callbacks: list[Callback], own: bool) -> Trainer:
        make = instantiate(self.cfg.trainer, _partial_=True, _convert_="all")
        callbacks = [*callbacks, *(self.callbacks if own else [])]
        gradients = method.adapts_at_test or any(watcher.needs_gradients for watcher in _watchers(callbacks))
        return make(
            folder=folder,
            epochs=method.epochs,
            callbacks=callbacks,
            loggers=self.loggers if own else [],
            inference_mode=not gradients,
        )

    def meter(self, phase: str, short: float = 0.0) -> Meter:
        """Shows how far a phase is."""
        return Meter(self.label + phase, self.cfg.progress, short, run_folder(self.cfg) / "progress.json")

    def _placed(self, trainer: Trainer, setting: Setting | None = None) -> Setting:
        return dataclasses.replace(
            setting or self.setting,
            same_batches=trainer.overfit_batches > 0,
            device=trainer.strategy.root_device,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )


def _watchers(callbacks: list[Callback]) -> list[Watcher]:
    return [callback for callback in callbacks if isinstance(callback, Watcher)]


@functools.cache
def _say_once(message: str) -> None:
    # A sweep in one process would repeat it for every run.
    if not is_follower():
        print(message, file=sys.stderr)
