"""``ties="scipy"``: of several optimal assignments the one that scipy returns, to the index."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.checks import check_assignment, solve
from scipy.optimize import linear_sum_assignment

import lmcfast
from lmcfast import _native

SHAPES = [(1, 1), (1, 6), (6, 1), (5, 5), (9, 9), (12, 17), (17, 12), (40, 40), (64, 65), (97, 61), (3, 130)]

DRAWS = {
    "few integers": lambda rng, n, m: rng.integers(0, 4, (n, m)).astype(np.float64),
    "constant": lambda rng, n, m: np.full((n, m), 0.1),
    "tenths": lambda rng, n, m: np.round(rng.random((n, m)), 1),  # sums that tie only up to rounding
    "rows and columns": lambda rng, n, m: rng.integers(0, 3, (n, 1)) * 0.1 + rng.integers(0, 3, (1, m)) * 0.3,
    "real": lambda rng, n, m: rng.normal(size=(n, m)),
    "float32": lambda rng, n, m: np.round(rng.random((n, m)), 1).astype(np.float32),
    "by columns": lambda rng, n, m: np.asfortranarray(rng.integers(0, 3, (n, m)).astype(np.float64)),
    "every second": lambda rng, n, m: rng.integers(0, 3, (2 * n, 2 * m)).astype(np.float64)[::2, ::-2],
}


def check_like_scipy(costs: np.ndarray, maximize: bool) -> bool:
    """Same indices, with a proof; or infeasible in both: then False."""
    try:
        rows, columns = linear_sum_assignment(costs, maximize)
    except ValueError:
        with pytest.raises(lmcfast.InfeasibleError):
            solve(costs, maximize=maximize, ties="scipy")
        return False
    a = solve(costs, maximize=maximize, ties="scipy")
    assert np.array_equal(np.flatnonzero(a.columns >= 0), rows)
    assert np.array_equal(a.columns[rows], columns)
    check_assignment(costs, a, maximize)
    return True


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("draw", DRAWS)
def test_the_choice_is_scipys(draw, maximize):
    for seed, shape in enumerate(SHAPES):
        assert check_like_scipy(DRAWS[draw](np.random.default_rng(seed), *shape), maximize)


@pytest.mark.parametrize("draw", ["few integers", "constant", "tenths"])
def test_forbidden_pairs_and_infeasible_problems(draw):
    feasible = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        costs = DRAWS[draw](rng, *rng.integers(1, 14, 2))
        costs[rng.random(costs.shape) < 0.7] = np.inf
        feasible += check_like_scipy(costs, maximize=False)
    assert 10 < feasible < 55


def test_random_problems_across_the_method_limits():
    for seed in range(8):
        rng = np.random.default_rng(seed)
        assert check_like_scipy(rng.integers(0, 40, rng.integers(150, 420, 2)).astype(np.float64), bool(seed % 2))


def test_a_batch_and_threads_give_the_same():
    costs = np.random.default_rng(0).integers(0, 5, (7, 20, 24)).astype(np.float32)
    a = solve(costs, maximize=False, ties="scipy", threads=3)
    for cost, columns in zip(costs, a.columns, strict=True):
        assert np.array_equal(columns, linear_sum_assignment(cost)[1])


def test_what_cannot_be_is_named():
    scores = np.eye(3)
    with pytest.raises(ValueError, match="ties: expected 'any' or 'scipy', got 'first'"):
        lmcfast.solve_assignment(scores, ties="first")
    with pytest.raises(ValueError, match="prices: start prices change which"):
        lmcfast.solve_assignment(scores, prices=np.zeros(3), ties="scipy")
    with pytest.raises(lmcfast.InvalidScoresError, match=r"scores\[1, 2\] is nan"):
        lmcfast.solve_assignment(np.where(np.arange(9).reshape(3, 3) == 5, np.nan, scores), ties="scipy")


def test_a_device_has_no_such_choice(monkeypatch):
    monkeypatch.setattr(_native, "on_device", lambda tensor: True)
    with pytest.raises(lmcfast.UnavailableError, match="ties: 'scipy' is for CPU scores"):
        lmcfast.solve_assignment(torch.eye(3), ties="scipy")
