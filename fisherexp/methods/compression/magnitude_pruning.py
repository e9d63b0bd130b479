"""Magnitude pruning: drop the weights that are smallest.

    saliency of weight p:  w_p² ,  all layers compared together

Han, Pool, Tran, Dally 2015, arXiv 1506.02626; the schedule is in pruning.py. There is nothing to look at.
"""

from torch import Tensor, nn

from fisherexp.config.types import AtLeastOne, Probability
from fisherexp.methods.compression.pruning import Pruning, lowest
from fisherexp.methods.recipe import Recipe


class MagnitudePruning(Pruning):
    """sparsities, finetune: of the schedule, see Pruning."""

    paper = "Han et al., NeurIPS 2015, arXiv 1506.02626"
    start = "source"

    def __init__(self, model: nn.Module, sparsities: AtLeastOne[Probability], finetune: Recipe) -> None:
        super().__init__(model, sparsities, finetune)

    def prune(self, weights: Tensor, count: int) -> tuple[Tensor, Tensor]:
        dropped = lowest(weights.abs(), count)
        return weights.index_fill(0, dropped, 0.0), dropped
