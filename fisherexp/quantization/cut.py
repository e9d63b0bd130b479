"""Linear layers without the rows and columns that are zero: a model that is smaller, with the same outputs."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .kept import Kept
from .stored import StoredWeight


class CutLinear(nn.Module):
    """y (…, n) = W x + b of x (…, m), where all of W (n, m) but R rows and C columns is zero.

    Only the (R, C) that are kept are held and multiplied; outputs of the other rows are zero, with their bias. They are
    there all the same, so what comes before and after the layer need not know.
    """

    rows: Tensor | None
    columns: Tensor | None

    def __init__(self, layer: nn.Linear, stored: StoredWeight) -> None:
        super().__init__()
        rows, columns = stored.parts["rows"].long(), stored.parts["columns"].long()
        kept = stored.form.values.decode(stored.parts, (len(rows), len(columns)))
        (rows, by_row), (columns, by_column) = rows.sort(), columns.sort()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight = nn.Parameter(kept[by_row][:, by_column].to(layer.weight), layer.weight.requires_grad)
        bias = None if layer.bias is None else nn.Parameter(layer.bias.detach()[rows], layer.bias.requires_grad)
        self.register_parameter("bias", bias)
        for name, places, size in (("rows", rows, self.out_features), ("columns", columns, self.in_features)):
            self.register_buffer(name, None if len(places) == size else places.to(layer.weight.device))
        self.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x if self.columns is None else x[..., self.columns], self.weight, self.bias)
        if self.rows is None:
            return y
        return y.new_zeros(*y.shape[:-1], self.out_features).index_copy(-1, self.rows, y)


@torch.no_grad()
def cut_to_size(model: nn.Module, layers: Mapping[str, StoredWeight]) -> None:
    """Exchange linear layers, by name, for what is kept of them, as method=uniql stores it (`load`). In place.

    Raises ValueError for a weight of which no rows and columns are left out.
    """
    for name, stored in layers.items():
        if not isinstance(stored.form, Kept):
            raise ValueError(f"{name} is stored whole, as {type(stored.form).__name__}: only uniql's Kept is cut")
    for name, stored in layers.items():
        model.set_submodule(name, CutLinear(model.get_submodule(name), stored))
