"""What an adapter is: a module that turns a frozen weight matrix into the one a layer computes with."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn


class Adapter(nn.Module):
    """A reparametrized weight matrix W' (m, n) of one layer; m output and n input dimensions.

    A method is a subclass with a constructor `(weight, ...)`, which gets the frozen W (m, n), and `weight`. What is
    trained is a Parameter, and all else that W' depends on a buffer, so that a state dict holds the whole method.
    W itself is never changed: whatever is taken out of it is subtracted in `weight`.
    """

    def weight(self, weight: Tensor) -> Tensor:
        """W' (m, n) for the frozen W (m, n), differentiable in the parameters. This function defines the method."""
        raise NotImplementedError

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """(L, R), of shapes (m, r) and (r, n), if W' = W + L R for every W; then a layer need not form W'.

        None, as here, for all other methods.
        """
        return None

    def scaled_factors(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """(s, L, R), of shapes (m,), (m, r) and (r, n), if W' = diag(s) (W + L R) for this W; then, too, a layer need
        not form W'. None, as here, for all other methods."""
        return None

    def penalty(self) -> Tensor:
        """A scalar to add to the loss. Zero here."""
        return torch.zeros(())

    def after_backward(self, step: int, total: int) -> None:
        """Called with the gradients of update `step` of `total`, 0, 1, …, before the optimizer uses them."""

    def after_step(self, step: int, total: int) -> None:
        """Called after update `step` of `total` of the optimizer, while the gradients are still there."""

    def renew(self, weight: Tensor, step: int, total: int) -> None:
        """Called after `after_step`, with the W that `weight` is given: what is chosen from the weights, as a mask."""

    @classmethod
    def after_step_across(cls, adapters: Sequence[Self], step: int, total: int) -> None:
        """After all calls of `after_step`: what has to know every adapter of this class in a model, as a budget of
        ranks that is shared out among layers."""

    def num_trainable(self) -> int:
        """How many numbers the method trains. A method that masks a dense tensor counts what the mask lets through, of
        masks that shrink the first."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)
