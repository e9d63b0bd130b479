"""A linear layer of two branches in the place of a dense one: low-rank factors and a few dense columns (LOST).

    y = γ B φ(A x) + (1 - γ) W_s x_I + b,   φ = SiLU or the identity

Of the weight W = U S Vᵀ (m, n) the layer begins with: B (m, r) = U_r √S_r, A (r, n) = √S_r V_rᵀ; I are the columns of
the rest W - B A with the largest norm, and W_s (m, |I|) those columns of the rest, or of W. Because of φ it is no
weight matrix and cannot be merged into one.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.adapters import layer_names
from fisherexp.adapters.singular import singular_triplets

Values = Literal["rest", "weight"]


def low_rank_and_columns(
    weight: Tensor, rank: int, columns: int, values: Values = "rest"
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """B (m, r), A (r, n), I (k,) in rising order and W_s (m, k) of a weight (m, n) and k = `columns`, see above."""
    left, singular, right = singular_triplets(weight, slice(rank), rank)
    up, down = left * singular.sqrt(), singular.sqrt()[:, None] * right
    rest = weight - up @ down
    chosen = rest.norm(dim=0).topk(columns).indices.sort().values
    return up, down, chosen, (rest if values == "rest" else weight)[:, chosen]


class LostLinear(nn.Module):
    """layer: whose weight it begins with. rank: r. share: of the columns that are dense, |I| = share · n, rounded and
    at least one; 0 for none. gamma: γ. activation: φ. values: of W_s.

    Has r (m + n) + |I| m numbers and a bias if the layer has one. Raises ValueError for a rank outside 1 … min(m, n).
    """

    def __init__(
        self,
        layer: nn.Linear,
        rank: int,
        share: float,
        gamma: float,
        activation: Literal["silu", "none"] = "silu",
        values: Values = "rest",
    ) -> None:
        super().__init__()
        count = max(1, round(share * layer.in_features)) if share else 0
        up, down, chosen, dense = low_rank_and_columns(layer.weight.detach(), rank, count, values)
        self.gamma, self.activation = gamma, activation
        self.up, self.down, self.dense = nn.Parameter(up), nn.Parameter(down), nn.Parameter(dense.clone())
        self.register_buffer("columns", chosen)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        inner = F.linear(x, self.down)
        low = F.linear(F.silu(inner) if self.activation == "silu" else inner, self.up)
        dense = F.linear(x[..., self.columns], self.dense)
        out = self.gamma * low + (1 - self.gamma) * dense
        return out if self.bias is None else out + self.bias


def replace_linear(model: nn.Module, targets: str | list[str], exclude: str | None, **options: object) -> list[str]:
    """Put a LostLinear with these options in the place of each linear layer that is meant, in place; returns their
    names. targets, exclude: as for fisherexp.adapters.layer_names.

    Raises ValueError for layers that are not linear, in one line; the model is then as it was.
    """
    names = layer_names(model, targets, exclude)
    if others := [name for name in names if not isinstance(model.get_submodule(name), nn.Linear)]:
        raise ValueError(f"LOST is for linear layers alone, not for {', '.join(others)}; nearest: targets=linear")
    made = {name: LostLinear(model.get_submodule(name), **options) for name in names}
    for name, layer in made.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)
    return names
