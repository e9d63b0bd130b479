"""An instance to be solved, and how far a solution is from the optimum or from a reference."""

import copy
import hashlib
from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from fisherexp.problems.problem import Problem


class Numerical(Problem):
    """A subclass makes the instance (`read`) and measures a solution (`evaluate`)."""

    kind = "numerical"
    problems = ("numerical",)

    def __init__(self) -> None:
        self.instance: Mapping[str, Tensor] = {}

    @abstractmethod
    def read(self, seed: int) -> Mapping[str, Tensor]:
        """The instance: tensors by name."""

    def load(self, seed: int) -> "Numerical":
        if not self.instance:
            self.instance = self.read(seed)
        return self

    def to(self, device: torch.device) -> "Numerical":
        """This problem with its instance on a device, where it also measures solutions."""
        other = copy.copy(self)
        other.instance = {name: tensor.to(device) for name, tensor in self.instance.items()}
        return other

    def checksum(self) -> str:
        digest = hashlib.blake2b(digest_size=8)
        for name, tensor in sorted(self.instance.items()):
            digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(memoryview(tensor.contiguous().numpy()).cast("B"))
        return digest.hexdigest()
