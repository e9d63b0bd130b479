"""The row Fisher of linear layers: the second moment of per-sample gradients over their output dimensions."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from fisherexp.adapters import AdaptedLayer
from fisherexp.data.batch import Batch
from fisherexp.models.eval_mode import eval_mode


def linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Linear layers whose weight is trained or adapted, with their names."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and (isinstance(layer, AdaptedLayer) or layer.weight.requires_grad):
            yield name, layer


def row_fisher(model: nn.Module, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """(1/N) Σ_n G_n G_nᵀ by layer, (d, d), with G_n (d, k) the gradient of sample n's cross-entropy by its label.

    G = Σ_t δ_t x_tᵀ over the positions t of a sequence, so that G Gᵀ = Σ_ts (x_t·x_s) δ_t δ_sᵀ: no G is formed. For a
    layer that a sample passes once, and in eval mode; the model's mode is left as it was.
    """
    layers, inputs, outputs = dict(linear_layers(model)), {}, {}

    def keep(name: str):
        def hook(layer: nn.Module, given: tuple[Tensor], out: Tensor) -> None:
            inputs[name], outputs[name] = given[0].detach(), out

        return hook

    hooks = [layer.register_forward_hook(keep(name)) for name, layer in layers.items()]
    total, samples = {}, 0
    try:
        with torch.enable_grad(), eval_mode(model):
            for batch in batches:
                loss = functional.cross_entropy(model(batch.inputs), batch.targets, reduction="sum")
                slopes = torch.autograd.grad(loss, [outputs[name] for name in layers])
                for name, slope in zip(layers, slopes, strict=True):
                    x, delta = (t.reshape(batch.size, -1, t.shape[-1]) for t in (inputs[name], slope))
                    found = torch.einsum("ntd,nts,nse->de", delta, x @ x.transpose(1, 2), delta)
                    total[name] = total[name] + found if name in total else found
                samples += batch.size
    finally:
        for hook in hooks:
            hook.remove()
    return {name: matrix / samples for name, matrix in total.items()}
