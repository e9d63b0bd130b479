"""The tokenizer that belongs to a pretrained transformer."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from fisherexp.models.transformer_files import read, transformers, whereabouts


class Tokenizer:
    """Texts to rows of token ids, by the tokenizer in a model's folder. Nothing is read before it is needed.

    name, revision, gguf_file: as of the model, whose they are by default; see transformer_files.whereabouts.

    Raises ValueError, in one line, where there is no tokenizer, or one that transformers has in Python only.
    """

    paths = ("name",)

    def __init__(self, name: str | None, revision: str | None = None, gguf_file: str | None = None) -> None:
        self.name, self.revision, self.gguf_file = name, revision, gguf_file

    @cached_property
    def _tokenizer(self) -> Any:
        return self._read("AutoTokenizer", "its tokenizer")

    @cached_property
    def context(self) -> int:
        """Tokens that the model takes at most."""
        config = self._read("AutoConfig", "its config.json")
        positions = getattr(config, "max_position_embeddings", None)  # models with relative positions have no limit
        return min(self._tokenizer.model_max_length, positions or self._tokenizer.model_max_length)

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return len(self._tokenizer)

    @property
    def padding(self) -> int:
        """The token that fills a row; what it is does not matter, as it is masked."""
        return self._tokenizer.pad_token_id or 0

    @cached_property
    def checksum(self) -> str:
        """Hash of all that decides which tokens a text becomes: 16 hexadecimal digits."""
        return hashlib.blake2b(self._tokenizer.backend_tokenizer.to_str().encode(), digest_size=8).hexdigest()

    def rows(self, texts: Sequence[str], length: int) -> tuple[list[list[int]], int]:
        """(token ids of each text, at most `length`, with the model's marks; how many texts were cut)."""
        rows = self._tokenizer(list(texts), truncation=True, max_length=length, verbose=False)["input_ids"]
        full = [text for text, row in zip(texts, rows, strict=True) if len(row) == length]
        whole = self._tokenizer(full, verbose=False)["input_ids"] if full else []
        return rows, sum(len(row) > length for row in whole)

    def _read(self, loader: str, what: str) -> Any:
        if self.name is None:
            raise ValueError("these data need a model with a tokenizer: model=minilm, or data.tokenizer.name=<folder>")
        library = transformers()
        place, options = whereabouts(self.name, self.revision, self.gguf_file)
        found = read(getattr(library, loader), what, self.name, place, **options)
        if loader == "AutoTokenizer" and not found.is_fast:
            raise ValueError(f"model.name={self.name}: its tokenizer has no tokenizer.json and is not read")
        return found
