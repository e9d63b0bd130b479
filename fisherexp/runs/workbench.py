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
from torch import Tensor

from fisherexp.callbacks.cost import Cost
from fisherexp.callbacks.progress import PhaseProgress
from fisherexp.callbacks.resumable import Resumable
from fisherexp.config.validate import attribute
from fisherexp.data.datamodule import LabeledData
from fisherexp.methods.curvature import Curvature
from fisherexp.methods.importance import FisherPass
from fisherexp.methods.method import Method
from fisherexp.metrics.predictions import Predictions
from fisherexp.models.classifier import Classifier
from fisherexp.ranks import is_follower, take_buffers_of_first
from fisherexp.runs.code import code_of, targets
from fisherexp.runs.identity import is_audited, name_of, run_folder, semantic
from fisherexp.runs.store import Artefact, ArtefactStore
from fisherexp.runs.threads import choose_threads
from fisherexp.runs.trainer import steps_per_epoch
from fisherexp.scenarios.setting import Setting
from fisherexp.seeds import derive
from fisherexp.stop import finishing_the_step, interruptible

# Evaluating a model is seldom worth a line of a log; a stream to adapt on is.
SHORT_EVALUATING = 5.0  # seconds


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
        self.threads = torch.get_num_threads()
        self.seed, self.label = cfg.seed, ""
        self.semantic = semantic(cfg)

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
    def data(self) -> LabeledData:
        """The data set, read. Also settles the number of threads, before the first heavy operation."""
        data = instantiate(self.cfg.data, _convert_="all").load()
        if self.cfg.evaluate_on == "validation":
            data.test, data.validation = data.validation, None
        batch = torch.zeros(min(data.batch_size, len(data.train)), *data.input_shape, dtype=data.input_dtype)
        self.threads, why = choose_threads(self.cfg.threads, self._classifier(data, "threads"), batch)
        torch.set_num_threads(self.threads)
        _say_once(f"{self.threads} thread{'s' if self.threads > 1 else ''} ({why})")
        return data

    @cached_property
    def setting(self) -> Setting:
        """The data as the scenario cuts it."""
        return instantiate(self.cfg.scenario, _convert_="all").setting(self.data, self.cfg.seed, self.store)

    @cached_property
    def references(self) -> dict[str, str]:
        """Stage -> config node of the models the scenario compares the outcome with."""
        return instantiate(self.cfg.scenario, _convert_="all").references

    @property
    def headings(self) -> dict[str, str]:
        """Metric -> heading, for those that tables show."""
        return self.setting.evaluation().headings | (self.audit.headings if self.audit else {})

    @property
    def better(self) -> dict[str, str]:
        """Metric -> 'higher' or 'lower', where an extreme is the goal."""
        return self.setting.evaluation().better | (self.audit.better if self.audit else {})

    @cached_property
    def audit(self) -> Any:
        """What compares the outcome with other models, beyond the test loop; None where nothing does."""
        return instantiate(self.cfg.audit, _convert_="all") if is_audited(self.cfg) else None

    def method(self, node: str) -> Method:
        """The method that `cfg[node]` describes, around new weights drawn from the seed and its name."""
        make = instantiate(self.cfg[node], _partial_=True, _convert_="all")
        return make(model=self.classifier(make.func.__name__))

    def classifier(self, stream: str) -> Classifier:
        """A new network, its weights drawn from the seed and the name of a random stream."""
        return self._classifier(self.data, stream)

    def published(self) -> dict[str, tuple[float, ...]]:
        """Metric -> (mean, standard deviation) or (mean,) that the run's method declares as published for these data
        and this scenario; none where options alter either.
        """
        if self.data.altered or self.setting.altered:
            return {}
        found, data = attribute(self.cfg, "method", "published", {}), name_of(self.cfg, "data")
        return found.get(data, {}) | found.get(f"{data}/{name_of(self.cfg, 'scenario')}", {})

    # --- loops -----------------------------------------------------------------------------------------

    def fit(self, method: Method, folder: Path, phase: str, own: bool = False, setting: Setting | None = None) -> None:
        """Run a method's fit loop, going on from the state a killed process left in `folder`.

        setting: that of one request among several; by default the scenario's.
        """
        folder.mkdir(parents=True, exist_ok=True)
        resumable, cost = Resumable(folder / "last.ckpt", self.cfg.checkpoint_every), Cost()
        progress = self._progress(phase)
        trainer = self._trainer(method, folder, [resumable, cost, progress], own)
        torch.manual_seed(derive("fit", self.seed, type(method).__name__))
        placed = self._placed(trainer, setting)
        for callback in trainer.callbacks:
            if getattr(callback, "wants_setting", False):
                callback.setting = placed
        batches = method.batches(placed)
        method.steps_per_epoch = steps_per_epoch(len(batches), trainer)
        with interruptible(), finishing_the_step():
            trainer.fit(method, train_dataloaders=batches, ckpt_path=resumable.checkpoint, weights_only=True)
        take_buffers_of_first(method.model)
        self.costs[phase] = cost.counts()
        if trainer.is_global_zero:
            resumable.file.unlink(missing_ok=True)

    def test(self, method: Method, folder: Path, phase: str, own: bool = False) -> dict[str, float]:
        """Run a method's test loop over the parts the scenario evaluates; returns the metrics."""
        cost = Cost()
        progress = self._progress(phase, short=SHORT_EVALUATING)
        trainer = self._trainer(method, folder, [cost, progress], own)
        if method.adapts_at_test and trainer.world_size > 1:  # of trainer.devices=auto only Lightning knows
            raise ValueError(f"{type(method).__name__} adapts to one stream in its order: set trainer.devices=1")
        setting = self._placed(trainer)
        method.evaluate(setting)
        with interruptible():
            loaders = [setting.loader(part, batch_size=setting.stream_batch_size) for part in setting.evaluated]
            trainer.test(method, loaders, verbose=False, weights_only=True)
        self.costs[phase] = cost.counts()
        return {name: float(value) for name, value in method.evaluation.compute().items()}

    # --- artefacts -------------------------------------------------------------------------------------

    def trained(self, node: str, folder: Path | None = None) -> Artefact:
        """Weights of the model that `cfg[node]` trains from scratch. `about` holds its cost and its outcome.

        folder: of the run, for its own method. Where a callback watches the training, it then takes place there
        even if its result is known.
        """
        method = self.method(node)
        phase = f"training {name_of(self.cfg, node) if node == 'method' else node}"

        def build(scratch: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
            self.fit(method, scratch, phase, own=node == "method")
            return method.model.state_dict(), {"cost": self.costs[phase], "outcome": method.outcome}

        described = OmegaConf.to_container(self.cfg[node], resolve=True)
        # They are to watch; but nothing keeps one of a user's from changing what it sees.
        callbacks = self.semantic["callbacks"] if node == "method" and self.callbacks else {}
        parts = {
            "method": described,
            "model": self.semantic["model"],
            "head": self.semantic["head"],
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
        if folder is not None and any(getattr(callback, "watches_fit", False) for callback in self.callbacks):
            tensors, about = build(folder)
            known = self.store.get("weights", parts, lambda scratch: (tensors, about))
            return dataclasses.replace(known, about=known.about | about)
        return self.store.get("weights", parts, build)

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

    def evaluated(self, node: str) -> dict[str, float]:
        """Metrics of the model that `cfg[node]` trains from scratch, under this run's scenario."""
        weights = self.trained(node)
        return self.evaluation(node, weights.key, lambda scratch: weights.tensors).about["metrics"]

    def evaluation(self, name: str, key: Any, weights: Callable[[Path], dict[str, Tensor]]) -> Artefact:
        """A model's test loop: metrics in `about`, and the logits of each evaluated part where the evaluation keeps
        them.

        key: what decides the weights, plain containers; `weights(scratch)` are they, asked for only if needed.
        """

        def build(scratch: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
            method = Method(self.classifier("evaluated"))
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
        described = [self.semantic[node] for node in ("model", "head", "data", "trainer")]
        return code_of(*producers, type(self.setting), *targets(described))

    # --- pieces ----------------------------------------------------------------------------------------

    def _classifier(self, data: LabeledData, stream: str) -> Classifier:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive("weights", self.seed, stream))
            backbone = instantiate(self.cfg.model, _partial_=True, _convert_="all")(**data.architecture_options)
            make_head = instantiate(self.cfg.head, _partial_=True, _convert_="all")
            head = make_head(num_features=backbone.num_features, num_classes=1 if data.one_logit else data.num_classes)
            constants = {"mean": data.mean, "std": data.std, "one_logit": data.one_logit}
            return Classifier(backbone, backbone.num_features, data.num_classes, head=head, **constants)

    def _trainer(self, method: Method, folder: Path, callbacks: list[Callback], own: bool) -> Trainer:
        make = instantiate(self.cfg.trainer, _partial_=True, _convert_="all")
        callbacks = [*callbacks, *(self.callbacks if own else [])]
        return make(
            folder=folder,
            epochs=method.epochs,
            callbacks=callbacks,
            loggers=self.loggers if own else [],
            inference_mode=not (method.adapts_at_test or any(getattr(c, "needs_gradients", False) for c in callbacks)),
        )

    def _progress(self, phase: str, short: float = 0.0) -> PhaseProgress:
        file = run_folder(self.cfg) / "progress.json"
        return PhaseProgress(self.label + phase, self.cfg.progress, short, file)

    def _placed(self, trainer: Trainer, setting: Setting | None = None) -> Setting:
        return dataclasses.replace(
            setting or self.setting,
            same_batches=trainer.overfit_batches > 0,
            device=trainer.strategy.root_device,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )


@functools.cache
def _say_once(message: str) -> None:
    # A sweep in one process would repeat it for every run.
    if not is_follower():
        print(message, file=sys.stderr)
