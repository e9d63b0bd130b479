"""What data sets of facts share: questions and answers as rows of tokens of which the answer counts."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor

from fisherexp.data.datamodule import LabeledData
from fisherexp.data.errors import DataError
from fisherexp.data.facts import Fact
from fisherexp.data.own_tokens import OwnTokens
from fisherexp.data.tensors import TensorSet
from fisherexp.data.token_rows import LanguageRows
from fisherexp.models.tokenizer import Tokenizer
from fisherexp.objectives.token_prediction import IGNORED, TokenPrediction

GROUPS = ("people", "neighbours", "world", "held_out")


class FactData(LabeledData):
    """Facts in four groups: 'people', some of whom are to be forgotten, 'neighbours' (other people) and 'world', which
    stay, and 'held_out', people of whom nothing is ever learned.

    tokenizer: that of the model. unit: what tokens are where the model has none.
    learn_all: neighbours and the world are learned along with the people. A model that begins without any knowledge
        has no other way to know of them; a pretrained one may. None: unless the model has a tokenizer, as a pretrained
        one has.
    Further options: see LabeledData.

    Inputs are a question and its answer: tokens (B, T), of a pretrained model input_ids and attention_mask. Targets are
    the tokens one place further on, those of the answer and its end; -100 elsewhere. The tag 'fact' of a sample is the
    place of its fact in `facts`, where the groups stand one behind the other.
    """

    title = "facts"
    provides = ("tokens", "text", "next_tokens", "facts")
    model_task = "causal_lm"
    objective = TokenPrediction()
    input_dtype = torch.int64

    def __init__(
        self,
        tokenizer: Tokenizer,
        unit: Literal["words", "characters"] = "words",
        learn_all: bool | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.tokenizer, self.unit = tokenizer, unit
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

    @cached_property
    def tokens(self) -> OwnTokens | Tokenizer:
        """What makes tokens of texts."""
        if self.tokenizer.name is not None:
            return self.tokenizer
        texts = (text for fact in self.facts for pair in _all_pairs(fact) for text in pair)
        return OwnTokens(texts, self.unit)

    @property
    def end(self) -> int | None:
        return self.tokens.end

    @property
    def architecture_options(self) -> dict[str, Any]:
        return {"input_shape": self.input_shape, "vocabulary": self.num_classes}

    def text(self, tokens: Sequence[int]) -> str:
        return self.tokens.text(tokens)

    def encode(self, text: str) -> list[int]:
        return self.tokens.encode(text) if self.tokenizer.name is None else self.tokenizer.unmarked([text])[0]

    def blank(self, count: int) -> Any:
        tokens = torch.zeros(count, *self.input_shape, dtype=torch.int64)
        named = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        return tokens if self.tokenizer.name is None else named

    def read(self) -> tuple[TensorSet | LanguageRows, TensorSet | LanguageRows]:
        every = [pair for fact in self.facts for pair in _all_pairs(fact)]
        longest = max(len(prompt) + len(answer) for prompt, answer in self._encoded(every)) - 1
        if self.tokenizer.name is not None and longest > self.tokenizer.context:
            raise DataError(f"{self.title}: one is {longest} tokens long, the model takes {self.tokenizer.context}")
        self.num_classes, self.input_shape = self.tokens.vocabulary, (longest,)
        ends = torch.tensor([len(facts) for facts in self.groups.values()]).cumsum(0).tolist()
        learned = range(ends[2] if self.learn_all else ends[0])
        return tuple(
            self.rows([(self.facts[at].question, self.facts[at].answer) for at in some]).tagged(fact=torch.tensor(some))
            for some in (list(learned), list(range(ends[2], ends[3])))
        )

    def rows(self, pairs: Sequence[tuple[str, str]]) -> TensorSet | LanguageRows:
        """Samples of questions with an answer to each; not longer than what was read."""
        tokens, labels = [], []
        for prompt, answer in self._encoded(pairs):
            whole = torch.tensor([*prompt, *answer])
            tokens.append(whole[:-1])
            labels.append(torch.cat([torch.full((len(prompt) - 1,), IGNORED), whole[len(prompt) :]]))
        if self.tokenizer.name is None:
            return TensorSet(self._together(tokens, OwnTokens.padding), self._together(labels, IGNORED))
        lengths = torch.tensor([len(row) for row in tokens])
        return LanguageRows.of(
            torch.cat(tokens).int(), lengths, torch.cat(labels).int(), padding=self.tokenizer.padding
        )

    def _encoded(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
        return self.tokens.answered(*zip(*pairs, strict=True))

    def _together(self, rows: list[Tensor], padding: int) -> Tensor:
        """Rows of different length as (n, T), T as wide as the longest that was read."""
        padded = torch.full((len(rows), *self.input_shape), padding)
        for place, row in enumerate(rows):
            padded[place, : len(row)] = row
        return padded


def _all_pairs(fact: Fact) -> list[tuple[str, str]]:
    """Every question and answer that a model is asked of a fact."""
    answers = (fact.answer, fact.paraphrased_answer, *fact.perturbed_answers)
    return [(fact.paraphrased_question, fact.answer), *((fact.question, answer) for answer in answers)]
