"""What every way of storing a weight matrix answers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Size, Tensor

Parts = dict[str, Tensor]


class Format(ABC):
    """A subclass is a frozen dataclass of plain options, so that a file can say how to read it."""

    @abstractmethod
    def encode(self, weight: Tensor) -> Parts:
        """The tensors that are stored in place of a weight (n, m)."""

    @abstractmethod
    def decode(self, parts: Mapping[str, Tensor], shape: Size | tuple[int, ...]) -> Tensor:
        """The weight they stand for, float64."""

    def __call__(self, weight: Tensor) -> Tensor:
        """A weight as its stored form decodes: same shape and type."""
        return self.decode(self.encode(weight), weight.shape).to(weight)


def num_bytes(parts: Mapping[str, Tensor]) -> int:
    """Bytes that the tensors take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in parts.values())
