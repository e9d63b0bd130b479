"""K-FAC: precondition with the Kronecker-factored Fisher of the last batches.

    F = B ⊗ A,   A, B: running means of second moments of a layer's inputs and of the gradients of its outputs
    v ← μ v + (F + λ I)⁻¹ g,   θ ← θ - η v

Martens, Grosse, ICML 2015, arXiv 1503.05671. Factors are those of the engine, of labels drawn from the model, averaged
with ρ = min(1 - 1/k, decay) at the k-th time. B X A + λ X = G is solved exactly by the eigenvectors of both factors,
which are found anew every few steps; the paper damps the factors apart, and rescales steps and momentum by a quadratic
model, which is not here. Parameters without a factor (norms, embeddings, tied weights) take plain steps with momentum.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, Positive, Share
from fisherexp.curvature import KFAC as KroneckerFisher
from fisherexp.curvature import KFACAccumulator
from fisherexp.curvature.kronecker import KroneckerFactor
from fisherexp.data.batch import Batch
from fisherexp.methods.optimizers.passes import PassByPass


class KroneckerOptimizer(torch.optim.Optimizer):
    """parameters: by name, as the factors know them. damping: λ. decay: bound of ρ. inverse_every: observations from
    one eigendecomposition to the next. momentum: μ. weight_decay: decoupled.

    State of an n×m weight: both factors, their eigenvectors, and the n×m eigenvalues.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        lr: float,
        damping: float,
        decay: float = 0.95,
        inverse_every: int = 1,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        options = {"damping": damping, "decay": decay, "inverse_every": inverse_every, "momentum": momentum}
        super().__init__(list(parameters.values()), {"lr": lr, "weight_decay": weight_decay, **options})
        self.named = dict(parameters)

    def layers(self) -> list[tuple[KroneckerFactor, dict[str, Any]]]:
        """The running factors of every layer that was observed, and the state of its weight."""
        found, names = [], list(self.named)
        for name, parameter in self.named.items():
            state = self.state[parameter]
            if "observed" in state:
                bias = None if state["bias"] is None else names[state["bias"]]
                found.append((KroneckerFactor(state["a"], state["b"], name, bias, parameter.shape), state))
        return found

    @torch.no_grad()
    def observe(self, fisher: KroneckerFisher) -> None:
        """Take the factors of a batch into the running means; first of all before the first step."""
        (group,) = self.param_groups
        for name, factor in fisher.factors.items():
            state = self.state[self.named[name]]
            seen = state["observed"] = state.get("observed", 0) + 1
            # A number: torch would take a name for a container when it loads the state.
            state["bias"] = None if factor.bias is None else list(self.named).index(factor.bias)
            keep = min(1 - 1 / seen, group["decay"])
            for side, value in (("a", factor.a), ("b", factor.b)):
                state[side] = value.clone() if seen == 1 else state[side].lerp(value, 1 - keep)
            if (seen - 1) % group["inverse_every"] == 0:
                left, state["u"] = torch.linalg.eigh(state["b"])
                right, state["v"] = torch.linalg.eigh(state["a"])
                state["scales"] = left.clamp_min(0).unsqueeze(-1) * right.clamp_min(0).unsqueeze(-2)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step from the gradients at hand."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        (group,) = self.param_groups
        gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in self.named.items()}
        directions = gradients | self._preconditioned(gradients, group["damping"])
        for name, parameter in self.named.items():
            step = directions[name]
            if group["momentum"]:
                average = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
                step = average.mul_(group["momentum"]).add_(step)
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step, alpha=group["lr"])
        return loss

    def _preconditioned(self, gradients: Mapping[str, Tensor], damping: float) -> dict[str, Tensor]:
        """U ((Uᵀ G V) / (scales + λ)) Vᵀ of every layer with factors."""
        found: dict[str, Tensor] = {}
        for layer, state in self.layers():
            inside = state["u"].mT @ layer.matrix(gradients) @ state["v"]
            found |= layer.by_name(state["u"] @ (inside / (state["scales"] + damping)) @ state["v"].mT)
        return found


class KFAC(PassByPass):
    """damping: λ. decay: of the factors. labels: those the Fisher is of. factor_every: steps from one observation of
    the factors to the next. inverse_every: observations from one eigendecomposition to the next. momentum: μ. Further
    options: see PassByPass. Samples count alike.
    """

    name = "k_fac"
    paper = "Martens, Grosse, ICML 2015, arXiv 1503.05671"
    weighs_samples = False
    search = {"lr": "tag(log, interval(0.001, 0.3))", "damping": "tag(log, interval(0.0001, 1))"}

    def __init__(
        self,
        model: nn.Module,
        damping: Positive,
        decay: Share,
        labels: Literal["sampled", "empirical"],
        factor_every: Count,
        inverse_every: Count,
        momentum: Share,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        self.labels, self.factor_every = labels, factor_every
        self.options = {"damping": damping, "decay": decay, "inverse_every": inverse_every, "momentum": momentum}
        self.factors: KFACAccumulator | None = None

    def optimizer(self, parameters: list[nn.Parameter]) -> KroneckerOptimizer:
        trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        return self.optimizer_class(trained, self.lr, weight_decay=self.weight_decay, **self.options)

    optimizer_class = KroneckerOptimizer

    def on_fit_start(self) -> None:
        self.factors = KFACAccumulator(self.model, labels=self.labels, loss=self.objective.likelihood)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.global_step % self.factor_every == 0:
            self.observe(batch, int(torch.randint(2**31, ())))
        return super().training_step(batch, batch_idx)

    def observe(self, batch: Batch, seed: int) -> None:
        """Show the optimizer the factors of a batch; seed: of labels that are drawn."""
        self.factors.clear()
        self.factors.generator.manual_seed(seed)
        self.factors.update(batch.inputs, batch.targets)
        self.optimizers(use_pl_optimizer=False).observe(self.factors.result())
