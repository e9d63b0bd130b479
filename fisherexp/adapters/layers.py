"""Layers whose weight is adapted: the layer itself, with its class exchanged for one that knows adapters.

The object, its name and its parameters stay as they were, so that shared modules, state dict keys, copies and
whatever else finds layers by type go on working. `layer.weight` is W', what the layer computes with; the frozen W is
`layer.frozen_weight`, and in `named_parameters()` and state dicts it keeps the name "weight". This is what torch's
parametrizations do, but with static classes, so that a copy of a model shares nothing with it.
"""

from collections.abc import Iterator
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fisherexp.adapters.adapter import Adapter

Rows = tuple[int, int]


class AdaptedLayer(nn.Module):
    """What the kinds of layers share. W (m, n) is the weight as a matrix: output dimensions times input dimensions.

    adapters: applied to W one after the other. rows: for each adapter the rows [start, stop) of W that are its own.
    dropout: on the inputs of the update W' - W. factored: apply low-rank factors to the inputs, so that W' is not
    formed (and its gradient, as large as W, neither).
    """

    adapters: nn.ModuleList
    rows: list[Rows]
    dropout: nn.Dropout
    factored: bool
    original: type[nn.Module]

    @classmethod
    def adapt(cls, layer: nn.Module, dropout: float, factored: bool) -> Self:
        """Exchange the class of `layer`, which has no adapters yet."""
        layer.original, layer.__class__ = type(layer), cls
        layer.adapters, layer.rows, layer.factored = nn.ModuleList(), [], factored
        layer.dropout = nn.Dropout(dropout)
        layer.train(layer.training)
        return layer

    def add(self, adapter: Adapter, rows: Rows) -> None:
        self.adapters.append(adapter)
        self.rows.append(rows)

    @torch.no_grad()
    def merge(self) -> None:
        """Write W' in the place of W and become the layer that was adapted."""
        self.frozen_weight.copy_(self.effective_weight())
        original = self.original
        del self.adapters, self.dropout, self.rows, self.factored, self.original
        self.__class__ = original

    @property
    def frozen_weight(self) -> nn.Parameter:
        """The layer's own weight, in its own shape."""
        return self._parameters["weight"]

    @property
    def matrix(self) -> Tensor:
        """W (m, n), a view of the frozen weight."""
        return self.to_matrix(self.frozen_weight)

    @property
    def weight(self) -> Tensor:
        """The weight the layer computes with, in its own shape."""
        try:
            return self.effective_weight()
        except AttributeError as error:  # torch would look the name up among the parameters, and find W
            raise RuntimeError(f"an adapter of {type(self).__name__} failed: {error}") from error

    @torch.no_grad()
    def chain(self) -> Iterator[tuple[Adapter, Tensor]]:
        """Each adapter with the weight matrix it is given: those rows of W as the adapters before it leave them."""
        matrix = self.matrix
        for number, (adapter, (start, stop)) in enumerate(zip(self.adapters, self.rows, strict=True), start=1):
            yield adapter, matrix[start:stop]
            if number < len(self.adapters):
                matrix = torch.cat([matrix[:start], adapter.weight(matrix[start:stop]), matrix[stop:]])

    def effective_weight(self) -> Tensor:
        matrix = self.matrix
        for adapter, (start, stop) in zip(self.adapters, self.rows, strict=True):
            if (start, stop) == (0, len(matrix)):
                matrix = adapter.weight(matrix)
            else:
                matrix = torch.cat([matrix[:start], adapter.weight(matrix[start:stop]), matrix[stop:]])
        return self.from_matrix(matrix)

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """(L, R) of all adapters together, or None if one of them has none."""
        found = [adapter.factors() for adapter in self.adapters]
        if None in found:
            return None
        m, lefts = len(self.matrix), []
        for (left, _), (start, stop) in zip(found, self.rows, strict=True):
            lefts.append(left if stop - start == m else F.pad(left, (0, 0, start, m - stop)))
        if len(found) == 1:
            return lefts[0], found[0][1]
        return torch.cat(lefts, dim=1), torch.cat([right for _, right in found])

    def scaled_factors(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """(s, L, R) of an adapter that is alone and has all rows, or None."""
        if self.rows != [(0, len(self.matrix))]:
            return None
        return self.adapters[0].scaled_factors(self.matrix)

    def forward(self, x: Tensor) -> Tensor:
        frozen, bias = self.frozen_weight, self._parameters.get("bias")
        drops = self.training and self.dropout.p > 0
        dropped = self.dropout(x) if drops else x
        factors = self.factors() if self.factored else None
        if factors is not None:
            return self.apply_weight(x, frozen, bias) + self.apply_factors(dropped, *factors)
        scaled = self.scaled_factors() if self.factored and not drops else None
        if scaled is not None:
            scale, *factors = scaled
            outputs = self.apply_weight(x, frozen, None) + self.apply_factors(x, *factors)
            return self.apply_scale(outputs, scale, bias)
        weight = self.effective_weight()
        if not drops:
            return self.apply_weight(x, weight, bias)
        return self.apply_weight(x, frozen, bias) + self.apply_weight(dropped, weight - frozen, None)

    # --- what differs between kinds ------------------------------------------------------------------------

    @staticmethod
    def to_matrix(weight: Tensor) -> Tensor:
        """The matrix (m, n) of a weight in the layer's shape, a view."""
        return weight

    def from_matrix(self, matrix: Tensor) -> Tensor:
        """The inverse of `to_matrix`."""
        return matrix

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's operation with this weight, in its own shape."""
        raise NotImplementedError

    def apply_factors(self, x: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """The layer's operation with the weight L R, which is not formed, and without a bias."""
        return F.linear(F.linear(x, right), left)

    def apply_scale(self, outputs: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
        """Outputs of the layer times s (m,), of their type, and the bias."""
        outputs = outputs * scale.to(outputs.dtype)
        return outputs if bias is None else outputs + bias.to(outputs.dtype)


class AdaptedLinear(AdaptedLayer, nn.Linear):
    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)


class AdaptedConv2d(AdaptedLayer, nn.Conv2d):
    """m channels out, n = channels in of a group × kernel height × kernel width."""

    @staticmethod
    def to_matrix(weight: Tensor) -> Tensor:
        return weight.flatten(1)

    def from_matrix(self, matrix: Tensor) -> Tensor:
        return matrix.view_as(self.frozen_weight)

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self._conv_forward(x, weight, bias)

    def apply_factors(self, x: Tensor, left: Tensor, right: Tensor) -> Tensor:
        # Each group has its own inputs, all share R: r channels for every group.
        kernel = right.view(-1, *self.frozen_weight.shape[1:]).repeat(self.groups, 1, 1, 1)
        return F.conv2d(self._conv_forward(x, kernel, None), left[:, :, None, None], groups=self.groups)

    def apply_scale(self, outputs: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
        return super().apply_scale(outputs, scale[:, None, None], None if bias is None else bias[:, None, None])


class AdaptedEmbedding(AdaptedLayer, nn.Embedding):
    """m = width, n = tokens: an embedding is a linear layer of one-hot inputs. The weight of torch is transposed."""

    @staticmethod
    def to_matrix(weight: Tensor) -> Tensor:
        return weight.T

    def from_matrix(self, matrix: Tensor) -> Tensor:
        return matrix.T

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.embedding(x, weight, self.padding_idx)

    def scaled_factors(self) -> None:
        return None  # padding would train lengths

    def apply_factors(self, x: Tensor, left: Tensor, right: Tensor) -> Tensor:
        found = F.linear(F.embedding(x, right.T), left)
        if self.padding_idx is None:
            return found
        return torch.where((x == self.padding_idx)[..., None], found.detach(), found)  # padding trains nothing


class AdaptedConv1D(AdaptedLayer):
    """The linear layer of GPT-2 in transformers, whose weight is transposed: x W + b with W (n, m)."""

    @staticmethod
    def to_matrix(weight: Tensor) -> Tensor:
        return weight.T

    def from_matrix(self, matrix: Tensor) -> Tensor:
        return matrix.T

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight.T, bias)


def adapted_kind(layer: nn.Module) -> type[AdaptedLayer] | None:
    """The class that `layer` gets with its first adapter; None for a layer that cannot be adapted.

    A subclass of a layer of torch can if it computes as its parent does.
    """
    if isinstance(layer, AdaptedLayer):
        return type(layer)
    for plain, adapted in ((nn.Linear, AdaptedLinear), (nn.Conv2d, AdaptedConv2d), (nn.Embedding, AdaptedEmbedding)):
        if isinstance(layer, plain):
            return adapted if type(layer).forward is plain.forward else None
    return AdaptedConv1D if type(layer).__name__ == "Conv1D" and layer.weight.ndim == 2 else None


def adapted_layers(model: nn.Module) -> dict[str, AdaptedLayer]:
    """The layers of `model` that have adapters, by name; a shared one once."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, AdaptedLayer)}
