"""What several networks say together."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor


def mean_logits(logits: Sequence[Tensor], average: Literal["logits", "probabilities"] = "logits") -> Tensor:
    """Logits (…, C) of the mean of several networks' logits, or of their probabilities; of one network, its own."""
    stacked = torch.stack(list(logits))
    if average == "logits" or len(stacked) == 1:
        return stacked.mean(0)
    return stacked.log_softmax(-1).logsumexp(0) - torch.log(torch.tensor(float(len(stacked))))
