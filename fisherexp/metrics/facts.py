"""What a model knows of facts that it was to forget, and of those that it was to keep, as TOFU measures it."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics.utilities import dim_zero_cat

from fisherexp.metrics.evaluation import Evaluation
from fisherexp.metrics.memorization import (
    IGNORED,
    exact_memorization,
    extraction_strength,
    mean_losses,
    min_k,
    without_last,
)
from fisherexp.metrics.overlap import rouge_l_recall
from fisherexp.metrics.truth_ratio import (
    closer_to_one,
    membership_auc,
    model_utility,
    normalized_probability,
    true_preferred,
    truth_ratio,
)
from fisherexp.models.answers import greedy_answers
from fisherexp.ranks import in_order

KEPT = ("retain", "neighbours", "world")
GROUPS = (*KEPT, "forget")
FORMS = ("wrong", "reworded", "answers")


class FactMetrics(Evaluation):
    """Fed with '<group>_answers', '<group>_reworded' and '<group>_wrong' of each of GROUPS (questions with their
    answer, with it in other words, with wrong ones), with 'forget_rephrased' (questions in other words) and with
    'held_out_answers', of which the model learned nothing.

    names: of these parts. fact: group -> of each row of '<group>_wrong', the place of its fact in '<group>_reworded'.
    say(tokens): what they say. end: the token that ends an answer. max_new_tokens: that are written at most.
    average: see truth_ratio.

    compute() -> of each group, <group>_probability: mean of P(a|q)^(1/|a|) (%); of neighbours and the world in a choice
    among right and wrong answers. <group>_rouge: mean ROUGE-L recall (%) of greedy answers. <group>_truth_ratio: of the
    forgotten, closer_to_one, of others, true_preferred.
    forget_rephrased_probability: of the answer to the question in other words (%).
    model_utility: harmonic mean of these three of the three groups that are kept, in [0, 1].
    extraction_strength, exact_memorization: means (%) over the forgotten. loss_auc, min_k_auc: see membership_auc, of
    the forgotten against those held out (%).

    predictions() -> the forgotten's truth ratios (n,), for comparisons with other models.
    """

    headings = {
        "forget_probability": "prob.\n%",
        "forget_rouge": "ROUGE\n%",
        "forget_truth_ratio": "truth\nratio",
        "extraction_strength": "extr.\n%",
        "min_k_auc": "min-k\nAUC %",
        "model_utility": "model\nutil.",
    }
    # What is forgotten should look as it does to the retrained oracle: there, no extreme is the goal.
    better = {"model_utility": "higher"}

    def __init__(
        self,
        names: tuple[str, ...],
        fact: dict[str, Tensor],
        say: Callable[[Sequence[int]], str],
        end: int | None,
        max_new_tokens: int,
        average: Literal["geometric", "arithmetic"] = "geometric",
    ) -> None:
        super().__init__()
        self.names, self.fact, self.say, self.end = names, fact, say, end
        self.max_new_tokens, self.average = max_new_tokens, average
        self._ratios: dict[str, Tensor] = {}
        for name in names:
            self.add_state(f"figures_{name}", [], dist_reduce_fx="cat")
            self.add_state(f"rouge_{name}", [], dist_reduce_fx="cat")

    def update(self, part: int, outputs: Tensor, targets: Tensor) -> None:
        """outputs: logits (B, T, V). targets: next tokens (B, T)."""
        measures = (min_k, extraction_strength, exact_memorization)  # columns 1, 2 and 3, after the loss
        found = [mean_losses(outputs, targets), *(measure(outputs, without_last(targets)) for measure in measures)]
        getattr(self, f"figures_{self.names[part]}").append(torch.stack(found, dim=1).detach())

    def ask(self, part: int, model: nn.Module, batch: Any) -> None:
        """Let the model answer the questions of a group."""
        name = self.names[part]
        if name not in [f"{group}_answers" for group in GROUPS]:
            return
        written = greedy_answers(model, batch.inputs, batch.targets, self.end, self.max_new_tokens)
        wanted = [[token for token in row if token != IGNORED and token != self.end] for row in batch.targets.tolist()]
        found = [rouge_l_recall(self.say(w), self.say(r)) for w, r in zip(written, wanted, strict=True)]
        getattr(self, f"rouge_{name}").append(torch.tensor(found, device=batch.targets.device))

    def compute(self) -> dict[str, float]:
        figures = {name: self._gathered(f"figures_{name}") for name in self.names}
        if wrong := [name for name, found in figures.items() if not found[:, 0].isfinite().all()]:
            raise ValueError(f"the model's losses on '{wrong[0]}' are not finite: it has diverged")
        losses = {name: found[:, 0].double() for name, found in figures.items()}
        found = {key: value for group in GROUPS for key, value in self._of_group(group, losses).items()}
        found["forget_rephrased_probability"] = torch.exp(-losses["forget_rephrased"]).mean().item()
        utility = [found[f"{group}_{key}"] for group in KEPT for key in ("probability", "rouge", "truth_ratio")]
        found["model_utility"] = model_utility(utility)
        forgotten, unknown = figures["forget_answers"], figures["held_out_answers"]
        found["loss_auc"], found["min_k_auc"] = (membership_auc(forgotten[:, i], unknown[:, i]) for i in (0, 1))
        found["extraction_strength"], found["exact_memorization"] = forgotten[:, 2:].nanmean(0).tolist()
        whole = ("model_utility", *(f"{group}_truth_ratio" for group in GROUPS))
        return {key: value if key in whole else 100 * value for key, value in found.items()}

    def predictions(self) -> dict[str, Tensor]:
        return self._ratios

    def _of_group(self, group: str, losses: dict[str, Tensor]) -> dict[str, float]:
        """Probability, ROUGE and truth ratio, all in [0, 1]."""
        wrong, reworded, answers = (losses[f"{group}_{form}"] for form in FORMS)
        fact = self.fact[group][: len(wrong)]
        reached = fact.unique()  # all, but in a trial with few batches
        probability = torch.exp(-answers)
        if group in ("neighbours", "world"):
            probability = normalized_probability(answers, wrong, fact)[reached]
        ratios = truth_ratio(reworded, wrong, fact, self.average)[reached]
        if group == "forget":
            self._ratios = {"truth_ratios": ratios}
        return {
            f"{group}_probability": probability.mean().item(),
            f"{group}_rouge": self._gathered(f"rouge_{group}_answers").mean().item(),
            f"{group}_truth_ratio": (closer_to_one if group == "forget" else true_preferred)(ratios),
        }

    def _gathered(self, state: str) -> Tensor:
        """Of all rows of a part, on the processor, in their order."""
        return in_order(dim_zero_cat(getattr(self, state)).cpu())
