"""Keeps what a model predicts, so that one forward pass answers every later question about it."""

from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from fisherexp.metrics.confidence import at_least_float32
from fisherexp.metrics.evaluation import Evaluation
from fisherexp.ranks import in_order


class Predictions(Evaluation):
    """update(part, logits (B, C), labels (B,)); compute() -> {}, for subclasses to fill.

    names: of the parts, in the order in which they are numbered.
    Half-precision logits are kept as float32. With several processes each part is put back into its own order, so
    that predictions of different models can be compared sample by sample.
    """

    def __init__(self, names: tuple[str, ...]):
        super().__init__()
        self.names = names
        self._kept: dict[str, Tensor] = {}
        for name in names:
            self.add_state(f"logits_{name}", [], dist_reduce_fx="cat")
            self.add_state(f"labels_{name}", [], dist_reduce_fx="cat")

    def update(self, part: int, logits: Tensor, labels: Tensor) -> None:
        getattr(self, f"logits_{self.names[part]}").append(at_least_float32(logits).detach())
        getattr(self, f"labels_{self.names[part]}").append(labels)

    def compute(self) -> dict[str, float]:
        self.gathered()
        return {}

    def gathered(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Logits (n, C) and labels (n,) of every part, on the processor; to be called within `compute`.

        Raises ValueError when a prediction is not finite.
        """
        found = {}
        for name in self.names:
            both = (dim_zero_cat(getattr(self, f"{what}_{name}")) for what in ("logits", "labels"))
            found[name] = tuple(in_order(values.cpu()) for values in both)
            if not found[name][0].isfinite().all():
                raise ValueError(f"the model's predictions on '{name}' are not finite: it has diverged")
        self._kept = {name: logits for name, (logits, _) in found.items()}
        return found

    def predictions(self) -> dict[str, Tensor]:
        """Logits (n, C) of every part, as the last `compute` found them."""
        return self._kept
