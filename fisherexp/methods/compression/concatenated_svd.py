"""Concatenated SVD: layers that can, share one basis; which they are, a bound on their joint error decides.

    [W_1 … W_K] ≈ U [B_1 … B_K],    U (m, r) orthonormal, stored once

arXiv 2601.11626; the bounds are in shared_basis.py, the clusters in basis_clusters.py. side='out' has the output units
of layers in common, W_j ≈ U B_j; side='in' their inputs, W_j ≈ B_jᵀ Uᵀ, so that layers with one input, as query, key
and value, have Uᵀ x in common as well. A layer that can share with none is stored as factors of its own where that is
within ε, else whole; the paper counts it as whole. No data are looked at and nothing is trained.
"""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fisherexp.adapters.targets import layer_names
from fisherexp.config.types import Count, Pattern, Positive, Probability
from fisherexp.files import write_atomically, write_text
from fisherexp.methods.compression.basis_clusters import Order, clusters
from fisherexp.methods.compression.basis_figure import draw
from fisherexp.methods.compression.factorization import is_factorizable
from fisherexp.methods.compression.shared_basis import Bound, error, incremental
from fisherexp.methods.compression.weight_transform import refuse_shared
from fisherexp.methods.method import ModelMethod


class Shared(NamedTuple):
    """basis: U (m, r), or None for layers that are stored whole; members: layers, each with B_j (r, n_j)."""

    basis: Tensor | None
    members: dict[str, Tensor]


def share(
    blocks: Mapping[str, Tensor], ranks: Mapping[int, int], epsilon: float, kind: Bound, order: Order
) -> list[Shared]:
    """Clusters of blocks (m, n_j), each m for itself. ranks: by m."""
    found = []
    for m in dict.fromkeys(len(block) for block in blocks.values()):
        alike = {name: block for name, block in blocks.items() if len(block) == m}
        for names in clusters(alike, ranks[m], epsilon, kind, order):
            basis = incremental([alike[name] for name in names], ranks[m]).columns[:, : ranks[m]]
            shared = Shared(basis, {name: basis.T @ alike[name].double() for name in names})
            found.append(_or_whole(shared, alike[names[0]], epsilon) if len(names) == 1 else shared)
    return found


def stored(shared: Shared) -> int:
    """How many numbers it holds."""
    return sum(t.numel() for t in shared.members.values()) + (0 if shared.basis is None else shared.basis.numel())


def _or_whole(alone: Shared, block: Tensor, epsilon: float) -> Shared:
    """Factors of one block, or the block where they are too far off or no smaller."""
    ((name, coefficients),) = alone.members.items()
    off = error(coefficients.square().sum(), block.double().square().sum())
    return Shared(None, {name: block.double()}) if off > epsilon or stored(alone) >= block.numel() else alone


def _square(block: Tensor) -> float:
    return float(block.double().square().sum())


def separate(blocks: Mapping[str, Tensor], numbers: int) -> dict[str, float]:
    """Σσ² that decompositions of each block for itself lose, by name, where they hold `numbers` numbers in all: the
    singular values that gain most for each number they cost come first."""
    worth = [
        (float(square) / sum(block.shape), name)
        for name, block in blocks.items()
        for square in torch.linalg.svdvals(block.double()).square()
    ]
    lost = {name: _square(block) for name, block in blocks.items()}
    for each, name in sorted(worth, reverse=True):
        cost = sum(blocks[name].shape)
        if cost <= numbers:
            numbers -= cost
            lost[name] -= each * cost
    return {name: max(0.0, value) for name, value in lost.items()}


