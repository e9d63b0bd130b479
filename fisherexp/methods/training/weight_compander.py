"""Weight Compander: train what an odd, bounded function makes the weights from.

    min_v  (1/n) Σ_i  ℓ(f(x_i; Ψ(v)), y_i),   decay on v

Cakaj, Mehnert, Yang, arXiv 2306.16993; Ψ, which is ours: companding.py. The record holds an ordinary model of the
weights Ψ(v). With psi=identity it is plain training, whose weights are described alike.
"""

from typing import Any, Literal

from torch import nn

from fisherexp.config.types import NonNegative, Positive
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.companding import compand, companders, uncompand, weight_statistics
from fisherexp.methods.training.erm import ERM


class WeightCompander(ERM):
    """psi: Ψ. amplitude, width: a and b. learned: 'no', or train a and b, those of the whole 'network' or of each
    'layer', without decay and at a learning rate of their own, psi_lr.

    outcome: beyond_bound, how many of the first weights had no v and were clamped. Under "metrics" max_weight,
        near_zero and kurtosis of the weights, see companding.weight_statistics.
    """

    name = "weight_compander"
    paper = "Cakaj, Mehnert, Yang, 2023, arXiv 2306.16993"
    weighs_samples = True
    search = {"amplitude": "tag(log, interval(0.05, 1))", "width": "tag(log, interval(0.02, 0.5))"}
    headings = {"max_weight": "largest\nweight", "near_zero": "below\n0.01 %", "kurtosis": "kurtosis"}
    counts_with = {"psi_lr": {"learned": "layer"}}

    def __init__(
        self,
        model: nn.Module,
        training: Recipe,
        psi: Literal["arctan", "tanh", "arctan_tanh", "identity"] = "arctan",
        amplitude: Positive = 0.2,
        width: Positive = 0.1,
        learned: Literal["no", "network", "layer"] = "no",
        psi_lr: NonNegative = 1e-3,
    ) -> None:
        super().__init__(model, training)
        self.psi, self.amplitude, self.width = psi, amplitude, width
        self.learned, self.psi_lr = learned, psi_lr

    def setup(self, stage: str) -> None:
        # Before a saved state is loaded, which holds v.
        if stage == "fit" and self.psi != "identity":
            self.outcome["beyond_bound"] = compand(self.model, self.psi, self.amplitude, self.width, self.learned)

    def configure_optimizers(self) -> dict[str, Any]:
        of_psi = [p for compander in companders(self.model) for p in compander.parameters() if p.requires_grad]
        known = set(map(id, of_psi))
        rest = [p for p in self.model.parameters() if p.requires_grad and id(p) not in known]
        groups = [{"params": rest}, {"params": of_psi, "lr": self.psi_lr, "weight_decay": 0.0}]
        return self.training_recipe.configure_groups([g for g in groups if g["params"]], self.steps_per_epoch)

    def on_train_end(self) -> None:
        uncompand(self.model)
        self.outcome["metrics"] = weight_statistics(self.model)
