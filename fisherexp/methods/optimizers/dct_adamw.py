"""DCT-AdamW: Adam on the rows of largest norm that each gradient matrix has in a fixed cosine basis; no SVD.

    C = B G + E,   s = the r rows of C of largest norm,   W ← W - η Bₛᵀ Adam(Cₛ),   E = C without the rows s

arXiv 2505.17967. G is turned so that B acts on its shorter side, of length n; B holds an orthonormal basis of it, one
vector a row, and is the same for all matrices of that side, so that of a subspace only r indices are kept. E, the part
that no step has seen, is optional (error feedback). The authors keep it outside the basis; here it stays inside, which
is the same up to rounding and one product less. Indices are sorted, and with a new subspace (every T steps) the moments
of a row that is chosen again stay with it, those of a new one begin at zero: their optional rotation, without which
moments mix directions. As in the authors' code, weight decay comes before the step, a kernel of a convolution is one
matrix with its outputs as rows, and vectors and matrices with a side of 32,000 and more take plain AdamW steps.
With r = n it is AdamW on B W, which is AdamW itself for the identity basis alone.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, Positive
from fisherexp.methods.optimizers.cosine_basis import Basis, basis_rows, dct2, dct3
from fisherexp.methods.optimizers.galore import adam_direction
from fisherexp.methods.optimizers.passes import PassByPass

Feedback = Literal["none", "exact", "int8"]
FAST = {"dct2": dct2, "dct3": dct3}
LARGEST = 32_000  # sides from here on, those of vocabularies, are left to AdamW


def largest_rows(rows: Tensor, count: int, norm: int) -> Tensor:
    """Sorted indices, at most `count`, of the rows of largest ℓ1 or ℓ2 norm of a matrix (n, m)."""
    norms = torch.linalg.vector_norm(rows, norm, dim=1)
    return norms.topk(min(count, len(norms))).indices.sort().values


def carried_over(kept: Tensor, before: Tensor, after: Tensor, n: int) -> Tensor:
    """Rows (r, m) that belong to the indices `before`, for the indices `after`, all below n: zeros for new ones."""
    place = torch.full((n,), len(before), device=kept.device)
    place[before] = torch.arange(len(before), device=kept.device)
    return torch.cat([kept, kept.new_zeros(1, kept.shape[1])])[place[after]]


def quantized(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows as whole numbers in one byte each, and the step of each row: its largest magnitude over 127."""
    step = rows.abs().amax(1, keepdim=True) / 127
    return (rows / step.clamp_min(torch.finfo(rows.dtype).tiny)).round().to(torch.int8), step


