"""OFQ, oscillation-free quantization of vision transformers: training with weights and activations of a few bits.

    loss = (1 - α) ℓ(f_q(x), y) + α KL(f(x) ‖ f_q(x)),   f the source, f_q with quantized weights and inputs

Liu, Liu, Cheng, ICML 2023, arXiv 2302.02210. Three measures against weights that go to and fro between two codes:
a scale from statistics, not learned (StatsQ, learned_grids.py); queries and keys quantized as one matrix (QKR,
quantized_vit.py); and confidence-guided annealing (CGA), epochs at the end in which only weights within a `band` of a
boundary between two codes move. As in the authors' code, with QKR annealing freezes no query and key weights, and a
frozen weight's decoded value still follows the scale of its row. That code adds both terms of the loss with weight 1,
twice what α = 1/2 is; its networks of two heads learn labels by one and the source by the other.

The baseline LSQ+ is weights=lsq qk=separate annealing_epochs=0.

The model keeps its layers' names and latent weights, which is what the record holds; the run's folder holds the
quantized model, weights.quantized.
"""

import copy
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.config.types import NonNegative, Positive, Probability, Size
from fisherexp.data.batch import Batch
from fisherexp.files import write_atomically
from fisherexp.methods.compression.learned_grids import LSQ, ShiftedLSQ, StatsQ, frozen
from fisherexp.methods.compression.multiply_adds import multiply_adds
from fisherexp.methods.compression.oscillation import Oscillation
from fisherexp.methods.compression.quantized_file import stored
from fisherexp.methods.compression.quantized_vit import ProductAttention, QuantizedLinear, attentions
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM

Quantized = QuantizedLinear | ProductAttention


