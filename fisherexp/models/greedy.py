"""What a language model writes, token by token."""

import torch
from torch import Tensor, nn


@torch.no_grad()
def greedy_decode(model: nn.Module, tokens: Tensor, labels: Tensor, end: int) -> Tensor:
    """The most likely token after each of those before it, (B, T) like `labels`, in every row from the first place on
    that has a label (-100 is none; a row without any begins with the first of the others). What `tokens` (B, T) hold
    beyond that place is not read.

    Places before it, and those that no row reaches because all have decoded `end`, are `end`.
    """
    counted, length = labels >= 0, tokens.shape[1]
    begins = counted.int().argmax(1)
    begin = int(begins[counted.any(1)].min()) if counted.any() else 0
    begins = torch.where(counted.any(1), begins, begin)
    read, found = tokens.clone(), torch.full_like(tokens, end)
    ended = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    for place in range(begin, length):
        writes = begins <= place
        found[:, place] = torch.where(writes, model(read[:, : place + 1])[:, -1].argmax(-1), end)
        if place + 1 < length:
            read[:, place + 1] = torch.where(writes, found[:, place], read[:, place + 1])
        ended |= writes & (found[:, place] == end)
        if ended.all():
            break
    return found
