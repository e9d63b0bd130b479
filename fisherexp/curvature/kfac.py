"""Kronecker-factored Fisher of linear and convolution layers (KFAC), for weights shared over positions.

With inputs a_nt and output gradients g_nt of sample n at position t (tokens, pixels), a block is B ⊗ A:
    expand: A = 1/(N T) Σ_nt a_nt a_ntᵀ           B = 1/N Σ_nt g_nt g_ntᵀ
    reduce: A = 1/N Σ_n (mean_t a_nt)(mean_t a_nt)ᵀ  B = 1/N Σ_n (Σ_t g_nt)(Σ_t g_nt)ᵀ
A bias makes a one longer by a constant 1. Source: Eschenhagen et al., "Kronecker-Factored Approximate Curvature
for Modern Neural Network Architectures", 2023 (eqs. 19-22); Martens & Grosse 2015 for one position.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .accumulating import accumulate, refuse_weights
from .choices import check_choice
from .diagonal import Estimator
from .engine import Engine
from .inputs import batch_size, move, returning
from .kronecker import KFAC
from .kronecker_sums import KroneckerSums
from .likelihood import LABELS
from .resolve import counted, resolve
from .undisturbed import refuse_batch_statistics

APPROXIMATIONS = ("expand", "reduce")


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
        approximation: Literal["expand", "reduce"] = "expand",
        labels: Literal["empirical", "pseudo", "sampled", "expected"] = "empirical",
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
        self.factors = KroneckerSums(self.engine.wanted, reduce=approximation == "reduce")

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

    def clear(self) -> None:
        """Forget what was added, not what was found out about the model."""
        self.factors = KroneckerSums(self.engine.wanted, self.factors.reduce)

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
        made, fitting = KroneckerSums(wanted, self.factors.reduce), {"samples"}
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
