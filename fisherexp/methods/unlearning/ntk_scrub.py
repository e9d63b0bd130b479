"""NTK scrubbing: move by the difference of two linearized trainings, with and without the forgotten data.

Paper: Golatkar, Achille, Soatto, ECCV 2020, arXiv 2003.02960. The network is linearized at the weights w_0 that
training began with, f(x; w) ≈ f_0(x) + J(x) (w - w_0), and trained on one-hot labels y with squared error,

    w(S) = w_0 + (Σ_{i ∈ S} J_iᵀJ_i + μ |S| I)⁻¹ Σ_{i ∈ S} J_iᵀ (y_i - f_0(x_i)),      μ: weight decay
    w ← w + w(D_r) - w(D)                                                              from the source model

Where this differs from the official code:
- that inverts the matrix of all pairs of N C outputs, here it is the equal one of all pairs of P weights, which needs
  one pass over the data and no room that grows with them. Either way this is for tiny nets: see `max_weights`;
- the noise that the paper adds, and the scale that the code gives the step along a direction it guesses, are left out.

J is taken in eval mode: batch normalization as it stands at w_0 is no normalization yet.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional as F

from fisherexp.config.types import Count, Positive
from fisherexp.data.batch import Batch
from fisherexp.data.composite import InTurn
from fisherexp.methods.method import ModelMethod
from fisherexp.methods.needs import InitialWeights
from fisherexp.methods.unlearning.batches import tagged_parts
from fisherexp.ranks import over_ranks


def jacobian(model: nn.Module, images: Tensor) -> Tensor:
    """∂ logits / ∂ weights of each sample, with the model in the mode it is in: (B, C, P), in parameter order."""
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def logits(given: dict[str, Tensor], image: Tensor) -> Tensor:
        return functional_call(model, (given, buffers), (image[None],))[0]

    by_name = vmap(jacrev(logits), in_dims=(None, 0))(weights, images)
    return torch.cat([part.flatten(2) for part in by_name.values()], dim=2)


def ridge_step(gram: Tensor, moment: Tensor, penalty: float) -> Tensor:
    """(gram + penalty I)⁻¹ moment: (P, P), (P,) -> (P,)."""
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    factor = torch.linalg.cholesky(gram + penalty * identity)
    return torch.cholesky_solve(moment[:, None], factor)[:, 0]


class NTKScrub(ModelMethod):
    """weight_decay: μ. batch_size: a matter of memory, B · C · P numbers. max_weights: refuse larger models; the
    matrices take 8 max_weights² bytes each, their solution max_weights³ / 3 multiplications."""

    paper = "Golatkar et al., ECCV 2020, arXiv 2003.02960"
    requires = ("class_labels",)
    scenarios = ("forgetting",)
    start = "source"
    steps_itself = True
    fits_on = "train"
    needs = (InitialWeights(),)

    def __init__(self, model: nn.Module, weight_decay: Positive, batch_size: Count, max_weights: Count) -> None:
        super().__init__(model)
        self.weight_decay, self.batch_size = weight_decay, batch_size
        weights = sum(weight.numel() for weight in model.parameters())
        if weights > max_weights:
            raise ValueError(
                f"ntk_scrub solves for all pairs of weights, and the model has {weights} of them: "
                f"take a smaller one, or method.max_weights={weights} ({8e-9 * weights**2:.1f} GB a matrix)"
            )
        size = {"dtype": torch.float64}  # of the sums, not of each batch's products, which take half the time
        self.sums = {
            part: {"gram": torch.zeros(weights, weights, **size), "moment": torch.zeros(weights, **size)}
            for part in ("retain", "forget")
        }
        self.counts: dict[str, int] = {}
        self.trained: dict[str, Tensor] | None = None

    def batches(self, setting: Any) -> InTurn:
        self.counts = {part: len(setting.parts[part]) for part in ("retain", "forget")}
        options = {"shuffle": False, "batch_size": self.batch_size}
        return InTurn(*(setting.loader_of(part, **options) for part in tagged_parts(setting)))

    def on_train_start(self) -> None:
        if self.trained is None:  # else it was restored, and the model is at w_0 already
            self.trained = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.model.load_state_dict(self.given["initial"])
        self.sums = {p: {n: total.to(self.device) for n, total in s.items()} for p, s in self.sums.items()}

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.model.eval()
        with torch.no_grad():
            logits = self.model(batch.inputs)
        residual = F.one_hot(batch.targets, logits.shape[1]) - logits
        rows = jacobian(self.model, batch.inputs).flatten(0, 1)
        sums = self.sums["forget" if batch.tags["forgotten"].all() else "retain"]
        sums["gram"] += rows.T @ rows
        sums["moment"] += rows.T @ residual.flatten()

    def on_train_end(self) -> None:
        self.model.load_state_dict(self.trained)
        retain, forget = (over_ranks(self.sums[part]) for part in ("retain", "forget"))
        kept, everything = self.counts["retain"], sum(self.counts.values())
        without = ridge_step(retain["gram"], retain["moment"], self.weight_decay * kept)
        everywhere = (retain[name] + forget[name] for name in ("gram", "moment"))
        step = without - ridge_step(*everywhere, self.weight_decay * everything)
        weights = torch.nn.utils.parameters_to_vector(self.model.parameters()).detach()
        torch.nn.utils.vector_to_parameters(weights + step.to(weights), self.model.parameters())
        self.outcome = {"step": step.norm().item(), "weights": weights.norm().item()}

    def configure_optimizers(self) -> None:
        return None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["sums"], checkpoint["trained"] = self.sums, self.trained

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.sums, self.trained = checkpoint["sums"], checkpoint["trained"]
