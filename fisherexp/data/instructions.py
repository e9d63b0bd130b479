"""Prompts and the responses to them, for a language model, as token ids of its tokenizer."""

import hashlib
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fisherexp.config.types import Count
from fisherexp.data.errors import DataError
from fisherexp.data.text_columns import text_columns
from fisherexp.data.token_rows import LanguageRows
from fisherexp.data.tokenized_text import TokenizedText
from fisherexp.models.tokenizer import Tokenizer
from fisherexp.objectives.token_prediction import IGNORED, TokenPrediction

TOGETHER = 2000  # rows that are Python objects at a time


class JsonlInstructions(TokenizedText):
    """Files with a prompt and a response in each row; see text_columns.py. Both become one row of tokens, by the chat
    template of the tokenizer where it has one, else as two lines.

    prompt, response: names of the columns.
    max_length: tokens of a row at most; what is longer is cut, and rows without any token of the response before that
        are left out; both are counted and said. By default as many as the model takes.
    Further options: see TokenizedText.

    Targets are the tokens one place further on, int64 (B, T), those of the response and its end; -100 elsewhere.
    """

    title = "instructions"
    provides = ("text", "next_tokens")
    model_task = "causal_lm"
    objective = TokenPrediction()

    def __init__(
        self,
        path: str,
        tokenizer: Tokenizer,
        prompt: str = "prompt",
        response: str = "response",
        max_length: Count | None = None,
        **options: Any,
    ) -> None:
        super().__init__(path, tokenizer, **options)
        self.prompt, self.response, self.max_length = prompt, response, max_length

    @property
    def end(self) -> int | None:
        return self.tokenizer.answer_end

    def described(self) -> dict[str, Any]:
        template = hashlib.blake2b((self.tokenizer.template or "").encode(), digest_size=8).hexdigest()
        columns, length = [self.prompt, self.response], self.at_most("max_length", self.max_length)
        marks = [self.tokenizer.begin, self.tokenizer.end]
        return {"columns": columns, "length": length, "template": template, "marks": marks}

    def tokenized(self, files: dict[str, Path]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        length = self.at_most("max_length", self.max_length)
        kept, cut, lost, longest = {}, {}, {}, 0
        for split, file in files.items():
            tokens, labels, long, without = self._encode(file, length)
            if not tokens:
                raise DataError(f"{file}: no row has a token of '{self.response}' within {length} (data.max_length)")
            lengths = torch.tensor([len(row) for row in tokens])
            kept |= {f"{split}.lengths": lengths, f"{split}.tokens": torch.from_numpy(np.concatenate(tokens))}
            kept[f"{split}.labels"] = torch.from_numpy(np.concatenate(labels))
            cut |= {split: long} if long else {}
            lost |= {split: without} if without else {}
            longest = max(longest, int(lengths.max()))
        return kept, {"cut": cut, "lost": lost, "longest": longest}

    def describe(self, kept: dict[str, Tensor], about: dict[str, Any]) -> None:
        self.num_classes, self.input_shape = self.tokenizer.vocabulary, (about["longest"],)
        length = self.at_most("max_length", self.max_length)
        said = {f"rows cut to {length} tokens": about["cut"], "rows left without a response": about["lost"]}
        self.remarks = {what: counts for what, counts in said.items() if counts}

    def rows(self, kept: dict[str, Tensor], split: str) -> LanguageRows:
        named = (kept[f"{split}.{name}"] for name in ("tokens", "lengths", "labels"))
        return LanguageRows.of(*named, padding=self.tokenizer.padding)

    def _encode(self, file: Path, length: int) -> tuple[list[np.ndarray], list[np.ndarray], int, int]:
        """Tokens and labels of each row of a file, how many were cut, and how many of those left out."""
        pairs, tokens, labels, cut, lost = text_columns(file, self.prompt, self.response), [], [], 0, 0
        while some := list(islice(pairs, TOGETHER)):
            for prompt, response in self.tokenizer.answered(*zip(*some, strict=True)):
                row = np.asarray([*prompt, *response], dtype=np.int32)
                following = row.copy()
                following[: len(prompt)] = IGNORED
                cut += len(row) > length + 1
                if len(prompt) > length:
                    lost += 1
                    continue
                tokens.append(row[:-1][:length])
                labels.append(following[1:][:length])
        return tokens, labels, cut, lost
