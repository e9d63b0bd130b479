"""RDumb: ETA that goes back to the source model at fixed intervals.

Paper: Press, Schneider, Kümmerer, Bethge, NeurIPS 2023, arXiv 2306.05401. Every `interval` batches, everything that
ETA has learned is dropped. (The paper's baseline against methods that collapse on long streams.)
"""

from typing import Any, Literal

from torch import Tensor, nn

from fisherexp.config.types import Count, NonNegative
from fisherexp.methods.test_time_adaptation.eta import ETA
from fisherexp.methods.test_time_adaptation.update import UpdateRule


class RDumb(ETA):
    """interval: batches between two resets. The others as for ETA."""

    paper = "Press et al., NeurIPS 2023, arXiv 2306.05401"
    name = "rdumb"
    published = {}  # those of ETA are its own

    def __init__(
        self,
        model: nn.Module,
        interval: Count,
        update: UpdateRule,
        e_margin: NonNegative,
        d_margin: NonNegative,
        reweight: bool,
        over: Literal["kept", "batch"],
        reset: Literal["everything", "official"],
    ) -> None:
        super().__init__(model, update, e_margin, d_margin, reweight, over, reset)
        self.interval = interval

    def blank(self) -> dict[str, Any]:
        return super().blank() | {"batches": 0}

    def adapt(self, images: Tensor) -> Tensor:
        logits = super().adapt(images)
        self.state["batches"] += 1
        if self.state["batches"] == self.interval:
            self.restart()
            self.state["batches"] = 0  # also where `reset` leaves the state as it is
        return logits
