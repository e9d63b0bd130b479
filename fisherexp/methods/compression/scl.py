"""SCL, sparse connectivity learning: which weights are there is trained with them, with a price for each.

    min_{W, M}  ℓ(W ∘ U(M)) + λ Σ U(M)

Tang et al., IEEE TNNLS 34(10) 2023, arXiv 2201.05020; mask, its gradient and its step in adapters/connectivity.py.
There are no targets for layers: where connections stay, training decides. The paper's constants were not to be found:
start, rate and bounds of the masks, and that λ is added after the gradients of each output are normalized, are ours.
"""

from functools import partial
from typing import Any

from torch import nn

from fisherexp import adapters
from fisherexp.adapters.connectivity import Connectivity
from fisherexp.config.types import NonNegative, Pattern, Positive, Size
from fisherexp.methods.compression.coded_training import CodedTraining
from fisherexp.methods.compression.pruning import prunable
from fisherexp.methods.recipe import Recipe


class SCL(CodedTraining):
    """price: λ. mask_lr: learning rate of the masks' plain SGD. mask_start: of mask variables, which stay within
        ±1.
    normalize: the masks' gradients, row by row. exclude: expression for layers that keep all connections.
    training: the recipe, of the weights. fraction_bits: see CodedTraining.

    outcome: also density, in % of the weights with a mask, and by layer; dead_rows, outputs without a connection.
    """

    name = "scl"
    paper = "Tang et al., IEEE TNNLS 2023, arXiv 2201.05020"
    headings = {"stored_bytes": "stored\nbytes", "multiply_adds": "multiply\nadds", "density": "density %"}
    search = {"price": "tag(log, interval(0.01, 0.1))"}
    counts_with = {"exclude": {"exclude": "layers.1"}}

    def __init__(
        self,
        model: nn.Module,
        price: NonNegative,
        mask_lr: Positive,
        mask_start: Positive,
        normalize: bool,
        exclude: Pattern | None,
        training: Recipe,
        fraction_bits: Size,
    ) -> None:
        super().__init__(model, training, fraction_bits)
        self.price, self.mask_lr, self.mask_start, self.normalize = price, mask_lr, mask_start, normalize
        self.exclude = exclude

    def setup(self, stage: str) -> None:
        # Before the fit, and before a saved state is loaded, which holds the masks.
        if stage == "fit":
            layers = [name.removesuffix(".weight") for name in prunable(self.model)]
            make = partial(Connectivity, start=self.mask_start)
            adapters.inject(self.model, layers, make, exclude=self.exclude, trained="")

    def configure_optimizers(self) -> dict[str, Any]:
        masks = {id(adapter.mask) for adapter in adapters.adapters(self.model)}
        weights = [p for p in self.model.parameters() if p.requires_grad and id(p) not in masks]
        return self.training_recipe.configure_groups(weights, self.steps_per_epoch)

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        super().optimizer_step(*args, **options)
        for adapter in adapters.adapters(self.model):
            adapter.step(self.mask_lr, self.price, self.normalize)

    def on_train_end(self) -> None:
        masks = {name: layer.adapters[0] for name, layer in adapters.adapted_layers(self.model).items()}
        connections = {name: adapter.connections() for name, adapter in masks.items()}
        weights = sum(adapter.mask.numel() for adapter in masks.values())
        rows = sum(int((adapter.mask <= 0).all(dim=1).sum()) for adapter in masks.values())
        adapters.merge(self.model)
        super().on_train_end()
        self.outcome["metrics"] |= {"density": 100 * sum(connections.values()) / weights, "dead_rows": rows}
        self.outcome["connections_by_layer"] = connections
