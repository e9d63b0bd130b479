"""Data, a network and a scenario: training it, and evaluating it by its test loop."""

from collections.abc import Callable
from typing import Any

from torch import nn

from fisherexp.data.datamodule import LabeledData
from fisherexp.metrics.evaluation import Evaluation
from fisherexp.metrics.over_batches import evaluated
from fisherexp.models.backbone import Backbone
from fisherexp.models.classifier import Classifier
from fisherexp.problems.of_data import OfData
from fisherexp.scenarios.setting import Store


class Supervised(OfData):
    """head: makes the last layer of the network; None where there is no network. Further arguments: see OfData."""

    kind = "supervised"
    has_test_loop = True

    def __init__(
        self,
        data: LabeledData,
        scenario: Any,
        backbone: Callable[..., nn.Module] | None,
        head: Callable[..., nn.Module] | None,
        on_validation: bool,
        store: Store,
    ) -> None:
        super().__init__(data, scenario, backbone, on_validation, store)
        self.head = head

    def build_model(self) -> Classifier:
        data = self.data
        backbone = self.backbone(**data.architecture_options)
        outputs = 1 if data.one_logit else data.num_outputs
        head = self.head(num_features=backbone.num_features, num_classes=outputs)
        own = isinstance(backbone, Backbone) and backbone.mean is not None
        normalized = backbone if own else data  # pretrained weights see images as those that they were trained on
        constants = {"mean": normalized.mean, "std": normalized.std, "one_logit": data.one_logit}
        return Classifier(backbone, backbone.num_features, data.num_outputs, head=head, **constants)

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
        return evaluated(solution, map(self.setting.loader, self.setting.evaluated), self.evaluation())
