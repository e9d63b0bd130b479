"""What averages with weights share: which sets of weights are tried, and on which task's samples they are chosen.

Matena, Raffel, NeurIPS 2022, arXiv 2111.09832, merge for all tasks, or for a single one: in their intermediate-task
transfer the others are donors, and weights are chosen on samples of the target (choose_on=first), whose expert alone is
one of the choices.
"""

from typing import Any, Literal

from fisherexp.config.types import Size
from fisherexp.methods.merging.coefficients import coefficients
from fisherexp.methods.merging.merging import Merging, State, mean_of
from fisherexp.scenarios.setting import Setting


class WeightedMerging(Merging):
    """draws: sets of weights to try besides equal ones. choose_on: validation samples of all tasks, or of the first.

    Statistics of BatchNorm are averaged with the same weights.
    """

    counts_with = {**Merging.counts_with, "choose_on": {"draws": 20}}

    def __init__(self, draws: Size = 0, choose_on: Literal["all", "first"] = "all", **options: Any) -> None:
        super().__init__(**options)
        self.draws, self.choose_on = draws, choose_on

    def grid(self) -> list[dict[str, Any]]:
        experts = len(self.given["experts"])
        alone = [[1.0] + [0.0] * (experts - 1)] if self.choose_on == "first" else []
        return [{"weights": weights} for weights in coefficients(experts, self.draws) + alone]

    def merged_buffers(self, base: State, models: list[State], weights: list[float]) -> State:
        return mean_of(models, weights)

    def batches(self, setting: Setting) -> Any:
        batches = super().batches(setting)
        return batches if self.choose_on == "all" else setting.loader(f"{next(iter(setting.tasks))}/validation")
