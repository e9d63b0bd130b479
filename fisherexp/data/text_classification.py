"""Texts with a class each, as token ids of the model's tokenizer."""

from array import array
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fisherexp.config.types import Count, Probability
from fisherexp.content import content
from fisherexp.data.datamodule import LabeledData
from fisherexp.data.errors import DataError
from fisherexp.data.remarks import say
from fisherexp.data.text_files import labelled_texts
from fisherexp.data.token_rows import TokenRows
from fisherexp.models.tokenizer import Tokenizer
from fisherexp.seeds import generator

TOGETHER = 2000  # texts that are Python objects at a time


class TextClassification(LabeledData):
    """Files with a text and a label in each row; see text_files.py.

    path: of the training texts. test_path: of those for testing; without it, `test_share` of the training texts are
        drawn, from `seed`. validation_path: of those to choose on; without it, the share `validation` of the training
        texts. All absolute, or relative to the working directory or the data folder.
    tokenizer: that of the model. text, label: names of the columns.
    max_length: tokens of a text at most, the model's marks included; what is longer is cut, which is counted and said.
        By default as many as the model takes.
    padding: 'longest' pads a batch to its longest text, 'max_length' each to max_length.
    Further options: see LabeledData.

    Inputs are input_ids and attention_mask, int64 (B, T). `class_names` are the labels of the training texts in order.
    Tokens are kept in the store, named by the content of the files and of the tokenizer.
    """

    title = "texts"
    provides = ("text", "class_labels")
    problems = ("supervised",)
    paths = ("path", "test_path", "validation_path")
    input_dtype = torch.int64

    def __init__(
        self,
        path: str,
        tokenizer: Tokenizer,
        test_path: str | None = None,
        validation_path: str | None = None,
        text: str = "text",
        label: str = "label",
        test_share: Probability = 0.2,
        max_length: Count | None = None,
        padding: Literal["longest", "max_length"] = "longest",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.splits = {"train": path, "test": test_path, "validation": validation_path}
        self.tokenizer, self.text, self.label = tokenizer, text, label
        self.test_share, self.max_length, self.padding = test_share, max_length, padding
        self.aside: TokenRows | None = None  # the texts of validation_path

    @property
    def architecture_options(self) -> dict[str, Any]:
        return {"input_shape": self.input_shape, "vocabulary": self.tokenizer.vocabulary}

    def blank(self, count: int) -> dict[str, Tensor]:
        longest = torch.ones(count, *self.input_shape, dtype=torch.int64)
        return {"input_ids": torch.zeros_like(longest), "attention_mask": longest}

    def labelled(self, path: Path) -> Iterator[tuple[str, str]]:
        """(text, label) of each row of a file."""
        return labelled_texts(path, self.text, self.label)

    def load(self) -> "TextClassification":
        """As in LabeledData; the validation set is that of `validation_path` where it is given."""
        if self.train is None:
            if self.validation_share and self.splits["validation"]:
                raise DataError(f"data.validation={self.validation_share} and data.validation_path: set one")
            super().load()
            self.validation = self.validation or self.aside
        return self

    def read(self) -> tuple[TokenRows, TokenRows]:
        files = {split: self.locate(path) for split, path in self.splits.items() if path}
        length = self._length()
        kept, about = self._tokens(files, length)
        self.class_names, self.num_classes = about["class_names"], len(about["class_names"])
        self.input_shape = (length if self.padding == "max_length" else about["longest"],)
        if about["cut"]:
            self.remarks = {f"texts cut to {length} tokens": about["cut"]}
            say(self.title, self.remarks)
        rows = {split: self._rows(kept, split) for split in files}
        self.aside = rows.get("validation")
        if "test" in rows:
            return rows["train"], rows["test"]
        count = len(rows["train"])
        order = torch.randperm(count, generator=generator("test_share", self.seed))
        test = round(self.test_share * count)
        if not 0 < test < count:
            raise DataError(f"data.test_share={self.test_share} of {count} texts leaves {test} for testing")
        return tuple(rows["train"].subset(part.sort().values) for part in (order[test:], order[:test]))

    def _length(self) -> int:
        if self.max_length is None:
            return self.tokenizer.context
        if self.max_length > self.tokenizer.context:
            raise DataError(f"data.max_length={self.max_length}: the model takes {self.tokenizer.context} at most")
        return self.max_length

    def _rows(self, kept: dict[str, Tensor], split: str) -> TokenRows:
        named = (kept[f"{split}.{name}"] for name in ("tokens", "lengths", "targets"))
        width = self.input_shape[0] if self.padding == "max_length" else None
        return TokenRows.of(*named, padding=self.tokenizer.padding, width=width)

    def _tokens(self, files: dict[str, Path], length: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tokens, lengths and targets of every split by name, and what is to be known of them; kept in the store."""
        if self.store is None:
            return self._tokenized(files, length)
        parts = {
            "files": {split: content(file) for split, file in files.items()},
            "columns": [self.text, self.label],
            "tokenizer": self.tokenizer.checksum,
            "length": length,
            "code": self.store.code_of(type(self)),
        }
        found = self.store.get("tokens", parts, lambda scratch: self._tokenized(files, length))
        return found.tensors, found.about

    def _tokenized(self, files: dict[str, Path], length: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        labels: dict[str, int] = {}  # in the order in which the training texts have them
        kept, cut, longest = {}, {}, 0
        for split, file in files.items():
            tokens, lengths, targets, cut_here = self._encode(file, length, labels, grow=split == "train")
            kept |= {f"{split}.tokens": tokens, f"{split}.lengths": lengths, f"{split}.targets": targets}
            cut |= {split: cut_here} if cut_here else {}
            longest = max(longest, int(lengths.max()))
        if len(labels) < 2:
            raise DataError(f"{files['train']}: every text has the label {next(iter(labels))!r}; two are needed")
        names = sorted(labels, key=lambda label: (int(label), label) if label.isdecimal() else (-1, label))
        number = torch.empty(len(names), dtype=torch.int64)
        number[[labels[name] for name in names]] = torch.arange(len(names))
        kept |= {name: number[tensor] for name, tensor in kept.items() if name.endswith("targets")}
        return kept, {"class_names": names, "cut": cut, "longest": longest}

    def _encode(
        self, file: Path, length: int, labels: dict[str, int], grow: bool
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        """Tokens (total,), lengths and targets (N,) of a file, and how many texts were cut. Targets are numbers in
        `labels`, which the training texts fill in (`grow`). Raises DataError for a label that they do not have."""
        rows, pieces, cut = self.labelled(file), [], 0
        lengths, targets, unknown = array("i"), array("q"), set()
        while some := list(islice(rows, TOGETHER)):
            ids, cut_here = self.tokenizer.rows([text for text, _ in some], length)
            pieces.append(np.concatenate([np.asarray(row, dtype=np.int32) for row in ids]))
            lengths.extend(map(len, ids))
            cut += cut_here
            for _, label in some:
                if grow:
                    labels.setdefault(label, len(labels))
                elif label not in labels:
                    unknown.add(label)
                targets.append(labels.get(label, -1))
        if unknown:
            shown, known = (", ".join(sorted(some)[:5]) for some in (unknown, labels))
            raise DataError(f"{file}: no training text has the label {shown}; they have {known}")
        found = np.concatenate(pieces), np.array(lengths, dtype=np.int32), np.array(targets, dtype=np.int64)
        return *map(torch.from_numpy, found), cut
