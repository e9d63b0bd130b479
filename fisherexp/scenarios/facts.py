"""Requests to forget all that is known of some people, as in TOFU (Maini et al. 2024, arXiv 2401.06121)."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch

from fisherexp.config.types import Count, Probability
from fisherexp.data.fact_data import FactData
from fisherexp.data.facts import Fact
from fisherexp.metrics.facts import FactMetrics
from fisherexp.scenarios.forgetting import forgetting
from fisherexp.scenarios.setting import Setting, Store
from fisherexp.seeds import generator


class FactForgetting:
    """Forget every fact about a fraction of the people.

    fraction: of the people, rounded to whole ones. people: drawn from the run's 'seed', or the 'last' of them, as in
        TOFU. evaluated: how many facts of the other people are asked after, drawn from the seed.
    max_new_tokens: of a greedy answer. wrong_average: of truth ratios, see truth_ratio.
    """

    paper = "Maini et al., COLM 2024, arXiv 2401.06121"
    kind = "forgetting"
    requires = ("facts",)
    references = {"before": "source", "oracle": "oracle"}

    def __init__(
        self,
        fraction: Probability,
        people: Literal["seed", "last"] = "seed",
        evaluated: Count = 100,
        max_new_tokens: Count = 200,
        wrong_average: Literal["geometric", "arithmetic"] = "geometric",
    ) -> None:
        self.fraction, self.people, self.evaluated = fraction, people, evaluated
        self.max_new_tokens, self.wrong_average = max_new_tokens, wrong_average

    def setting(self, data: FactData, seed: int, store: Store | None = None) -> Setting:
        """Parts: train = retain + forget, of which retain has what is learned of neighbours and the world, too; test:
        people held out. Evaluated are the parts that FactMetrics names.

        Raises ValueError when nobody, or everybody, would be forgotten, and where wrong answers are missing.
        """
        learned = [data.facts[at] for at in data.train.tags["fact"].tolist()]
        about = torch.tensor([-1 if fact.person is None else fact.person for fact in learned])
        about[data.train.tags["fact"] >= len(data.groups["people"])] = -1
        forgotten = torch.isin(about, self._chosen(about[about >= 0].unique(), seed))
        plain = forgetting(data, forgotten, torch.zeros(len(data.test), dtype=torch.bool), seed)
        wrong = torch.tensor([bool(fact.perturbed_answers) for fact in learned])
        stay = ((about >= 0) & ~forgotten & wrong).nonzero().flatten()
        if (lacking := int((forgotten & ~wrong).sum())) or not len(stay):
            whose = f"{lacking} facts to be forgotten have no" if lacking else "no fact of those who stay has any"
            raise ValueError(f"{whose} wrong answers ('perturbed_answer'), which the truth ratio needs")
        some = torch.randperm(len(stay), generator=generator("evaluated_facts", seed))[: self.evaluated].sort().values
        asked = {
            "retain": [learned[at] for at in stay[some].tolist()],
            "neighbours": data.groups["neighbours"],
            "world": data.groups["world"],
            "forget": [learned[at] for at in forgotten.nonzero().flatten().tolist()],
        }
        other_words = [(fact.paraphrased_question, fact.answer) for fact in asked["forget"]]
        parts = {"held_out_answers": data.test, "forget_rephrased": data.rows(other_words)}
        for group, facts in asked.items():
            parts |= {f"{group}_{form}": data.rows(pairs) for form, pairs in _forms(facts).items()}
        options = {"say": data.text, "end": data.end, "max_new_tokens": self.max_new_tokens}
        places = {group: _places(facts) for group, facts in asked.items()}
        evaluation = partial(FactMetrics, tuple(parts), places, average=self.wrong_average, **options)
        return dataclasses.replace(
            plain, parts=plain.parts | parts, evaluated=tuple(parts), evaluation=evaluation, about=_about(asked)
        )

    def _chosen(self, people: torch.Tensor, seed: int) -> torch.Tensor:
        """Which of the people are forgotten."""
        count = round(self.fraction * len(people))
        if not 0 < count < len(people):
            least = f"scenario.fraction={1 / len(people):.3g}"
            whom = "nobody" if not count else "everybody"
            raise ValueError(
                f"scenario.fraction={self.fraction} of {len(people)} people is {whom}; one of them: {least}"
            )
        if self.people == "last":
            return people[-count:]
        return people[torch.randperm(len(people), generator=generator("fact_forgetting", seed))[:count]]


def _forms(facts: Sequence[Fact]) -> dict[str, list[tuple[str, str]]]:
    """Questions and answers by the form of the answers; the question is in the words in which it was learned."""
    return {
        "wrong": [(fact.question, wrong) for fact in facts for wrong in fact.perturbed_answers],
        "reworded": [(fact.question, fact.paraphrased_answer) for fact in facts],
        "answers": [(fact.question, fact.answer) for fact in facts],
    }


def _places(facts: Sequence[Fact]) -> torch.Tensor:
    """The place in `facts` that each of their wrong answers belongs to."""
    counts = torch.tensor([len(fact.perturbed_answers) for fact in facts])
    return torch.arange(len(facts)).repeat_interleave(counts)


def _about(asked: dict[str, Sequence[Fact]]) -> dict[str, Any]:
    """For the record."""
    people = sorted({fact.person for fact in asked["forget"]})
    return {"forgotten_people": people, "facts": {group: len(facts) for group, facts in asked.items()}}
