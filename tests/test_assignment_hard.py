"""Inputs made to break a solver: hidden orders with holes, empty rows, ties, mixed magnitudes, bad start prices."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.checks import check_optimal, solve
from helpers.problems import FAMILIES

import lmcfast


@pytest.mark.parametrize("n", [30, 100, 450])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hidden_orders_with_a_few_forbidden_pairs(n, dtype):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        scores = np.outer(rng.standard_normal(n), rng.standard_normal(n)).astype(dtype)
        scores[rng.random((n, n)) < 2 / n**1.5] = -np.inf
        check_optimal(scores, solve(scores))


@pytest.mark.parametrize("n", [300, 400, 512, 1000])
def test_a_row_with_no_allowed_pair_is_infeasible(n):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        scores = rng.random((n, 5)) @ rng.random((5, n)) + 0.01 * rng.random((n, n))
        empty = int(rng.integers(n))
        scores[empty] = -np.inf
        with pytest.raises(lmcfast.InfeasibleError) as caught:
            solve(scores)
        assert caught.value.row == empty


@pytest.mark.parametrize("n", [385, 450, 512, 513, 700])
@pytest.mark.parametrize("family", ["constant", "zeros", "integers_10", "sparse_1", "half_zero"])
def test_ties_cost_no_price_war(n, family):
    scores = FAMILIES[family](np.random.default_rng(n), n, n).astype(np.float32)
    a = solve(scores)
    check_optimal(scores, a)
    assert a.stats.bids <= 4 * n
    assert a.stats.path_steps <= 4 * n
    assert a.stats.fallbacks == 0


@pytest.mark.parametrize("n", [512, 1024, 1500])
def test_classes_of_columns_cost_no_price_war(n):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        scores = FAMILIES["blocks"](rng, n, n).astype(np.float32)
        a = lmcfast.solve_assignment(scores, certify="full")
        check_optimal(scores, a)
        assert a.stats.bids <= 12 * n
        assert a.stats.path_steps <= 40 * n
        assert a.stats.fallbacks == 0


@pytest.mark.parametrize("n", [512, 1024])
def test_a_warm_start_reads_the_scores_about_once(n):
    rng = np.random.default_rng(n)
    scores = FAMILIES["weights"](rng, n, n).astype(np.float32)
    prices = lmcfast.solve_assignment(scores).prices
    scores += np.float32(0.06 * scores.std()) * rng.standard_normal((n, n), dtype=np.float32)
    a = lmcfast.solve_assignment(scores, prices=prices)
    check_optimal(scores, a)
    assert a.stats.warm
    assert a.stats.reads <= 1.3
    scores[3, 5] = np.nan  # found in that same read
    with pytest.raises(lmcfast.InvalidScoresError) as caught:
        lmcfast.solve_assignment(scores, prices=prices)
    assert (caught.value.row, caught.value.column) == (3, 5)


def test_signs_times_few_values_are_solved_in_order():
    rng = np.random.default_rng(0)
    scores = np.sign(rng.standard_normal((500, 1))) * rng.integers(1, 5, (1, 500))
    a = solve(scores)
    check_optimal(scores, a)
    assert a.stats.bids <= 500


def test_useless_start_prices_are_dropped():
    rng = np.random.default_rng(0)
    scores = FAMILIES["planted"](rng, 600, 600)
    bad = rng.integers(0, 3, 600) * np.abs(scores).max()
    cold = solve(scores)
    a = solve(scores, prices=bad)
    check_optimal(scores, a)
    assert not a.stats.warm
    assert a.stats.bids == cold.stats.bids


@pytest.mark.parametrize("n", [5, 40])
def test_start_prices_change_nothing_beyond_the_allowance(n):
    for seed in range(50):
        rng = np.random.default_rng(seed)
        scores = 1 + rng.random((n, n)) * 1e-13
        cold = solve(scores)
        warm = solve(scores, prices=rng.random(n) * 10.0 ** rng.integers(-14, 4))
        assert abs(warm.objective - cold.objective) <= 16 * n * 2.0**-53 * 4


def test_magnitudes_that_would_overflow_are_refused():
    scores = np.full((3, 3), 1.0)
    scores[1, 2] = 1.7e308
    with pytest.raises(lmcfast.InvalidScoresError, match=r"scores\[1, 2\] is 1\.7e\+308: magnitudes above") as caught:
        solve(scores)
    assert (caught.value.row, caught.value.column) == (1, 2)
    large = np.random.default_rng(0).random((50, 50)) * 2.0**999
    assert solve(large).objective > 0


def test_magnitudes_far_apart_in_rows():
    rng = np.random.default_rng(3)
    scores = (rng.random((420, 420)) * 10.0 ** rng.uniform(-20, 20, (420, 1))).astype(np.float32)
    check_optimal(scores, solve(scores))


def test_the_first_invalid_problem_of_a_batch_counts_whatever_the_threads():
    batch = np.random.default_rng(0).random((64, 20, 20))
    batch[11, 3] = -np.inf
    batch[40, 1, 1] = np.nan
    for threads in (1, 2, 4):
        with pytest.raises(lmcfast.InfeasibleError) as caught:
            solve(batch, threads=threads)
        assert (caught.value.problem, caught.value.row) == (11, 3)


@pytest.mark.parametrize("rows", [400, 417])
@pytest.mark.parametrize("kind", ["line", "rounded", "forbidden"])
def test_tall_problems_that_need_rows_again(rows, kind):
    """The rows of the transpose are copied only when they are needed: here the lists do not suffice."""
    columns = 391
    rng = np.random.default_rng(rows)
    scores = rng.standard_normal((rows, columns)).astype(np.float32)
    if kind == "line":
        scores = -np.abs(rng.random((rows, 1)) - rng.random((1, columns))).astype(np.float32)
    elif kind == "rounded":
        scores = np.round(scores)
    else:
        scores[rng.random(scores.shape) < 0.97] = -np.inf
        scores[np.arange(columns), np.arange(columns)] = -9
    check_optimal(scores, solve(scores))


@pytest.mark.parametrize(("rows", "columns"), [(900, 450), (2100, 1100)])
@pytest.mark.parametrize("maximize", [True, False])
def test_a_tall_matrix_is_read_about_once_as_it_lies(rows, columns, maximize):
    scores = FAMILIES["weights"](np.random.default_rng(rows), rows, columns).astype(np.float32)
    a = lmcfast.solve_assignment(scores, maximize=maximize)
    check_optimal(scores, a, maximize=maximize)
    assert a.stats.reads <= 1.3
    for value in (np.nan, np.inf if maximize else -np.inf):
        broken = scores.copy()
        broken[rows - 2, columns - 3] = value  # found in that same read
        with pytest.raises(lmcfast.InvalidScoresError) as caught:
            lmcfast.solve_assignment(broken, maximize=maximize)
        assert (caught.value.row, caught.value.column) == (rows - 2, columns - 3)


@pytest.mark.parametrize("threads", [1, 2])
def test_tall_matrices_with_ties_and_forbidden_columns(threads):
    rng = np.random.default_rng(5)
    tied = rng.integers(0, 3, (1900, 1200)).astype(np.float32)  # most rows: the transpose is written
    check_optimal(tied, solve(tied, threads=threads))
    some = rng.standard_normal((1900, 1200)).astype(np.float32)
    some[:, ::50] = 0  # a few: they are read by themselves
    some[:, 1::50] = -np.inf
    some[:5, 1::50] = 1
    some[5:30, 1::50] = rng.standard_normal((25, 24))
    check_optimal(some, solve(some, threads=threads))
