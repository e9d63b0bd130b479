"""A weight that is both embedding and output projection, as in most language models.

With E_n and H_n the gradients of sample n through the two uses, (E_n + H_n)² = E_n² + H_n² + 2 E_n∘H_n. The
squares follow from the rules of both uses; the product is non-zero only on rows of tokens in the sample:
    Σ_n (E_n∘H_n)[v] = Σ_n Σ_{t: i_nt = v} e_nt ∘ Σ_s h_ns[v] x_ns
with e the embedding's and h the projection's output gradients, x the projection's input. No per-sample gradient
of the vocabulary's size is formed.
"""

import torch
from torch import Tensor

from .base import Use, chunks
from .embedding import Embedding
from .linear import Linear


def add_tied_squares(uses: list[tuple[Use, str, Tensor]], total: Tensor) -> bool:
    """Add Σ_n (E_n + H_n)² to `total` for one embedding and one linear use (use, slot, g) of the same weight.

    Returns False, with nothing added, for any other uses.
    """
    if len(uses) != 2:
        return False
    (first, *_), (second, *_) = uses
    if type(first) is Embedding and type(second) is Linear:
        uses = uses[::-1]
    elif not (type(first) is Linear and type(second) is Embedding):
        return False
    (head, head_slot, h), (embedding, slot, e) = uses
    if head_slot != "weight" or not (head.slots[head_slot].direct and embedding.slots[slot].direct):
        return False
    head.add_squares(h, {head_slot: total})
    embedding.add_squares(e, {slot: total})
    x, h = head.positions(h)
    index, e = embedding.tokens(e)
    n, t = index.shape
    for rows in chunks(n, t * (h.shape[1] + x.shape[2]) * h.element_size(), device=h.device.type):
        own = index[rows].unsqueeze(1).expand(-1, h.shape[1], -1)
        logits = h[rows].gather(2, own)  # (n, positions s, tokens t): h_ns at the vocabulary row of token t
        product = torch.bmm(logits.mT, x[rows]) * e[rows]
        total.index_add_(0, index[rows].flatten(), product.flatten(0, 1), alpha=2)
    return True
