"""2:4 pruning by magnitude: of any four consecutive inputs the two smallest weights become zero.

Mishra et al. 2021, arXiv 2104.08378, without their training after it. pattern=unstructured drops the smallest of each
output's weights.
"""

from torch import Tensor

from fisherexp.methods.compression.sparsity import Sparse
from fisherexp.quantization import LayerStats


class TwoFourPruning(Sparse):
    """Options as in Sparse."""

    paper = "Mishra et al., 2021, arXiv 2104.08378"

    def pruned(self, weight: Tensor, stats: LayerStats) -> Tensor:
        return weight * self.mask(weight.abs())
