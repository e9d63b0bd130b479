"""What becomes of per-sample gradients: their squares, norms or second moments, over all uses of a parameter."""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

from .rules import Use
from .rules.base import chunks
from .rules.linear import Linear
from .rules.tied import add_tied_squares
from .tape import Tape, pull_back

Uses = list[tuple[Use, str, Tensor]]


class Gathered:
    """Consumer of sweeps that waits until all uses of a parameter have their gradients.

    Subclasses say in `take` what happens to per-sample gradients (rows, *shape) of a parameter; they may handle
    all uses together in `meet`, or a parameter's only use in `alone`.
    """

    def __init__(self, names: Iterable[str]):
        self.names = set(names)
        self.met: tuple[list[Use], set[str]] | None = None  # uses that are sorted already

    def begin(self, tape: Tape) -> None:
        """Sort the uses: a parameter's only use can be handled at once, several must meet first."""
        self.tape = tape
        self.waiting: dict[str, Uses] = defaultdict(list)
        if (tape.uses, tape.lost) == self.met:
            return
        self.met = (tape.uses, tape.lost) if all(use.recurring for use in tape.uses) else None
        uses: dict[str, list[tuple[Use, str]]] = defaultdict(list)
        for use in tape.uses:
            for slot, handle in use.slots.items():
                for root in handle.roots:
                    if root in self.names and root not in tape.lost:
                        uses[root].append((use, slot))
        self.only: dict[Use, dict[str, str]] = defaultdict(dict)
        self.shared: dict[Use, list[tuple[str, str]]] = defaultdict(list)
        self.expected = {root: len(found) for root, found in uses.items()}
        for root, found in uses.items():
            use, slot = found[0]
            if len(found) == 1 and use.slots[slot].direct:
                self.only[use][slot] = root
                continue
            for use, slot in found:
                self.shared[use].append((slot, root))

    def receive(self, use: Use, g: Tensor) -> None:
        """Handle the parameters of which this is the only use; keep the gradient for the others."""
        only, shared = self.only.get(use), self.shared.get(use)
        if only is None and shared is None:
            use.release()
            return
        g = use.grads(g)
        if only is not None:
            self.alone(use, g, only)
        if shared is None:
            if self.tape.last:
                use.release()
            return
        for slot, root in shared:
            self.waiting[root].append((use, slot, g))
            if len(self.waiting[root]) == self.expected[root]:
                self.meet(root, self.waiting.pop(root))

    def end(self) -> None:
        """Uses that do not influence the loss never arrive; settle the others."""
        for root in list(self.waiting):
            self.meet(root, self.waiting.pop(root))
        if self.tape.last and self.met is None:  # these uses do not recur: let go of what they hold
            self.only, self.shared = {}, {}

    def one_by_one(self, names: list[str], index: int, gradients: list[Tensor]) -> None:
        """Whole gradients of one sample."""
        for name, gradient in zip(names, gradients, strict=True):
            self.take(name, slice(index, index + 1), gradient.unsqueeze(0))

    def alone(self, use: Use, g: Tensor, roots: dict[str, str]) -> None:
        """The only use of the parameters `roots` (by slot)."""
        for slot, root in roots.items():
            self.meet(root, [(use, slot, g)])

    def meet(self, root: str, uses: Uses) -> None:
        """All uses of one parameter, a chunk of samples at a time."""
        use, slot, g = uses[0]
        shape = use.slots[slot].sources or (use.slots[slot],)
        size = max(h.value.numel() for h in shape) * g.element_size()
        for rows in chunks(g.shape[0], size, device=g.device.type):
            whole = sum(pull_back(u.slots[s], root, u.per_sample(s, k, rows)).to(g.dtype) for u, s, k in uses)
            self.take(root, rows, whole)

    def trial(self) -> "Gathered":
        """A consumer of the same kind for a batch that is being verified."""
        raise NotImplementedError

    def accept(self, trial: "Gathered") -> None:
        """Add what `trial` was fed."""
        raise NotImplementedError

    def reject(self, trial: "Gathered") -> None:
        """Forget what `trial` was fed."""

    def take(self, root: str, rows: slice, gradients: Tensor) -> None:
        """Per-sample gradients (rows, *shape) of the parameter `root`. Not to be changed in place."""
        raise NotImplementedError


