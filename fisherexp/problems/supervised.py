"""Data, a network and a scenario: training it, and evaluating it by its test loop."""

from collections.abc import Callable
from typing import Any

from torch import nn

from fisherexp.data.datamodule import LabeledData
from fisherexp.metrics.evaluation import Evaluation
from fisherexp.models.classifier import Classifier
from fisherexp.objectives.objective import Objective
from fisherexp.problems.problem import Problem
from fisherexp.scenarios.setting import Setting, Store


class Supervised(Problem):
    """data: the data set. scenario: cuts it into parts, and says how an outcome is evaluated.
    backbone: makes the network from what the data tell of their inputs; head: makes its last layer. None of a problem
        whose method has no network.
    on_validation: the share that the data put aside takes the place of the test set.
    """

    kind = "supervised"

    def __init__(
        self,
        data: LabeledData,
        scenario: Any,
        backbone: Callable[..., nn.Module] | None,
        head: Callable[..., nn.Module] | None,
        on_validation: bool,
        store: Store,
    ) -> None:
        self.data, self.scenario, self.backbone, self.head = data, scenario, backbone, head
        self.on_validation, self.store = on_validation, store
        self.setting: Setting | None = None

    def load(self, seed: int) -> "Supervised":
        if self.setting is None:
            self.read()
            self.setting = self.scenario.setting(self.data, seed, self.store)
        return self

    def read(self) -> LabeledData:
        """The data alone, as yet uncut."""
        if self.data.train is None:
            self.data.load()
            if self.on_validation:
                self.data.test, self.data.validation = self.data.validation, None
        return self.data

    def checksum(self) -> str:
        return self.data.checksum()

    @property
    def objective(self) -> Objective:
        return self.data.objective

    @property
    def references(self) -> dict[str, str]:
        """Stage -> which model the outcome is compared with: 'source' or 'oracle'."""
        return self.scenario.references

    def build_model(self) -> Classifier:
        """A new network, its weights drawn from torch's global generator."""
        data = self.data
        backbone = self.backbone(**data.architecture_options)
        outputs = 1 if data.one_logit else data.num_outputs
        head = self.head(num_features=backbone.num_features, num_classes=outputs)
        constants = {"mean": data.mean, "std": data.std, "one_logit": data.one_logit}
        return Classifier(backbone, backbone.num_features, data.num_outputs, head=head, **constants)

    @property
    def altered(self) -> bool:
        return self.data.altered or self.setting.altered

    def about(self) -> dict[str, Any]:
        return self.setting.about

    def evaluation(self) -> Evaluation:
        """A fresh metric for a test loop over `setting.evaluated`."""
        return self.setting.evaluation()

    @property
    def headings(self) -> dict[str, str]:
        return self.evaluation().headings

    @property
    def better(self) -> dict[str, str]:
        return self.evaluation().better

    def evaluate(self, solution: Any) -> dict[str, float]:
        """Of a function from inputs to outputs, part by part; networks go through a test loop instead."""
        metric = self.evaluation()
        for number, part in enumerate(self.setting.evaluated):
            for batch in self.setting.loader(part):
                metric.update(number, solution(batch.inputs), batch.targets)
        return {name: float(value) for name, value in metric.compute().items()}