class OFQ(ERM):
    """weight_bits, activation_bits: of all linear layers in the blocks.
    weights: 'statsq' or 'lsq'. qk: 'product' (QKR) or 'separate'.
    distillation: α. training: the recipe of the epochs before annealing.
    annealing_epochs: of CGA, at the constant rate annealing_lr. band: in units of the grid.

    outcome: under "metrics" stored_bytes, of the file; multiply_adds for one sample; reversals, of a weight's code for
        1000 steps in the last quarter before annealing; annealed_changes, of codes for 1000 weights and steps of the
        last epoch of annealing; oscillating, share of weights whose moving average of reversals is above 0.005, %.
    """

    name = "ofq"
    paper = "Liu et al., ICML 2023, arXiv 2302.02210"
    start = "source"
    requires = ("images",)
    weighs_samples = False
    headings = {"stored_bytes": "stored\nbytes", "multiply_adds": "multiply\nadds", "reversals": "reversals\n‰"}
    better = {"stored_bytes": "lower", "multiply_adds": "lower", "reversals": "lower"}
    counts_with = {"band": {"annealing_epochs": 2}, "annealing_lr": {"annealing_epochs": 2}}

    def __init__(
        self,
        model: nn.Module,
        weight_bits: Literal[2, 3, 4, 8],
        activation_bits: Literal[2, 3, 4, 8],
        weights: Literal["statsq", "lsq"],
        qk: Literal["product", "separate"],
        distillation: Probability,
        training: Recipe,
        annealing_epochs: Size,
        annealing_lr: Positive,
        band: NonNegative,
    ) -> None:
        super().__init__(model, training)
        self.weight_bits, self.activation_bits, self.weights, self.qk = weight_bits, activation_bits, weights, qk
        self.distillation, self.band, self.annealing_lr = distillation, band, annealing_lr
        self.annealed_from, self.epochs = training.epochs, training.epochs + annealing_epochs
        attentions(model)  # or refused
        self.grids, self.watched = nn.ModuleList(), nn.ModuleList()
        self.layers: dict[str, Quantized] = {}
        self.still: list[tuple[nn.Parameter, Tensor, Tensor]] = []  # weight, mask, values that are not to move
        self.inputs: Any = None

    def source_loaded(self) -> None:
        self.teacher = copy.deepcopy(self.model).requires_grad_(False)  # a submodule: a saved state has it, too
        self.layers = self.quantize()
        self.watched.extend(
            Oscillation(layer.weight_grid.position(layer.matrix()).round()) for layer in self.layers.values()
        )

    def quantize(self) -> dict[str, Quantized]:
        """Let the linear layers of the blocks compute with quantized numbers; what has a quantized matrix, by name."""
        found: dict[str, Quantized] = {}
        for name, attention in attentions(self.model).items():
            block_name = name.rpartition(".")[0]
            block = self.model.get_submodule(block_name)
            linear = {f"{block_name}.{child}": m for child, m in block.named_modules() if type(m) is nn.Linear}
            if self.qk == "product":
                for projection in ("query", "key"):
                    del linear[f"{name}.{projection}"]
                dim, rows = attention.query.in_features, attention.heads * attention.query.in_features
                grids = [self.weight_grid(rows), self.input_grid(dim), self.input_grid(rows)]
                found[name] = ProductAttention.of(attention, *grids)
            for child, layer in linear.items():
                grids = [self.weight_grid(layer.out_features), self.input_grid(layer.in_features)]
                found[child] = QuantizedLinear.of(layer, *grids)
        return found

    def weight_grid(self, rows: int) -> StatsQ | LSQ:
        grid = StatsQ(self.weight_bits) if self.weights == "statsq" else LSQ(self.weight_bits, rows, dim=0)
        self.grids.append(grid)
        return grid

    def input_grid(self, channels: int) -> ShiftedLSQ:
        self.grids.append(ShiftedLSQ(self.activation_bits, channels))
        return self.grids[-1]

    def loss(self, batch: Batch) -> Tensor:
        self.inputs = batch.inputs
        outputs = self.model(batch.inputs)
        self.teacher.eval()
        with torch.no_grad():
            taught = F.log_softmax(self.teacher(batch.inputs), dim=-1)
        divergence = F.kl_div(F.log_softmax(outputs, dim=-1), taught, reduction="batchmean", log_target=True)
        own = self.objective.loss(outputs, batch.targets)
        return (1 - self.distillation) * own + self.distillation * divergence

    def configure_optimizers(self) -> dict[str, Any]:
        network = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        groups = [{"params": network}, {"params": list(self.grids.parameters()), "weight_decay": 0.0}]
        configured = self.training_recipe.configure_groups(groups, self.steps_per_epoch)
        ends = self.annealed_from * self.steps_per_epoch

        def factor(step: int) -> float:
            if step >= ends:
                return self.annealing_lr / self.training_recipe.lr
            return self.training_recipe.factor(step, self.steps_per_epoch)

        scheduler = torch.optim.lr_scheduler.LambdaLR(configured["optimizer"], factor)
        return configured | {"lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        if self.current_epoch in (self.annealed_from * 3 // 4, self.annealed_from, self.epochs - 1):
            if self.current_epoch == self.annealed_from:
                self.outcome["metrics"] = self.reversals()
            for oscillation in self.watched:
                oscillation.restart()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.still = []
        if self.current_epoch >= self.annealed_from:
            for layer in self.layers.values():
                if isinstance(layer, QuantizedLinear):
                    mask = frozen(layer.weight_grid.position(layer.weight), self.band)
                    layer.weight.grad.masked_fill_(mask, 0)
                    self.still.append((layer.weight, mask, layer.weight[mask].detach().clone()))

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        super().optimizer_step(*args, **options)
        with torch.no_grad():
            for weight, mask, values in self.still:  # momentum and decay move what has no gradient, too
                weight[mask] = values
            for oscillation, layer in zip(self.watched, self.layers.values(), strict=True):
                oscillation.update(layer.weight_grid.position(layer.matrix()).round())

    def reversals(self) -> dict[str, float]:
        """Of all weights, since they were last restarted, for 1000 of them and a step; and who oscillates now."""
        weights = sum(oscillation.codes.numel() for oscillation in self.watched)
        steps = max(1, int(self.watched[0].steps))
        often = sum(int((oscillation.frequency > 0.005).sum()) for oscillation in self.watched)
        return {
            "reversals": 1000 * sum(int(oscillation.reversals) for oscillation in self.watched) / weights / steps,
            "oscillating": 100 * often / weights,
        }

    def on_train_end(self) -> None:
        if self.annealed_from == self.epochs:
            self.outcome["metrics"] = self.reversals()
        else:
            changes = sum(int(oscillation.changes) for oscillation in self.watched)
            weights = sum(oscillation.codes.numel() for oscillation in self.watched)
            steps = int(self.watched[0].steps)
            self.outcome["metrics"]["annealed_changes"] = 1000 * changes / weights / steps
        adds = multiply_adds(self.model, self.inputs)
        for name, layer in self.layers.items():
            if isinstance(layer, ProductAttention):  # each number once for each token, as the value layer's
                value = layer.value.weight
                adds[name] = adds[f"{name}.value"] // int(value.count_nonzero()) * layer.matrix().numel()
        self.outcome["metrics"] |= {"stored_bytes": len(self.file()), "multiply_adds": sum(adds.values())}

    def file(self) -> bytes:
        """The quantized model, its grids included."""
        matrices = {name: (layer.matrix(), layer.weight_grid) for name, layer in self.layers.items()}
        replaced = {f"{name}.weight" for name in matrices}
        products = [name for name, layer in self.layers.items() if isinstance(layer, ProductAttention)]
        replaced |= {f"{name}.{p}.{kind}" for name in products for p in ("query", "key") for kind in ("weight", "bias")}
        rest = {name: tensor for name, tensor in self.model.state_dict().items() if name not in replaced}
        grids = {f"grids.{name}": p for name, p in self.grids.named_parameters()}
        return stored(matrices, rest | grids)

    def leave_files(self, folder: Path) -> None:
        write_atomically(folder / "weights.quantized", lambda temporary: temporary.write_bytes(self.file()))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["found"] = dict(self.outcome)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.outcome = checkpoint["found"]