class SquaredSums(Gathered):
    """Adds squared per-sample gradients to `sums`, by parameter name."""

    def __init__(self, sums: dict[str, Tensor]):
        super().__init__(sums)
        self.sums = sums
        self.empty = True  # nothing was added yet: there is nothing to keep for the case that a batch is refused
        self.trying = False
        self.before: dict[str, Tensor] = {}

    def begin(self, tape):
        super().begin(tape)
        self.empty &= self.trying

    def one_by_one(self, names, index, gradients):
        super().one_by_one(names, index, gradients)
        self.empty &= self.trying

    def trial(self):
        """These sums themselves: added up apart, they would round otherwise than without a verification."""
        self.trying = True
        self.before = {} if self.empty else {name: total.clone() for name, total in self.sums.items()}
        return self

    def accept(self, trial):
        self.empty, self.trying, self.before = False, False, {}

    def reject(self, trial):
        for name, total in self.sums.items():
            if self.empty:
                total.zero_()
            else:
                total.copy_(self.before[name])
        self.trying, self.before = False, {}

    def alone(self, use, g, roots):
        use.add_squares(g, {slot: self.sums[root] for slot, root in roots.items()}, self.tape.last)

    def meet(self, root, uses):
        if not add_tied_squares(uses, self.sums[root]):
            super().meet(root, uses)

    def take(self, root, rows, gradients):
        self.sums[root] += gradients.to(self.sums[root].dtype).square().sum(0)


class SquaredNorms(Gathered):
    """`norms` (N,) of each parameter: squared Frobenius norms of the samples' gradients."""

    def __init__(self, names: Iterable[str], batch: int):
        super().__init__(names)
        self.batch, self.norms = batch, {}

    def trial(self):
        return SquaredNorms(self.names, self.batch)

    def accept(self, trial):
        self.norms = trial.norms

    def meet(self, root, uses):
        (use, slot, g), *others = uses
        if others or type(use) is not Linear or slot != "weight" or not use.slots[slot].direct:
            super().meet(root, uses)
            return
        x, g = use.positions(g)
        positions, width = x.shape[1], x.shape[2] + g.shape[2]
        if positions * width >= x.shape[2] * g.shape[2]:
            super().meet(root, uses)
            return
        # ‖Σ_t g_t x_tᵀ‖² = Σ_ts (g_t·g_s)(x_t·x_s): cheaper than the product when positions are few.
        self._add(root, slice(None), ((g @ g.mT) * (x @ x.mT)).sum((1, 2)))

    def take(self, root, rows, gradients):
        self._add(root, rows, gradients.reshape(len(gradients), -1).square().sum(1))

    def _add(self, root: str, rows: slice, squares: Tensor) -> None:
        if root not in self.norms:
            self.norms[root] = squares.new_zeros(self.batch)
        self.norms[root][rows] += squares


class SecondMoments(Gathered):
    """`sums` (P, P) of each parameter: Σ_n vec(G_n) vec(G_n)ᵀ."""

    def __init__(self, names: Iterable[str]):
        super().__init__(names)
        self.sums: dict[str, Tensor] = {}

    def trial(self):
        return SecondMoments(self.names)

    def accept(self, trial):
        for name, total in trial.sums.items():
            self.sums[name] = self.sums[name] + total if name in self.sums else total

    def take(self, root, rows, gradients):
        flat = gradients.reshape(len(gradients), -1)
        if root not in self.sums:
            self.sums[root] = torch.zeros(flat.shape[1], flat.shape[1], dtype=flat.dtype, device=flat.device)
        self.sums[root].addmm_(flat.mT, flat)
