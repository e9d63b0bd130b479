"""A weight of low rank from the start: two thin factors in the place of a matrix.

    W' = B A,   B (m, r) = U_r √S_r,   A (r, n) = √S_r V_rᵀ of the W a layer begins with   (spectral)

Khodak, Tenenholtz, Mackey, Fusi, ICLR 2021, arXiv 2105.01029. "torch": both as torch's linear layers begin, A uniform
within ±1 / √n and B within ±1 / √r, whatever W is. `up` is B and `down` A.
"""

import math
from typing import Literal

from torch import Tensor, nn

from fisherexp.adapters.adapter import Adapter
from fisherexp.adapters.singular import singular_triplets


class Factorised(Adapter):
    """weight: W (m, n), of which nothing is left but the start. rank: r. init: see above. Trains r (m + n) numbers.

    Raises ValueError for a rank outside 1 … min(m, n).
    """

    def __init__(self, weight: Tensor, rank: int, init: Literal["spectral", "torch"] = "spectral") -> None:
        super().__init__()
        left, values, right = singular_triplets(weight, slice(rank), rank)
        self.up = nn.Parameter(left * values.sqrt())
        self.down = nn.Parameter(values.sqrt()[:, None] * right)
        if init == "torch":
            for factor in (self.down, self.up):
                nn.init.kaiming_uniform_(factor, a=math.sqrt(5))

    def weight(self, weight: Tensor) -> Tensor:
        return self.up @ self.down
