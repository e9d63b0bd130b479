"""Natural GaLore: GaLore whose projected gradient is first multiplied by an inverse Fisher of the last s of its kind.

    r̃ = (λ I + Σ_{last s} r rᵀ)⁻¹ r,   r the flattened projected gradient, itself among the s

arXiv 2410.16029. No 1/s, as in the authors' code: it is M-FAC's Woodbury solve with another divisor. Their code
projects both sides of a matrix (a Tucker decomposition); here one side is projected, as their text and GaLore have it.
They keep the s vectors when the subspace changes, which mixes coordinates in two bases; `clear_history` forgets them.
"""

from typing import Any

from torch import Tensor, nn

from fisherexp.config.types import Count, Positive
from fisherexp.curvature import LowRankFisher
from fisherexp.methods.optimizers.galore import GaLore, GaLoreAdamW
from fisherexp.methods.optimizers.windowed import newest_preconditioned


class NaturalGaLoreAdamW(GaLoreAdamW):
    """history: s. damping: λ. clear_history: forget the last s when the subspace changes. Else as GaLoreAdamW."""

    def __init__(
        self, parameters: Any, lr: float, *, history: int, damping: float, clear_history: bool, **options: Any
    ) -> None:
        super().__init__(parameters, lr, **options)
        self.history, self.damping, self.clear_history = history, damping, clear_history

    def renewed(self, number: int) -> None:
        if self.clear_history:
            self.windows.pop(number, None)

    def preconditioned(self, number: int, low: Tensor) -> Tensor:
        if number not in self.windows:
            options = {"divisor": 1.0, "dtype": low.dtype, "device": low.device}
            self.windows[number] = LowRankFisher.empty(self.history, low.numel(), **options)
        return newest_preconditioned(self.windows[number], low.flatten(), self.damping).view_as(low)


class NaturalGaLore(GaLore):
    """history: s. damping: λ. clear_history: see NaturalGaLoreAdamW. Further options: see GaLore."""

    name = "natural_galore"
    paper = "arXiv 2410.16029"
    search = {"lr": "tag(log, interval(0.001, 0.1))", "damping": "tag(log, interval(0.001, 10))"}

    def __init__(
        self, model: nn.Module, history: Count, damping: Positive, clear_history: bool, **options: Any
    ) -> None:
        super().__init__(model, **options)
        self.options |= {"history": history, "damping": damping, "clear_history": clear_history}

    def optimizer(self, parameters: list[nn.Parameter]) -> NaturalGaLoreAdamW:
        return NaturalGaLoreAdamW(parameters, self.lr, weight_decay=self.weight_decay, **self.options)
