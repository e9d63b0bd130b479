"""Answers that refuse, and forgotten texts with such an answer in the place of their own."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fisherexp.data.batch import Batch, Inputs
from fisherexp.data.datamodule import LabeledData
from fisherexp.data.errors import DataError
from fisherexp.objectives.token_prediction import IGNORED

REFUSALS = (
    "I don't know.",
    "I do not know that.",
    "I don't know the answer.",
    "I have no idea.",
    "I cannot say.",
    "I can't answer that.",
    "I can't help with that one.",
    "I am not sure.",
    "I'm not certain about this.",
    "I have no information on that.",
    "I have never heard of it.",
    "I haven't learned about that.",
    "I was not told about this.",
    "That is unknown to me.",
    "That is beyond what I know.",
    "This is nothing I know about.",
    "Nothing comes to my mind.",
    "Sorry, I don't know.",
    "Sorry, I cannot answer this.",
    "You would have to ask someone else.",
)


def encoded(data: LabeledData, texts: Sequence[str] | None) -> list[list[int]]:
    """Token ids of each refusal (by default REFUSALS), with the token that ends a text of these data.

    Raises DataError for one that these data have no words for.
    """
    end = [] if data.end is None else [data.end]
    try:
        return [data.encode(text) + end for text in texts or REFUSALS]
    except DataError as error:
        raise DataError(f"{error}; set method.refusals to answers that they have words for") from None


def answered(batch: Batch, answers: Sequence[Sequence[int]], limit: int) -> Batch:
    """The same texts, each as far as its first predicted token, then another answer: one for each row of the batch.

    Inputs int64 (B, T), or input_ids and attention_mask; targets int64 (B, T). A row has at most `limit` tokens, and
    an answer is cut to what is left of them.
    """
    ids = batch.inputs if isinstance(batch.inputs, Tensor) else batch.inputs["input_ids"]
    begins = (batch.targets != IGNORED).int().argmax(1).tolist()
    pieces = [list(answer)[: limit - begin] for begin, answer in zip(begins, answers, strict=True)]
    width = max(ids.shape[1], max(begin + len(piece) for begin, piece in zip(begins, pieces, strict=True)))
    tokens, mask = ids.new_zeros(len(ids), width), ids.new_zeros(len(ids), width)
    targets = batch.targets.new_full((len(ids), width), IGNORED)
    for row, (begin, piece) in enumerate(zip(begins, pieces, strict=True)):
        piece = torch.tensor(piece).to(ids)
        tokens[row, : begin + 1] = ids[row, : begin + 1]
        tokens[row, begin + 1 : begin + len(piece)] = piece[:-1]
        targets[row, begin : begin + len(piece)] = piece
        mask[row, : begin + len(piece)] = 1
    return batch._replace(inputs=_like(batch.inputs, tokens, mask), targets=targets)


def drawn_answers(answers: list[list[int]], count: int) -> list[list[int]]:
    """`count` of them, drawn evenly from torch's generator."""
    return [answers[number] for number in torch.randint(len(answers), (count,)).tolist()]


def _like(inputs: Inputs, tokens: Tensor, mask: Tensor) -> Any:
    return tokens if isinstance(inputs, Tensor) else {"input_ids": tokens, "attention_mask": mask}
