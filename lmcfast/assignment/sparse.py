"""The front door for problems given by lists: only the listed pairs are allowed, and no dense matrix is made."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _native
from ..errors import InvalidScoresError, ScoresShapeError
from .failures import raise_sparse_failure
from .inputs import as_array, as_listed_values, is_tensor
from .result import Assignment, AssignmentStats

_MOST = 2**31 - 1


def solve_sparse_assignment(
    indptr: Any, indices: Any, values: Any, shape: tuple[int, int], maximize: bool = True
) -> Assignment:
    """Assigns rows to columns among listed pairs so that the sum of the assigned values is largest, and proves it.

    As :func:`solve_assignment` for a matrix whose other pairs are all forbidden; time and memory follow the lists.
    Every row gets its own column (n <= m), or every column its own row (n > m).

    Args:
        indptr: (n + 1,) integers: the pairs of row i are entries indptr[i] to indptr[i + 1] - 1 (compressed sparse
            rows, as ``scipy.sparse.csr_array`` holds them).
        indices: (entries,) integers, the column of each entry; at most once in a row, in any order.
        values: (entries,) real numbers, the scores; used as float64. A stored 0 is a pair worth 0. ``-inf``
            (minimising: ``+inf``) forbids a pair, as if it were not listed.
        shape: (n, m).
        maximize: False for the smallest sum.

    Returns:
        An :class:`Assignment`; its certificate goes over the listed pairs: u[i] is the largest value - price of row i's
        list. ``stats.reads`` counts reads of the lists. Torch tensors where ``values`` is one, else numpy arrays.

    Raises:
        InfeasibleError: the lists leave no assignment; names a row (a column where n > m) that cannot be assigned.
        InvalidScoresError: NaN, the infinity that does not forbid, a magnitude above 2^1000, or a pair listed twice;
            names row and column.
        ScoresShapeError: indptr, indices and values do not fit together or the shape.
        TypeError: values that are not real numbers, or indptr and indices that are not integers.

    Source: Jonker and Volgenant, Computing 38 (1987) 325-340.
    """
    if not isinstance(maximize, (bool, np.bool_)):
        raise TypeError(f"maximize: expected True or False, got {maximize!r}")
    rows, columns = _as_shape(shape)
    pointers = _as_integers(indptr, "indptr", np.int64)
    places = _as_integers(indices, "indices", np.int32)
    stored = as_listed_values(values)
    _check_structure(pointers, places, stored, rows, columns)
    solved = _native.solve_sparse_assignment(pointers, places, stored, columns, bool(maximize))
    if solved[0] != _native.OK:
        raise_sparse_failure(solved[0], list(solved[1:]), (rows, columns), bool(maximize))
    _, assigned, prices, objective, gap, (read, bids, paths, steps) = solved
    reads = read / len(stored) if len(stored) else 0.0
    if is_tensor(values):
        from_numpy = sys.modules["torch"].from_numpy
        assigned, prices = from_numpy(assigned), from_numpy(prices)
    return Assignment(assigned, prices, objective, gap, AssignmentStats(1, reads, bids, paths, steps, 0, 0, 0, False))


def _as_shape(shape: Any) -> tuple[int, int]:
    try:
        rows, columns = (int(s) for s in shape)
    except (TypeError, ValueError) as error:
        raise ScoresShapeError(f"shape: expected (rows, columns), got {shape!r}") from error
    if not (0 <= rows <= _MOST and 0 <= columns <= _MOST):
        raise ScoresShapeError(f"shape: expected 0 to 2**31 - 1 rows and columns, got {(rows, columns)}")
    return rows, columns


def _as_integers(x: Any, argument: str, dtype: type[np.integer[Any]]) -> NDArray[Any]:
    a = as_array(x, argument)
    if a.ndim != 1:
        raise ScoresShapeError(f"{argument}: expected 1 dimension, got shape {tuple(a.shape)}")
    if a.dtype.kind not in "iu" and a.size:
        raise TypeError(f"{argument}: expected integers, got dtype {a.dtype}")
    limits = np.iinfo(dtype)
    if a.size and not np.can_cast(a.dtype, dtype) and not limits.min <= a.min() <= a.max() <= limits.max:
        raise ScoresShapeError(f"{argument}: {a.max() if a.max() > limits.max else a.min()} is out of range")
    return np.ascontiguousarray(a, dtype=dtype)


def _check_structure(
    indptr: NDArray[Any], indices: NDArray[Any], values: NDArray[Any], rows: int, columns: int
) -> None:
    if len(indptr) != rows + 1:
        raise ScoresShapeError(f"indptr: expected {rows + 1} entries for {rows} rows, got {len(indptr)}")
    if len(indices) != len(values):
        raise ScoresShapeError(f"values: expected {len(indices)} entries, one for each index, got {len(values)}")
    if indptr[0] != 0 or indptr[-1] != len(indices):
        raise ScoresShapeError(
            f"indptr: expected to begin with 0 and to end with the {len(indices)} entries of indices, got {indptr[0]} "
            f"and {indptr[-1]}"
        )
    falls = np.flatnonzero(indptr[1:] < indptr[:-1])
    if len(falls):
        raise ScoresShapeError(f"indptr: must not fall, got {indptr[falls[0]]} before {indptr[falls[0] + 1]}")
    if len(indices) and not 0 <= indices.min() <= indices.max() < columns:
        entry = int(np.flatnonzero((indices < 0) | (indices >= columns))[0])
        row = int(np.searchsorted(indptr, entry, side="right")) - 1
        raise InvalidScoresError(
            f"indices[{entry}] is {indices[entry]}: the columns are 0 to {columns - 1}",
            row=row,
            column=int(indices[entry]),
        )
