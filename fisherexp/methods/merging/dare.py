"""DARE: drop most changes at random and rescale the others, before any rule that merges changes.

    δ'_kj = m_kj δ_kj / (1 - p),   m_kj ~ Bernoulli(1 - p),   E δ' = δ

Yu et al., ICML 2024, arXiv 2311.03099. The rule behind it is task arithmetic.
"""

from typing import Any

import torch

from fisherexp.config.types import AtLeastOne, Positive, Probability
from fisherexp.methods.merging.merging import Merging, State, moved, task_vectors
from fisherexp.methods.merging.task_arithmetic import summed
from fisherexp.scenarios.setting import Setting
from fisherexp.seeds import generator


def dropped(delta: State, rate: float, drawn: torch.Generator) -> State:
    """Every entry kept with probability 1 - rate, then divided by it. rate in [0, 1)."""
    masks = {name: torch.rand(values.shape, generator=drawn) >= rate for name, values in delta.items()}
    return {name: values * masks[name].to(values.device) / (1 - rate) for name, values in delta.items()}


class DARE(Merging):
    """rates: p to choose from, below 1. scales: λ of task arithmetic to choose from."""

    paper = "Yu et al., ICML 2024, arXiv 2311.03099"

    def __init__(self, rates: AtLeastOne[Probability], scales: AtLeastOne[Positive], **options: Any) -> None:
        super().__init__(**options)
        if max(rates) == 1:
            raise ValueError(f"method.rates={rates}: at 1 nothing would be left to rescale")
        self.rates, self.scales = rates, scales
        self.seed = 0

    def batches(self, setting: Setting) -> Any:
        self.seed = setting.seed
        return super().batches(setting)

    def grid(self) -> list[dict[str, Any]]:
        return [{"rate": rate, "scale": scale} for rate in self.rates for scale in self.scales]

    def merged(self, base: State, models: list[State], rate: float, scale: float) -> State:
        deltas = task_vectors(base, models)
        thinned = [dropped(d, rate, generator("dare", self.seed, number)) for number, d in enumerate(deltas)]
        return moved(base, summed(thinned), scale)
