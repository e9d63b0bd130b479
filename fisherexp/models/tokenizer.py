"""The tokenizer that belongs to a pretrained transformer."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from itertools import takewhile
from typing import Any

from fisherexp.models.transformer_files import most_tokens, read, transformers, whereabouts

ENDLESS = 2**31 - 1  # what transformers has, 10^30, is more than its tokenizers can be told


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
        """Tokens that the model takes at most; ENDLESS where neither it nor its tokenizer has a bound."""
        config = self._read("AutoConfig", "its config.json")
        return min(self._tokenizer.model_max_length, most_tokens(config) or ENDLESS, ENDLESS)

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
        whole = self._tokenizer.backend_tokenizer.to_str() + self._tokenizer.truncation_side
        return hashlib.blake2b(whole.encode(), digest_size=8).hexdigest()

    @property
    def end(self) -> int | None:
        """The token that ends a text, if there is one."""
        return self._tokenizer.eos_token_id

    @cached_property
    def answer_end(self) -> int | None:
        """The token that ends an answer: `end`, but where a template ends turns with another mark, that mark."""
        if self.template is None:
            return self.end
        (text,) = self._written([_turns("Why?", "42")])
        (behind,) = self.unmarked([text.rpartition("42")[2]])
        marks = [token for token in behind if token in self._tokenizer.added_tokens_decoder]
        return self.end if self.end in marks or not marks else marks[0]

    @cached_property
    def begin(self) -> list[int]:
        """What the model's texts begin with: one token, or none."""
        # Asked of a text: an empty one does not tell a mark before it from one behind it, and they may be the same.
        found = self._tokenizer("a", return_special_tokens_mask=True, verbose=False)
        pairs = zip(found["input_ids"], found["special_tokens_mask"], strict=True)
        return [token for token, _ in takewhile(lambda pair: pair[1], pairs)]

    @property
    def template(self) -> str | None:
        """How turns of a conversation become one text, in Jinja; None where the model knows no conversations."""
        return self._tokenizer.chat_template

    def unmarked(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, whole and without the model's marks."""
        return self._tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]

    def asked(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids of each prompt as the model is to answer it: by its template, else as a line."""
        if self.template is None:
            return [self.begin + row for row in self.unmarked([f"{prompt}\n" for prompt in prompts])]
        turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
        return self.unmarked(self._written(turns, add_generation_prompt=True))

    def answered(self, prompts: Sequence[str], responses: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """(token ids of a prompt as in `asked`, those of its response with its end) of each pair.

        Raises ValueError for a template that writes a prompt otherwise where an answer follows.
        """
        asked, end = self.asked(prompts), [] if self.answer_end is None else [self.answer_end]
        if self.template is None:
            return [(prompt, row + end) for prompt, row in zip(asked, self.unmarked(responses), strict=True)]
        turns = [_turns(*pair) for pair in zip(prompts, responses, strict=True)]
        found = []
        for prompt, row in zip(asked, self.unmarked(self._written(turns)), strict=True):
            if row[: len(prompt)] != prompt:
                raise ValueError(f"model.name={self.name}: its chat template changes a prompt that is answered")
            answer = row[len(prompt) :]
            if self.answer_end in answer:  # what a template writes behind it belongs to the next turn
                answer = answer[: len(answer) - 1 - answer[::-1].index(self.answer_end)]
            found.append((prompt, answer + end))
        return found

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens say, without marks."""
        return self._tokenizer.decode(list(tokens), skip_special_tokens=True)

    def _written(self, conversations: list[list[dict[str, str]]], **options: Any) -> list[str]:
        return self._tokenizer.apply_chat_template(conversations, tokenize=False, **options)

    def rows(self, texts: Sequence[str], length: int) -> tuple[list[list[int]], int]:
        """(token ids of each text, at most `length`, with the model's marks; how many texts were cut).

        Raises ValueError for a length that leaves no room beside the marks: transformers would leave nothing else, or
        not cut at all.
        """
        if length <= (marks := self._tokenizer.num_special_tokens_to_add()):
            raise ValueError(f"data.max_length={length}: the marks that the model has around a text are {marks} tokens")
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


def _turns(prompt: str, response: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
