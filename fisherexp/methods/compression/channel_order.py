"""Which channels inside a transformer's layer matter, and how they are put in order without a change of its outputs.

    feed-forward     h = act(U x),  y = D h:      order by the ridge leverage  diag(C (C + λ I)⁻¹),  C = E[h hᵀ]
    value, output    y = Σ_g O_g V x:             V ← Eᵀ V,  O_g ← O_g E⁻¹, so that a channel's part of y falls
    query, key       (q_i, k_i) of one place:     order by √E q_i² · √E k_i²

UniQL, arXiv 2512.03383. For values the paper takes the SVDs of C^½ V and of what is left times O; together they are the
principal directions of O V x, which is what is computed here, over all query heads that share V. What is cut from the
end of a sorted layer is what matters least.
"""

import torch
from torch import Tensor, nn

from fisherexp.quantization import matrix, set_matrix


def full(moment: Tensor) -> Tensor:
    """E[x xᵀ] (m, m) in float64, of itself or of its diagonal (m,)."""
    return torch.diag(moment.double()) if moment.dim() == 1 else moment.double()


def ridge_leverage(moment: Tensor, ridge: float) -> Tensor:
    """Scores (m,) within [0, 1] of E[h hᵀ] (m, m). λ is `ridge` times the mean of its diagonal; they sum up to the
    effective dimension. Zeros where there are no activations."""
    moment = full(moment)
    if not moment.any():
        return moment.diagonal().clone()
    penalty = ridge * moment.diagonal().mean() * torch.eye(len(moment)).to(moment)
    return torch.linalg.solve(moment + penalty, moment).diagonal()


def principal_basis(value: Tensor, outputs: Tensor, moment: Tensor) -> tuple[Tensor, Tensor]:
    """V' (d, m) and O' (g, n, d) with O'_g V' = O_g V, of V (d, m), O (g, n, d) and E[x xᵀ] (m, m), float64.

    Columns of O' put one below the other are orthonormal, all scale is in V', and E‖O' V' x‖² falls from channel to
    channel, as fast as it can.
    """
    value, outputs = value.double(), outputs.double()
    basis, triangle = torch.linalg.qr(outputs.flatten(0, 1))
    narrow = triangle @ value
    directions = torch.linalg.eigh(narrow @ full(moment) @ narrow.T).eigenvectors.flip(1)
    return directions.T @ narrow, (basis @ directions).view_as(outputs)


def pair_scores(query: Tensor, key: Tensor, rotary: bool) -> Tensor:
    """Scores (K, p) of channels, or of pairs that are turned together, of E q² (H, d) and E k² (K, d) by head.

    Query heads that share a key count together. A turn leaves the sum over a pair as it is, so that no position has to
    be known.
    """
    query = query.unflatten(0, (len(key), -1)).sum(1)
    if rotary:
        query, key = (each.unflatten(1, (2, -1)).sum(1) for each in (query, key))
    return (query * key).sqrt()


def layer_shares(similarity: Tensor, epsilon: float) -> Tensor:
    """How much is cut of each layer, relative to the mean, (L,): L softmax(-(1 - similarity) / ε).

    similarity (L,): cosine of what goes into a layer and what comes out.
    """
    return len(similarity) * torch.softmax(-(1 - similarity.double()) / epsilon, 0)


@torch.no_grad()
def permute_hidden(ups: list[nn.Module], down: nn.Module, order: Tensor) -> None:
    """Put the units between two layers in an order (h,)."""
    for layer in ups:
        set_matrix(layer, matrix(layer)[order].clone())
        if layer.bias is not None:
            layer.bias.copy_(layer.bias[order].clone())
    set_matrix(down, matrix(down)[:, order].clone())


@torch.no_grad()
def fold_value_bias(value: nn.Module, output: nn.Module, heads: int, key_heads: int) -> None:
    """Move what the values' bias adds to the heads' outputs into the output's bias, where both have one.

    What a head attends with adds up to one, so the outputs stay, and no channel that is cut takes a constant with it.
    """
    if value.bias is None or output.bias is None:
        return
    of_heads = value.bias.double().unflatten(0, (key_heads, -1)).repeat_interleave(heads // key_heads, 0)
    output.bias.add_((matrix(output).double() @ of_heads.flatten()).to(output.bias.dtype))
    value.bias.zero_()


@torch.no_grad()
def rotate_values(value: nn.Module, output: nn.Module, heads: int, key_heads: int, moment: Tensor) -> None:
    """Give each head the channels of `principal_basis`, its bias as well."""
    values = matrix(value).double().unflatten(0, (key_heads, -1))
    outputs = matrix(output).double().T.unflatten(0, (key_heads, heads // key_heads, -1)).transpose(-1, -2)
    made = [principal_basis(v, o, moment) for v, o in zip(values, outputs, strict=True)]
    if value.bias is not None:
        biases = value.bias.double().unflatten(0, (key_heads, -1))
        # O'ᵀ O' = 1 over all query heads of one value.
        moved = [torch.einsum("gnd,gne,e->d", new, o, b) for (_, new), o, b in zip(made, outputs, biases, strict=True)]
        value.bias.copy_(torch.cat(moved))
    set_matrix(value, torch.cat([v for v, _ in made]))
    turned = torch.stack([o for _, o in made]).transpose(-1, -2).flatten(0, 2)
    set_matrix(output, turned.T)


@torch.no_grad()
def permute_values(value: nn.Module, output: nn.Module, heads: int, order: Tensor) -> None:
    """Put the channels of each value head in an order (K, d), those of the query heads that share it as well."""
    key_heads, size = order.shape
    rows = (order + size * torch.arange(key_heads, device=order.device)[:, None]).flatten()
    shared = order.repeat_interleave(heads // key_heads, 0)
    columns = (shared + size * torch.arange(heads, device=order.device)[:, None]).flatten()
    set_matrix(value, matrix(value)[rows].clone())
    if value.bias is not None:
        value.bias.copy_(value.bias[rows].clone())
    set_matrix(output, matrix(output)[:, columns].clone())
