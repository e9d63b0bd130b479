"""Needs that methods of several wings have: curvature of the source, its first weights, sources of other seeds."""

from typing import Any

from fisherexp.methods.need import Costs, Need
from fisherexp.seeds import derive


class Curvature(Need):
    """The curvature of the source over its training data; `estimator` is the method's attribute that names it."""

    def __init__(self, name: str, estimator: str) -> None:
        super().__init__(name)
        self.estimator = estimator

    def resolve(self, bench: Any, method: Any, source: Any) -> tuple[Any, Costs]:
        found, cost = bench.fisher(getattr(method, self.estimator), source)
        return found, [cost]


class InitialWeights(Need):
    """The state that the training of the source began with."""

    def __init__(self) -> None:
        super().__init__("initial")

    def resolve(self, bench: Any, method: Any, source: Any) -> tuple[Any, Costs]:
        return bench.source.initial(bench), []


class OtherSeeds(Need):
    """States of as many sources of other seeds as the method's attribute `others` says."""

    def __init__(self) -> None:
        super().__init__("other_seeds")

    def resolve(self, bench: Any, method: Any, source: Any) -> tuple[Any, Costs]:
        others = []
        for number in range(1, method.others + 1):
            other = bench.variation(f"other seed {number}:", derive("other_seed", bench.seed, number))
            others.append(other.reference("source").tensors)
        return others, []
