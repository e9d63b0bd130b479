"""The face of what a method asks for beyond the weights it starts with."""

from abc import ABC, abstractmethod
from typing import Any

Costs = list[dict[str, float]]


class Need(ABC):
    """name: under which the method finds it in `given`. A subclass says how it is found or built."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def resolve(self, bench: Any, method: Any, source: Any) -> tuple[Any, Costs]:
        """What is needed, and what it costs, whoever paid it. Trained models are no part of the price, curvature is.

        bench: the run's workbench, which builds artefacts. source: the artefact whose weights the method starts with.
        """
