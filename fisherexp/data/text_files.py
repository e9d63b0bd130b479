"""Text files for a language model, as token ids of its tokenizer."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fisherexp.config.types import Count
from fisherexp.data.documents import documents, pieces
from fisherexp.data.errors import DataError
from fisherexp.data.token_rows import LanguageRows
from fisherexp.data.tokenized_text import TokenizedText
from fisherexp.models.tokenizer import Tokenizer
from fisherexp.objectives.token_prediction import TokenPrediction
from fisherexp.seeds import generator


class TextFiles(TokenizedText):
    """A document is a .txt file; a path names one, or a folder with any number of them.

    packed: documents one behind the other, each with the token that ends a text, cut into blocks, of which an
        incomplete last one is left out; a block may see the end of the document before. Otherwise a row is a document,
        padded, and what is longer is cut, which is counted and said, as are files without text.
    block_size: T, tokens of a row.
    held_out: without `test_path`, test on the last `test_share` of the text ('end'), or on as large a share of the
        documents, drawn from `seed` ('documents').
    Further options: see TokenizedText.

    Targets are the tokens one place further on, int64 (B, T), -100 beyond the end of a row. Documents longer than
    documents.PIECE are tokenized piece by piece.
    """

    provides = ("text", "next_tokens")
    model_task = "causal_lm"
    objective = TokenPrediction()

    def __init__(
        self,
        path: str,
        tokenizer: Tokenizer,
        packed: bool = True,
        block_size: Count = 256,
        held_out: Literal["end", "documents"] = "end",
        **options: Any,
    ) -> None:
        super().__init__(path, tokenizer, **options)
        self.packed, self.block_size, self.held_out = packed, block_size, held_out

    def described(self) -> dict[str, Any]:
        self.at_most("block_size", self.block_size)
        return {"marks": [self.tokenizer.begin, self.tokenizer.end]}

    def tokenized(self, files: dict[str, Path]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        kept, blank = {}, {}
        for split, path in files.items():
            found = [self._encode(text) if text.strip() else None for text in documents(path)]
            rows = [row for row in found if row is not None]
            if not rows:
                raise DataError(f"{path} is empty: it has no text")
            blank |= {split: len(found) - len(rows)} if len(rows) < len(found) else {}
            kept[f"{split}.tokens"] = torch.from_numpy(np.concatenate(rows))
            kept[f"{split}.lengths"] = torch.tensor([len(row) for row in rows])
        return kept, {"blank": blank}

    def describe(self, kept: dict[str, Tensor], about: dict[str, Any]) -> None:
        self.num_classes, self.input_shape = self.tokenizer.vocabulary, (self.block_size,)
        lengths = {name.removesuffix(".lengths"): found for name, found in kept.items() if name.endswith(".lengths")}
        long = {split: int((found > self.block_size + 1).sum()) for split, found in lengths.items()}
        cut = {} if self.packed else {split: count for split, count in long.items() if count}
        said = {f"documents cut to {self.block_size} tokens": cut, "files without text": about["blank"]}
        self.remarks = {what: counts for what, counts in said.items() if counts}

    def rows(self, kept: dict[str, Tensor], split: str) -> LanguageRows:
        return self._rows(kept[f"{split}.tokens"], kept[f"{split}.lengths"], self.splits[split])

    def apart(self, kept: dict[str, Tensor]) -> tuple[LanguageRows, LanguageRows]:
        tokens, lengths, path = kept["train.tokens"], kept["train.lengths"], self.splits["train"]
        if self.packed and self.held_out == "end":
            cut = len(tokens) - round(self.test_share * len(tokens))
            return self._rows(tokens[:cut], lengths, path), self._rows(tokens[cut:], lengths, path)
        count = len(lengths)
        test = round(self.test_share * count)
        if not 0 < test < count:
            near = "" if self.packed else "; data.packed=true makes rows of parts of documents"
            raise DataError(f"data.test_share={self.test_share} of {count} documents leaves {test} for testing{near}")
        drawn = self.held_out == "documents"
        order = torch.randperm(count, generator=generator("test_share", self.seed)) if drawn else torch.arange(count)
        each = tokens.split(lengths.tolist())
        chosen = (order[: count - test].sort().values, order[count - test :].sort().values)
        parts = ((torch.cat([each[number] for number in part.tolist()]), lengths[part]) for part in chosen)
        return tuple(self._rows(*part, path) for part in parts)

    def _encode(self, text: str) -> np.ndarray:
        found = [np.asarray(self.tokenizer.unmarked([piece])[0], dtype=np.int32) for piece in pieces(text)]
        end = [] if self.tokenizer.end is None else [self.tokenizer.end]
        return np.concatenate([np.asarray(self.tokenizer.begin, np.int32), *found, np.asarray(end, np.int32)])

    def _rows(self, tokens: Tensor, lengths: Tensor, path: str) -> LanguageRows:
        """Rows of documents (total,), each of its length, one behind the other."""
        if self.packed:
            count = max(0, len(tokens) - 1) // self.block_size
            starts, lengths = torch.arange(count) * self.block_size, torch.full((count,), self.block_size)
        else:
            starts, lengths = lengths.cumsum(0) - lengths, (lengths - 1).clamp(max=self.block_size)
            starts, lengths = starts[lengths > 0], lengths[lengths > 0]
        if not len(starts):
            raise DataError(
                f"data.block_size={self.block_size}: a part of {path} has {len(tokens)} tokens, too few for a row"
            )
        return LanguageRows(tokens[:-1], starts, lengths, tokens[1:], padding=self.tokenizer.padding)
