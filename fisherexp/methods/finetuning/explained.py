"""The directions in which the inputs of linear layers vary most, found batch by batch.

Incremental principal component analysis (Ross, Lim, Lin, Yang, 2008), scikit-learn's: the mean is taken out.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import IncrementalPCA
from torch import Tensor, nn

from fisherexp.adapters.eva import redistributed
from fisherexp.adapters.layers import AdaptedConv1D, AdaptedLinear, adapted_kind
from fisherexp.methods.need import Costs, Need
from fisherexp.models.eval_mode import eval_mode
from fisherexp.quantization import input_rows

KINDS = (AdaptedLinear, AdaptedConv1D)
PASSES = 10  # over the data at most; the authors' code goes on for ever


@dataclass
class Explained:
    """By layer of n inputs: orthonormal directions (k, n), most variance first, their variances (k,), and these as
    shares of that of all inputs. batches and samples: how many were looked at."""

    directions: dict[str, Tensor]
    variances: dict[str, Tensor]
    ratios: dict[str, Tensor]
    batches: int
    samples: int

    def whitened(self, name: str) -> Tensor:
        """Directions over the standard deviation along them."""
        return self.directions[name] / self.variances[name].clamp_min(1e-12).sqrt()[:, None]


def explained(
    model: nn.Module, names: list[str], batches: Iterable[Any], rank: int, rho: float, tau: float
) -> Explained:
    """Look at batches until every direction that `redistributed` needs was within a cosine of `tau` of the estimate
    before. A layer whose directions stand still is left alone, unless it comes to need more. Padding does not count.

    names: of linear layers. rho: as many as rho · rank directions are sought for each, but no more than it has inputs.
    Raises ValueError for a layer of another kind or one that is never called, and where a batch has fewer rows than
    directions are sought.
    """
    layers = {name: model.get_submodule(name) for name in names}
    if wrong := [name for name, layer in layers.items() if adapted_kind(layer) not in KINDS]:
        raise ValueError(f"EVA knows the inputs of linear layers alone, not of: {', '.join(wrong)}")
    inputs_of = {name: adapted_kind(layer).to_matrix(layer.weight).shape[1] for name, layer in layers.items()}
    counts = {name: min(max(rank, round(rho * rank)), n) for name, n in inputs_of.items()}
    found = {name: IncrementalPCA(n_components=count) for name, count in counts.items()}
    inputs: dict[str, Tensor] = {}
    hooks = [layer.register_forward_pre_hook(_keep(inputs, name)) for name, layer in layers.items()]
    seeking, still = names, dict.fromkeys(names, -1)  # how many directions did not move at a layer's last look
    looked = samples = 0
    try:
        with torch.no_grad(), eval_mode(model):
            for batch in batches:
                model(batch.inputs)
                if silent := [name for name in names if name not in inputs]:
                    raise ValueError(f"EVA sees no inputs of {', '.join(silent)}, which the model never calls: exclude")
                rows = {name: input_rows(layers[name], inputs[name], batch.attention_mask) for name in seeking}
                if any(len(x) < counts[name] for name, x in rows.items()):
                    continue  # a short last batch
                for name, x in rows.items():
                    before = found[name].components_ if looked else None
                    found[name].partial_fit(x.double().cpu().numpy())
                    still[name] = -1 if before is None else _standing(before, found[name].components_, tau)
                looked, samples = looked + 1, samples + batch.size
                ranks = redistributed({name: _ratios(pca) for name, pca in found.items()}, rank)
                seeking = [name for name in names if still[name] < ranks[name]]
                if not seeking:
                    break
    finally:
        for hook in hooks:
            hook.remove()
    if not looked:
        raise ValueError(f"no batch has the {max(counts.values())} rows that as many directions need: data.batch_size")
    return Explained(
        {name: torch.from_numpy(pca.components_.copy()) for name, pca in found.items()},
        {name: torch.from_numpy(pca.explained_variance_.copy()) for name, pca in found.items()},
        {name: _ratios(pca) for name, pca in found.items()},
        looked,
        samples,
    )


class InputDirections(Need):
    """What `explained` finds on the source's training part, as a method's rank, rho, tau and `layers` say."""

    def __init__(self) -> None:
        super().__init__("directions")

    def resolve(self, bench: Any, method: Any, source: Any) -> tuple[Explained, Costs]:
        begun = time.perf_counter()
        loader = bench.setting.loader(method.fits_on, shuffle=True)
        batches = (batch for _ in range(PASSES) for batch in loader)
        found = explained(method.model, method.layers(), batches, method.rank, method.rho, method.tau)
        price = {"seconds": time.perf_counter() - begun, "forward_samples": found.samples, "backward_samples": 0}
        return found, [price]


def _keep(inputs: dict[str, Tensor], name: str) -> Any:
    def hook(layer: nn.Module, given: tuple[Tensor]) -> None:
        inputs[name] = given[0]

    return hook


def _ratios(pca: IncrementalPCA) -> Tensor:
    return torch.from_numpy(pca.explained_variance_ratio_.copy())


def _standing(before: np.ndarray, after: np.ndarray, tau: float) -> int:
    """How many leading directions are within a cosine of tau of what they were."""
    moved = (before * after).sum(axis=1) < tau
    return int(moved.argmax()) if moved.any() else len(moved)
