"""Layers whose weights answer to the hyper-parameters: an affine guess of the best weights for each of their values.

    y = s (W_e x + b_e) + a_w(η) ⊙ (W_h x) + a_b(η) ⊙ b_h,   [a_w, a_b] = A η,   each sample with its own η

MacKay, Vicol, Lorraine, Duvenaud, Grosse, ICLR 2019, arXiv 1903.03088.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.methods.training.hyperparameters import Hyperparameters

KEPT = 1e-3  # at least, of a dropout's inputs: it divides by the share


def dropout(inputs: Tensor, rates: Tensor | None) -> Tensor:
    """Inputs (B, …) with each number of sample i put to zero with probability rates[i], the others divided by what is
    kept on average."""
    if rates is None:
        return inputs
    kept = (1 - rates).clamp(min=KEPT).view(-1, *[1] * (inputs.dim() - 1))
    return inputs * (torch.rand_like(inputs) < kept) / kept


class BestResponse(nn.Module):
    """A linear or convolutional layer in whose place it stands. first: its inputs are those of the network, which tells
    the dropout before it. Dropout acts in training mode only."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, hyper: Hyperparameters, first: bool) -> None:
        super().__init__()
        outputs = layer.weight.shape[0]
        self.elementary, self.hyper = layer, hyper
        self.rate = "input_dropout" if first else "hidden_dropout"
        limit = layer.weight[0].numel() ** -0.5
        self.weight = nn.Parameter(torch.empty_like(layer.weight).uniform_(-limit, limit))
        self.bias = None if layer.bias is None else nn.Parameter(torch.empty_like(layer.bias).uniform_(-limit, limit))
        self.gates = nn.Linear(len(hyper.names), 2 * outputs, bias=False)
        nn.init.normal_(self.gates.weight, std=0.01)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            inputs = dropout(inputs, self.hyper.value(self.rate))
        of_weight, of_bias = self.gates(self.hyper.present(len(inputs))).chunk(2, dim=1)
        answer = self._linear(inputs)
        place = (len(inputs), -1, 1, 1) if answer.dim() == 4 else (len(inputs), *[1] * (answer.dim() - 2), -1)
        outputs = self.scale * self.elementary(inputs) + of_weight.view(place) * answer
        if self.bias is None:
            return outputs
        return outputs + of_bias.view(place) * self.bias.view(place[1:] if answer.dim() == 4 else (-1,))

    def _linear(self, inputs: Tensor) -> Tensor:
        """W_h x."""
        if isinstance(self.elementary, nn.Linear):
            return F.linear(inputs, self.weight)
        return self.elementary._conv_forward(inputs, self.weight, None)

    @torch.no_grad()
    def plain(self) -> nn.Linear | nn.Conv2d:
        """The ordinary layer that it is at η itself."""
        of_weight, of_bias = self.gates(self.hyper.present(1)[0]).chunk(2)
        layer = self.elementary
        layer.weight.copy_(
            self.scale * layer.weight + of_weight.view(-1, *[1] * (layer.weight.dim() - 1)) * self.weight
        )
        if self.bias is not None:
            layer.bias.copy_(self.scale * layer.bias + of_bias * self.bias)
        return layer


def respond(model: nn.Module, hyper: Hyperparameters) -> None:
    """Put a BestResponse in the place of every linear and convolutional layer of the model whose weights are trained;
    the first in order is taken for that of the inputs."""
    kinds = (nn.Linear, nn.Conv2d)
    found = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, kinds)]
    for number, (name, layer) in enumerate((n, layer) for n, layer in found if layer.weight.requires_grad):
        _put(model, name, BestResponse(layer, hyper, first=number == 0))


def settle(model: nn.Module) -> None:
    """Ordinary layers again, of the weights that are the answer to η."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, BestResponse):
            _put(model, name, layer.plain())


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)
