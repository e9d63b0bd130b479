"""How much of the forgotten data is left in a model of anything: losses, and a membership attack on them."""

from collections.abc import Callable

import numpy as np
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from fisherexp.metrics.evaluation import Evaluation
from fisherexp.metrics.population_attacks import entropy_attack


class ForgettingMetrics(Evaluation):
    """Fed with the parts 'retain', 'forget' (training samples), 'test_retain', 'test_forget' (may be absent).

    sample_losses(outputs, targets) -> (B,): of the objective. compute() ->
    retain_loss: mean over test samples of what is retained. forget_loss: over test samples of what is forgotten, or the
        forgotten training samples where there are none. retain_train_loss, forget_train_loss: the training samples.
    mia: share (%) of the forgotten training samples taken for members by an attack that knows each sample's loss,
        fitted to retained training samples (members) and all test samples.
    """

    headings = {"retain_loss": "retain\nloss", "forget_loss": "forget\nloss", "mia": "membership\nattack %"}
    # What is forgotten should look as it does to the retrained oracle: there, no extreme is the goal.
    better = {"retain_loss": "lower"}

    def __init__(self, names: tuple[str, ...], sample_losses: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.names, self.sample_losses = names, sample_losses
        for name in names:
            self.add_state(f"losses_{name}", [], dist_reduce_fx="cat")

    def update(self, part: int, outputs: Tensor, targets: Tensor) -> None:
        getattr(self, f"losses_{self.names[part]}").append(self.sample_losses(outputs, targets).detach().float())

    def compute(self) -> dict[str, float]:
        losses = {name: dim_zero_cat(getattr(self, f"losses_{name}")).cpu().numpy() for name in self.names}
        if wrong := [name for name, found in losses.items() if not np.isfinite(found).all()]:
            raise ValueError(f"the model's losses on '{wrong[0]}' are not finite: it has diverged")
        tests = np.concatenate([losses[name] for name in ("test_retain", "test_forget") if name in losses])
        means = {name: float(found.mean()) for name, found in losses.items()}
        return {
            "retain_loss": means["test_retain"],
            "forget_loss": means.get("test_forget", means["forget"]),
            "mia": 100 * entropy_attack(losses["retain"], tests, losses["forget"]),
            "retain_train_loss": means["retain"],
            "forget_train_loss": means["forget"],
        }
