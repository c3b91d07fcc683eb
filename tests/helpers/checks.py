"""What every solver's result must satisfy: a valid assignment, an honest objective, a proof."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

import lmcfast


def solve(scores: Any, **options: Any) -> lmcfast.Assignment:
    """``lmcfast.solve_assignment``, proved by a fresh read of the scores unless the test asks for less."""
    return lmcfast.solve_assignment(scores, **{"certify": "full", **options})


def check_assignment(scores: np.ndarray, a: lmcfast.Assignment, maximize: bool = True) -> float:
    """The columns are a full assignment, the objective is theirs, and the prices prove it (a twin of the certificate).

    Returns what the prices' rounding allows the optimum to be better: 16 max(n, m) 2^-53 max(|score|, |price|).
    """
    s = np.asarray(scores, dtype=np.float64)
    n, m = s.shape
    columns, prices = np.asarray(a.columns), np.asarray(a.prices)
    assert columns.shape == (n,)
    assert columns.dtype == np.int64
    assert prices.shape == (m,)
    assert prices.dtype == np.float64
    rows = np.flatnonzero(columns >= 0)
    assert len(rows) == min(n, m)
    assert len(set(columns[rows].tolist())) == len(rows)
    value = math.fsum(s[rows, columns[rows]])
    assert math.isclose(a.objective, value, rel_tol=1e-14, abs_tol=0)
    return check_prices(s, columns, prices, float(a.gap), maximize)


def check_prices(s: np.ndarray, columns: np.ndarray, prices: np.ndarray, gap: float, maximize: bool) -> float:
    """Weak duality: the prices bound every assignment, and the bound is the value found. Returns the allowance."""
    n, m = s.shape
    if not n or not m:
        assert gap == 0
        return 0.0
    if not maximize:
        s, prices = -s, -prices
    rows = np.flatnonzero(columns >= 0)
    assigned = s[rows, columns[rows]]
    u = (s - prices).max(axis=1)
    if n < m:
        assert prices.min() >= 0
        assert not prices[np.setdiff1d(np.arange(m), columns, assume_unique=True)].any()
    if n > m:
        u = np.maximum(u, 0)
    bound = math.fsum([*u.tolist(), *prices.tolist(), *(-assigned).tolist()])
    scale = max(float(np.abs(x).max(initial=0)) for x in (assigned, prices, u))
    allowed = 16 * max(n, m) * 2.0**-53 * scale
    assert abs(bound) <= 2 * allowed  # u is rounded here once more
    assert math.isnan(gap) or abs(gap) <= allowed
    return allowed


def reference_objective(scores: np.ndarray, maximize: bool = True) -> float:
    """The optimum by scipy, another exact solver; raises ValueError when infeasible."""
    s = np.asarray(scores, dtype=np.float64)
    rows, columns = linear_sum_assignment(s, maximize=maximize)
    return math.fsum(s[rows, columns])


def check_optimal(scores: np.ndarray, a: lmcfast.Assignment, maximize: bool = True) -> None:
    """A proved assignment whose objective is scipy's, up to the rounding of scipy's own price arithmetic."""
    allowed = check_assignment(scores, a, maximize)
    expected = reference_objective(scores, maximize)
    s = np.asarray(scores, dtype=np.float64)
    lead = (a.objective - expected) * (1 if maximize else -1)
    assert lead >= -allowed
    assert lead <= 1e-13 * np.abs(s[np.isfinite(s)]).max(initial=0) * max(s.shape)
