"""Task arithmetic: add what the experts have learnt to the model they all began from.

    θ = θ_0 + λ Σ_k (θ_k - θ_0)

Ilharco et al., ICLR 2023, arXiv 2212.04089. With K experts λ = 1/K is their mean.
"""

from collections.abc import Sequence
from typing import Any

from fisherexp.config.types import AtLeastOne, Positive
from fisherexp.methods.merging.merging import Merging, State, moved, task_vectors


def summed(deltas: Sequence[State]) -> State:
    """Σ_k δ_k by name."""
    return {name: sum(delta[name] for delta in deltas) for name in deltas[0]}


class TaskArithmetic(Merging):
    """scales: λ to choose from."""

    paper = "Ilharco et al., ICLR 2023, arXiv 2212.04089"

    def __init__(self, scales: AtLeastOne[Positive], **options: Any) -> None:
        super().__init__(**options)
        self.scales = scales

    def grid(self) -> list[dict[str, Any]]:
        return [{"scale": scale} for scale in self.scales]

    def merged(self, base: State, models: list[State], scale: float) -> State:
        return moved(base, summed(task_vectors(base, models)), scale)
