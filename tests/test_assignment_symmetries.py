"""What must not change an optimum, or must change it by a known amount; and what must not change a single bit.

Scores are whole numbers here, so all sums are exact and objectives are compared with ==.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.checks import check_assignment, solve
from helpers.problems import FAMILIES, forbid, whole_numbers, with_layout
from hypothesis import given, settings
from hypothesis import strategies as st

import lmcfast

Generator = np.random.Generator
Changed = tuple[np.ndarray, dict[str, Any], float]  # other scores, options for their solve, their optimum
LARGE = [(400, 400), (390, 420), (420, 390)]  # the list method's
many_examples = settings(deadline=None, derandomize=True, database=None, max_examples=60)


def rows_permuted(s: np.ndarray, best: float, rng: Generator) -> Changed:
    return rng.permutation(s, axis=0), {}, best


def columns_permuted(s: np.ndarray, best: float, rng: Generator) -> Changed:
    return rng.permutation(s, axis=1), {}, best


def transposed(s: np.ndarray, best: float, rng: Generator) -> Changed:
    return s.T, {}, best


def negated(s: np.ndarray, best: float, rng: Generator) -> Changed:
    return -s, {"maximize": False}, -best


def constant_added_everywhere(s: np.ndarray, best: float, rng: Generator) -> Changed:
    c = float(rng.integers(-1000, 1000))
    return s + c, {}, best + c * min(s.shape)


def constants_added_to_lines(s: np.ndarray, best: float, rng: Generator) -> Changed:
    """To each row where every row is assigned, to each column where every column is."""
    n, m = s.shape
    for axis, all_assigned in ((1, n <= m), (0, m <= n)):
        if all_assigned:
            c = rng.integers(-1000, 1000, s.shape[1 - axis]).astype(s.dtype)
            s, best = s + np.expand_dims(c, axis), best + float(c.sum())
    return s, {}, best


def scaled_by_a_power_of_two(s: np.ndarray, best: float, rng: Generator) -> Changed:
    k = int(rng.integers(-60, 60))
    return np.ldexp(s, k), {}, float(np.ldexp(best, k))


def dominated_lines_appended(s: np.ndarray, best: float, rng: Generator) -> Changed:
    """Columns that no row can gain by; for more rows than columns, rows."""
    if s.shape[0] > s.shape[1]:
        other, options, best = dominated_lines_appended(s.T, best, rng)
        return other.T, options, best
    worse = s.min(axis=1, keepdims=True) - rng.integers(0, 3, (len(s), 1 + len(s) // 3)).astype(s.dtype)
    return np.hstack([s, worse]), {}, best


def everything_doubled(s: np.ndarray, best: float, rng: Generator) -> Changed:
    """Two copies of every row and column: the two assignments that such a one splits into are at most the best."""
    return np.tile(s, (2, 2)), {}, 2 * best


def two_blocks(s: np.ndarray, best: float, rng: Generator) -> Changed:
    """A second problem beside the first, and no pair between them."""
    other = rng.integers(-9, 9, s.shape).astype(s.dtype)
    apart = np.full(s.shape, -np.inf, s.dtype)
    return np.block([[s, apart], [apart, other]]), {}, best + solve(other).objective


def warm(s: np.ndarray, best: float, rng: Generator) -> Changed:
    """Start prices of nearly the same problem."""
    near = s + rng.integers(-3, 3, s.shape).astype(s.dtype)
    return s, {"prices": solve(near).prices}, best


def random_prices(s: np.ndarray, best: float, rng: Generator) -> Changed:
    return s, {"prices": rng.normal(0, np.abs(s).max(), s.shape[1])}, best


def forbidden_pairs_that_are_never_used(s: np.ndarray, best: float, rng: Generator) -> Changed:
    """Forbids pairs outside an optimal assignment."""
    a = solve(s)
    unused = rng.random(s.shape) < rng.random()
    rows = np.flatnonzero(a.columns >= 0)
    unused[rows, a.columns[rows]] = False
    return np.where(unused, -np.inf, s).astype(s.dtype), {}, best


SYMMETRIES: dict[str, Callable[[np.ndarray, float, Generator], Changed]] = {
    change.__name__: change
    for change in (
        rows_permuted,
        columns_permuted,
        transposed,
        negated,
        constant_added_everywhere,
        constants_added_to_lines,
        scaled_by_a_power_of_two,
        dominated_lines_appended,
        everything_doubled,
        two_blocks,
        warm,
        random_prices,
        forbidden_pairs_that_are_never_used,
    )
}


def whole(family: str, n: int, m: int, bits: int, seed: int, dtype: type = np.float64) -> np.ndarray:
    return whole_numbers(FAMILIES[family](np.random.default_rng([seed, n, m]), n, m), bits).astype(dtype)


PROBLEMS = st.builds(
    whole,
    family=st.sampled_from(list(FAMILIES)),
    n=st.integers(1, 40),
    m=st.integers(1, 40),
    bits=st.integers(1, 13),  # the constants added still leave sums of less than 2^24
    seed=st.integers(0, 2**20),
    dtype=st.sampled_from([np.float32, np.float64]),
)


def check_symmetry(name: str, scores: np.ndarray, seed: int) -> None:
    a = solve(scores)
    check_assignment(scores, a)
    changed, options, expected = SYMMETRIES[name](scores, a.objective, np.random.default_rng(seed))
    b = solve(changed, **options)
    check_assignment(changed, b, options.get("maximize", True))
    assert b.objective == expected


@pytest.mark.parametrize("name", SYMMETRIES)
@given(scores=PROBLEMS, seed=st.integers(0, 1000))
@many_examples
def test_symmetries_of_small_problems(name, scores, seed):
    check_symmetry(name, scores, seed)


@pytest.mark.parametrize("name", SYMMETRIES)
@pytest.mark.parametrize("family", ["weights", "planted", "integers_10", "hub", "rank_2", "half_zero"])
def test_symmetries_of_problems_solved_on_lists(name, family):
    for k, (n, m) in enumerate(LARGE):
        check_symmetry(name, whole(family, n, m, (2, 7, 13)[k], k, (np.float32, np.float64)[k % 2]), k)


def assert_same_bits(a: lmcfast.Assignment, b: lmcfast.Assignment) -> None:
    assert np.array_equal(a.columns, b.columns)
    assert np.array_equal(a.prices, b.prices)
    assert np.array_equal(a.objective, b.objective)
    assert np.array_equal(a.gap, b.gap)


def part(a: lmcfast.Assignment, k: int) -> lmcfast.Assignment:
    """Problem k of a batch."""
    return a._replace(columns=a.columns[k], prices=a.prices[k], objective=a.objective[k], gap=a.gap[k])


@given(scores=PROBLEMS, count=st.integers(1, 6), seed=st.integers(0, 1000), share=st.sampled_from([0.0, 0.3]))
@many_examples
def test_a_batch_gives_what_its_problems_give(scores, count, seed, share):
    rng = np.random.default_rng(seed)
    batch = np.stack([forbid(rng, rng.permuted(scores, axis=1), share, -np.inf, True) for _ in range(count)])
    prices = rng.normal(0, np.abs(scores).max(), (count, scores.shape[1]))
    for start in (None, prices):
        together = solve(batch, prices=start, threads=2)
        for k, one in enumerate(batch):
            assert_same_bits(part(together, k), solve(one, prices=None if start is None else start[k]))


@given(scores=PROBLEMS, layout=st.sampled_from(["slice", "reversed", "mirrored", "strided"]))
@many_examples
def test_strides_do_not_change_a_bit(scores, layout):
    scores = np.log1p(np.abs(scores))  # sums that are rounded
    assert_same_bits(solve(with_layout(scores, layout)), solve(scores))


@pytest.mark.parametrize("shape", [*LARGE, (30, 40), (40, 30)])
@pytest.mark.parametrize("layout", ["slice", "reversed", "mirrored", "strided", "columns"])
def test_strides_do_not_change_a_bit_of_a_large_problem(shape, layout):
    scores = FAMILIES["weights"](np.random.default_rng(3), *shape)
    a, b = solve(with_layout(scores, layout)), solve(np.ascontiguousarray(scores))
    if layout == "columns" and shape[0] == shape[1]:  # solved as its transpose: no copy, another proof
        assert a.objective == pytest.approx(b.objective, rel=1e-14)
    else:
        assert_same_bits(a, b)


@pytest.mark.parametrize("family", FAMILIES)
def test_threads_do_not_change_a_bit(family):
    rng = np.random.default_rng(9)
    large = FAMILIES[family](rng, 600, 600).astype(np.float32)
    batch = np.stack([FAMILIES[family](rng, 12, 15) for _ in range(9)])
    for scores in (large, batch):
        results = [solve(scores, threads=threads) for threads in (1, 2, 3)]
        for a in results[1:]:
            assert_same_bits(a, results[0])
            assert a.stats == results[0].stats


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bits", [1, None])
def test_a_power_of_two_scales_the_prices_and_changes_no_step(family, bits):
    """No stage may hold a constant that is large or small only beside scores of a usual size."""
    for shape in [(7, 7), (40, 60), (420, 420)]:
        scores = FAMILIES[family](np.random.default_rng(8), *shape).astype(np.float64)
        scores = scores if bits is None else whole_numbers(scores, bits)
        a = solve(scores)
        for power in (-300, 300):
            b = solve(np.ldexp(scores, power))
            assert b.stats == a.stats
            assert np.array_equal(b.columns, a.columns)
            assert np.array_equal(b.prices, np.ldexp(a.prices, power))
            assert b.objective == np.ldexp(a.objective, power)
