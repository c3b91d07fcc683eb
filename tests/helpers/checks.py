"""What every solver's result must satisfy: a valid assignment, an honest objective, a proof."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import linear_sum_assignment

import lmcfast


def check_assignment(scores: np.ndarray, a: lmcfast.Assignment, maximize: bool = True) -> None:
    """The columns are a full assignment, the objective is theirs, and the prices prove it."""
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
    check_prices(s, columns, prices, a.gap, maximize)


def check_prices(s: np.ndarray, columns: np.ndarray, prices: np.ndarray, gap: float, maximize: bool) -> None:
    """Weak duality: the prices bound every assignment, and the bound is the value found (a twin of the certificate)."""
    n, m = s.shape
    if not n or not m:
        assert gap == 0
        return
    if not maximize:
        s, prices = -s, -prices
    rows = np.flatnonzero(columns >= 0)
    u = (s - prices).max(axis=1)
    if n < m:
        assert prices.min() >= 0
        assert (prices[np.setdiff1d(np.arange(m), columns)] == 0).all()
    if n > m:
        u = np.maximum(u, 0)
    value = math.fsum(s[rows, columns[rows]])
    bound = math.fsum(u) + math.fsum(prices)
    scale = max(np.abs(s[rows, columns[rows]]).max(initial=0), np.abs(prices).max(initial=0), np.abs(u).max())
    allowed = 32 * max(n, m) * 2.0**-53 * scale
    assert abs(bound - value) <= allowed
    assert abs(gap) <= allowed


def reference_objective(scores: np.ndarray, maximize: bool = True) -> float:
    """The optimum by scipy, another exact solver; raises ValueError when infeasible."""
    s = np.asarray(scores, dtype=np.float64)
    rows, columns = linear_sum_assignment(s, maximize=maximize)
    return math.fsum(s[rows, columns])


def check_optimal(scores: np.ndarray, a: lmcfast.Assignment, maximize: bool = True) -> None:
    """A proved assignment whose objective is scipy's, up to the rounding of scipy's own price arithmetic."""
    check_assignment(scores, a, maximize)
    expected = reference_objective(scores, maximize)
    s = np.asarray(scores, dtype=np.float64)
    finite = s[np.isfinite(s)]
    scale = np.abs(finite).max(initial=0) * max(s.shape)
    assert abs(a.objective - expected) <= 1e-13 * scale
