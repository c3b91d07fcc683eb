"""``lmcfast.compat.lap``: forms of the results, limits on costs, forbidden pairs, lists, batches."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from lmcfast.compat import lap

INF = np.inf
SQUARE = np.array([[4.0, 1, 7], [2, 0, 5], [3, 2, 2]])
WIDE = np.array([[4.0, 1, 7], [2, 0, 5]])
INFEASIBLE = np.array([[1, INF, INF], [2, INF, INF], [1, 2, 3.0]])


def least(costs: np.ndarray, limit: float = INF) -> float:
    """The least sum over all ways to leave pairs out at ``limit`` each, by brute force."""
    n, m = costs.shape
    if n > m:
        return least(costs.T, limit)
    return min(np.minimum(costs[range(n), order], limit).sum() for order in permutations(range(m), n))


def same(result, expected):
    """Equal tuples of arrays, dtypes included."""
    assert len(result) == len(expected)
    for got, (values, dtype) in zip(result, expected, strict=True):
        assert got.dtype == dtype
        assert got.tolist() == values


def test_lapjv_gives_mappings():
    total, *found = lap.lapjv(SQUARE)
    assert total == 5
    assert isinstance(total, float)
    same(found, [([1, 0, 2], np.int32), ([1, 0, 2], np.int32)])
    same(lap.lapjv(SQUARE, return_cost=False), [([1, 0, 2], np.int32), ([1, 0, 2], np.int32)])
    total, *found = lap.lapjv(WIDE.T, extend_cost=True)
    assert total == 3
    same(found, [([1, 0, -1], np.int32), ([1, 0], np.int32)])


def test_the_others_give_pairs():
    total, *found = lap.lapjvx(WIDE, True)
    assert total == 3
    same(found, [([0, 1], np.int64), ([1, 0], np.int32)])
    same(lap.lapjvx(WIDE.T, True)[1:], [([1, 0], np.int32), ([0, 1], np.int64)])
    same([lap.lapjvxa(WIDE, True)[1]], [([[0, 1], [1, 0]], np.int32)])
    same(lap.lapjvc(WIDE)[1:], [([0, 1], np.int32), ([1, 0], np.int32)])
    same(lap.lapjvs(WIDE.T)[1:], [([1, 0], np.int64), ([0, 1], np.int64)])
    same(lap.lapjvs(WIDE, jvx_like=False)[1:], [([1, 0], np.int64), ([1, 0, -1], np.int64)])
    same([lap.lapjvsa(WIDE)[1]], [([[0, 1], [1, 0]], np.int64)])
    same(lap.lapjvr(WIDE.T, True)[1:], [([0, 1], np.int64), ([1, 0], np.int64)])
    same([lap.lapjvh(WIDE, True, output="pairs")[1]], [([[0, 1], [1, 0]], np.int64)])
    same(lap.lapjvr(WIDE, True, return_cost=False, precision="float32"), [([0, 1], np.int64), ([1, 0], np.int64)])


def test_sums_are_least_with_and_without_a_limit():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        costs = rng.normal(size=rng.integers(1, 6, 2))
        for f in (lap.lapjv, lap.lapjvx, lap.lapjvr):
            assert f(costs, extend_cost=True)[0] == pytest.approx(least(costs))
        limit = rng.normal()
        total, x, y = lap.lapjv(costs, cost_limit=limit)
        rows = np.flatnonzero(x >= 0)
        assert (costs[rows, x[rows]] < limit).all()
        assert np.array_equal(y[x[rows]], rows)
        assert (y >= 0).sum() == len(rows)
        left = min(costs.shape) - len(rows)
        assert total + left * limit == pytest.approx(least(costs, limit))


def test_a_limit_allows_forbidden_pairs_to_stay_alone():
    total, x, y = lap.lapjv(INFEASIBLE, cost_limit=2.5)
    assert (total, x.tolist(), y.tolist()) == (3.0, [0, -1, 1], [0, 2, -1])
    assert lap.lapjvx(SQUARE, cost_limit=-1.0)[1].tolist() == []
    with pytest.raises(ValueError, match="cost_limit must be finite or positive infinity"):
        lap.lapjv(SQUARE, cost_limit=np.nan)


def test_without_an_assignment():
    total, x, y = lap.lapjv(INFEASIBLE)
    assert total == INF
    assert sorted(x) == sorted(y) == [0, 1, 2]
    assert np.isinf(INFEASIBLE[range(3), x]).sum() == 1  # not more than it must be
    assert lap.lapjv(np.full((3, 3), INF))[0] == INF
    total, rows, columns = lap.lapjvc(INFEASIBLE)
    assert (total, rows.tolist(), columns.tolist()) == (3.0, [0, 2], [0, 1])
    for f in (lap.lapjvs, lap.lapjvsa, lap.lapjvr, lap.lapjvh):
        with pytest.raises(ValueError, match="Cost matrix is infeasible"):
            f(INFEASIBLE)
    with pytest.raises(ValueError, match="at batch index 1"):
        lap.lapjvr_batch(np.stack([SQUARE, INFEASIBLE]))
    assert lap.lapjvx_batch(np.stack([SQUARE, INFEASIBLE]))[0].tolist() == [5.0, INF]


def test_lapjvc_forbids_what_is_not_finite():
    costs = np.where(SQUARE == 0, np.nan, np.where(SQUARE == 1, -INF, SQUARE))
    total, rows, columns = lap.lapjvc(costs)
    allowed = np.where(np.isfinite(costs), costs, INF)
    assert total == least(allowed)
    assert np.isfinite(costs[rows, columns]).all()


@pytest.mark.parametrize("f", [lap.lapjv, lap.lapjvx, lap.lapjvxa])
def test_shapes_that_are_refused(f):
    with pytest.raises(ValueError, match="Square cost array expected"):
        f(WIDE)
    with pytest.raises(ValueError, match="2-dimensional array expected"):
        f(np.zeros(3))


def test_options_that_are_refused():
    with pytest.raises(ValueError, match="Square cost array expected; pass extend_cost=True"):
        lap.lapjvr(WIDE)
    with pytest.raises(ValueError, match="extend_cost=False requires a square cost matrix"):
        lap.lapjvs(WIDE, extend_cost=False)
    with pytest.raises(ValueError, match="output must be 'indices' or 'pairs'"):
        lap.lapjvr(SQUARE, output="x")
    with pytest.raises(ValueError, match="precision must be"):
        lap.lapjvh(SQUARE, precision="half")
    with pytest.raises(TypeError, match="real numeric values"):
        lap.lapjvr(SQUARE + 0j)
    with pytest.raises(RuntimeError, match="Number of dimensions must be two"):
        lap.lapjvc(np.zeros(3))
    with pytest.raises(ValueError, match="3-dimensional array expected"):
        lap.lapjvx_batch(SQUARE)
    with pytest.raises(ValueError, match="Square cost array expected"):
        lap.lapjvx_batch(WIDE[None])


def test_empty_matrices():
    total, x, y = lap.lapjv(np.zeros((0, 3)))
    assert (total, x.tolist(), y.tolist()) == (0.0, [], [-1, -1, -1])
    assert lap.lapjvxa(np.zeros((3, 0)))[1].shape == (0, 2)
    assert lap.lapjv(np.zeros((3, 0)), cost_limit=1.0)[1].tolist() == [-1, -1, -1]


@pytest.mark.parametrize(
    ("batch", "single"),
    [
        (lap.lapjvx_batch, lap.lapjvx),
        (lap.lapjvxa_batch, lap.lapjvxa),
        (lap.lapjvs_batch, lap.lapjvs),
        (lap.lapjvsa_batch, lap.lapjvsa),
        (lap.lapjvr_batch, lap.lapjvr),
        (lap.lapjvh_batch, lap.lapjvh),
    ],
)
@pytest.mark.parametrize("shape", [(4, 6, 6), (3, 5, 8), (3, 8, 5), (0, 3, 3)])
def test_batches_are_their_parts(batch, single, shape):
    costs = np.random.default_rng(0).random(shape)
    totals, *lists = batch(costs, extend_cost=True, n_threads=2)
    assert totals.shape == shape[:1]
    for k, cost in enumerate(costs):
        total, *parts = single(cost, extend_cost=True)
        assert totals[k] == pytest.approx(total)
        for got, part in zip(lists, parts, strict=True):
            assert np.array_equal(got[k], part)
            assert got[k].dtype == np.int64
    bare = batch(costs, extend_cost=True, return_cost=False)
    assert len(bare[0] if isinstance(bare, tuple) else bare) == shape[0]


def lists_of(costs: np.ndarray) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    listed = np.isfinite(costs)
    pointers = np.concatenate([[0], np.cumsum(listed.sum(axis=1))])
    return len(costs), costs[listed], pointers, np.nonzero(listed)[1]


def test_lapmod_is_lapjv_on_lists():
    problems = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        costs = rng.random((8, 8))
        costs[rng.random((8, 8)) < 0.3] = INF
        problems.append(lists_of(costs))
        total, x, y = lap.lapmod(*problems[-1])
        assert total == pytest.approx(lap.lapjv(costs)[0])
        assert x.dtype == y.dtype == np.int32
        assert np.array_equal(y[x], range(8))
    totals, x, y = lap.lapmod_batch(problems)
    assert totals.tolist() == [lap.lapmod(*problem, fast=False, fp_version=lap.FP_1)[0] for problem in problems]
    assert len(x) == len(y) == 20
    assert lap.lapmod(*problems[0], return_cost=False)[0].tolist() == x[0].tolist()


def test_lapmod_without_an_assignment():
    total, x, y = lap.lapmod(*lists_of(INFEASIBLE))
    assert total == INF
    assert sorted(x) == sorted(y) == [0, 1, 2]
    assert np.isinf(INFEASIBLE[range(3), x]).sum() == 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"n": 0}, "positive number of rows"),
        ({"cc": -np.ones(9)}, "must be non-negative"),
        ({"cc": np.full(9, lap.LARGE)}, "must be less than 1000000"),
        ({"cc": np.full(9, INF)}, "must be finite"),
        ({"cc": np.ones(8)}, "same length"),
        ({"kk": np.array([]), "cc": np.array([])}, "zero columns"),
        ({"ii": np.array([0, 3, 6])}, r"n \+ 1 row pointers"),
        ({"ii": np.array([0, 6, 3, 9])}, "nondecreasing"),
        ({"kk": np.array([0, 1, 3, 0, 1, 2, 0, 1, 2])}, r"in the range \[0, n\)"),
        ({"kk": np.array([0, 2, 1, 0, 1, 2, 0, 1, 2])}, "strictly increasing"),
    ],
)
def test_lapmod_refuses(change, text):
    n, cc, ii, kk = lists_of(SQUARE)
    with pytest.raises(ValueError, match=text):
        lap.lapmod(**{"n": n, "cc": cc, "ii": ii, "kk": kk, **change})


def test_constants():
    assert (lap.LARGE, lap.FP_1, lap.FP_2, lap.FP_DYNAMIC) == (1_000_000, 1, 2, 3)
    assert all(hasattr(lap, name) for name in lap.__all__)
