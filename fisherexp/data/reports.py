"""Generated radiology reports as sequences for a decoder: source, prompt, target in one row of tokens.

    tokens  findings …  <pad> …  <summarize>  impression …        <pad> …
    labels  not counted …        impression …            <end>   not counted …

The source is padded to SOURCE tokens, so that the prompt always stands in the same place, and labels are those of the
target only: neither the source nor padding counts in a loss, a metric or a Fisher. A decoder with its source as a
prefix does here what an encoder and a decoder do in T5.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fisherexp.config.types import Count
from fisherexp.data.datamodule import LabeledData
from fisherexp.data.errors import DataError
from fisherexp.data.report_language import report, words
from fisherexp.data.tensors import TensorSet
from fisherexp.objectives.token_prediction import TokenPrediction
from fisherexp.seeds import derive

PAD, END, STOP, BLANK, FILL, SUMMARIZE = range(6)
MARKS = ["<pad>", "<end>", ".", "<blank>", "<fill>", "<summarize>"]
SOURCE, TARGET = 36, 13  # tokens at most; the target's include <end>
IGNORED = -100  # what torch's cross-entropy does not count

Sentence = tuple[int, ...]  # with its full stop


class Reports(LabeledData):
    """Findings to impression, drawn by NumPy's legacy generator, whose stream is frozen.

    reports, test_reports: how many. Further options: see LabeledData; its seed draws splits, not reports.
    """

    title = "generated radiology reports"
    provides = ("tokens", "next_tokens")
    tasks = ("gap_sentences", "summary")
    marks = {"end": END, "silent": STOP}
    end = END
    refusals = ["unremarkable .", "normal .", "clear ."]  # answers in these words that say nothing
    objective = TokenPrediction()
    input_dtype = torch.int64
    input_shape = (SOURCE + TARGET,)

    def __init__(self, reports: Count = 800, test_reports: Count = 200, **options: Any) -> None:
        super().__init__(**options)
        self.reports, self.test_reports = reports, test_reports
        self.class_names = MARKS + words()
        self.num_classes = len(self.class_names)

    @property
    def architecture_options(self) -> dict[str, Any]:
        return {"input_shape": self.input_shape, "vocabulary": self.num_classes}

    def text(self, tokens: Sequence[int]) -> str:
        return " ".join(self.class_names[token] for token in tokens if token != PAD)

    def encode(self, text: str) -> list[int]:
        if unknown := [word for word in text.split() if word not in self.class_names]:
            raise DataError(f"{self.title} have no word {unknown[0]!r}, which is in {text!r}")
        return [self.class_names.index(word) for word in text.split()]

    def read(self) -> tuple[TensorSet, TensorSet]:
        number = {word: token for token, word in enumerate(self.class_names)}

        def spelt(sentences: list[str]) -> list[Sentence]:
            return [(*(number[word] for word in sentence.split()), STOP) for sentence in sentences]

        def drawn(part: str, count: int) -> TensorSet:
            random = np.random.RandomState(derive("reports", part))
            made = (report(random) for _ in range(count))
            return together(row(spelt(findings), SUMMARIZE, spelt(impression)) for findings, impression in made)

        return drawn("train", self.reports), drawn("test", self.test_reports)


def row(source: Iterable[Sentence], prompt: int, target: Iterable[Sentence]) -> tuple[list[int], list[int]]:
    """Tokens and labels (T,) of one sample, T = SOURCE + TARGET. Raises ValueError for what is too long."""
    source, target = ([token for sentence in given for token in sentence] for given in (source, target))
    if len(source) > SOURCE or len(target) >= TARGET:
        raise ValueError(f"{len(source)} tokens to read and {len(target)} to write: at most {SOURCE} and {TARGET - 1}")
    tokens = source + [PAD] * (SOURCE - len(source)) + [prompt] + target
    labels = [IGNORED] * SOURCE + target + [END]
    rest = SOURCE + TARGET - len(tokens)
    return tokens + [PAD] * rest, labels + [IGNORED] * rest


def together(rows: Iterable[tuple[list[int], list[int]]]) -> TensorSet:
    """One set of rows."""
    tokens, labels = zip(*rows, strict=True)
    return TensorSet(torch.tensor(tokens, dtype=torch.int64), torch.tensor(labels, dtype=torch.int64))


def read_back(tokens: Tensor, labels: Tensor) -> tuple[list[Sentence], list[Sentence]]:
    """The sentences of source and target of one row."""
    return sentences(tokens[:SOURCE].tolist()), sentences(labels[SOURCE:].tolist())


def sentences(tokens: Iterable[int]) -> list[Sentence]:
    """Tokens cut behind every full stop; what comes after the last one is left out."""
    found, begun = [], []
    for token in tokens:
        begun.append(token)
        if token == STOP:
            found.append(tuple(begun))
            begun = []
    return found
