"""Gradient ascent on the forget set: the destructive control of unlearning.

    θ ← θ + η ∇ (1/|B|) Σ_{i ∈ B ⊂ D_f}  -log p_θ(y_i | x_i),   from the source model

Nothing holds it back: the loss has no bound and the retained data have no say, so that it forgets all else, too,
if it goes on for long enough. Batch normalization collects the statistics of forgotten samples only.
"""

from torch import Tensor

from fisherexp.data.batch import Batch
from fisherexp.methods.unlearning.finetune import Finetune


class GradientAscent(Finetune):
    """Train on, from the source model, on the forgotten part, with the sign of the loss reversed."""

    paper = "baseline of Golatkar et al., CVPR 2020, arXiv 1911.04933"
    scenarios = ("forgetting",)
    start = "source"
    fits_on = "forget"
    weighs_samples = True

    def loss(self, batch: Batch) -> Tensor:
        return -super().loss(batch)
