"""How good the summaries are that a model writes by itself."""

import statistics
from typing import Any

from torch import Tensor, nn
from torchmetrics.utilities import dim_zero_cat

from fisherexp.metrics.overlap import bleu, rouge
from fisherexp.metrics.tasks import SequenceMetrics
from fisherexp.models.greedy import greedy_decode

ORDERS = (1, 2, 3)


class SummaryMetrics(SequenceMetrics):
    """SequenceMetrics, with accuracies of tokens whose predecessors are given, and of what is written in the last task:

    exact: share (%) of summaries without any fault.
    rouge_1, rouge_2, rouge_3: mean F1 (%) of n-grams. bleu_1, bleu_2, bleu_3: of the whole part (%), up to n-grams.

    end: the token that ends a summary. silent: one that does not count (the full stop).
    update_decoded(tokens (B, T), labels (B, T)), where -100 is no label.
    """

    def __init__(self, tasks: tuple[str, ...], end: int, silent: int):
        super().__init__(tasks)
        self.end, self.silent = end, silent
        shown = {"exact": "exact\n%", "rouge_1": "ROUGE-1\n%", "rouge_2": "ROUGE-2\n%", "bleu_2": "BLEU-2\n%"}
        self.headings |= {"loss_rise": "loss\nrise"} | shown
        self.better |= {"exact": "higher"} | {f"{name}_{n}": "higher" for name in ("rouge", "bleu") for n in ORDERS}
        self.add_state("decoded", [], dist_reduce_fx="cat")
        self.add_state("wanted", [], dist_reduce_fx="cat")

    def ask(self, part: int, model: nn.Module, batch: Any) -> None:
        """Let the model write the texts of the last task by itself; of other parts nothing is asked."""
        if part == len(self.tasks) - 1:
            self.update_decoded(greedy_decode(model, batch.inputs, batch.targets, self.end), batch.targets)

    def update_decoded(self, tokens: Tensor, labels: Tensor) -> None:
        self.decoded.append(tokens)
        self.wanted.append(labels)

    def compute(self) -> dict[str, float]:
        found = super().compute()
        if len(self.decoded):  # of several ranks one tensor
            wanted, decoded = dim_zero_cat(self.wanted), dim_zero_cat(self.decoded)
            begin = int((wanted >= 0).any(0).int().argmax())
            pairs = zip(decoded[:, begin:].tolist(), wanted[:, begin:].tolist(), strict=True)
            candidates, references = zip(*((self._text(c), self._text(r)) for c, r in pairs), strict=True)
            found["exact"] = 100 * statistics.fmean(c == r for c, r in zip(candidates, references, strict=True))
            for n in ORDERS:
                each = (rouge(c, r, n) for c, r in zip(candidates, references, strict=True))
                found[f"rouge_{n}"] = 100 * statistics.fmean(each)
                found[f"bleu_{n}"] = 100 * bleu(candidates, references, n)
        return found

    def _text(self, tokens: list[int]) -> list[int]:
        """What stands before the end, without silent tokens."""
        cut = tokens.index(self.end) if self.end in tokens else len(tokens)
        return [token for token in tokens[:cut] if token != self.silent]
