"""Sums of Kronecker factors over samples, and the rows that enter them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from math import prod

import torch
from torch import Tensor

from .kronecker import KroneckerFactor
from .rules import Use
from .rules.base import chunks
from .rules.conv import Conv, Conv1d, Conv3d
from .rules.linear import Linear
from .tape import Tape

LEAF = 192  # below this width a symmetric product is not worth splitting


def add_gram(x: Tensor, total: Tensor) -> None:
    """Add the upper blocks of xᵀ x, x (M, K), to `total` (K, K): about half the work of the full product.

    With groups as first axis of both, all of it for each group.
    """
    if x.dim() == 3:
        total.baddbmm_(x.mT, x)
        return
    k = x.shape[1]
    if k <= LEAF:
        total.addmm_(x.mT, x)
        return
    half = k // 2
    add_gram(x[:, :half], total[:half, :half])
    add_gram(x[:, half:], total[half:, half:])
    total[:half, half:].addmm_(x[:, :half].mT, x[:, half:])


def symmetric(upper: Tensor) -> Tensor:
    """The symmetric matrix with the upper triangle of `upper`."""
    return upper.triu() + upper.triu(1).mT


class KroneckerSums:
    """Consumer of sweeps that adds up A and B of every linear and convolution weight that is used once."""

    def __init__(self, wanted: Mapping[str, Tensor], reduce: bool):
        self.wanted, self.reduce = wanted, reduce
        self.a: dict[str, Tensor] = {}
        self.b: dict[str, Tensor] = {}
        self.bias: dict[str, str | None] = {}
        self.positions: Counter[str] = Counter()
        self.partial: set[str] = set()  # parameters that some batch used in another way: they have no factor
        self.samples = 0
        self.before: tuple | None = None  # the factors before a batch that is being verified

    def trial(self) -> "KroneckerSums":
        """These factors themselves: added up apart, they would round otherwise than without a verification."""
        factors = [{name: total.clone() for name, total in some.items()} for some in (self.a, self.b)]
        self.before = (*factors, dict(self.bias), self.positions.copy(), set(self.partial))
        return self

    def accept(self, trial: "KroneckerSums") -> None:
        """Keep the factors of a verified batch."""
        self.before = None

    def reject(self, trial: "KroneckerSums") -> None:
        """Forget what a batch added."""
        self.a, self.b, self.bias, self.positions, self.partial = self.before
        self.before = None

    def begin(self, tape: Tape) -> None:
        """Choose the uses that have factors."""
        self.tape, self.done = tape, set()
        times = Counter(root for use in tape.uses for h in use.slots.values() for root in h.roots)
        self.layers = {
            use
            for use in tape.uses
            if type(use) in (Linear, Conv, Conv1d, Conv3d)
            and use.slots.get("weight") is not None
            and use.slots["weight"].roots[0] in self.wanted
            and all(h.direct and times[h.roots[0]] == 1 for h in use.slots.values())
            and not any(root in tape.lost for h in use.slots.values() for root in h.roots)
        }
        covered = {root for use in self.layers for h in use.slots.values() for root in h.roots}
        self.partial |= set(times) - covered

    def receive(self, use: Use, g: Tensor) -> None:
        """Add one layer's terms; inputs are the same in every backward pass and count once."""
        if use not in self.layers:
            return
        name = use.slots["weight"].roots[0]
        g = use.grads(g)
        if name not in self.a:
            self._allocate(use, name, g)
        first = use not in self.done
        self.done.add(use)
        if self.reduce:
            add_gram(reduced_gradient(use, g), self.b[name])
            if first:
                self._add_inputs(name, reduced_input(use, g))
        else:
            add_gram(outputs_as_rows(use, g), self.b[name])
            for rows in inputs_as_rows(use, g) if first else ():
                self._add_inputs(name, rows)
        if self.tape.last:
            use.release()

    def end(self) -> None:
        """Nothing waits for other uses."""

    def one_by_one(self, names, index, gradients) -> None:
        """Parameters that no rule could follow have no factors."""
        self.partial.update(names)

    def complete(self) -> list[str]:
        """Weights whose factors hold all that was added."""
        return [n for n in self.wanted if n in self.a and not {n, self.bias[n]} & self.partial]

    def _allocate(self, use: Use, name: str, g: Tensor) -> None:
        weight, bias = use.slots["weight"].value, use.slots.get("bias")
        self.bias[name] = bias.roots[0] if bias and bias.roots[0] in self.wanted else None
        width, groups = weight[0].numel() + bool(self.bias[name]), groups_of(use)
        self.a[name] = g.new_zeros(*groups, width, width)
        outputs = weight.shape[0] // prod(groups)
        self.b[name] = g.new_zeros(*groups, outputs, outputs)

    def _add_inputs(self, name: str, rows: Tensor) -> None:
        self.positions[name] += rows.shape[-2]
        total = self.a[name]
        if self.bias[name] is None:
            add_gram(rows, total)
            return
        add_gram(rows, total[..., :-1, :-1])
        total[..., :-1, -1] += rows.sum(-2)
        total[..., -1, -1] += rows.shape[-2]

    def factor(self, name: str) -> KroneckerFactor:
        """The averaged factors, inputs in the order of the flattened weight."""
        weight, a = self.wanted[name], symmetric(self.a[name]) / self.positions[name]
        if weight.dim() > 2:  # features were (*kernel, channels)
            order = torch.arange(weight[0].numel(), device=a.device)
            order = order.reshape(*weight.shape[2:], weight.shape[1]).movedim(-1, 0).flatten()
            if self.bias[name] is not None:
                order = torch.cat([order, order.new_tensor([len(order)])])
            a = a[..., order, :][..., order]
        return KroneckerFactor(a, symmetric(self.b[name]) / self.samples, name, self.bias[name], weight.shape)


