"""The assignment solver's face: optimal and proved on every family, dtype and layout."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.checks import check_assignment, check_optimal, solve
from helpers.problems import FAMILIES, LAYOUTS, forbid, with_layout

import lmcfast

SIZES = [(1, 1), (2, 2), (5, 3), (3, 7), (17, 17), (33, 31), (64, 64), (61, 127), (130, 129)]


def problem(family: str, n: int, m: int, seed: int = 0) -> np.ndarray:
    return FAMILIES[family](np.random.default_rng([seed, n, m]), n, m)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_family_is_optimal_and_proved(family, dtype):
    for n, m in SIZES:
        scores = problem(family, n, m).astype(dtype)
        for maximize in (True, False):
            a = solve(scores, maximize=maximize)
            check_optimal(scores, a, maximize)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_large_problem_of_every_family_is_optimal(family):
    scores = problem(family, 500, 500).astype(np.float32)
    check_optimal(scores, solve(scores))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(20, 20), (13, 40), (40, 13), (1, 9), (9, 1)])
def test_every_memory_layout_gives_the_same_objective(layout, dtype, shape):
    scores = with_layout(problem("weights", *shape).astype(dtype), layout)
    before = scores.copy()
    a = solve(scores)
    check_optimal(before, a)
    assert np.array_equal(scores, before)


@pytest.mark.parametrize(
    "dtype",
    [np.float16, np.int8, np.uint16, np.int32, np.int64, np.uint64, np.bool_, np.longdouble, ">f4", ">i2"],
)
def test_other_real_dtypes_are_converted(dtype):
    scores = (problem("integers_1000", 12, 15) % 100).astype(dtype)
    check_optimal(scores.astype(np.float64), solve(scores))


def test_integers_are_exact_up_to_two_to_the_53():
    scores = np.array([[2**53, 0], [1, 2]])
    assert solve(scores).objective == 2**53 + 2
    for value in (2**53 + 1, -(2**53) - 1):
        scores[1, 1] = value
        with pytest.raises(lmcfast.InvalidScoresError, match=rf"scores\[1, 1\] is {value}"):
            solve(scores)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int32])
def test_tensors_in_tensors_out(dtype):
    scores = torch.from_numpy(problem("weights", 10, 12)).mul(50).to(dtype)
    a = solve(scores)
    assert isinstance(a.columns, torch.Tensor)
    assert a.columns.dtype == torch.int64
    assert a.prices.dtype == torch.float64
    check_optimal(scores.double().numpy(), a)


def test_tensors_that_need_gradients_or_are_views():
    scores = torch.from_numpy(problem("weights", 10, 10)).requires_grad_()
    check_optimal(scores.detach().numpy().T, solve(scores.T))


def test_nested_lists():
    a = solve([[1, 2], [3, 5]])
    assert a.objective == 6
    assert a.columns.tolist() == [0, 1]


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (4, 0), (0, 3, 3), (2, 0, 5), (2, 5, 0)])
def test_empty_inputs(shape):
    a = solve(np.zeros(shape))
    assert a.columns.shape == shape[:-1]
    assert (a.columns == -1).all()
    assert a.prices.shape == (*shape[:-2], shape[-1])
    assert np.all(np.asarray(a.objective) == 0)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(6, 6), (40, 40), (30, 50), (50, 30)])
@pytest.mark.parametrize("maximize", [True, False])
def test_forbidden_pairs_are_never_used(share, shape, maximize):
    rng = np.random.default_rng([int(10 * share), *shape])
    scores = forbid(rng, problem("weights", *shape), share, -np.inf if maximize else np.inf, feasible=True)
    check_optimal(scores, solve(scores, maximize=maximize), maximize)


def test_batches_equal_their_problems():
    rng = np.random.default_rng(5)
    batch = rng.standard_normal((7, 20, 26)).astype(np.float32)
    for scores in (batch, batch[::-2], np.moveaxis(batch, 0, 2).copy().transpose(2, 0, 1)):
        a = solve(scores)
        assert a.objective.shape == (len(scores),)
        for k, one in enumerate(scores):
            b = solve(one)
            check_assignment(one, b)
            assert b.objective == pytest.approx(a.objective[k], rel=1e-14)
            assert abs(a.gap[k]) <= 1e-12


def test_the_same_input_gives_the_same_result():
    scores = problem("integers_10", 90, 90)
    a, b = (solve(scores) for _ in range(2))
    assert np.array_equal(a.columns, b.columns)
    assert np.array_equal(a.prices, b.prices)


@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("maximize", [True, False])
@pytest.mark.parametrize("n", [12, 150])
def test_warm_starts_are_exact_and_do_less_work(layout, maximize, n):
    rng = np.random.default_rng(n)
    scores = problem("weights", n, n)
    cold = solve(scores, maximize=maximize)
    near = with_layout(scores + 1e-3 * rng.standard_normal(scores.shape), layout)
    warm = solve(near, maximize=maximize, prices=cold.prices)
    check_optimal(near, warm, maximize)
    again = solve(near, maximize=maximize)
    assert warm.stats.warm
    assert not again.stats.warm
    assert warm.stats.path_steps <= again.stats.path_steps


def test_useless_start_prices_do_no_harm():
    scores = problem("weights", 30, 30)
    for prices in (np.full(30, 1e300), np.linspace(0, 1e30, 30), np.random.default_rng(0).random(30)):
        check_optimal(scores, solve(scores, prices=prices))
    wide = problem("weights", 10, 30)
    a = solve(wide, prices=np.random.default_rng(0).random(30))
    assert not a.stats.warm
    check_optimal(wide, a)


@pytest.mark.parametrize("shape", [(6, 6), (20, 20), (20, 50), (50, 20), (400, 400)])
@pytest.mark.parametrize("family", ["weights", "integers_10", "rank_2"])
def test_the_certificate_changes_the_gap_alone(family, shape):
    scores = problem(family, *shape)
    results = {certify: solve(scores, certify=certify) for certify in ("full", "lists", "none")}
    for a in results.values():
        check_optimal(scores, a)
        assert np.array_equal(a.columns, results["full"].columns)
        np.testing.assert_allclose(a.prices, results["full"].prices, rtol=1e-13, atol=1e-13)
    assert np.isnan(results["none"].gap)
    assert results["none"].stats.reads <= results["lists"].stats.reads <= results["full"].stats.reads
    default = lmcfast.solve_assignment(scores)
    assert (default.gap, default.stats) == (results["lists"].gap, results["lists"].stats)


def test_statistics_count_work():
    scores = problem("weights", 50, 50)
    stats = solve(scores).stats
    assert stats.problems == 1
    assert stats.bids >= 50
    assert stats.path_steps >= stats.paths > 0
    assert stats.reads >= 3  # checked, bid for, proved
