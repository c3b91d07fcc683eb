"""``lap``, of both projects that share the name: lap (gatagat) and lapx.

A finite ``cost_limit`` leaves a row and a column alone rather than pay more than the limit for their pair. That is the
problem whose costs are cut off at the limit, with the pairs at the limit taken out again, so no larger matrix is made.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..assignment import solve_assignment, solve_sparse_assignment
from ..errors import InfeasibleError

__all__ = [
    "FP_1", "FP_2", "FP_DYNAMIC", "LARGE",
    "lapjv", "lapjvc", "lapjvh", "lapjvh_batch", "lapjvr", "lapjvr_batch", "lapjvs", "lapjvs_batch", "lapjvsa",
    "lapjvsa_batch", "lapjvx", "lapjvx_batch", "lapjvxa", "lapjvxa_batch", "lapmod", "lapmod_batch",
]  # fmt: skip

LARGE = 1_000_000  # costs of lapmod are less
FP_1, FP_2, FP_DYNAMIC = 1, 2, 3  # ways to search for paths; the result does not depend on them

Array = NDArray[Any]
_NON_SQUARE = "Square cost array expected. If cost is intentionally non-square, pass extend_cost=True."
_NON_SQUARE_S = "extend_cost=False requires a square cost matrix"


def lapjv(cost: Any, extend_cost: bool = False, cost_limit: float = np.inf, return_cost: bool = True) -> Any:
    """Assigns rows to columns for the smallest sum.

    Args:
        cost: (n, m) real numbers; ``inf`` forbids a pair.
        extend_cost: allow n != m.
        cost_limit: pairs that cost as much or more stay unassigned; a finite one allows n != m too.
        return_cost: return the sum first.

    Returns:
        ``(opt, x, y)`` or ``(x, y)``: the column of each row and the row of each column, int32, -1 for none. Where the
        forbidden pairs leave no assignment, as few of them as possible are taken and ``opt`` is ``inf``.
    """
    costs = _matrix(cost, extend_cost or _finite(cost_limit), _NON_SQUARE)
    columns = _complete(costs, cost_limit)
    x, y = columns.astype(np.int32), _rows_of(columns, costs.shape[1]).astype(np.int32)
    return (_total(costs, columns), x, y) if return_cost else (x, y)


def lapjvx(cost: Any, extend_cost: bool = False, cost_limit: float = np.inf, return_cost: bool = True) -> Any:
    """:func:`lapjv` with ``(rows, cols)`` of the assigned pairs for ``(x, y)``; ordered by column where n > m.

    As in lapx, the indices that only count up are int64 and the others int32.
    """
    costs = _matrix(cost, extend_cost or _finite(cost_limit), _NON_SQUARE)
    columns = _complete(costs, cost_limit)
    rows, cols = _pairs(columns, costs.shape)
    made = (rows, cols.astype(np.int32)) if costs.shape[0] <= costs.shape[1] else (rows.astype(np.int32), cols)
    return (_total(costs, columns), *made) if return_cost else made


def lapjvxa(cost: Any, extend_cost: bool = False, cost_limit: float = np.inf, return_cost: bool = True) -> Any:
    """:func:`lapjvx` with pairs (k, 2), int32."""
    total, rows, cols = lapjvx(cost, extend_cost, cost_limit)
    pairs = np.stack([rows, cols], axis=1).astype(np.int32)
    return (total, pairs) if return_cost else pairs


def lapjvc(cost: Any, return_cost: bool = True) -> Any:
    """Any shape; NaN and both infinities forbid a pair. ``(opt, rows, cols)``, int32, rows sorted.

    Where the forbidden pairs leave no full assignment, as many others as possible are taken.
    """
    given = np.asarray(cost)
    if given.ndim != 2:
        raise RuntimeError("Number of dimensions must be two")
    costs = given if given.dtype.kind in "iub" else np.where(np.isfinite(given), given, np.inf)
    columns = _complete(costs, np.inf)
    columns[_picked(costs, columns) == np.inf] = -1
    rows, cols = _pairs(columns)
    pair = rows.astype(np.int32), cols.astype(np.int32)
    return (_total(costs, columns), *pair) if return_cost else pair


def lapjvs(
    cost: Any,
    extend_cost: bool | None = None,
    return_cost: bool = True,
    jvx_like: bool = True,
    prefer_float32: bool = True,
) -> Any:
    """Any shape unless ``extend_cost`` is False; int64. ``jvx_like``: ``(rows, cols)``, else ``(x, y)``.

    ``prefer_float32`` asks for a speed that needs no rounding here: the costs are used as they are.

    Raises:
        ValueError: the forbidden pairs leave no assignment.
    """
    costs = _matrix(cost, extend_cost is None or extend_cost, _NON_SQUARE_S, "cost must be a 2D array")
    columns = _required(costs, np.inf, "Cost matrix is infeasible")
    made = _pairs(columns, costs.shape) if jvx_like else (columns, _rows_of(columns, costs.shape[1]))
    return (_total(costs, columns), *made) if return_cost else made


def lapjvsa(cost: Any, extend_cost: bool | None = None, return_cost: bool = True, prefer_float32: bool = True) -> Any:
    """:func:`lapjvs` with pairs (k, 2), int64."""
    total, rows, cols = lapjvs(cost, extend_cost)
    pairs = np.stack([rows, cols], axis=1)
    return (total, pairs) if return_cost else pairs


def lapjvr(
    cost: Any,
    extend_cost: bool = False,
    cost_limit: float = np.inf,
    return_cost: bool = True,
    *,
    precision: str = "native",
    output: str = "indices",
) -> Any:
    """:func:`lapjvx` with int64 indices, rows sorted, and an error where forbidden pairs leave no assignment.

    ``precision``: "native", or "float32" or "float64" to convert the costs first (the sum is of those given);
    ``output``: "indices" or "pairs", (k, 2).
    """
    costs = _matrix(cost, extend_cost or _finite(cost_limit), _RECTANGULAR_R)
    columns = _required(_working(costs, precision, output), cost_limit, _INFEASIBLE_R)
    rows, cols = _pairs(columns)
    made = (np.stack([rows, cols], axis=1),) if output == "pairs" else (rows, cols)
    if return_cost:
        return (_total(costs, columns), *made)
    return made[0] if output == "pairs" else made


lapjvh = lapjvr

_RECTANGULAR_R = "Square cost array expected; pass extend_cost=True for rectangular costs"
_INFEASIBLE_R = "Cost matrix is infeasible or its reduced costs overflow"


def lapjvx_batch(
    costs: Any,
    extend_cost: bool = False,
    cost_limit: float = np.inf,
    return_cost: bool = True,
    n_threads: int | None = 0,
) -> Any:
    """:func:`lapjvx` of each (n, m) of (batch, n, m): ``(totals, rows, cols)``, lists of int64 arrays."""
    batch = _batch(costs, extend_cost or _finite(cost_limit), _NON_SQUARE)
    return _batch_answer(batch, _complete(batch, cost_limit, _threads(n_threads)), return_cost, pairs=False)


def lapjvxa_batch(
    costs: Any,
    extend_cost: bool = False,
    cost_limit: float = np.inf,
    return_cost: bool = True,
    n_threads: int | None = 0,
) -> Any:
    """:func:`lapjvx_batch` with a list of pairs (k, 2), int64."""
    batch = _batch(costs, extend_cost or _finite(cost_limit), _NON_SQUARE)
    return _batch_answer(batch, _complete(batch, cost_limit, _threads(n_threads)), return_cost, pairs=True)


def lapjvs_batch(
    costs: Any,
    extend_cost: bool = False,
    return_cost: bool = True,
    n_threads: int | None = 0,
    prefer_float32: bool = True,
) -> Any:
    """:func:`lapjvs` of each (n, m) of (batch, n, m): ``(totals, rows, cols)``, lists of int64 arrays."""
    batch = _batch(costs, extend_cost, _NON_SQUARE_S)
    columns = _required(batch, np.inf, "Cost matrix is infeasible", _threads(n_threads))
    return _batch_answer(batch, columns, return_cost, pairs=False)


def lapjvsa_batch(
    costs: Any,
    extend_cost: bool = False,
    return_cost: bool = True,
    n_threads: int | None = 0,
    prefer_float32: bool = True,
) -> Any:
    """:func:`lapjvs_batch` with a list of pairs (k, 2), int64."""
    batch = _batch(costs, extend_cost, _NON_SQUARE_S)
    columns = _required(batch, np.inf, "Cost matrix is infeasible", _threads(n_threads))
    return _batch_answer(batch, columns, return_cost, pairs=True)


def lapjvr_batch(
    costs: Any,
    extend_cost: bool = False,
    cost_limit: float = np.inf,
    return_cost: bool = True,
    n_threads: int | None = 0,
    *,
    precision: str = "native",
    output: str = "indices",
) -> Any:
    """:func:`lapjvr` of each (n, m) of (batch, n, m): ``(totals, rows, cols)`` or ``(totals, pairs)``, lists."""
    batch = _batch(costs, extend_cost or _finite(cost_limit), _RECTANGULAR_R)
    working = _working(batch, precision, output)
    columns = _required(working, cost_limit, _INFEASIBLE_R, _threads(n_threads))
    return _batch_answer(batch, columns, return_cost, pairs=output == "pairs", by_row=True)


lapjvh_batch = lapjvr_batch


def lapmod(
    n: int, cc: Any, ii: Any, kk: Any, fast: bool = True, return_cost: bool = True, fp_version: int = FP_DYNAMIC
) -> Any:
    """:func:`lapjv` for an (n, n) matrix of which only some pairs are allowed, given in compressed sparse rows.

    Args:
        cc: (entries,) costs, at least 0 and less than ``LARGE``.
        ii: (n + 1,) where each row begins in ``cc``.
        kk: (entries,) the columns, rising within a row.
        fast, fp_version: without effect.

    Returns:
        ``(opt, x, y)`` or ``(x, y)``, int32. Where the lists leave no assignment, as few other pairs as possible are
        taken and ``opt`` is ``inf``.
    """
    n = operator.index(n)
    values, pointers, indices = np.asarray(cc), np.asarray(ii), np.asarray(kk)
    _check_lists(n, values, pointers, indices)
    try:
        solved = solve_sparse_assignment(pointers, indices, values, (n, n), maximize=False)
        columns, opt = solved.columns, float(solved.objective)
    except InfeasibleError:
        columns, opt = _fewest_unlisted(n, values, pointers, indices), np.inf
    x, y = columns.astype(np.int32), _rows_of(columns, n).astype(np.int32)
    return (opt, x, y) if return_cost else (x, y)


def lapmod_batch(
    problems: Sequence[tuple[int, Any, Any, Any]],
    fast: bool = True,
    return_cost: bool = True,
    fp_version: int = FP_DYNAMIC,
    n_threads: int | None = 0,
) -> Any:
    """:func:`lapmod` of each ``(n, cc, ii, kk)``, one after the other: ``(totals, x, y)``, lists of int32 arrays."""
    solved = [lapmod(*problem) for problem in problems]
    x, y = [s[1] for s in solved], [s[2] for s in solved]
    return (np.array([s[0] for s in solved], dtype=np.float64), x, y) if return_cost else (x, y)


def _finite(cost_limit: float) -> bool:
    if np.isnan(cost_limit) or cost_limit == -np.inf:
        raise ValueError("cost_limit must be finite or positive infinity")
    return cost_limit < np.inf


def _matrix(cost: Any, any_shape: bool, non_square: str, non_matrix: str = "2-dimensional array expected") -> Array:
    costs = np.asarray(cost)
    if costs.ndim != 2:
        raise ValueError(non_matrix)
    if costs.shape[0] != costs.shape[1] and costs.size and not any_shape:
        raise ValueError(non_square)
    return costs


def _batch(costs: Any, any_shape: bool, non_square: str) -> Array:
    batch = np.asarray(costs)
    if batch.ndim != 3:
        raise ValueError("3-dimensional array expected [B, N, M]")
    if batch.shape[1] != batch.shape[2] and batch.size and not any_shape:
        raise ValueError(non_square)
    return batch


def _threads(n_threads: int | None) -> int | None:
    return None if not n_threads else max(1, int(n_threads))


def _working(costs: Array, precision: str, output: str) -> Array:
    if output not in ("indices", "pairs"):
        raise ValueError("output must be 'indices' or 'pairs'")
    if precision not in ("native", "float32", "float64"):
        raise ValueError("precision must be 'native', 'float32', or 'float64'")
    if costs.dtype.kind not in "fiub":
        raise TypeError("costs must contain real numeric values")
    return costs if precision == "native" else costs.astype(precision)


def _solve(costs: Array, cost_limit: float, threads: int | None = None) -> Array:
    """The column of each row, -1 for none: (n,) of (n, m), or (batch, n) of (batch, n, m)."""
    limited = cost_limit < np.inf
    solved = solve_assignment(np.minimum(costs, cost_limit) if limited else costs, maximize=False, threads=threads)
    columns: Array = solved.columns
    if limited:
        columns[_picked(costs, columns) >= cost_limit] = -1
    return columns


def _required(costs: Array, cost_limit: float, infeasible: str, threads: int | None = None) -> Array:
    try:
        return _solve(costs, cost_limit, threads)
    except InfeasibleError as error:
        where = "" if error.problem is None else f" at batch index {error.problem}"
        raise ValueError(infeasible + where) from error


def _complete(costs: Array, cost_limit: float, threads: int | None = None) -> Array:
    """As :func:`_solve`; a problem without an assignment gets one with as few forbidden pairs as possible."""
    try:
        return _solve(costs, cost_limit, threads)
    except InfeasibleError:
        if costs.ndim == 3:
            return np.stack([_complete(cost, cost_limit, threads) for cost in costs])
        allowed = costs[costs < np.inf].astype(np.float64)
        lowest, highest = allowed.min(initial=0), allowed.max(initial=0)
        instead = highest + (highest - lowest + 1) * min(costs.shape)  # dearer than all allowed pairs together
        return _solve(np.where(costs < np.inf, costs, instead), np.inf, threads)


def _fewest_unlisted(n: int, cc: Array, ii: Array, kk: Array) -> Array:
    """The same for lists: every row may also have a place of its own, dear enough; these share the columns left."""
    instead = (float(cc.max()) + 1) * n
    rows = np.arange(n)
    indices, values = np.insert(kk, ii[1:], n + rows), np.insert(cc.astype(np.float64), ii[1:], instead)
    columns = solve_sparse_assignment(ii + np.arange(n + 1), indices, values, (n, 2 * n), maximize=False).columns
    columns[columns >= n] = np.setdiff1d(rows, columns)
    result: Array = columns
    return result


def _picked(costs: Array, columns: Array) -> Array:
    """The cost of each row's pair; -inf where it has none."""
    if not costs.shape[-1]:
        return np.full(columns.shape, -np.inf)
    picked = np.take_along_axis(costs, np.maximum(columns, 0)[..., None], axis=-1)[..., 0]
    return np.where(columns >= 0, picked, -np.inf)


