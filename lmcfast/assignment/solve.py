"""The front door of the assignment solver: checks, dispatch, result with certificate."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import numpy as np

from .. import _native
from .._native import NativeAssignment, Status
from ..errors import CertificateError, InfeasibleError, InvalidScoresError
from .inputs import as_scores, as_start_prices, is_tensor
from .result import Assignment, AssignmentStats

_CERTIFY = {"none": 0, "lists": 1, "full": 2}


def solve_assignment(
    scores: Any,
    maximize: bool = True,
    prices: Any = None,
    certify: str = "lists",
    ties: str = "any",
    threads: int | None = None,
) -> Assignment:
    """Assigns rows to columns so that the sum of the assigned scores is largest, exactly, and proves it.

    Every row gets its own column (n <= m), or every column its own row (n > m).

    Args:
        scores: (n, m) or (batch, n, m); numpy array, torch CPU tensor or nested sequence. float32 and float64 are used
            where they are, whatever their strides (a copy is made only when neither axis is contiguous, or for n > m
            when the columns are not). float16, bfloat16, bool and integers up to 16 bits become float32, which is
            exact; other integers become float64 and must be exact there; longer floats are rounded to float64.
            ``-inf`` (minimising: ``+inf``) forbids a pair.
        maximize: False for the smallest sum.
        prices: (m,) or (batch, m) finite start prices, as in an earlier result for similar scores (a warm start). They
            change the time, never the objective. Dropped (``stats.warm`` is False) when n != m, or when they are so
            large that they would drown the scores in rounding.
        certify: how the result is proved: "lists" from the bounds that the solver holds, "full" from a fresh read of
            the scores, "none" not at all (the gap is NaN).
        ties: "any": of several optimal assignments, any (the same one for the same input, version and processor level).
        threads: problems of a batch solved at once; default: LMCFAST_NUM_THREADS, else the processors that this process
            may use. The result does not depend on it.

    Returns:
        An :class:`Assignment` with columns, prices, objective, gap and stats.

    Raises:
        InvalidScoresError: NaN, or the infinity that does not forbid; names row and column.
        InfeasibleError: the forbidden pairs leave no assignment; names a row or column that cannot be assigned.
        ScoresShapeError: scores or prices of the wrong shape.
        CertificateError: the result could not be proved (a bug, or the scores changed meanwhile).
        TypeError: complex, object or sparse scores.

    Source: shortest augmenting paths after Jonker and Volgenant, Computing 38 (1987) 325-340.
    """
    if certify not in _CERTIFY:
        raise ValueError(f"certify: expected one of {', '.join(map(repr, _CERTIFY))}, got {certify!r}")
    if ties != "any":
        raise ValueError(f"ties: expected 'any', got {ties!r}")
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise ValueError(f"threads: expected a positive integer or None, got {threads!r}")
    array = as_scores(scores)
    batched = scores.ndim == 3 if hasattr(scores, "ndim") else np.ndim(scores) == 3
    batch, rows, columns = array.shape
    start = as_start_prices(prices, batch, columns, batched)
    if threads is None:
        threads = _native.default_threads() if batch > 1 else 1
    solved = _native.solve_assignment(array, start, bool(maximize), _CERTIFY[certify], threads)
    if solved.status != Status.OK:
        _raise(solved, batched, rows, columns, maximize)
    return _result(solved, batched, array.shape, scores)


def _result(solved: NativeAssignment, batched: bool, shape: tuple[int, int, int], scores: Any) -> Assignment:
    batch, rows, columns = shape
    counts = solved.counts
    stats = AssignmentStats(
        problems=batch,
        reads=counts["scores_read"] / max(1, batch * rows * columns),
        bids=counts["bids"],
        paths=counts["paths"],
        path_steps=counts["path_steps"],
        rescans=counts["rescans"],
        phases=counts["phases"],
        fallbacks=counts["fallbacks"],
        warm=batch > 0 and counts["warm"] == batch,
    )
    arrays: list[Any] = [solved.columns, solved.prices, solved.objective, solved.gap]
    if not batched:
        arrays = [a[0] for a in arrays]
    if is_tensor(scores):
        torch = sys.modules["torch"]
        arrays = [torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in arrays]
    if not batched:
        arrays[2:] = map(float, arrays[2:])
    columns_of, prices, objective, gap = arrays
    return Assignment(columns_of, prices, objective, gap, stats)


def _raise(solved: NativeAssignment, batched: bool, rows: int, columns: int, maximize: bool) -> NoReturn:
    problem = solved.problem if batched else None
    where = f"[{solved.problem}]" if batched else ""
    row, column = (k if k >= 0 else None for k in (solved.row, solved.column))
    if solved.status == Status.INVALID_SCORE:
        place = f"[{solved.problem}, {row}, {column}]" if batched else f"[{row}, {column}]"
        forbidden = "-inf" if maximize else "inf"
        raise InvalidScoresError(
            f"scores{place} is {solved.value}: scores must be finite, or {forbidden} for a forbidden pair",
            row=row,
            column=column,
            problem=problem,
        )
    if solved.status == Status.INFEASIBLE:
        left = f"row {row}" if row is not None else f"column {column}"
        side = "rows" if rows <= columns else "columns"
        raise InfeasibleError(
            f"scores{where}: forbidden pairs leave no way to assign all {side} ({rows} x {columns}); {left} is left "
            "without a partner",
            row=row,
            column=column,
            problem=problem,
        )
    raise CertificateError(
        f"scores{where}: the prices do not prove the result (gap {solved.value:.3g}); if the scores did not change "
        "during the call, this is a bug in lmcfast",
        gap=solved.value,
    )
