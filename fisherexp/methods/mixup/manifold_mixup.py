"""Manifold mixup: mix hidden activations of two samples at a layer drawn anew for each batch.

    h̃_k = λ h_k(x_i) + (1 - λ) h_k(x_j),   k uniform in `layers`,   then as mixup

Verma et al., ICML 2019, arXiv 1806.05236. Layer 0 is the input, layer k the end of the network's k-th stage. One of
the authors' networks (resnet.py) mixes the labels at layer 0 but sends the unmixed input on; their pre-activation
network, and this file, mix both.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import AtLeastOne, Size
from fisherexp.methods.mixup.mixing import mix
from fisherexp.methods.mixup.mixup import Mixup
from fisherexp.methods.recipe import Recipe
from fisherexp.models.stages import changed_after, stage


class ManifoldMixup(Mixup):
    """layers: the k to draw from; 0 alone is mixup. Further options as for mixup."""

    paper = "Verma et al., ICML 2019, arXiv 1806.05236"

    def __init__(self, model: nn.Module, training: Recipe, layers: AtLeastOne[Size], **options: Any) -> None:
        super().__init__(model, training, **options)
        for layer in layers:  # a layer the network does not have is refused before anything is trained
            stage(model, layer)
        self.layers = layers

    def mixed_outputs(self, images: Tensor, partners: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
        layer = self.layers[int(torch.randint(len(self.layers), ()))]
        with changed_after(self.model, layer, lambda hidden: mix(hidden, hidden[partners], lam)):
            return self.model(images), lam