class DCTAdamW(torch.optim.Optimizer):
    """rank: r. every: T. basis: see `basis_rows`. norm: 1 | 2, by which rows are chosen. fast: dct2 and dct3 by the
    FFT instead of a product. rotate: moments stay with their rows. error_feedback: none, E in the weights' precision,
    or in one byte a number. weight_decay: decoupled.

    State of an n×m matrix, n the shorter side: 2·r·m moments and r indices instead of Adam's 2·n·m; E besides.
    Raises ValueError for fast with another basis.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        rank: int,
        every: int = 1,
        basis: Basis = "dct2",
        norm: int = 1,
        fast: bool = False,
        rotate: bool = True,
        error_feedback: Feedback = "none",
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if fast and basis not in FAST:
            raise ValueError(f"fast: there is no fast transform to basis={basis}, only to {' and '.join(FAST)}")
        options = {"rank": rank, "every": every, "basis": basis, "norm": norm, "fast": fast, "rotate": rotate}
        options |= {"error_feedback": error_feedback, "eps": eps}
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, **options})
        self.bases: dict[tuple[str, int], Tensor] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step from the gradients at hand."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(self._direction(parameter, group), alpha=group["lr"])
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state. Indices and bytes stay whole numbers, to which torch gives the parameters' precision."""
        super().load_state_dict(state_dict)
        parameters = [p for group in self.param_groups for p in group["params"]]
        for number, saved in state_dict["state"].items():
            whole = {n: t for n, t in saved.items() if isinstance(t, Tensor) and not t.is_floating_point()}
            self.state[parameters[number]] |= {n: t.to(parameters[number].device) for n, t in whole.items()}

    def _direction(self, parameter: nn.Parameter, group: dict[str, Any]) -> Tensor:
        state, gradient = self.state[parameter], parameter.grad
        state["step"] = state.get("step", 0) + 1
        if gradient.ndim < 2 or max(gradient.shape) >= LARGEST:
            return adam_direction(state, gradient, group["eps"])
        matrix = gradient.flatten(1)
        tall = len(matrix) > matrix.shape[1]
        rows = self._coordinates(matrix.mT if tall else matrix, group)
        if group["error_feedback"] != "none":
            rows = self._with_feedback(state, rows)
        self._choose(state, rows, group)
        chosen = state["indices"]
        if group["error_feedback"] != "none":
            self._keep_error(state, rows.index_fill(0, chosen, 0), group["error_feedback"])
        low = adam_direction(state, rows[chosen], group["eps"])
        basis = self._basis(group, len(rows), low)[chosen]
        return (low.mT @ basis if tall else basis.mT @ low).view_as(gradient)

    def _choose(self, state: dict[str, Any], rows: Tensor, group: dict[str, Any]) -> None:
        """The indices of this step; anew at the first and whenever `every` divides the number of the step."""
        if "indices" in state and state["step"] % group["every"]:
            return
        before, state["indices"] = state.get("indices"), largest_rows(rows, group["rank"], group["norm"])
        if before is not None and group["rotate"] and not torch.equal(before, state["indices"]):
            for name in ("first", "second"):
                state[name] = carried_over(state[name], before, state["indices"], len(rows))

    def _coordinates(self, matrix: Tensor, group: dict[str, Any]) -> Tensor:
        if group["fast"]:
            return FAST[group["basis"]](matrix)
        return self._basis(group, len(matrix), matrix) @ matrix

    def _basis(self, group: dict[str, Any], n: int, like: Tensor) -> Tensor:
        """Made once for each length."""
        key = (group["basis"], n)
        found = self.bases.get(key)
        if found is None or found.dtype != like.dtype or found.device != like.device:
            found = self.bases[key] = basis_rows(group["basis"], n, like)
        return found

    @staticmethod
    def _with_feedback(state: dict[str, Any], rows: Tensor) -> Tensor:
        if "error" not in state:
            return rows
        return rows + (state["error"] * state["error_step"] if "error_step" in state else state["error"])

    @staticmethod
    def _keep_error(state: dict[str, Any], error: Tensor, kind: Feedback) -> None:
        if kind == "int8":
            state["error"], state["error_step"] = quantized(error)
        else:
            state["error"] = error


class DCT(PassByPass):
    """rank: r. every: T. Options: as of DCTAdamW; eps: Adam's ε. Further options: see PassByPass."""

    name = "dct_adamw"
    paper = "arXiv 2505.17967, ICLR 2026"
    search = {"lr": "tag(log, interval(0.001, 0.1))"}

    def __init__(
        self,
        model: nn.Module,
        rank: Count,
        every: Count,
        basis: Literal["dct2", "dct3", "random", "identity"],
        norm: Literal[1, 2],
        fast: bool,
        rotate: bool,
        error_feedback: Literal["none", "exact", "int8"],
        eps: Positive,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        chosen = {"basis": basis, "norm": norm, "fast": fast, "rotate": rotate, "error_feedback": error_feedback}
        self.options = {"rank": rank, "every": every, "eps": eps, **chosen}

    def optimizer(self, parameters: list[nn.Parameter]) -> DCTAdamW:
        return DCTAdamW(parameters, self.lr, weight_decay=self.weight_decay, **self.options)
