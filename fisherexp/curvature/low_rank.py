"""Low-rank Fisher: products, solves and entries of F = G^T G / m from m stored gradients.

M-FAC (Frantar, Kurtic, Alistarh 2021, arXiv 2107.03356) answers the same queries by a recursion over the
gradients, m^2 d operations one vector after another. Woodbury's identity gives the same numbers from one
Gram product and one m x m Cholesky factor, with damping lambda and K = m lambda I + G G^T:

    (F + lambda I)^-1 x = (x - G^T K^-1 G x) / lambda,        (F + lambda I)^-1 G^T a = m G^T K^-1 a.

G keeps its own precision (float32 as a rule); the m x m algebra is float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from .diagonal import Estimator
from .matrix import CurvatureMatrix, positive
from .mean_loss import Loss, loss_of_batch
from .products import evaluation, trainable_parameters
from .rows import combined, long_columns, row_gram, rows_times, short_columns
from .vectors import Vector, ravel, unravel


class LowRankFisher(CurvatureMatrix):
    """F = G^T G / divisor for gradients G (m, d), one per row. Solves add a damping, whose factor is kept.

    Args:
        gradients: (m, d). Kept, not copied, being the largest object in play; ``replace_row`` writes to it.
        divisor: what G^T G is divided by; the number of rows by default, also while rows are still zero
            (M-FAC counts the window's capacity: its early F is too small and its early steps are too long).
        gram, cursor: attributes of an earlier instance, to resume from them without recomputing.
        estimator: which gradients the rows are, where that is known.
        shapes: of the parameters by name, in the order of the columns: vectors may then be given by name.

    Cost: construction reads G once and takes 2 m^2 d operations or fewer; ``matvec`` and ``solve`` read G
    twice, ``solve_rows`` and ``replace_row`` once.

    Raises:
        ValueError: shapes or divisor are impossible, or a gradient holds NaN or infinity.
    """

    def __init__(
        self,
        gradients: Tensor,
        *,
        divisor: float | None = None,
        gram: Tensor | None = None,
        cursor: int = 0,
        estimator: Estimator | None = None,
        shapes: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        if gradients.ndim != 2 or gradients.numel() == 0 or not gradients.is_floating_point():
            raise ValueError(f"gradients must be a floating (m, d) matrix, got {tuple(gradients.shape)}")
        self.divisor = float(divisor if divisor is not None else len(gradients))
        if not self.divisor > 0:
            raise ValueError(f"divisor must be positive, got {divisor}")
        self.gradients = gradients
        self.gram = row_gram(gradients) if gram is None else gram
        self.cursor, self.estimator = cursor, estimator
        self.shapes = None if shapes is None else {name: torch.Size(shape) for name, shape in shapes.items()}
        if self.shapes is not None and sum(map(prod, self.shapes.values())) != gradients.shape[1]:
            raise ValueError(
                f"shapes of {sum(map(prod, self.shapes.values()))} entries for {gradients.shape[1]} columns"
            )
        self._factor: tuple[float, Tensor] | None = None
        bad = (~self.gram.diagonal().isfinite()).nonzero().flatten().tolist()
        if bad:
            raise ValueError(f"gradient rows {bad[:8]} hold NaN or infinity, or overflow when squared")

    @classmethod
    def empty(
        cls,
        capacity: int,
        dim: int,
        *,
        divisor: float | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> LowRankFisher:
        """A window of ``capacity`` zero rows, to be filled by :meth:`replace_row`; starts as F = 0."""
        rows = torch.zeros(capacity, dim, dtype=dtype, device=device)
        gram = torch.zeros(capacity, capacity, dtype=torch.float64, device=device)
        return cls(rows, divisor=divisor, gram=gram)

    @classmethod
    def from_batches(
        cls,
        batches: Iterable[Tensor | Mapping[str, Tensor]],
        *,
        divisor: float | None = None,
    ) -> LowRankFisher:
        """Collects gradients: each item is (b, d), one flat (d,), or one gradient by parameter name."""
        rows = [ravel(part) if isinstance(part, Mapping) else part for part in batches]
        if not rows:
            raise ValueError("no gradients: the iterable of batches is empty")
        return cls(torch.cat([torch.atleast_2d(part) for part in rows]), divisor=divisor)

    @property
    def like(self) -> Vector:
        """A row: by name if the shapes of the parameters are known."""
        row = self.gradients[0]
        if self.shapes is None:
            return row
        return {name: row.new_zeros(()).expand(shape) for name, shape in self.shapes.items()}

    def matvec(self, vector: Vector) -> Vector:
        """F x for x flat (d,), several as columns (d, k), or by name. Raises ValueError for one that does not fit."""
        x = self._columns_of(vector)
        return self._in_form(vector, combined(rows_times(self.gradients, x) / self.divisor, self.gradients))

    def solve(self, vector: Vector, damping: float) -> Vector:
        """(F + damping I)^-1 x for x flat (d,), several as columns (d, k), or by name.

        The difference loses digits when x lies in the span of the rows and they are much longer than
        sqrt(m damping); for combinations of stored rows :meth:`solve_rows` has no difference to take.

        Raises:
            ValueError: a vector that does not fit, or a damping that is not positive.
            FloatingPointError: the damping is below the rounding of the gradients' inner products.
        """
        damping, x = positive(damping), self._columns_of(vector)
        inside = self._solve_gram(rows_times(self.gradients, x), damping)
        return self._in_form(vector, (x - combined(inside, self.gradients)) / damping)

    def solve_rows(self, coefficients: Tensor, damping: float) -> Tensor:
        """(F + damping I)^-1 G^T a for a (m,), flat (d,): exact to rounding and one read of G.

        A one-hot ``a`` preconditions one stored gradient, as the M-FAC optimizer does with its newest.
        """
        inside = self._solve_gram(coefficients.to(self.gram), positive(damping))
        return combined(self.divisor * inside, self.gradients)

    def diagonal(self) -> Tensor:
        """Diagonal of F, (d,)."""
        columns = long_columns(self.gradients)
        return torch.cat([c.square().sum(dim=0) for c in columns]) / self.divisor

    def trace(self) -> Tensor:
        """Σ of the diagonal, a scalar in float64: that of the Gram matrix."""
        return self.gram.trace() / self.divisor

    def element(self, i: int, j: int) -> float:
        """F[i, j], a float."""
        return torch.dot(*self._columns(i, j)).item() / self.divisor

    def inverse_element(self, i: int, j: int, damping: float) -> float:
        """(F + damping I)^-1[i, j], a float; m^2 operations once the factor exists."""
        damping, (left, right) = positive(damping), self._columns(i, j)
        inner = torch.dot(left, self._solve_gram(right, damping)).item()
        return ((i % self.dim == j % self.dim) - inner) / damping

    def inverse_diagonal(self, damping: float) -> Tensor:
        """Diagonal of (F + lambda I)^-1, (d,), lambda the damping. All positive.

        With K = L L^T it is (1 - column sums of (L^-1 G)^2) / lambda.

        Takes the Gram product again in float64: entries of heavily used coordinates are a small difference
        from one, and a float32 Gram product would decide their sign.

        Raises:
            FloatingPointError: an entry is not positive, because lambda is below float64's rounding of G G^T.
        """
        damping = positive(damping)
        factor = self._cholesky(row_gram(self.gradients, torch.float64), damping)
        parts = []
        for columns in short_columns(self.gradients):
            whitened = torch.linalg.solve_triangular(factor, columns.to(factor), upper=False)
            parts.append(1 - whitened.square().sum(dim=0))
        inverse = torch.cat(parts) / damping
        if not bool((inverse > 0).all()):
            raise FloatingPointError(
                f"the inverse diagonal lost its sign to rounding (min {inverse.min().item():.1e}): "
                f"raise damping={damping:g}"
            )
        return inverse.to(self.gradients)

    def replace_row(self, gradient: Tensor) -> int:
        """Overwrites the oldest row (ring buffer) and its row of the Gram matrix; returns the row's index.

        Raises:
            ValueError: the gradient is not (d,), or holds NaN or infinity; F is then unchanged.
        """
        if gradient.shape != (self.dim,):
            raise ValueError(f"expected a gradient ({self.dim},), got {tuple(gradient.shape)}")
        if not bool(gradient.isfinite().all()):
            raise ValueError("the gradient holds NaN or infinity")
        index = self.cursor
        self.gradients[index] = gradient
        self.gram[index] = rows_times(self.gradients, self.gradients[index])
        self.gram[:, index] = self.gram[index]
        self.cursor = (index + 1) % len(self.gradients)
        self._factor = None
        return index

    def tensors(self) -> dict[str, Tensor]:
        """Gradients (m, d) and Gram matrix (m, m): with `about`, all there is to store."""
        return {"gradients": self.gradients, "gram": self.gram}

    def about(self) -> dict[str, Any]:
        """Everything else, in plain containers."""
        estimator = None if self.estimator is None else asdict(self.estimator)
        shapes = None if self.shapes is None else {name: list(shape) for name, shape in self.shapes.items()}
        return {"estimator": estimator, "divisor": self.divisor, "cursor": self.cursor, "shapes": shapes}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> LowRankFisher:
        """From what `tensors` and `about` gave; nothing is computed."""
        estimator = None if about["estimator"] is None else Estimator(**about["estimator"])
        options = {name: about[name] for name in ("divisor", "cursor", "shapes")}
        return cls(tensors["gradients"], gram=tensors["gram"], estimator=estimator, **options)

    def _columns_of(self, vector: Vector) -> Tensor:
        """The vector flat (d,), or several (d, k)."""
        if isinstance(vector, Tensor) and vector.dim() == 2 and len(vector) == self.dim:
            return vector
        return self.flat(vector)

    def _in_form(self, vector: Vector, flat: Tensor) -> Vector:
        return flat if isinstance(vector, Tensor) else unravel(flat, self.like)

    def _columns(self, i: int, j: int) -> tuple[Tensor, Tensor]:
        return self.gradients[:, i].to(self.gram), self.gradients[:, j].to(self.gram)

    def _solve_gram(self, rhs: Tensor, damping: float) -> Tensor:
        """K^-1 rhs in float64, factorized at the first solve after a change, of the gradients or of the damping."""
        if self._factor is None or self._factor[0] != damping:
            self._factor = damping, self._cholesky(self.gram, damping)
        solution = torch.cholesky_solve(rhs.reshape(len(rhs), -1), self._factor[1])
        return solution.reshape(rhs.shape)

    def _cholesky(self, gram: Tensor, damping: float) -> Tensor:
        factor, info = torch.linalg.cholesky_ex(gram + self.divisor * damping * torch.eye(len(gram)).to(gram))
        if info.item():
            raise FloatingPointError(
                f"m lambda I + G G^T is not positive definite: damping={damping:g} is below the "
                "rounding of the gradients' inner products; raise damping or pass float64 gradients"
            )
        return factor


def batch_gradients(
    model: nn.Module, loss: Loss, batches: Iterable[Any], parameters: Iterable[str] | None = None
) -> Iterator[Tensor]:
    """Yields the flat gradient (d,) of each batch's mean loss: the rows M-FAC stores.

    Batches of one sample give per-sample gradients. Model, loss, batches and ``parameters`` as in
    ``products``; eval mode, the model's buffers and ``.grad`` unchanged.
    """
    chosen = trainable_parameters(model, parameters)
    for batch in batches:
        with evaluation(model, chosen):
            value, _ = loss_of_batch(model, loss, batch)
            grads = torch.autograd.grad(value, list(chosen.values()), allow_unused=True, materialize_grads=True)
        yield ravel(dict(zip(chosen, grads, strict=True)))
