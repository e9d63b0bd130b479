"""Texts with a class each, as token ids of the model's tokenizer."""

from array import array
from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fisherexp.config.types import Count
from fisherexp.data.errors import DataError
from fisherexp.data.text_columns import text_columns
from fisherexp.data.token_rows import TokenRows
from fisherexp.data.tokenized_text import TokenizedText
from fisherexp.models.tokenizer import ENDLESS, Tokenizer

TOGETHER = 2000  # texts that are Python objects at a time


class TextClassification(TokenizedText):
    """Files with a text and a label in each row; see text_columns.py.

    text, label: names of the columns.
    max_length: tokens of a text at most, the model's marks included; what is longer is cut, which is counted and said.
        By default as many as the model takes.
    padding: 'longest' pads a batch to its longest text, 'max_length' each to max_length.
    Further options: see TokenizedText.

    `class_names` are the labels of the training texts in order.
    """

    provides = ("text", "class_labels")

    def __init__(
        self,
        path: str,
        tokenizer: Tokenizer,
        text: str = "text",
        label: str = "label",
        max_length: Count | None = None,
        padding: Literal["longest", "max_length"] = "longest",
        **options: Any,
    ) -> None:
        super().__init__(path, tokenizer, **options)
        self.text, self.label = text, label
        self.max_length, self.padding = max_length, padding

    def labelled(self, file: Any) -> Iterator[tuple[str, str]]:
        """(text, label) of each row of one of `files`."""
        return text_columns(file, self.text, self.label)

    def described(self) -> dict[str, Any]:
        length = self.at_most("max_length", self.max_length)
        if self.padding == "max_length" and length == ENDLESS:
            raise DataError("data.padding=max_length: the model takes texts of any length; set data.max_length")
        return {"columns": [self.text, self.label], "length": length}

    def describe(self, kept: dict[str, Tensor], about: dict[str, Any]) -> None:
        length = self.at_most("max_length", self.max_length)
        self.class_names, self.num_classes = about["class_names"], len(about["class_names"])
        self.input_shape = (length if self.padding == "max_length" else about["longest"],)
        self.remarks = {f"texts cut to {length} tokens": about["cut"]} if about["cut"] else {}

    def rows(self, kept: dict[str, Tensor], split: str) -> TokenRows:
        named = (kept[f"{split}.{name}"] for name in ("tokens", "lengths", "targets"))
        width = self.input_shape[0] if self.padding == "max_length" else None
        return TokenRows.of(*named, padding=self.tokenizer.padding, width=width)

    def tokenized(self, files: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        length = self.at_most("max_length", self.max_length)
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

    def _encode(self, file: Any, length: int, labels: dict[str, int], grow: bool) -> tuple[Tensor, Tensor, Tensor, int]:
        """Tokens (total,), lengths and targets (N,) of a file, and how many texts were cut. Targets are numbers in
        `labels`, which the training texts fill in (`grow`). Raises DataError for a label that they do not have, and for
        a text without tokens, which has no mean."""
        rows, pieces, cut = self.labelled(file), [], 0
        lengths, targets, unknown = array("i"), array("q"), set()
        while some := list(islice(rows, TOGETHER)):
            ids, cut_here = self.tokenizer.rows([text for text, _ in some], length)
            if blank := [text for (text, _), row in zip(some, ids, strict=True) if not row]:
                raise DataError(f"{file}: the tokenizer knows nothing of the text {blank[0][:40]!r}: it has no token")
            pieces.append(np.concatenate([np.asarray(row, dtype=np.int32) for row in ids]))
            lengths.extend(map(len, ids))
            cut += cut_here
            for label in (label.strip() for _, label in some):  # or '1 ' would be a class beside '1'
                if grow:
                    labels.setdefault(label, len(labels))
                elif label not in labels:
                    unknown.add(label)
                targets.append(labels.get(label, -1))
        if not pieces:
            raise DataError(f"{file} is empty: it has no row")
        if unknown:
            shown, known = (", ".join(sorted(some)[:5]) for some in (unknown, labels))
            raise DataError(f"{file}: no training text has the label {shown}; they have {known}")
        found = np.concatenate(pieces), np.array(lengths, dtype=np.int32), np.array(targets, dtype=np.int64)
        return *map(torch.from_numpy, found), cut
