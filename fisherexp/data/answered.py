"""What data sets of questions with an answer share: rows of tokens, of which those of the answer count."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from fisherexp.data.datamodule import LabeledData
from fisherexp.data.errors import DataError
from fisherexp.data.own_tokens import OwnTokens
from fisherexp.data.tensors import TensorSet
from fisherexp.data.token_rows import LanguageRows
from fisherexp.models.tokenizer import Tokenizer
from fisherexp.objectives.token_prediction import IGNORED, TokenPrediction

Pair = tuple[str, str]


class AnsweredData(LabeledData):
    """Subclasses say which questions and answers there are (`pairs`) and make their parts of `rows` after `measure`.

    tokenizer: that of the model. unit: what tokens are where the model has none. Further options: see LabeledData.

    Inputs are a question and its answer: tokens (B, T), of a pretrained model input_ids and attention_mask. Targets are
    the tokens one place further on, those of the answer and its end; -100 elsewhere.
    """

    title = "questions"
    provides = ("tokens", "text", "next_tokens")
    model_task = "causal_lm"
    objective = TokenPrediction()
    input_dtype = torch.int64

    def __init__(self, tokenizer: Tokenizer, unit: Literal["words", "characters"] = "words", **options: Any) -> None:
        super().__init__(**options)
        self.tokenizer, self.unit = tokenizer, unit

    @abstractmethod
    def pairs(self) -> list[Pair]:
        """Every question and answer that a model is asked. Raises DataError for what the user can put right."""

    @cached_property
    def tokens(self) -> OwnTokens | Tokenizer:
        """What makes tokens of texts."""
        if self.tokenizer.name is not None:
            return self.tokenizer
        return OwnTokens((text for pair in self.pairs() for text in pair), self.unit)

    @property
    def end(self) -> int | None:
        return self.tokens.answer_end

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

    def measure(self) -> None:
        """Fill in how many tokens there are and how long a row is. Raises DataError for what is too long."""
        longest = max(len(prompt) + len(answer) for prompt, answer in self._encoded(self.pairs())) - 1
        if self.tokenizer.name is not None and longest > self.tokenizer.context:
            raise DataError(f"{self.title}: one is {longest} tokens long, the model takes {self.tokenizer.context}")
        self.num_classes, self.input_shape = self.tokens.vocabulary, (longest,)

    def rows(self, pairs: Sequence[Pair]) -> TensorSet | LanguageRows:
        """Samples of questions with an answer to each; not longer than what was measured."""
        return self.of_tokens(self._encoded(pairs))

    def of_tokens(self, pairs: Sequence[tuple[list[int], list[int]]]) -> TensorSet | LanguageRows:
        """Samples of what is given and what is to be predicted after it, both tokens; at least one is given."""
        tokens, labels = [], []
        for prompt, answer in pairs:
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
