"""Magnitude pruning, layer by layer: more of layers whose weight spectra have lighter tails.

    sparsity of layer l:  s_l = c · [1 - ε … 1 + ε],  linear in the exponent α_l of its spectrum

The larger α, the less a layer has learnt (AlphaPruning: Lu et al., NeurIPS 2024, arXiv 2410.10912). α of whole
matrices also tells their shape; that of square windows does not (FARMS: Hu et al., ICML 2025, arXiv 2506.06280). α is
that of the source, by the estimator `fit`. FARMS prunes language models by `peak`; the default here is `hill`, of the
larger half of the eigenvalues, as in its runs on images. Both papers take the mean α of a transformer block; here each
layer has its own.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import AtLeastOne, Count, Probability, Share
from fisherexp.methods.compression.allocation import counts, sparsities
from fisherexp.methods.compression.pruning import Pruning, lowest
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.spectral.layer_exponents import along, exponents


class FARMSPruning(Pruning):
    """by: 'farms', α of windows; 'whole', α of the matrix, as AlphaPruning; 'uniform', the same sparsity everywhere.
    spread: ε. window, positions: of farms, see metrics.fixed_aspect. fewest: layers with fewer rows or columns are
    pruned as one of middling α. fit: the estimator of α, see metrics.power_law. sparsities, finetune: of the schedule,
    see Pruning.

    The outcome has α by layer, too.
    """

    paper = "Hu et al., ICML 2025, arXiv 2506.06280; Lu et al., NeurIPS 2024, arXiv 2410.10912"
    start = "source"
    name = "farms_pruning"
    counts_with = {  # layers of a tiny network are below `fewest`
        "by": {"fewest": 2},
        "fewest": {"fewest": 2},
        "fit": {"fewest": 2},
        "spread": {"fewest": 2},
        "window": {"fewest": 2},
        "positions": {"fewest": 2, "positions": 1},
    }

    def __init__(
        self,
        model: nn.Module,
        sparsities: AtLeastOne[Probability],
        by: Literal["farms", "whole", "uniform"],
        spread: Share,
        window: Count | None,
        positions: Count,
        fewest: Count,
        fit: Literal["hill", "ks", "peak"],
        finetune: Recipe,
    ) -> None:
        super().__init__(model, sparsities, finetune)
        self.by, self.spread = by, spread
        self.options = {"window": window, "positions": positions, "fewest": fewest, "estimator": fit}
        self.sizes = torch.tensor([weight.numel() for weight in self.weights.values()])
        self.alphas: dict[str, float | None] = {}

    def on_train_start(self) -> None:
        super().on_train_start()
        if not self.alphas:
            if self.by != "uniform":
                self.alphas = exponents(self.weights, self.by, **self.options)
            else:
                self.alphas = dict.fromkeys(self.weights)

    def prune(self, weights: Tensor, count: int) -> tuple[Tensor, Tensor]:
        relative = torch.tensor([*along(self.alphas, 1 - self.spread, 1 + self.spread).values()])
        goal = 1 - (len(weights) - count) / len(self.kept)
        dropped_of_layers = counts(sparsities(relative, self.sizes, goal), self.sizes).tolist()
        dropped, begin = [], 0
        for mask, goal_of_layer in zip(self.kept.split(self.sizes.tolist()), dropped_of_layers, strict=True):
            there = int(mask.sum())
            more = max(0, goal_of_layer - (len(mask) - there))  # rounding may ask for one back
            dropped.append(begin + lowest(weights[begin : begin + there].abs(), more))
            begin += there
        together = torch.cat(dropped)
        return weights.index_fill(0, together, 0.0), together

    @torch.no_grad()
    def prune_to(self, count: int) -> None:
        super().prune_to(count)
        self.outcome["alpha_by_layer"] = self.alphas

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["alphas"] = self.alphas

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.alphas = checkpoint["alphas"]
