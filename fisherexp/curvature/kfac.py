"""Kronecker-factored Fisher of linear and convolution layers (KFAC), for weights shared over positions.

With inputs a_nt and output gradients g_nt of sample n at position t (tokens, pixels), a block is B ⊗ A:
    expand: A = 1/(N T) Σ_nt a_nt a_ntᵀ           B = 1/N Σ_nt g_nt g_ntᵀ
    reduce: A = 1/N Σ_n (mean_t a_nt)(mean_t a_nt)ᵀ  B = 1/N Σ_n (Σ_t g_nt)(Σ_t g_nt)ᵀ
A bias makes a one longer by a constant 1. Source: Eschenhagen et al., "Kronecker-Factored Approximate Curvature
for Modern Neural Network Architectures", 2023 (eqs. 19-22); Martens & Grosse 2015 for one position.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from .accumulating import accumulate, refuse_weights
from .choices import check_choice
from .diagonal import Estimator
from .engine import Engine
from .inputs import batch_size, move, returning
from .kronecker import KFAC, KroneckerFactor
from .likelihood import LABELS, counted, resolve
from .rules import Use
from .rules.base import chunks
from .rules.conv import Conv, Conv1d, Conv3d
from .rules.linear import Linear
from .tape import Tape
from .undisturbed import refuse_batch_statistics

APPROXIMATIONS = ("expand", "reduce")
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


class _Factors:
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

    def trial(self) -> "_Factors":
        """These factors themselves: added up apart, they would round otherwise than without a verification."""
        factors = [{name: total.clone() for name, total in some.items()} for some in (self.a, self.b)]
        self.before = (*factors, dict(self.bias), self.positions.copy(), set(self.partial))
        return self

    def accept(self, trial: "_Factors") -> None:
        """Keep the factors of a verified batch."""
        self.before = None

    def reject(self, trial: "_Factors") -> None:
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


class KFACAccumulator:
    """Accumulates KFAC batch by batch; arguments and errors as in `DiagonalAccumulator`.

    approximation: expand | reduce. Linear and convolution layers whose parameters are used once get a factor, with
    groups of channels one for each group; other wanted parameters (tied weights, norms, embeddings) are listed in
    `KFAC.skipped`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        approximation: str = "expand",
        labels: str = "empirical",
        loss: Any = None,
        outputs: Callable[[Any], Tensor] | None = None,
        parameters: Any = None,
        samples: int = 1,
        seed: int = 0,
    ):
        self.outputs = outputs
        self.approximation = check_choice("approximation", approximation, APPROXIMATIONS)
        self.labels = check_choice("labels", labels, LABELS)
        self.loss = resolve(loss, labels)
        refuse_batch_statistics(model)
        self.engine = Engine(model, parameters)
        self.generator = torch.Generator(self.engine.device).manual_seed(seed)
        self.draws = samples if labels == "sampled" else 1
        self.factors = _Factors(self.engine.wanted, reduce=approximation == "reduce")

    def update(self, inputs: Any, targets: Tensor | None = None, weights: Tensor | None = None) -> None:
        """Add one batch; the model is left as it was. Raises ValueError for weights of samples."""
        refuse_weights(self, weights)
        with self.engine.undisturbed, returning(self.engine.model, self.outputs):
            inputs = move(inputs, self.engine.device)
            targets = None if targets is None else move(targets, self.engine.device)
            if self.labels == "empirical" and targets is None:
                raise ValueError("labels='empirical' needs targets")
            inputs, targets, _, size = counted(self.loss, self.labels, inputs, targets, None, batch_size(inputs))
            if not size:
                return

            def seeds(outputs: Tensor) -> Iterable[Tensor]:
                self.loss.check(outputs, targets)
                for _ in range(self.draws):
                    for s in self.loss.seeds(outputs, targets, self.labels, None, self.generator):
                        yield s / self.draws**0.5

            self.engine.sweep(inputs, seeds, self.factors)
            self.factors.samples += size

    def sums(self) -> dict[str, Tensor]:
        """The state as plain tensors to add over ranks, not copied: `samples`, and of each layer with factors
        `a.<weight>`, or `a.<weight>+<bias>` where it has a bias, `b.<weight>` and `positions.<weight>`.
        """
        made = self.factors
        state = {f"a.{name}+{bias}" if (bias := made.bias[name]) else f"a.{name}": a for name, a in made.a.items()}
        state |= {f"b.{name}": total for name, total in made.b.items()}
        counts = {f"positions.{name}": count for name, count in made.positions.items()} | {"samples": made.samples}
        return state | {name: torch.tensor(float(n), device=self.engine.device).double() for name, n in counts.items()}

    def load_sums(self, state: Mapping[str, Tensor]) -> None:
        """Replace the state by a copy of what `sums` returned, reduced over ranks or stored; `update` goes on from it.

        Raises ValueError for sums of another model.
        """
        wanted, device = self.engine.wanted, self.engine.device
        made, fitting = _Factors(wanted, self.factors.reduce), {"samples"}
        for key in state:
            name, _, bias = key.removeprefix("a.").partition("+")
            if not key.startswith("a.") or name not in wanted or (bias or name) not in wanted:
                continue
            parts = [key, f"b.{name}", f"positions.{name}"]
            groups = state[key].shape[:-2]
            width, outputs = wanted[name][0].numel() + bool(bias), len(wanted[name]) // max(1, prod(groups))
            shapes = [tuple(state[part].shape) for part in parts if part in state]
            if shapes == [(*groups, width, width), (*groups, outputs, outputs), ()]:
                made.bias[name], made.positions[name] = bias or None, int(state[parts[2]])
                made.a[name], made.b[name] = (state[part].to(device, copy=True) for part in parts[:2])
                fitting |= set(parts)
        if set(state) != fitting:
            raise ValueError(f"state does not fit the accumulator: {sorted(set(state) ^ fitting)}")
        made.samples = int(state["samples"])
        self.factors = made

    def result(self) -> KFAC:
        """The factors of everything added so far. Raises ValueError if no layer has one."""
        made, wanted = self.factors, self.engine.wanted
        complete = made.complete()
        if not complete:
            raise ValueError("no linear or convolution layer among the wanted parameters is used exactly once")
        factors = {n: made.factor(n) for n in complete}
        covered = {n for f in factors.values() for n in (f.weight, f.bias)}
        skipped = tuple(n for n in wanted if n not in covered)
        estimator = Estimator(self.labels, "per_sample", self.loss.name)
        return KFAC(factors, skipped, estimator, self.approximation, float(made.samples))


def kfac(
    model: nn.Module,
    batches: Iterable,
    *,
    inputs: Sequence[str] | Callable[[Any], Any] | None = None,
    targets: str | Callable[[Any], Any] = "labels",
    **options: Any,
) -> KFAC:
    """KFAC of `model` over `batches` of (inputs, targets) or mappings, of which `inputs` and `targets` say as in
    `fisher_diagonal` what is meant; options and errors as in `KFACAccumulator`.
    """
    return accumulate(KFACAccumulator(model, **options), batches, inputs, targets).result()
