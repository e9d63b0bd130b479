"""WiSE-FT: on the line from the source to a model fine-tuned on one task.

    θ = (1 - α) θ_0 + α θ_1

Wortsman et al., CVPR 2022, arXiv 2109.01903: what is kept of the other distributions costs little on the new one.
Here the new distribution is one task, and the others are those the source has seen too.
"""

from typing import Any

from fisherexp.config.types import AtLeastOne, Probability, Size
from fisherexp.methods.merging.merging import Merging, State, mean_of


class WiSEFT(Merging):
    """alphas: to choose from. expert: number of the task whose expert is used, from 0."""

    name = "wise_ft"
    paper = "Wortsman et al., CVPR 2022, arXiv 2109.01903"

    def __init__(self, alphas: AtLeastOne[Probability], expert: Size = 0, **options: Any) -> None:
        super().__init__(**options)
        self.alphas, self.expert = alphas, expert

    def grid(self) -> list[dict[str, Any]]:
        experts = len(self.given["experts"])
        if self.expert >= experts:
            raise ValueError(f"method.expert={self.expert}: there are {experts} tasks, 0 … {experts - 1}")
        return [{"alpha": alpha} for alpha in self.alphas]

    def merged(self, base: State, models: list[State], alpha: float) -> State:
        return mean_of([base, models[self.expert]], [1 - alpha, alpha])

    merged_buffers = merged
