"""What a model knows of texts that it was to forget, and of those that it was to keep, as MUSE measures it.

Shi et al., ICLR 2025, arXiv 2407.06460. ROUGE is that of its code: words are not stemmed, as open-unlearning's are.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.utilities import dim_zero_cat

from fisherexp.metrics.evaluation import Evaluation
from fisherexp.metrics.memorization import IGNORED, min_k
from fisherexp.metrics.overlap import rouge_l
from fisherexp.metrics.truth_ratio import membership_auc
from fisherexp.models.answers import greedy_answers
from fisherexp.ranks import in_order

WRITTEN = ("verbmem", "forget_knowmem", "retain_knowmem")
ATTACKED = ("members", "held_out")
AFTER_AN_ANSWER = ("\n\n", "\nQuestion", "Question:")


class MuseMetrics(Evaluation):
    """Fed with 'verbmem' (beginnings of forgotten texts and how they go on), 'forget_knowmem' and 'retain_knowmem'
    (questions and answers), 'members' and 'held_out' (texts that were to be forgotten, and that were never learned).

    names: of these parts. say(tokens): what they say. end: the token that ends a text. max_new_tokens: of each of
    WRITTEN, how many the model writes at most.

    compute() -> verbmem, forget_knowmem, retain_knowmem: mean ROUGE-L F1 (%) of what the model writes by itself, the
    most likely token each time, and what stands there; of an answer, what is written up to the next question.
    min_k_auc (%): see membership_auc, with the 40 % least likely tokens. MUSE's own AUC is 100 less this one.
    """

    headings = {
        "verbmem": "verbatim\nROUGE %",
        "forget_knowmem": "forgotten\nROUGE %",
        "retain_knowmem": "retained\nROUGE %",
        "min_k_auc": "min-k\nAUC %",
    }
    # What is forgotten should look as it does to the retrained oracle: there, no extreme is the goal.
    better = {"retain_knowmem": "higher"}

    def __init__(
        self,
        names: tuple[str, ...],
        say: Callable[[Sequence[int]], str],
        end: int | None,
        max_new_tokens: Mapping[str, int],
    ) -> None:
        super().__init__()
        self.names, self.say, self.end, self.max_new_tokens = names, say, end, max_new_tokens
        for name in names:
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, part: int, outputs: Tensor, targets: Tensor) -> None:
        """outputs: logits (B, T, V). targets: next tokens (B, T)."""
        if self.names[part] in ATTACKED:
            getattr(self, self.names[part]).append(min_k(outputs, targets).detach())

    def ask(self, part: int, model: nn.Module, batch: Any) -> None:
        """Let the model go on from the prompts of a part."""
        name = self.names[part]
        if name not in WRITTEN:
            return
        rows = greedy_answers(model, batch.inputs, batch.targets, self.end, self.max_new_tokens[name])
        written = [self.say(row) for row in rows]
        if name != "verbmem":
            written = [up_to_the_next_question(text) for text in written]
        wanted = [self.say([token for token in row if token != IGNORED]) for row in batch.targets.tolist()]
        found = [rouge_l(*pair) for pair in zip(written, wanted, strict=True)]
        getattr(self, name).append(torch.tensor(found, device=batch.targets.device))

    def compute(self) -> dict[str, float]:
        found = {name: in_order(dim_zero_cat(getattr(self, name)).cpu()) for name in self.names}
        if wrong := [name for name in ATTACKED if not found[name].isfinite().all()]:
            raise ValueError(f"the model's losses on '{wrong[0]}' are not finite: it has diverged")
        means = {name: 100 * found[name].double().mean().item() for name in WRITTEN}
        return means | {"min_k_auc": 100 * membership_auc(found["members"], found["held_out"])}


def up_to_the_next_question(text: str) -> str:
    """What stands before the first of AFTER_AN_ANSWER."""
    return text[: min((at for mark in AFTER_AN_ANSWER if (at := text.find(mark)) >= 0), default=len(text))]


def privacy_leakage(auc: float, oracle: float) -> float:
    """PrivLeak (%) = 100 (A - A_oracle) / A_oracle with A = 100 - auc, the share of pairs in which the text that was to
    be forgotten looks less learned than the one never learned. Below zero too little is forgotten, above zero so much
    that it shows.

    auc, oracle: min_k_auc (%) of a model and of the oracle. Raises ZeroDivisionError where A_oracle is 0;
    open-unlearning adds 1e-10 to it.
    """
    return 100 * (oracle - auc) / (100 - oracle)
