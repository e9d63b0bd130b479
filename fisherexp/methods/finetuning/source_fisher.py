"""What a source's own data say of the weights that are adapted: row Fishers and diagonal Fishers, layer by layer."""

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fisherexp.data.batch import Batch
from fisherexp.methods.need import Costs, Need
from fisherexp.models.eval_mode import eval_mode


class LayerFishers(NamedTuple):
    """By layer: E[G Gᵀ] (m, m) and E[G ∘ G] (m, n), G (m, n) the gradient of a sample's loss, and how many samples."""

    rows: dict[str, Tensor]
    diagonal: dict[str, Tensor]
    samples: int


def layer_fishers(
    model: nn.Module, names: list[str], batches: Iterable[Batch], losses: Callable[[Tensor, Tensor], Tensor]
) -> LayerFishers:
    """The empirical Fishers of linear layers that a sample passes once, in eval mode.

    losses: of outputs and targets, (B,), one a sample. G = Σ_t δ_t x_tᵀ over the positions of a sequence, so that
    G Gᵀ = Σ_ts (x_t·x_s) δ_t δ_sᵀ. Raises ValueError for a layer of another kind.
    """
    layers = {name: model.get_submodule(name) for name in names}
    if wrong := [name for name, layer in layers.items() if not isinstance(layer, nn.Linear)]:
        raise ValueError(f"row Fishers are known of linear layers alone, not of: {', '.join(wrong)}")
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def hook(layer: nn.Module, given: tuple[Tensor], out: Tensor) -> None:
            inputs[name], outputs[name] = given[0].detach(), out

        return hook

    hooks = [layer.register_forward_hook(keep(name)) for name, layer in layers.items()]
    rows = {name: torch.zeros(len(layer.weight), len(layer.weight)) for name, layer in layers.items()}
    diagonal = {name: torch.zeros(layer.weight.shape) for name, layer in layers.items()}
    samples = 0
    try:
        with torch.enable_grad(), eval_mode(model):
            for batch in batches:
                loss = losses(model(batch.inputs), batch.targets).sum()
                slopes = torch.autograd.grad(loss, [outputs[name] for name in layers])
                for name, slope in zip(layers, slopes, strict=True):
                    x, delta = (t.reshape(batch.size, -1, t.shape[-1]) for t in (inputs[name], slope))
                    rows[name] += torch.einsum("ntd,nts,nse->de", delta, x @ x.mT, delta).cpu()
                    diagonal[name] += (delta.mT @ x).square().sum(0).cpu()
                samples += batch.size
    finally:
        for hook in hooks:
            hook.remove()
    rows, diagonal = ({name: total / samples for name, total in found.items()} for found in (rows, diagonal))
    return LayerFishers(rows, diagonal, samples)


class SourceFishers(Need):
    """The Fishers of a method's `layers` at the source, on the data that the source was trained on (`source.data`)."""

    def __init__(self) -> None:
        super().__init__("source_fishers")

    def resolve(self, bench: Any, method: Any, source: Any) -> tuple[LayerFishers, Costs]:
        there = bench.on_data("source.data")
        trained, names = there.trained("source.method"), method.layers()

        def build(scratch: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
            begun = time.perf_counter()
            model = there.classifier("source_fishers")
            model.load_state_dict(trained.tensors)
            losses = there.data.objective.sample_losses
            found = layer_fishers(model, names, there.setting.loader("train"), losses)
            kept = {f"rows.{name}": value for name, value in found.rows.items()}
            kept |= {f"diagonal.{name}": value for name, value in found.diagonal.items()}
            seconds, samples = time.perf_counter() - begun, found.samples
            cost = {"seconds": seconds, "forward_samples": samples, "backward_samples": samples}
            return kept, {"samples": samples, "cost": cost}

        parts = {
            "weights": trained.key,
            "layers": names,
            "samples": there.setting.checksum("train"),
            "code": there.code_of(type(self)),
        }
        kept = there.store.get("layer_fishers", parts, build)
        rows, diagonal = ({name: kept.tensors[f"{kind}.{name}"] for name in names} for kind in ("rows", "diagonal"))
        return LayerFishers(rows, diagonal, kept.about["samples"]), [kept.about["cost"]]
