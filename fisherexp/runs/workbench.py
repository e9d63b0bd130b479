"""The tools of one run: its data, its models, its artefacts, its loops."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import Logger
from torch import Tensor

from fisherexp.callbacks.cost import Cost
from fisherexp.callbacks.curve import Curve, Rows
from fisherexp.callbacks.finite import Finite
from fisherexp.callbacks.meter import Meter
from fisherexp.callbacks.progress import PhaseProgress
from fisherexp.callbacks.resumable import Resumable
from fisherexp.callbacks.watcher import Watcher
from fisherexp.methods.curvature import Curvature
from fisherexp.methods.importance import FisherPass
from fisherexp.methods.method import ModelMethod
from fisherexp.models.backbone import origin_of
from fisherexp.ranks import take_buffers_of_first
from fisherexp.runs.arguments import arguments
from fisherexp.runs.artefact import Artefact
from fisherexp.runs.code import code_of, targets
from fisherexp.runs.described import Described
from fisherexp.runs.identity import name_of, run_folder, semantic
from fisherexp.runs.memory import free_ended_loops
from fisherexp.runs.trainer import steps_per_epoch
from fisherexp.scenarios.plain import Plain
from fisherexp.scenarios.setting import Setting
from fisherexp.seeds import derive
from fisherexp.stop import finishing_the_step, interruptible

# Evaluating a model is seldom worth a line of a log; a stream to adapt on is.
SHORT_EVALUATION = 5.0  # seconds


class Workbench(Described):
    """What the config describes, and what is done with it.

    loggers, callbacks: attached to the loops of the run's own method, not to those of its artefacts.
    """

    def __init__(
        self, cfg: DictConfig, loggers: list[Logger] | None = None, callbacks: list[Callback] | None = None
    ) -> None:
        super().__init__(cfg)
        self.loggers, self.callbacks = loggers or [], callbacks or []
        self.costs: dict[str, dict[str, float]] = {}
        self.started_from: Artefact | None = None  # set once the run's method has its first weights
        self.label = ""
        self.semantic, self.folder = semantic(cfg), run_folder(cfg)

    @property
    def headings(self) -> dict[str, str]:
        """Metric -> heading, for those that tables show; callbacks add metrics of their own."""
        added = [watcher.headings for watcher in _watchers(self.callbacks)]
        return super().headings | {metric: heading for headings in added for metric, heading in headings.items()}

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

    # --- loops -----------------------------------------------------------------------------------------

    def fit(
        self, method: ModelMethod, folder: Path, phase: str, own: bool = False, setting: Setting | None = None
    ) -> Rows:
        """Run a method's fit loop, going on from the state a killed process left in `folder`; returns its curve.

        setting: that of one request among several; by default the scenario's.
        """
        folder.mkdir(parents=True, exist_ok=True)
        curve, cost, finite = Curve(folder), Cost(), Finite()
        resumable = Resumable(folder / "last.ckpt", self.cfg.checkpoint_every, curve)
        progress = PhaseProgress(self.meter(phase))
        shards = vars(type(method)).get("shards", False)
        trainer = self._trainer(method, folder, [finite, resumable, cost, progress], own, [curve], shards)
        torch.manual_seed(derive("fit", self.seed, method.stream_name()))
        placed = self._placed(trainer, setting)
        for watcher in _watchers(trainer.callbacks):
            watcher.fit_begins(placed)
        method.objective = placed.data.objective
        if not method.weighs_samples:
            placed.refuse_weights(type(method).__name__)
        batches = method.batches(placed)
        method.steps_per_epoch = steps_per_epoch(len(batches), trainer)
        with interruptible(), finishing_the_step():
            trainer.fit(method, train_dataloaders=batches, ckpt_path=resumable.newest(), weights_only=True)
        finite.check(trainer, method)
        take_buffers_of_first(method.model)
        self.costs[phase] = cost.counts()
        if trainer.is_global_zero:
            resumable.remove()
        return curve.rows

    def announce(self, method: ModelMethod) -> None:
        """Tell a method that the weights it starts with are in its model, and what the data's objective is."""
        method.objective = self.setting.data.objective
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive("source_loaded", self.seed, method.stream_name()))
            method.source_loaded()

    def test(self, method: ModelMethod, folder: Path, phase: str, own: bool = False) -> dict[str, float]:
        """Run a method's test loop over the parts the scenario evaluates; returns the metrics."""
        cost = Cost()
        progress = PhaseProgress(self.meter(phase, SHORT_EVALUATION))
        trainer = self._trainer(method, folder, [cost, progress], own)
        if method.adapts_at_test and trainer.world_size > 1:  # of trainer.devices=auto only Lightning knows
            raise ValueError(f"{type(method).__name__} adapts to one stream in its order: set trainer.devices=1")
        setting = self._placed(trainer)
        for watcher in _watchers(trainer.callbacks):
            watcher.test_begins(setting)
        method.objective = setting.data.objective
        method.evaluate(setting)
        with interruptible():
            loaders = [setting.loader(part, batch_size=setting.stream_batch_size) for part in setting.evaluated]
            trainer.test(method, loaders, verbose=False, weights_only=True)
        self.costs[phase] = cost.counts()
        return {name: float(value) for name, value in method.evaluation.compute().items()}

    # --- artefacts -------------------------------------------------------------------------------------

    def trained(self, node: str, folder: Path | None = None) -> Artefact:
        """Weights of the model that the method of a config node trains from scratch. `about` holds its cost, its
        outcome and its curve.

        folder: of the run, for its own method. Where a callback watches the training, it then takes place there
        even if its result is known.
        """
        method = self.method(node)
        phase = f"training {name_of(self.cfg, node) if node == 'method' else node.removesuffix('.method')}"

        def build(scratch: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
            if method.start == "source":  # the network as it came
                self.announce(method)
            curve = self.fit(method, scratch, phase, own=node == "method")
            about = {"cost": self.costs[phase], "outcome": method.outcome, "curve": curve}
            return method.model.state_dict(), about

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
        if came := origin_of(method.model):
            parts["pretrained"] = {name: value for name, value in came.items() if name != "text"}
        if callbacks:
            parts["callbacks"] = callbacks
        if method.looks_at:
            parts["looks_at"] = {part: self.setting.checksum(part) for part in method.looks_at}
        if folder is not None and any(watcher.watches_fit for watcher in _watchers(self.callbacks)):
            tensors, about = build(folder)
            known = self.store.get("weights", parts, lambda scratch: (tensors, about))
            return dataclasses.replace(known, about=known.about | about, built=True)
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
        """A model's test loop: metrics in `about`, and what the evaluation keeps for comparisons (the logits of each
        evaluated part, say).

        key: what decides the weights, plain containers; `weights(scratch)` are they, asked for only if needed.
        """

        def build(scratch: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
            method = ModelMethod(self.classifier("evaluated"))
            method.model.load_state_dict(weights(scratch))
            metrics = self.test(method, scratch, f"evaluating {name}")
            return method.evaluation.predictions(), {"metrics": metrics}

        parts = {
            "weights": key,
            "samples": {part: self.setting.checksum(part) for part in self.setting.evaluated},
            "order": list(self.setting.evaluated),
            "asked": arguments(self.setting.evaluation),
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

    def _trainer(
        self,
        method: ModelMethod,
        folder: Path,
        callbacks: list[Callback],
        own: bool,
        loggers: Sequence[Logger] = (),
        shards: bool = False,
    ) -> Trainer:
        free_ended_loops(method.model)
        make = instantiate(self.cfg.trainer, _partial_=True, _convert_="all")
        callbacks = [*callbacks, *(self.callbacks if own else [])]
        gradients = method.adapts_at_test or any(watcher.needs_gradients for watcher in _watchers(callbacks))
        # What a method needs may be a pass that takes no such step.
        no_steps = {"accumulate_grad_batches": 1, "gradient_clip_val": None} if method.steps_itself else {}
        return make(
            folder=folder,
            epochs=method.epochs,
            callbacks=callbacks,
            loggers=[*(self.loggers if own else []), *loggers],
            inference_mode=not gradients,
            shards=shards,
            **no_steps,
        )

    def meter(self, phase: str, short: float = 0.0) -> Meter:
        """Shows how far a phase is."""
        return Meter(self.label + phase, self.cfg.progress, short, self.folder / "progress.json")

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
