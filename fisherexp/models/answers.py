"""What a language model answers by itself, in a batch of questions with an answer each."""

from typing import Any

from torch import Tensor

from fisherexp.models.classifier import Classifier
from fisherexp.models.generation import generate
from fisherexp.models.greedy import greedy_decode
from fisherexp.models.huggingface import HuggingFace


def greedy_answers(model: Classifier, inputs: Any, labels: Tensor, end: int | None, most: int) -> list[list[int]]:
    """The most likely tokens, one after the other, in place of those that count in each row of labels (B, T), until
    `end`, which is not among them, or `most` tokens.

    inputs: tokens (B, T), or of a pretrained model input_ids and attention_mask. A pretrained model reads every prompt
    whole, and writes as far as that leaves room, whatever its batch; other networks as far as a row goes.
    """
    begins = (labels >= 0).int().argmax(1).tolist()
    if isinstance(model.backbone, HuggingFace):
        rows = inputs["input_ids"].tolist()
        prompts = [row[: begin + 1] for row, begin in zip(rows, begins, strict=True)]
        context = model.backbone.context
        rooms = [most if context is None else max(1, min(most, context - len(prompt))) for prompt in prompts]
        found: dict[int, list[int]] = {}
        for room in sorted(set(rooms)):  # as a rule one, the most that is asked for
            places = [place for place, own in enumerate(rooms) if own == room]
            written = generate(model, [prompts[place] for place in places], room, end=end)
            found |= dict(zip(places, written, strict=True))
        return [found[place] for place in range(len(prompts))]
    found = greedy_decode(model, inputs, labels, -1 if end is None else end).tolist()
    rows = [row[begin : begin + most] for row, begin in zip(found, begins, strict=True)]
    return [row[: row.index(end)] if end in row else row for row in rows]
