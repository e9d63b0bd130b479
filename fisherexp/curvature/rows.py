"""Products with a matrix of gradients G (m, d), m far below d: exact enough for small damping, and fast on CPUs."""

import torch
from torch import Tensor

# Columns summed in G's precision before the sum moves to float64: few in a Gram product, whose digits a small
# lambda needs; many in matrix-vector products, which would lose memory bandwidth to short rows.
GRAM_COLUMNS, VECTOR_COLUMNS = 4096, 262_144


def short_columns(rows: Tensor) -> tuple[Tensor, ...]:
    """G in blocks of few columns (m, c), for Gram products."""
    return rows.split(GRAM_COLUMNS, dim=1)


def long_columns(rows: Tensor) -> tuple[Tensor, ...]:
    """G in blocks of many columns (m, c), for products with vectors."""
    return rows.split(VECTOR_COLUMNS, dim=1)


def row_gram(rows: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """G G^T (m, m) in float64 for G (m, d), multiplied in ``dtype`` (G's own by default).

    Products of a few thousand columns are summed in float64, which makes a float32 product tens of times
    more accurate, and only blocks on and above the diagonal are multiplied, which makes it faster.
    """
    m = len(rows)
    gram = torch.zeros(m, m, dtype=torch.float64, device=rows.device)
    step = max(64, -(-m // 4))
    for columns in short_columns(rows):
        columns = columns.to(dtype or rows.dtype)
        for start in range(0, m, step):
            gram[start : start + step, start:] += columns[start : start + step] @ columns[start:].T
    upper = gram.triu()
    return upper + upper.triu(1).T


def rows_times(rows: Tensor, x: Tensor) -> Tensor:
    """G x in float64 for x (d,) or (d, k), partial sums in G's precision."""
    total = torch.zeros(len(rows), *x.shape[1:], dtype=torch.float64, device=rows.device)
    parts = -(-rows.shape[1] // VECTOR_COLUMNS)
    for part, coordinates in zip(rows.chunk(parts, dim=1), x.to(rows).chunk(parts), strict=True):
        total += _vector_times(coordinates, part.T) if x.ndim == 1 else part @ coordinates
    return total


def combined(coefficients: Tensor, rows: Tensor) -> Tensor:
    """G^T c in G's precision for c (m,) or (m, k)."""
    coefficients = coefficients.to(rows)
    return _vector_times(coefficients, rows) if coefficients.ndim == 1 else rows.T @ coefficients


def _vector_times(vector: Tensor, matrix: Tensor) -> Tensor:
    """vector @ matrix; on CPUs as a batch over column blocks, since one such product uses one thread only."""
    threads = torch.get_num_threads() if matrix.device.type == "cpu" else 1
    width = matrix.shape[1] // threads
    if threads == 1 or width == 0:
        return vector @ matrix
    blocks = matrix[:, : threads * width].unflatten(1, (threads, width)).transpose(0, 1)
    product = torch.bmm(vector.expand(threads, 1, -1), blocks).flatten()
    if threads * width == matrix.shape[1]:
        return product
    return torch.cat([product, vector @ matrix[:, threads * width :]])
