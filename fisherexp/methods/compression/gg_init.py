"""GG init: training from weights drawn from a generalized Gaussian.

    w = ± β G^(1/ν),  G from Gamma(1/ν, 1),  β such that Var(w) = ξ / fan

Wu et al., arXiv 2506.00486. In the authors' code the fan of a matrix (out, in) is the number of its outputs, fan=out
here; by default it is that of Kaiming (ξ = 2) and LeCun (ξ = 1), the number of inputs. There every matrix is drawn,
embeddings too, and all other weights, convolutions' as well, become 1; here linear and convolutional layers are drawn
and the rest stays. At ν = 2 this is the Gaussian start of old.
"""

from typing import Literal

import torch
from torch import nn

from fisherexp.config.types import Positive, Size
from fisherexp.methods.compression.coded_training import CodedTraining
from fisherexp.methods.compression.generalized_gaussian import draws
from fisherexp.methods.recipe import Recipe
from fisherexp.quantization import has_kernel, matrix


@torch.no_grad()
def gg_init_(model: nn.Module, shape: float, xi: float, fan: Literal["in", "out"]) -> list[str]:
    """Draw the weights of linear and convolutional layers anew, and set their biases to zero. In place; the names of
    the layers. Raises ValueError if there is none."""
    layers = {name: layer for name, layer in model.named_modules() if has_kernel(layer)}
    if not layers:
        raise ValueError(f"{type(model).__name__} has no linear or convolutional layer to initialize")
    for layer in layers.values():
        weight = matrix(layer) if layer.weight.dim() == 2 else layer.weight  # GPT-2 has it the other way round
        fans = dict(zip(("in", "out"), nn.init._calculate_fan_in_and_fan_out(weight), strict=True))
        layer.weight.copy_(draws(layer.weight.shape, shape, xi / fans[fan]))
        if layer.bias is not None:
            layer.bias.zero_()
    return list(layers)


class GGInit(CodedTraining):
    """shape: ν. xi: ξ, 2 before ReLU, 1 before sigmoids. fan: of inputs or outputs.
    training: the recipe. fraction_bits: see CodedTraining."""

    name = "gg_init"
    paper = "Wu et al., 2025, arXiv 2506.00486"
    search = {"shape": "interval(0.5, 2.5)"}

    def __init__(
        self,
        model: nn.Module,
        shape: Positive,
        xi: Positive,
        fan: Literal["in", "out"],
        training: Recipe,
        fraction_bits: Size,
    ) -> None:
        super().__init__(model, training, fraction_bits)
        self.shape, self.xi, self.fan = shape, xi, fan

    def setup(self, stage: str) -> None:
        # Before the fit, and before a saved state is loaded.
        if stage == "fit":
            gg_init_(self.model, self.shape, self.xi, self.fan)
