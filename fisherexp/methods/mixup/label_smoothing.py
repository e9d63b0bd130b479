"""Label smoothing: cross-entropy to a target that keeps a little probability for every class.

    min_θ  (1/n) Σ_i  CE(f(x_i), (1 - ε) e_{y_i} + ε/C)

Szegedy et al., CVPR 2016, arXiv 1512.00567. The other regularizer that is said to mend over-confidence.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.config.types import Probability
from fisherexp.data.batch import Batch
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM


class LabelSmoothing(ERM):
    """epsilon: probability spread evenly over all classes, the true one included; 0 is plain training."""

    paper = "Szegedy et al., CVPR 2016, arXiv 1512.00567"
    requires = ("class_labels",)
    weighs_samples = False

    def __init__(self, model: nn.Module, training: Recipe, epsilon: Probability = 0.1) -> None:
        super().__init__(model, training)
        self.epsilon = epsilon

    def loss(self, batch: Batch) -> Tensor:
        return F.cross_entropy(self.model(batch.inputs), batch.targets, label_smoothing=self.epsilon)
