"""What data sets of facts share: questions and answers in groups, whole people to be forgotten."""

from abc import abstractmethod
from functools import cached_property
from itertools import chain
from typing import Any

import torch

from fisherexp.data.answered import AnsweredData
from fisherexp.data.errors import DataError
from fisherexp.data.facts import Fact
from fisherexp.data.tensors import TensorSet
from fisherexp.data.token_rows import LanguageRows
from fisherexp.models.tokenizer import Tokenizer

GROUPS = ("people", "neighbours", "world", "held_out")


class FactData(AnsweredData):
    """Facts in four groups: 'people', some of whom are to be forgotten, 'neighbours' (other people) and 'world', which
    stay, and 'held_out', people of whom nothing is ever learned.

    learn_all: neighbours and the world are learned along with the people. A model that begins without any knowledge
        has no other way to know of them; a pretrained one may. None: unless the model has a tokenizer, as a pretrained
        one has.
    Further options: see AnsweredData. The tag 'fact' of a sample is the place of its fact in `facts`, where the groups
    stand one behind the other.
    """

    title = "facts"
    provides = ("tokens", "text", "next_tokens", "facts")

    def __init__(self, tokenizer: Tokenizer, learn_all: bool | None = None, **options: Any) -> None:
        super().__init__(tokenizer, **options)
        self.learn_all = tokenizer.name is None if learn_all is None else learn_all

    @abstractmethod
    def grouped(self) -> dict[str, list[Fact]]:
        """The facts of each of GROUPS. Raises DataError, in one line, for what the user can put right."""

    @cached_property
    def groups(self) -> dict[str, list[Fact]]:
        """The facts of each group; every one of 'people' and 'held_out' is about a person."""
        found = self.grouped()
        if empty := [name for name in GROUPS if not found[name]]:
            raise DataError(f"{self.title}: there is no fact of the group '{empty[0]}'")
        return {name: found[name] for name in GROUPS}

    @cached_property
    def facts(self) -> list[Fact]:
        """Those of all groups."""
        return list(chain(*self.groups.values()))

    def pairs(self) -> list[tuple[str, str]]:
        return [pair for fact in self.facts for pair in _all_pairs(fact)]

    def read(self) -> tuple[TensorSet | LanguageRows, TensorSet | LanguageRows]:
        self.measure()
        ends = torch.tensor([len(facts) for facts in self.groups.values()]).cumsum(0).tolist()
        learned = range(ends[2] if self.learn_all else ends[0])
        return tuple(
            self.rows([(self.facts[at].question, self.facts[at].answer) for at in some]).tagged(fact=torch.tensor(some))
            for some in (list(learned), list(range(ends[2], ends[3])))
        )


def _all_pairs(fact: Fact) -> list[tuple[str, str]]:
    """Every question and answer that a model is asked of a fact."""
    answers = (fact.answer, fact.paraphrased_answer, *fact.perturbed_answers)
    return [(fact.paraphrased_question, fact.answer), *((fact.question, answer) for answer in answers)]
