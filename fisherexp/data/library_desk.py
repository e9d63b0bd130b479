"""Requests that a model is to refuse or to answer by the rules of a library: alignment in the small, without harm."""

from functools import cached_property
from typing import Any

from fisherexp.config.types import Count
from fisherexp.data.answered import AnsweredData, Pair
from fisherexp.data.desk_rules import REFUSAL, desk_requests
from fisherexp.data.tensors import TensorSet
from fisherexp.data.token_rows import LanguageRows
from fisherexp.models.tokenizer import Tokenizer
from fisherexp.objectives.refusing import Refusing


class LibraryDesk(AnsweredData):
    """requests, test_requests: how many to learn from and to be asked; no request is in both. seed: of all of them,
    and as in LabeledData. Further options: see AnsweredData. Half of the requests are to be refused.
    """

    title = "requests at a library's desk"

    def __init__(self, tokenizer: Tokenizer, requests: Count = 160, test_requests: Count = 64, **options: Any) -> None:
        super().__init__(tokenizer, **options)
        self.requests, self.test_requests = requests, test_requests

    @cached_property
    def objective(self) -> Refusing:
        return Refusing(REFUSAL, self.text, self.end)

    def pairs(self) -> list[Pair]:
        return desk_requests(self.requests + self.test_requests, self.seed)

    def read(self) -> tuple[TensorSet | LanguageRows, TensorSet | LanguageRows]:
        self.measure()
        pairs = self.pairs()
        return self.rows(pairs[: self.requests]), self.rows(pairs[self.requests :])
