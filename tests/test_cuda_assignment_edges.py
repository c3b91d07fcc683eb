"""The assignment kernels where things go wrong or stop early: every status, continuation, warm starts, far strides."""

from __future__ import annotations

import mmap

import numpy as np
import pytest
import torch
from helpers.cuda_assignment import (
    BUDGET_SPENT,
    INFEASIBLE,
    INVALID,
    NOT_CERTIFIED,
    UNFINISHED,
    Solve,
    check_solve,
    configure,
    laid_out,
    stored,
)
from helpers.device import emulated_only, needs_kernels
from helpers.problems import FAMILIES, forbid

pytestmark = needs_kernels


@pytest.fixture(autouse=True)
def usual_schedule():
    yield
    configure()


def matched(n, m=None, seed=0, dtype="float32"):
    return stored(FAMILIES["weights"](np.random.default_rng([seed, n]), n, n if m is None else m), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize(("value", "maximize"), [(np.nan, True), (np.inf, True), (-np.inf, False), (np.nan, False)])
@pytest.mark.parametrize("shape", [(40, 40), (17, 60), (60, 17)])
def test_an_invalid_score_is_found(shape, value, maximize, dtype):
    scores = matched(*shape, dtype=dtype)
    scores[5, 3] = scores[9, 11] = value
    s = Solve(scores, maximize=maximize).run()
    assert s.report["status"] == INVALID | NOT_CERTIFIED
    assert (s.report["row"], s.report["column"]) in ((5, 3), (9, 11))
    np.testing.assert_equal(s.report["value"], value)
    assert (s.columns == -1).all()


def test_a_float64_score_too_large_for_prices_is_invalid():
    scores = matched(20, dtype="float64")
    scores[4, 6] = 1e302
    s = Solve(scores).run()
    assert s.report["status"] & INVALID
    assert (s.report["row"], s.report["column"]) == (4, 6)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("shape", [(50, 50), (30, 60), (60, 30), (140, 140)])
@pytest.mark.parametrize("maximize", [True, False])
def test_forbidden_pairs(shape, share, maximize):
    rng = np.random.default_rng(3)
    values = FAMILIES["weights"](rng, *shape)
    s = Solve(stored(forbid(rng, values, share, -np.inf if maximize else np.inf, True)), maximize=maximize).run()
    check_solve(s)


@pytest.mark.parametrize("case", ["empty row", "empty column", "two rows of one column", "half"])
@pytest.mark.parametrize("shape", [(30, 30), (130, 130), (20, 31), (31, 20)])
def test_infeasible(case, shape):
    scores = matched(*shape)
    n, m = shape
    if case == "empty row":
        if n > m:
            scores = scores.t().contiguous()  # of the smaller side
        scores[4, :] = -torch.inf
    elif case == "empty column":
        if n < m:
            scores = scores.t().contiguous()
        scores[:, 4] = -torch.inf
    elif case == "two rows of one column":
        if n > m:
            scores = scores.t().contiguous()
        scores[3:5, 1:] = -torch.inf
    else:
        scores[: n // 2 + 8, : m // 2 + 8] = -torch.inf
        if n != m:
            scores[:] = -torch.inf
    s = Solve(scores).run()
    assert s.report["status"] & INFEASIBLE
    assert s.report["status"] & NOT_CERTIFIED
    assert s.report["left"] >= 1
    assert max(s.report["row"], s.report["column"]) >= 0


def test_paths_go_on_where_they_stopped():
    scores = stored(FAMILIES["duplicate_rows"](np.random.default_rng(1), 60, 65))
    s = Solve(scores, step_limit=100).run()
    slices = 1
    while s.report["status"] & UNFINISHED:
        assert s.report["status"] & NOT_CERTIFIED
        before = s.report["left"]
        s.run(resume=True)
        assert s.report["left"] < before
        slices += 1
    assert slices > 2
    check_solve(s)


def test_a_spent_budget_leaves_the_rest_to_the_paths():
    scores = stored(FAMILIES["duplicate_rows"](np.random.default_rng(1), 130, 130))
    s = Solve(scores, tuning={"bid_limit": 1}).run()
    assert s.report["status"] & BUDGET_SPENT
    assert s.report["phases"] == 1
    assert s.report["paths"] > 1
    check_solve(s)


@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_prices_of_a_solve_start_the_next(layout):
    """Start prices that are nearly right save most of the work; in column order they are the profits of the solver."""
    scores = matched(150)
    first = Solve(scores).run()
    moved = scores + 1e-4 * matched(150, seed=1)
    if layout == "columns":
        moved = laid_out(moved, "columns")
    cold = Solve(moved).run()
    warm = Solve(moved, start=first.prices).run()
    for s in (cold, warm):
        check_solve(s)
    assert (cold.report["warm"], warm.report["warm"]) == (0, 1)
    assert warm.report["bids"] < cold.report["bids"] / 2


@pytest.mark.parametrize("scale", [0, 1e-9, 1, 1e6, 1e300])
def test_any_start_prices_are_legal(scale):
    for shape in ((60, 60), (40, 60), (60, 40)):
        start = scale * np.random.default_rng(4).standard_normal(shape[1])
        for maximize in (True, False):
            check_solve(Solve(matched(*shape), start=start, maximize=maximize).run())


def test_start_prices_that_are_not_finite_are_dropped():
    start = np.zeros(40)
    start[3] = np.nan
    s = Solve(matched(40), start=start).run()
    check_solve(s)
    assert s.report["warm"] == 0


@emulated_only
@pytest.mark.parametrize("name", ["weights", "integers_10", "duplicate_rows"])
def test_deterministic_solves_repeat(name):
    scores = stored(FAMILIES[name](np.random.default_rng(5), 60, 60))
    results = []
    for seed in (0, 1, 2):
        configure(seed=seed, residency=1 + seed)
        s = Solve(scores, deterministic=True, tuning={"full_list": 0}).run()
        check_solve(s)
        results.append((s.columns.tolist(), s.prices.tolist(), s.report["bids"]))
    assert results[0] == results[1] == results[2]


@emulated_only
def test_offsets_beyond_32_bits():
    """64 rows, each 2^31 / 64 elements and more from the last, in memory that is committed where it is touched."""
    n, stride = 64, 2**31 // 64 + 7
    lazily = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Linux's value; Python names it from 3.13 on
    try:
        memory = mmap.mmap(-1, 4 * n * stride, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | lazily)
    except OSError as error:
        pytest.skip(f"no address space for {4 * n * stride} bytes: {error}")
    base = torch.frombuffer(memory, dtype=torch.float32)
    scores = base.as_strided((n, n), (stride, 1))
    scores.copy_(matched(n))
    for view in (scores, scores.t()):
        check_solve(Solve(view).run())


def test_shared_memory_at_the_limit_that_a_kernel_has_unasked():
    """Keys and minima of the paths take nearly 48 KiB, which hold the kernel's static variables, too."""
    check_solve(Solve(stored(np.random.default_rng(2).standard_normal((2, 6090)))).run())


@emulated_only
def test_keys_in_shared_memory_of_227_kib():
    """Up to 28,672 columns, with room for static variables; workspace that is not needed stays as it was."""
    for columns, shared in ((28_672, True), (28_800, False)):
        s = Solve(stored(np.random.default_rng(2).standard_normal((2, columns)))).run()
        check_solve(s)
        assert (s.arrays()["key"].view(np.uint8) == 0xCD).all() == shared


@emulated_only
def test_paths_without_shared_memory_for_their_columns():
    """What grows with the columns lies in the workspace then: any number of them can be solved."""
    configure(shared_limit=2048)  # the minima alone take 1976 bytes
    s = Solve(stored(np.random.default_rng(2).standard_normal((2, 31_500)))).run()
    check_solve(s)
    assert (s.arrays()["least"].view(np.uint8) != 0xCD).any()


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0)])
def test_problems_without_rows_or_columns(shape):
    s = Solve(stored(np.zeros(shape))).run()
    assert s.report["status"] == 0
    assert s.report["objective"] == s.report["gap"] == 0
    assert (s.columns == -1).all()
    assert (s.prices == 0).all()


def test_sizes_beyond_the_limits_are_refused():
    s = Solve(stored(np.zeros((2, 2))))
    s.scores = s.scores[:1, :1].expand(131_071, 131_071)
    with pytest.raises(RuntimeError, match="assignment: "):
        s.run()