def _total(costs: Array, columns: Array) -> float:
    rows = np.flatnonzero(columns >= 0)
    return float(costs[rows, columns[rows]].sum(dtype=np.float64))


def _rows_of(columns: Array, count: int) -> Array:
    rows = np.full(count, -1, dtype=np.int64)
    assigned = np.flatnonzero(columns >= 0)
    rows[columns[assigned]] = assigned
    return rows


def _pairs(columns: Array, shape: tuple[int, ...] = (0, 0)) -> tuple[Array, Array]:
    """Assigned pairs, ordered by row, or by column for a tall shape."""
    rows = np.flatnonzero(columns >= 0)
    cols = columns[rows]
    if shape[0] <= shape[1]:
        return rows, cols
    order = np.argsort(cols)
    return rows[order], cols[order]


def _batch_answer(batch: Array, columns: Array, return_cost: bool, pairs: bool, by_row: bool = False) -> Any:
    shape = (0, 0) if by_row else batch.shape[1:]
    found = [_pairs(c, shape) for c in columns]
    totals = np.array([_total(cost, c) for cost, c in zip(batch, columns, strict=True)], dtype=np.float64)
    if pairs:
        stacked = [np.stack(pair, axis=1) for pair in found]
        return (totals, stacked) if return_cost else stacked
    rows, cols = [r for r, _ in found], [c for _, c in found]
    return (totals, rows, cols) if return_cost else (rows, cols)


