"""What the config of a run describes: its data, its network, its method, its source."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from fisherexp.config.locations import user_file
from fisherexp.config.nodes import attribute
from fisherexp.data.datamodule import LabeledData
from fisherexp.methods.method import ModelMethod
from fisherexp.problems.generative import Generative
from fisherexp.problems.problem import Problem
from fisherexp.problems.supervised import Supervised
from fisherexp.ranks import say_once
from fisherexp.runs.identity import is_audited, name_of
from fisherexp.runs.sources import Source
from fisherexp.runs.store import ArtefactStore
from fisherexp.runs.threads import choose_threads
from fisherexp.scenarios.setting import Setting
from fisherexp.seeds import derive


class Described:
    """Made from a validated config; nothing is read or built before it is asked for."""

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg, self.seed = cfg, cfg.seed
        self.store = ArtefactStore(Path(cfg.output_dir) / "artefacts")
        self.threads: int | None = None

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
        if self.cfg.threads == "auto":
            self.threads, why = choose_threads(self.network("threads"), *self.problem.example())
        else:
            self.threads, why = self.cfg.threads, "as asked for"
        torch.set_num_threads(self.threads)
        say_once(f"{self.threads} thread{'s' if self.threads > 1 else ''} ({why})")
