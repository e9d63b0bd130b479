"""What problems made of a data set share: the data, the parts a scenario cuts from it, a network for them."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from torch import nn

from fisherexp.data.datamodule import LabeledData
from fisherexp.objectives.objective import Objective
from fisherexp.problems.problem import Problem
from fisherexp.scenarios.setting import Setting, Store


class OfData(Problem):
    """data: the data set. scenario: cuts it into parts, and says how an outcome is evaluated.
    backbone: makes the network from what the data tell of their inputs; None of a problem whose method has no network.
    on_validation: the share that the data put aside takes the place of the test set.
    """

    def __init__(
        self,
        data: LabeledData,
        scenario: Any,
        backbone: Callable[..., nn.Module] | None,
        on_validation: bool,
        store: Store,
    ) -> None:
        self.data, self.scenario, self.backbone = data, scenario, backbone
        self.on_validation, self.store = on_validation, store
        data.store = store
        self.setting: Setting | None = None

    @abstractmethod
    def build_model(self) -> nn.Module:
        """A new network, its weights drawn from torch's global generator."""

    def example(self) -> tuple[Any, ...]:
        """What the network is called with: zeros of the shape of one training batch."""
        return (self.data.blank(min(self.data.batch_size, len(self.data.train))),)

    def load(self, seed: int) -> "OfData":
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

    @property
    def altered(self) -> bool:
        return self.data.altered or self.setting.altered

    def about(self) -> dict[str, Any]:
        return self.setting.about | ({"data": self.data.remarks} if self.data.remarks else {})
