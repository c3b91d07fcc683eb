"""The front door of the assignment solver: checks, dispatch, result with certificate."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from .. import _native
from ..errors import UnavailableError
from .failures import raise_failure
from .inputs import as_scores, as_start_prices, is_tensor
from .result import Assignment, AssignmentStats

_MOST_THREADS = 1024
_CERTIFY = {"none": 0, "lists": 1, "full": 2}
_TIES = {"any": 0, "scipy": 1}


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

    Exact means: proved by the prices up to the rounding of their float64 arithmetic, 16 max(n, m) 2^-53 times the
    largest magnitude among the assigned scores and the prices. So forbid pairs with an infinity and not with a huge
    number, which would leave few digits to the other scores.

    Args:
        scores: (n, m) or (batch, n, m); numpy array, torch tensor on the CPU or a CUDA device, or nested sequence.
            float32 and float64 are used where they are, whatever their strides (a copy is made only when neither axis
            is contiguous, or for n > m when the columns are not). float16, bfloat16, bool and integers up to 16 bits
            become float32, which is exact; other integers become float64 and must be exact there; longer floats are
            rounded to float64. ``-inf`` (minimising: ``+inf``) forbids a pair. CUDA tensors are solved on their
            device, on the current stream, and float16 and bfloat16 are read as they are; the call waits once, for the
            report of what happened (:func:`solve_assignment_deferred` leaves the wait to the caller). At most 131,070
            rows or as many columns there.
        maximize: False for the smallest sum.
        prices: (m,) or (batch, m) finite start prices, as in an earlier result for similar scores (a warm start). They
            change the time, and the objective only within the certificate's allowance. Dropped (``stats.warm`` is
            False) when n != m, or when a sample of the rows says so: they spread over more than four times its
            largest score, or zero prices bound the optimum more closely.
        certify: how the result is proved: "lists" from the bounds that the solver holds, "full" from a fresh read of
            the scores, "none" not at all (the gap is NaN). On a device the proof is always made, from a fresh read.
        ties: "any": of several optimal assignments, any (on the CPU the same one for the same input, version and
            processor level). "scipy": the one that ``scipy.optimize.linear_sum_assignment`` returns, by a dense solver
            that looks at columns in scipy's order and rounds as it does; for CPU scores, without start prices. It
            reads the matrix n times or more, so it suits problems of up to some hundred rows.
        threads: for the problems of a batch, or the passes over one large problem; default: LMCFAST_NUM_THREADS, else
            the processors that this process may use. The result does not depend on it.

    Returns:
        An :class:`Assignment` with columns, prices, objective, gap and stats.

    Raises:
        InvalidScoresError: NaN, the infinity that does not forbid, or a magnitude above 2^1000; names row and column.
        InfeasibleError: the forbidden pairs leave no assignment; names a row or column that cannot be assigned.
        ScoresShapeError: scores or prices of the wrong shape.
        CertificateError: the result could not be proved (a bug, or the scores changed meanwhile).
        UnavailableError: scores on a device that this build, or this machine, cannot use; says what is missing.
        TypeError: complex, object or sparse scores.

    Source: shortest augmenting paths after Jonker and Volgenant, Computing 38 (1987) 325-340; ``ties="scipy"``: Crouse,
    IEEE Trans. Aerosp. Electron. Syst. 52 (2016) 1679-1696.
    """
    if certify not in _CERTIFY:
        raise ValueError(f"certify: expected one of {', '.join(map(repr, _CERTIFY))}, got {certify!r}")
    if ties not in _TIES:
        raise ValueError(f"ties: expected 'any' or 'scipy', got {ties!r}")
    if ties == "scipy" and prices is not None:
        raise ValueError("prices: start prices change which of several optima is found; ties='scipy' takes none")
    if not isinstance(maximize, (bool, np.bool_)):
        raise TypeError(f"maximize: expected True or False, got {maximize!r}")
    if threads is not None and not (isinstance(threads, (int, np.integer)) and 1 <= threads <= _MOST_THREADS):
        raise ValueError(f"threads: expected an integer from 1 to {_MOST_THREADS} or None, got {threads!r}")
    ready = _native.is_ready(scores)  # a numpy array that needs no conversion: the usual case, kept short
    if not ready and is_tensor(scores) and _native.on_device(scores):
        if ties != "any":
            raise UnavailableError(f"ties: {ties!r} is for CPU scores, got {scores.device}; pass scores.cpu()")
        from . import device  # imports torch

        return device.solve(scores, bool(maximize), prices, certify)
    array = scores if ready else as_scores(scores)
    start = None if prices is None else as_start_prices(prices, array.shape)
    if threads is None:
        threads = _native.default_threads()
    solved = _native.solve_assignment(array, start, bool(maximize), _CERTIFY[certify], int(threads), _TIES[ties])
    if solved[0] != _native.OK:
        raise_failure(solved[0], list(solved[1:]), array.shape, maximize)
    _, columns, assigned_prices, objective, gap, counts = solved
    if not ready and is_tensor(scores):
        from_numpy = sys.modules["torch"].from_numpy
        columns, assigned_prices = from_numpy(columns), from_numpy(assigned_prices)
        if array.ndim == 3:
            objective, gap = from_numpy(objective), from_numpy(gap)
    return Assignment(columns, assigned_prices, objective, gap, AssignmentStats._make(counts))