def _check_lists(n: int, cc: Array, ii: Array, kk: Array) -> None:
    """What lap refuses, in its words; the solver refuses what else is malformed."""
    if n <= 0:
        raise ValueError("Cost matrix must have a positive number of rows.")
    if len(cc) != len(kk):
        raise ValueError("cc and kk must have the same length.")
    if len(kk) == 0:
        raise ValueError("Cost matrix has zero columns.")
    if len(ii) != n + 1:
        raise ValueError("ii must contain n + 1 row pointers.")
    if ii[0] != 0 or ii[-1] != len(cc) or np.any(ii[1:] < ii[:-1]):
        raise ValueError("ii must start at 0, end at len(cc), and be nondecreasing.")
    if kk.min() < 0 or kk.max() >= n:
        raise ValueError("Column indices must be in the range [0, n).")
    rises = kk[1:] > kk[:-1]
    begins = ii[1:-1].astype(np.int64)
    rises[begins[(begins > 0) & (begins < len(kk))] - 1] = True
    if not rises.all():
        raise ValueError("Column indices must be strictly increasing within each row.")
    if not np.isfinite(cc).all():
        raise ValueError("Cost matrix values must be finite.")
    if cc.min() < 0:
        raise ValueError("Cost matrix values must be non-negative.")
    if cc.max() >= LARGE:
        raise ValueError(f"Cost matrix values must be less than {LARGE}")
