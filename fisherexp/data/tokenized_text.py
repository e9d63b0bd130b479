"""What data made of the user's own texts share: files, the model's tokenizer, tokens that are kept, a part held out."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fisherexp.config.types import Probability
from fisherexp.content import content
from fisherexp.data.datamodule import LabeledData
from fisherexp.data.errors import DataError
from fisherexp.data.remarks import say
from fisherexp.data.token_rows import Rows
from fisherexp.models.tokenizer import Tokenizer
from fisherexp.seeds import generator

Kept = dict[str, Tensor]


class TokenizedText(LabeledData):
    """path: of the training texts. test_path: of those for testing; without it, `test_share` of the training texts are
        drawn, from `seed`. validation_path: of those to choose on; without it, the share `validation` of the training
        texts. All absolute, or relative to the working directory or the data folder.
    tokenizer: that of the model.
    Further options: see LabeledData.

    Inputs are input_ids and attention_mask, int64 (B, T). Tokens are kept in the store, named by the content of the
    files and of the tokenizer.
    """

    title = "texts"
    problems = ("supervised",)
    paths = ("path", "test_path", "validation_path")
    input_dtype = torch.int64

    def __init__(
        self,
        path: str,
        tokenizer: Tokenizer,
        test_path: str | None = None,
        validation_path: str | None = None,
        test_share: Probability = 0.2,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.splits = {"train": path, "test": test_path, "validation": validation_path}
        self.tokenizer, self.test_share = tokenizer, test_share
        self.aside: Rows | None = None  # the texts of validation_path

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """What decides the tokens, beside the files and the tokenizer: plain containers. Raises DataError for options
        that do not fit."""

    @abstractmethod
    def tokenized(self, files: dict[str, Any]) -> tuple[Kept, dict[str, Any]]:
        """Tokens of the files of every split, and what is to be known of them (plain containers)."""

    @abstractmethod
    def describe(self, kept: Kept, about: dict[str, Any]) -> None:
        """Fill in what the texts tell of the data set: numbers of classes and of tokens, remarks."""

    @abstractmethod
    def rows(self, kept: Kept, split: str) -> Rows:
        """The samples of a split; `describe` has been called."""

    @property
    def architecture_options(self) -> dict[str, Any]:
        return {"input_shape": self.input_shape, "vocabulary": self.tokenizer.vocabulary}

    @property
    def end(self) -> int | None:
        return self.tokenizer.end

    def text(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.text(tokens)

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.unmarked([text])[0]

    def blank(self, count: int) -> dict[str, Tensor]:
        longest = torch.ones(count, *self.input_shape, dtype=torch.int64)
        return {"input_ids": torch.zeros_like(longest), "attention_mask": longest}

    def load(self) -> "TokenizedText":
        """As in LabeledData; the validation set is that of `validation_path` where it is given."""
        if self.train is None:
            if self.validation_share and self.splits["validation"]:
                raise DataError(f"data.validation={self.validation_share} and data.validation_path: set one")
            super().load()
            self.validation = self.validation or self.aside
        return self

    def read(self) -> tuple[Rows, Rows]:
        files = self.files()
        kept, about = self._tokens(files)
        self.describe(kept, about)
        say(self.title, self.remarks)
        self.aside = self.rows(kept, "validation") if "validation" in files else None
        if "test" in files:
            return self.rows(kept, "train"), self.rows(kept, "test")
        return self.apart(kept)

    def files(self) -> dict[str, Any]:
        """Where the texts of each split are, what `tokenized` is given; here paths."""
        return {split: self.locate(path) for split, path in self.splits.items() if path}

    def content(self, file: Any) -> str:
        """A hash of what is in one of `files`."""
        return content(file)

    def apart(self, kept: Kept) -> tuple[Rows, Rows]:
        """(for training, for testing), of the training texts: `test_share` of the rows are drawn."""
        rows = self.rows(kept, "train")
        count = len(rows)
        order = torch.randperm(count, generator=generator("test_share", self.seed))
        test = round(self.test_share * count)
        if not 0 < test < count:
            raise DataError(f"data.test_share={self.test_share} of {count} texts leaves {test} for testing")
        return tuple(rows.subset(part.sort().values) for part in (order[test:], order[:test]))

    def at_most(self, option: str, length: int | None) -> int:
        """Tokens of a row: `length`, an option's value, or as many as the model takes. Raises DataError for more."""
        if length is None:
            return self.tokenizer.context
        if length > self.tokenizer.context:
            raise DataError(f"data.{option}={length}: the model takes {self.tokenizer.context} at most")
        return length

    def _tokens(self, files: dict[str, Any]) -> tuple[Kept, dict[str, Any]]:
        described = self.described()
        if self.store is None:
            return self.tokenized(files)
        parts = {
            "files": {split: self.content(file) for split, file in files.items()},
            "tokenizer": self.tokenizer.checksum,
            "code": self.store.code_of(type(self)),
        }
        found = self.store.get("tokens", parts | described, lambda scratch: self.tokenized(files))
        return found.tensors, found.about
