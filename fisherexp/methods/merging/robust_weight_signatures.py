"""Robust weight signatures: what training on a corruption adds to the first layers, as a patch for a clean model.

For each tensor of the first layers, with a = θ_clean - θ_0 and d_c = θ_c - θ_0 for each of n corruptions c:

    v_c = d_c - (⟨d_c, a⟩ / ⟨a, a⟩) a;   θ = θ_clean + (α / n) Σ_c v_c

Cai et al., ICML 2023, arXiv 2302.12480. The first task is the clean one, every other one a corruption. Tensors of
normalization layers among the first layers, and their statistics, go to the mean of the robust models' by the share α.
The authors' code weights d_c before and after the projection, so that with several signatures the factor is (α/n)²;
here it is weighted once.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from fisherexp.config.types import AtLeastOne, Count, NonNegative
from fisherexp.methods.merging.merging import Merging, State, mean_of


def signature(start: Tensor, clean: Tensor, robust: Tensor) -> Tensor:
    """v: robust - start without its component along clean - start, which may vanish."""
    along, change = clean - start, robust - start
    squared = along.square().sum()
    return change - (change * along).sum() / squared * along if squared > 0 else change


def patched(
    base: State, clean: State, robust: Sequence[State], layers: Sequence[str], norms: Sequence[str], alpha: float
) -> State:
    """`clean` with the mean signature of the `robust` models, times alpha, in the tensors named `layers`; those named
    `norms` at the share alpha of the way to the robust models' mean."""
    result = dict(clean)
    for name in layers:
        found = [signature(base[name], clean[name], model[name]) for model in robust]
        result[name] = clean[name] + alpha * sum(found) / len(found)
    mean = mean_of([{name: model[name] for name in norms} for model in robust])
    return result | {name: clean[name] + alpha * (mean[name] - clean[name]) for name in norms}


def first_layers(model: nn.Module, count: int) -> tuple[list[str], list[str]]:
    """Names of the tensors of the first `count` layers that multiply, in the order of the modules, and of those of the
    normalization layers in between. Raises ValueError for more layers than there are."""
    layers, norms, met = [], [], 0
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor):
            continue
        met += weight.dim() >= 2
        if met > count:
            break
        own = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
        names = [f"{name}.{key}" for key, tensor in own.items() if tensor.is_floating_point()]
        (layers if weight.dim() >= 2 else norms).extend(names)
    if met < count:
        raise ValueError(f"method.layers={count}, but the model has only {met} layers")
    return layers, norms


class RobustWeightSignatures(Merging):
    """layers: how many, from the input. alphas: to choose from."""

    paper = "Cai et al., ICML 2023, arXiv 2302.12480"

    counts_with = {"batch_norm": {"/model": "mlp", "/model.batch_norm": True, "layers": 1}}

    def __init__(self, layers: Count, alphas: AtLeastOne[NonNegative], **options: Any) -> None:
        super().__init__(**options)
        self.patched_layers, self.patched_norms = first_layers(self.model, layers)
        self.alphas = alphas

    def grid(self) -> list[dict[str, Any]]:
        if len(self.given["experts"]) < 2:
            raise ValueError("scenario.tasks: robust weight signatures need a clean task and at least one more")
        return [{"alpha": alpha} for alpha in self.alphas]

    def merged(self, base: State, models: list[State], alpha: float) -> State:
        clean, *robust = models
        layers, norms = (
            [name for name in names if name in base] for names in (self.patched_layers, self.patched_norms)
        )
        return patched(base, clean, robust, layers, norms, alpha)

    merged_buffers = merged