class ConcatenatedSVD(ModelMethod):
    """rank: r of every basis; None for `ratio` times the dimension it is a basis of. epsilon: ε, of a cluster's
    relative error. side: what layers share. bound: which one decides. order: in which layers are tried. targets,
    exclude: which layers, as fisherexp.adapters has it; of them the linear and convolutional ones.

    outcome: clusters; numbers stored, of how many; by layer the relative error, and that of a decomposition of its own
    where those of all layers hold as many numbers. Metrics: stored_share (%), relative_error and separate_error of all
    layers, shared_layers.
    """

    paper = "arXiv 2601.11626"
    start = "source"
    epochs = 0
    headings = {
        "stored_share": "stored %",
        "relative_error": "relative\nerror",
        "separate_error": "of separate\nfactors",
        "shared_layers": "layers\nshared",
    }
    counts_with = {  # of two layers none has a choice
        "rank": {"rank": 3},
        "bound": {"/model": "vit_tiny", "/model.depth": 2, "/model.heads": 2, "rank": 4, "epsilon": 0.72},
        "order": {"/model": "vit_tiny", "/model.depth": 2, "/model.heads": 2},
        "targets": {"/model": "vit_tiny", "/model.depth": 2, "/model.heads": 2, "targets": "mlp"},
    }
    better = {"stored_share": "lower", "relative_error": "lower"}

    def __init__(
        self,
        model: nn.Module,
        rank: Count | None,
        ratio: Positive,
        epsilon: Probability,
        side: Literal["out", "in"],
        bound: Literal["incremental", "residual", "norm"],
        order: Literal["residual", "norm"],
        targets: Pattern = ".",
        exclude: Pattern | None = "^head$",
    ) -> None:
        super().__init__(model)
        self.rank, self.ratio, self.epsilon = rank, ratio, epsilon
        self.side, self.bound, self.order = side, bound, order
        meant = {name: model.get_submodule(name) for name in layer_names(model, targets, exclude)}
        self.layers = {name: layer for name, layer in meant.items() if is_factorizable(layer)}
        if not self.layers:
            raise ValueError(f"no linear or convolutional layer is among the method's targets: {', '.join(meant)}")
        refuse_shared(model, list(self.layers))
        self.parts: list[Shared] = []

    def blocks(self) -> dict[str, Tensor]:
        """The matrices that are set side by side, by layer name."""
        matrices = {name: layer.weight.detach().flatten(1).clone() for name, layer in self.layers.items()}
        return matrices if self.side == "out" else {name: matrix.T for name, matrix in matrices.items()}

    @torch.no_grad()
    def source_loaded(self) -> None:
        blocks = self.blocks()
        sizes = {len(block) for block in blocks.values()}
        ranks = {m: min(m, self.rank or max(1, int(self.ratio * m))) for m in sizes}
        self.parts = share(blocks, ranks, self.epsilon, self.bound, self.order)
        numbers = sum(map(stored, self.parts))
        apart = separate(blocks, numbers)
        layers, lost = {}, {}
        for number, (basis, members) in enumerate(self.parts):
            for name, coefficients in members.items():
                block = blocks[name].double()
                new = coefficients if basis is None else basis @ coefficients
                size, lost[name] = _square(block), _square(block - new)
                layers[name] = {
                    "cluster": number,
                    "rank": None if basis is None else basis.shape[1],
                    "relative_error": (lost[name] / size) ** 0.5 if size else 0.0,
                    "separate_error": (apart[name] / size) ** 0.5 if size else 0.0,
                }
                weight = self.layers[name].weight
                weight.copy_((new if self.side == "out" else new.T).view_as(weight))
        total, size = (
            sum(block.numel() for block in blocks.values()),
            sum(float(b.double().square().sum()) for b in blocks.values()),
        )
        self.outcome = {
            "weights": total,
            "stored": numbers,
            "clusters": [list(part.members) for part in self.parts],
            "layers": {name: layers[name] for name in blocks},
            "metrics": {
                "stored_share": 100 * numbers / total,
                "relative_error": (sum(lost.values()) / size) ** 0.5,
                "separate_error": (sum(apart.values()) / size) ** 0.5,
                "shared_layers": sum(len(part.members) for part in self.parts if len(part.members) > 1),
            },
        }

    def leave_files(self, folder: Path) -> None:
        """concatenated_svd.csv and .png, .pdf: errors by layer. shared_factors.safetensors: <cluster>.basis and
        <layer>.coefficients, in float32."""
        layers = self.outcome["layers"]
        tensors = {f"{number}.basis": part.basis for number, part in enumerate(self.parts) if part.basis is not None}
        tensors |= {f"{name}.coefficients": t for part in self.parts for name, t in part.members.items()}
        tensors = {name: tensor.float().cpu().contiguous() for name, tensor in tensors.items()}
        if tensors:
            write_atomically(folder / "shared_factors.safetensors", lambda temporary: save_file(tensors, temporary))
        write_text(folder / "concatenated_svd.csv", table(layers))
        draw(layers, folder / "concatenated_svd")


def table(layers: Mapping[str, Mapping[str, Any]]) -> str:
    """As CSV, a row for each layer."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["layer", "cluster", "rank", "relative_error", "separate_error"])
    for name, layer in layers.items():
        errors = [f"{layer[key]:.6g}" for key in ("relative_error", "separate_error")]
        writer.writerow([name, layer["cluster"], layer["rank"] or "", *errors])
    return text.getvalue()
