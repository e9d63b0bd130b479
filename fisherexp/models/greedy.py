"""What a language model writes, token by token."""

import torch
from torch import Tensor, nn


@torch.no_grad()
def greedy_decode(model: nn.Module, tokens: Tensor, labels: Tensor, end: int) -> Tensor:
    """The most likely token after each of those before it, (B, T) like `labels`, from the first place on that has a
    label in any row (-100 is none). What `tokens` (B, T) hold beyond that place is not read.

    Places before it, and those that no row reaches because all have greedy_decode `end`, are `end`.
    """
    begin, length = int((labels >= 0).any(0).int().argmax()), tokens.shape[1]
    read, found = tokens.clone(), torch.full_like(tokens, end)
    for place in range(begin, length):
        found[:, place] = model(read[:, : place + 1])[:, -1].argmax(-1)
        if place + 1 < length:
            read[:, place + 1] = found[:, place]
        if (found[:, begin : place + 1] == end).any(1).all():
            break
    return found
