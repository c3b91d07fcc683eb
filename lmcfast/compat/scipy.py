"""``scipy.optimize.linear_sum_assignment``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..assignment import Assignment, solve_assignment
from ..errors import CertificateError, InfeasibleError, InvalidScoresError

# Smaller side up to which scipy's own choice among several optima is found. Up to here it takes less than a millisecond
# more than any choice, and from some 30 rows on less than scipy takes (docs/compat.md).
SCIPY_TIES = 384


def linear_sum_assignment(cost_matrix: Any, maximize: bool = False) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Solves the linear sum assignment problem, exactly.

    Args:
        cost_matrix: (n, m), anything that ``np.asarray`` turns into real numbers. ``inf`` (maximising: ``-inf``)
            forbids a pair.
        maximize: the largest sum instead of the smallest.

    Returns:
        ``(row_ind, col_ind)``, int64, of length min(n, m), rows sorted. Where several assignments are optimal, scipy's
        own choice while the smaller side is at most ``SCIPY_TIES``, and at every size where all costs are equal.

    Raises:
        ValueError: "expected a matrix (2-D array), got a ... array"; "matrix contains invalid numeric entries";
            "cost matrix is infeasible".
        TypeError: entries that are not safely cast to float64.
    """
    costs = _as_costs(cost_matrix)
    maximize = bool(maximize)
    try:
        solved = _solve(costs, maximize)
    except InfeasibleError as error:
        raise ValueError("cost matrix is infeasible") from error
    except InvalidScoresError as error:
        if np.isnan(costs).any() or (costs == (np.inf if maximize else -np.inf)).any():
            raise ValueError("matrix contains invalid numeric entries") from error
        solved = _solve(costs * 2.0**-40, maximize)  # beyond the range of the prices; exact, and no decision changes
    columns = solved.columns
    if costs.shape[0] <= costs.shape[1]:
        return np.arange(costs.shape[0]), columns
    rows = np.flatnonzero(columns >= 0)
    return rows, columns[rows]


def _as_costs(cost_matrix: Any) -> NDArray[Any]:
    convert = not isinstance(cost_matrix, np.ndarray) and not hasattr(cost_matrix, "__array__")
    costs: NDArray[Any] = np.asarray(cost_matrix, dtype=np.float64 if convert else None)
    if costs.dtype.type not in (np.float32, np.float64):
        if costs.dtype.kind not in "biu" and not np.can_cast(costs.dtype, np.float64):
            raise TypeError(
                f"Cannot cast array data from {costs.dtype!r} to dtype('float64') according to the rule 'safe'"
            )
        costs = costs.astype(np.float64)
    if costs.ndim != 2:
        raise ValueError(f"expected a matrix (2-D array), got a {costs.ndim} array")
    return costs


def _solve(costs: NDArray[Any], maximize: bool) -> Assignment:
    if min(costs.shape) <= SCIPY_TIES or _is_constant(costs):
        try:
            return solve_assignment(costs, maximize=maximize, ties="scipy")
        except CertificateError:  # rounding in scipy's order of sums has cost the optimum
            pass
    return solve_assignment(costs, maximize=maximize)


def _is_constant(costs: NDArray[Any]) -> bool:
    first = costs[0, 0]
    return bool((costs[0] == first).all() and (costs == first).all())