def groups_of(use: Use) -> tuple[int, ...]:
    """(groups,) of a convolution with groups of channels: the first axis of its factors and rows; else nothing."""
    return (use.groups,) if isinstance(use, Conv) and use.groups > 1 else ()


def in_groups(use: Use, rows: Tensor) -> Tensor:
    """Rows (M, outputs) as they are, or (groups, M, outputs of a group)."""
    groups = groups_of(use)
    return rows.unflatten(1, (*groups, -1)).transpose(0, 1) if groups else rows


def outputs_as_rows(use: Use, g: Tensor) -> Tensor:
    """Output gradients ([groups,] samples x positions, outputs)."""
    if isinstance(use, Conv):
        _, g = use.images(g)
        return in_groups(use, g.movedim(2, -1).reshape(-1, g.shape[2]))
    return g.reshape(-1, g.shape[-1])


def inputs_as_rows(use: Use, g: Tensor) -> Iterable[Tensor]:
    """Inputs or patches ([groups,] samples x positions, features), a chunk of samples at a time."""
    if not isinstance(use, Conv):
        x, _ = use.positions(g)
        yield x.flatten(0, 1)
        return
    x, g = use.images(g)
    features = use.slots["weight"].value[0].numel()
    size = g[0].numel() // g.shape[2] * use.groups * features * g.element_size()
    for rows in chunks(g.shape[0], size, device=g.device.type):
        patches = use.factors(x[rows], g[rows])[1].transpose(0, 1).flatten(1, 2)
        yield patches if use.groups > 1 else patches[0]


def reduced_gradient(use: Use, g: Tensor) -> Tensor:
    """Output gradients summed over positions ([groups,] samples, outputs)."""
    if isinstance(use, Conv):
        return in_groups(use, use.per_sample("bias", g, slice(None)))
    return g if g.dim() == 2 else g.flatten(1, -2).sum(1)


def reduced_input(use: Use, g: Tensor) -> Tensor:
    """Inputs or patches averaged over positions ([groups,] samples, features)."""
    if isinstance(use, Conv):
        patch, groups = use.mean_patch(g), groups_of(use)
        if not groups:
            return patch
        patch = patch.unflatten(1, (prod(use.kernel), *groups, -1))  # features were (*kernel, channels)
        return patch.permute(2, 0, 1, 3).flatten(2)
    x, _ = use.positions(g)
    return x.mean(1)
