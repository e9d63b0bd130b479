"""Which matrix gets which of several storage formats, under a budget of bits: an integer programme.

    min Σ_ic X_ic cost_ic   under   Σ_c X_ic = 1,   Σ_ic X_ic size_c n_i ≤ budget Σ_i n_i,   X_ic ∈ {0, 1}

Guo et al., ICLR 2024, arXiv 2311.12023; solved by SciPy's HiGHS.
"""

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp


def assign(costs: np.ndarray, weights: np.ndarray, sizes: np.ndarray, budget: float | None) -> list[int]:
    """The format of each matrix. costs (I, C); weights (I,): numbers of weights; sizes (C,): bits per weight.

    budget: mean bits per weight; None for no bound. Raises ValueError where even the smallest formats exceed it.
    """
    costs = np.asarray(costs, dtype=float)
    matrices, formats = costs.shape
    if budget is None:
        return costs.argmin(axis=1).tolist()
    if budget < min(sizes):
        raise ValueError(f"a budget of {budget:g} bits per weight is below the smallest format's {min(sizes):.3f}")
    stored = np.outer(weights, sizes).ravel() / np.sum(weights)
    once = np.kron(np.eye(matrices), np.ones(formats))
    found = milp(
        costs.ravel() / max(costs.max(), np.finfo(float).tiny),
        integrality=np.ones(matrices * formats),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(once, 1, 1), LinearConstraint(stored, -np.inf, budget)],
    )
    if found.x is None:
        raise RuntimeError(f"no assignment of formats was found: {found.message}")
    return found.x.reshape(matrices, formats).argmax(axis=1).tolist()
