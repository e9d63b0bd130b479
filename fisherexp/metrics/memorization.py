"""How well a language model knows a text by heart, text by text.

Logits are (B, T, V), labels (B, T) with -100 where no token counts; L tokens count in a row. Definitions are those of
open-unlearning (Dorna et al. 2025, arXiv 2506.12618), which leaves the last of them, the end of an answer, out of
everything but losses: give such measures `without_last(labels)`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p(label) in nats, (B, T); 0 where no token counts."""
    return F.cross_entropy(logits.float().transpose(1, -1), labels, reduction="none", ignore_index=IGNORED)


def mean_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """(1/L) Σ_t -log p(y_t | x, y_<t), (B,); 0 of an empty row. Its exponential exp(-loss) is p(y | x)^(1/L), the
    probability of TOFU (Maini et al. 2024, arXiv 2401.06121, §2.2.2); as an attack, the higher, the less likely the
    text was learned (Yeom et al. 2018, arXiv 1709.01604)."""
    return token_losses(logits, labels).sum(1) / (labels >= 0).sum(1).clamp_min(1)


def without_last(labels: Tensor) -> Tensor:
    """Labels of which the last that counts in each row does not any more."""
    counted = labels >= 0
    last = counted & (counted.flip(1).cumsum(1).flip(1) == 1)
    return labels.masked_fill(last, IGNORED)


def extraction_strength(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - k/L with k the fewest tokens of the text that must be given for the rest to be the most likely one, token by
    token, (B,) (Carlini et al. 2021, arXiv 2012.07805). 0 of an empty row, and where the last token is wrong: there
    open-unlearning's code says 1/L, as if it were right."""
    counted = labels >= 0
    wrong = counted & (logits.argmax(-1) != labels)
    right_to_the_end = counted & (wrong.flip(1).cumsum(1).flip(1) == 0)
    return right_to_the_end.sum(1) / counted.sum(1).clamp_min(1)


def exact_memorization(logits: Tensor, labels: Tensor) -> Tensor:
    """(1/L) Σ_t 1[argmax p(· | x, y_<t) = y_t], (B,) (Tirumala et al. 2022, arXiv 2205.10770); NaN of an empty row."""
    counted = labels >= 0
    return (counted & (logits.argmax(-1) == labels)).sum(1) / counted.sum(1)


def min_k(logits: Tensor, labels: Tensor, share: float = 0.4) -> Tensor:
    """Mean -log p of the ⌊share · L⌋ least likely tokens, at least one, (B,); 0 of an empty row. The higher, the less
    likely the text was learned (Shi et al. 2024, arXiv 2310.16789); 0.4 is open-unlearning's share."""
    losses = token_losses(logits, labels).masked_fill(labels < 0, -torch.inf).sort(1, descending=True).values
    counts = (labels >= 0).sum(1)
    # a float product may fall short of a whole number: 0.4 · 5
    taken = ((share * counts.double() + 1e-9).floor().long().clamp_min(1)).minimum(counts)
    among = torch.arange(labels.shape[1], device=labels.device) < taken[:, None]
    return losses.masked_fill(~among, 0.0).sum(1) / taken.clamp_min(1)
