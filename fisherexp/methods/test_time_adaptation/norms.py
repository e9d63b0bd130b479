"""Normalization layers at test time: their affine parameters, and the statistics that batch normalization uses."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)
SINGLE = "a batch of one value per channel has no statistics"


def affine_parameters(model: nn.Module, skip: Iterable[str] = ()) -> dict[str, nn.Parameter]:
    """Weights and biases of all BatchNorm, LayerNorm and GroupNorm layers, by name.

    skip: layers left out, as runs of whole parts of a dotted name: 'layer4' is in 'network.layer4.0.bn1'.
    """
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, NORMS) and not any(f".{part}." in f".{name}." for part in skip):
            found |= {f"{name}.{kind}": p for kind, p in module.named_parameters(recurse=False)}
    return found


def batch_norms(model: nn.Module) -> Iterator[_BatchNorm]:
    """All BatchNorm layers, of any dimension."""
    return (module for module in model.modules() if isinstance(module, _BatchNorm))


def use_batch_statistics(model: nn.Module) -> None:
    """Let every BatchNorm normalize by the batch at hand (biased variance), in eval mode as well.

    The stored statistics are dropped, also from the state: with them there, eval mode would use them.
    """
    for module in batch_norms(model):
        module.track_running_stats = False
        module.running_mean = module.running_var = module.num_batches_tracked = None


class MixedBatchNorm(_BatchNorm):
    """BatchNorm by (1 - share) · stored + share · batch statistics, where `mixing`; by the stored ones elsewhere.

    remember=False: stored statistics stay those of the source, gradients take the mixture for a constant, the
        batch's variance is unbiased (Schneider et al., NeurIPS 2020; MEMO).
    remember=True: the mixture becomes what is stored, gradients go through the batch's part, its variance is
        biased (RoTTA).

    Takes over parameters and statistics of `source`, and the layers in it that follow the normalization (timm's
    BatchNormAct2d holds its activation); the names in its state are those of `source`.
    """

    def __init__(self, source: _BatchNorm, share: float, remember: bool) -> None:
        super().__init__(source.num_features, source.eps, affine=False)
        self.weight, self.bias = source.weight, source.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            setattr(self, name, getattr(source, name).clone())
        for name, layer in source.named_children():
            self.add_module(name, layer)
        self.share, self.remember, self.mixing = share, remember, True

    def forward(self, x: Tensor) -> Tensor:
        x = self._normalized(x)
        for layer in self.children():
            x = layer(x)
        return x

    def _normalized(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        if not self.mixing:
            return F.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)
        if x.numel() == x.shape[1]:
            raise ValueError(SINGLE)
        dims = [d for d in range(x.dim()) if d != 1]
        if not self.remember:
            batch_var, batch_mean = torch.var_mean(x.detach(), dims, correction=1)
            mean, var = torch.lerp(mean, batch_mean, self.share), torch.lerp(var, batch_var, self.share)
            return F.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)
        batch_var, batch_mean = torch.var_mean(x, dims, correction=0)
        mean, var = torch.lerp(mean, batch_mean, self.share), torch.lerp(var, batch_var, self.share)
        with torch.no_grad():
            self.running_mean.copy_(mean)
            self.running_var.copy_(var)
        shape = [1, -1] + [1] * (x.dim() - 2)
        scale = (var + self.eps).rsqrt() * self.weight
        return x * scale.view(shape) + (self.bias - mean * scale).view(shape)


def mix_statistics(model: nn.Module, share: float, remember: bool) -> None:
    """Replace every BatchNorm of `model` by a MixedBatchNorm."""
    for name, module in list(model.named_modules()):
        if isinstance(module, _BatchNorm):
            model.set_submodule(name, MixedBatchNorm(module, share, remember))


def set_mixing(model: nn.Module, mixing: bool) -> None:
    """Let every MixedBatchNorm use the batch, or the stored statistics alone."""
    for module in batch_norms(model):
        module.mixing = mixing
