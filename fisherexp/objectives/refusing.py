"""The next token of texts that are refused or answered: TokenPrediction that also counts what is refused."""

from collections.abc import Callable, Sequence

from fisherexp.metrics.refusals import RefusalMetrics
from fisherexp.objectives.token_prediction import TokenPrediction


class Refusing(TokenPrediction):
    """refusal: how a refusal is worded. say: what tokens say. end: the token that ends an answer, if there is one."""

    def __init__(self, refusal: str, say: Callable[[Sequence[int]], str], end: int | None) -> None:
        self.refusal, self.say, self.end = refusal, say, end

    def metrics(self, names: tuple[str, ...], held_out: str | None = None) -> RefusalMetrics:
        return RefusalMetrics(names, self.refusal, self.say, self.end)
