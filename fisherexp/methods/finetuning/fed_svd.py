"""FedSVD: clients train one factor of LoRA under differential privacy, the server makes the other one orthonormal.

    each round:  B_k from local steps of each client that was drawn,   B = Σ_k (n_k / n) B_k
    U diag(s) Vᵀ = B A,   A ← V_rᵀ, B ← U_r diag(s_r)        A is never trained, so never noised

Paper: Lee et al., NeurIPS 2025, arXiv 2505.12805. variant=ffa_lora leaves A as it was drawn (Sun, Li, Li, Ding, ICLR
2024, arXiv 2403.12313); variant=fedavg_lora trains A as well and averages both (McMahan et al. 2017, arXiv 1602.05629),
which is not the average of the products. Everything that is trained is averaged, clipped and noised.

What a client sends is private in the (ε, δ) of its own steps under Poisson sampling, which is how batches are drawn.
All clients get one noise multiplier, that of the largest rate and the most steps among them. Images are not augmented.
The authors clip the mean gradient at 1 where there is no noise; here clip is of each sample with noise and without.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp import adapters
from fisherexp.adapters import Adapter
from fisherexp.config.types import Count, NonNegative, Positive, Probability
from fisherexp.data.batch import Batch
from fisherexp.data.tensors import TensorSet
from fisherexp.methods.finetuning.clients import LocalBatches, dirichlet_parts
from fisherexp.methods.finetuning.finetuning import AdapterTuning
from fisherexp.methods.finetuning.private_gradients import noise_of_epsilon, private_sum, sample_gradients
from fisherexp.scenarios.setting import Setting


def orthonormal_factors(up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """(B', A') of the shapes of B (m, r) and A (r, n) with B' A' = B A, A' A'ᵀ = I and B'ᵀ B' diagonal, falling.

    Where the product has a rank below r, the last rows of A' are any that fit and the last columns of B' are zero.
    Decomposes matrices of r columns alone. Raises ValueError for r above n.
    """
    (m, r), n = up.shape, down.shape[1]
    if r > n:
        raise ValueError(f"rank={r} is above {n}: as many rows of that length are not orthonormal")
    basis, triangle = torch.linalg.qr(down.double().T)
    left, values, right = torch.linalg.svd(up.double() @ triangle.T, full_matrices=m < r)
    return F.pad(left * values, (0, r - len(values))).to(up), (right @ basis.T).to(down)


class FedSVD(AdapterTuning):
    """variant: 'fed_svd', 'ffa_lora' or 'fedavg_lora'. rank, alpha: as for LoRA. clients: K. taking_part: clients in a
    round. local_steps: of each in a round. heterogeneity: α of the Dirichlet distribution that divides classes among
    clients. clip: C, the longest gradient of a sample; None for any, without noise. noise_multiplier: σ, or None for
    that of `epsilon` and `delta`. finetune: of local steps; its epochs are rounds, and its optimizer begins anew with
    every client. Others as for AdapterTuning.

    outcome: also privacy (noise_multiplier, delta, epsilon where it was given), samples of each client.
    """

    named_by = "variant"
    paper = "Lee et al., NeurIPS 2025, arXiv 2505.12805"
    requires = ("class_labels",)
    weighs_samples = False
    takes_rows = False
    search = {"finetune.lr": "tag(log, interval(1e-2, 10))"}
    counts_with = {
        "by_layer": {"by_layer": {"backbone": {"alpha": 2.0}}},
        "trained": {"trained": "^head"},
        "head_lr": {"trained": "^head"},
    }

    def __init__(
        self,
        model: nn.Module,
        variant: Literal["fed_svd", "ffa_lora", "fedavg_lora"],
        rank: Count,
        alpha: Positive,
        clients: Count,
        taking_part: Count,
        local_steps: Count,
        heterogeneity: Positive,
        delta: Probability,
        clip: Positive | None = None,
        noise_multiplier: NonNegative | None = None,
        epsilon: Positive | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        if taking_part > clients:
            raise ValueError(f"taking_part={taking_part} of clients={clients}; nearest valid: {clients}")
        if (noise_multiplier is None) == (epsilon is None):
            given = f"noise_multiplier={noise_multiplier}, epsilon={epsilon}"
            raise ValueError(f"{given}: give one of the two and null for the other")
        if clip is None and (epsilon is not None or noise_multiplier):
            raise ValueError("clip=null bounds no gradient that noise could hide: give a clip, or noise_multiplier=0.0")
        self.variant, self.own = variant, {"rank": rank, "alpha": alpha}
        self.federation = {"clients": clients, "taking_part": taking_part, "local_steps": local_steps}
        self.heterogeneity, self.clip, self.noise_multiplier = heterogeneity, clip, noise_multiplier
        self.epsilon, self.delta = epsilon, delta
        self.local: LocalBatches | None = None
        self.server: dict[str, Tensor] = {}  # what every client of a round begins with
        self.collected: dict[str, Tensor] = {}  # n_k times what clients of this round have sent, summed
        self.received = 0  # samples of these clients
        self.seen: Batch | None = None

    def adapter(self, weight: Tensor, **options: Any) -> Adapter:
        adapter = adapters.LoRA(weight, **self.own | options)
        adapter.down.requires_grad_(self.variant == "fedavg_lora")
        return adapter

    def freeze(self) -> None:
        super().freeze()
        self.server = {name: p.detach().clone() for name, p in self._trained().items()}

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def batches(self, setting: Setting) -> LocalBatches:
        samples, size = setting.parts[self.fits_on], setting.data.batch_size
        if not isinstance(samples, TensorSet):
            raise ValueError(f"clients are simulated on data in memory, not on a {type(samples).__name__}")
        if setting.world_size > 1:
            raise ValueError("clients are simulated in one process: set trainer.devices=1")
        count, taking_part, steps = self.federation.values()
        parts = dirichlet_parts(samples.targets, count, self.heterogeneity, setting.seed)
        held = TensorSet(*samples.batch.map(lambda tensor: tensor.to(setting.device)))
        self.local = LocalBatches(held, parts, taking_part, steps, size, setting.seed)
        if self.noise_multiplier is None:
            self.noise_multiplier = self._noise()
        privacy = {"noise_multiplier": self.noise_multiplier, "delta": self.delta}
        self.outcome["privacy"] = privacy | ({} if self.epsilon is None else {"epsilon": self.epsilon})
        self.outcome["client_samples"] = [len(part) for part in parts]
        return self.local

    def _noise(self) -> float:
        """For the largest rate and the most steps of a client."""
        rounds = [client for number in range(self.epochs) for client in self.local.drawn(number)]
        most = max(rounds.count(client) for client in set(rounds)) * self.local.steps
        return noise_of_epsilon(self.epsilon, self.delta, max(map(self.local.rate, set(rounds))), most)

    def on_train_start(self) -> None:
        if (summed := self.trainer.accumulate_grad_batches) != 1:
            line = f"trainer.accumulate_grad_batches={summed}: the noise of a step is for one batch; nearest valid: 1"
            raise ValueError(line)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seen = batch
        if not batch.size:  # a draw that leaves a batch empty is a step of noise alone
            return sum(p.sum() for p in self._trained().values()) * 0.0
        return super().training_step(batch, batch_idx)

    def backward(self, loss: Tensor, *args: Any, **options: Any) -> None:
        super().backward(loss, *args, **options)
        if self.clip is None:
            return
        trained, client = self._trained(), self.local.client_of(self.trainer.global_step)
        gradients = {name: p.new_zeros(1, *p.shape) for name, p in trained.items()}
        if self.seen.size:
            gradients = sample_gradients(self.model, trained, self.objective, self.seen)
        expected = self.local.rate(client) * len(self.local.parts[client])
        for name, total in private_sum(gradients, self.clip, self.noise_multiplier).items():
            trained[name].grad = total / expected

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        step = self.trainer.global_step
        super().optimizer_step(*args, **options)
        if (step + 1) % self.local.steps == 0:
            self._receive(self.local.client_of(step))
            if (step + 1) % len(self.local) == 0:
                self._aggregate()
            self._send()

    @torch.no_grad()
    def _receive(self, client: int) -> None:
        """Add what a client has arrived at."""
        samples = len(self.local.parts[client])
        sent = {name: samples * p.detach() for name, p in self._trained().items()}
        self.collected = {name: value + self.collected.get(name, 0) for name, value in sent.items()}
        self.received += samples

    @torch.no_grad()
    def _aggregate(self) -> None:
        """End a round: the weighted mean, and of it orthonormal factors."""
        self.server = {name: value / self.received for name, value in self.collected.items()}
        self.collected, self.received = {}, 0
        self._send()
        if self.variant == "fed_svd":
            for adapter in adapters.adapters(self.model):
                for mine, new in zip(
                    (adapter.up, adapter.down), orthonormal_factors(adapter.up, adapter.down), strict=True
                ):
                    mine.copy_(new)
            self.server = {name: p.detach().clone() for name, p in self._trained().items()}

    @torch.no_grad()
    def _send(self) -> None:
        """Let the next client begin with the server's values and an optimizer that remembers nothing."""
        for name, parameter in self._trained().items():
            parameter.copy_(self.server[name])
        self.optimizers(use_pl_optimizer=False).state.clear()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["federation"] = {"server": self.server, "collected": self.collected, "received": self.received}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        for name, value in checkpoint["federation"].items():
            setattr(self, name, value)
