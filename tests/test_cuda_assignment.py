"""The assignment kernels on every family of problems: the optimum and its proof, whatever the schedule and storage."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.cuda_assignment import Solve, check_solve, configure, laid_out, stored
from helpers.device import emulated_only, needs_kernels
from helpers.problems import FAMILIES

import lmcfast

pytestmark = needs_kernels


@pytest.fixture(autouse=True)
def usual_schedule():
    yield
    configure()


def family(name, n, m=None, seed=0, dtype="float32"):
    rng = np.random.default_rng([seed, n])
    return stored(FAMILIES[name](rng, n, n if m is None else m), dtype)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_solved(name):
    for n in (3, 33, 130):
        check_solve(Solve(family(name, n)).run())


AT_512 = ["weights", "planted_noisy", "integers_10", "constant", "rank_1", "uniform", "dead_units", "heavy_tails"]


@pytest.mark.parametrize("name", AT_512)
def test_every_family_is_solved_at_512(name):
    check_solve(Solve(family(name, 512), tuning={"blocks": 16, "threads": 64}).run())


@emulated_only
@pytest.mark.parametrize("name", AT_512)
def test_random_schedules_at_300(name):
    configure(seed=11, residency=6)
    check_solve(Solve(family(name, 300, seed=9), tuning={"blocks": 11, "threads": 96, "path_threads": 96}).run())


@emulated_only
@pytest.mark.long
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_in_random_schedules_up_to_512(name):
    """The CPU solver's objective, with certificate, whatever the schedule and the number of blocks."""
    shapes = ((512, 0, 4, 16, 64), (512, 4, 3, 7, 96), (512, 5, 9, 33, 32), (384, 6, 1, 1, 128), (257, 7, 5, 3, 32))
    for n, seed, residency, blocks, threads in shapes:
        configure(seed=seed, residency=residency)
        s = Solve(family(name, n, seed=seed), tuning={"blocks": blocks, "threads": threads}).run()
        check_solve(s)
        expected = lmcfast.solve_assignment(s.exact).objective
        assert abs(s.report["objective"] - expected) <= 32 * n * 2.0**-53 * float(s.report["scale"])


@emulated_only
@pytest.mark.parametrize("name", FAMILIES)
def test_random_schedules(name):
    for seed, residency, blocks, threads in ((1, 1, 1, 32), (2, 3, 5, 96), (3, 7, 9, 32)):
        configure(seed=seed, residency=residency)
        tuning = {"blocks": blocks, "threads": threads, "path_threads": 64 * seed, "full_list": 0}
        check_solve(Solve(family(name, 40, seed=seed), tuning=tuning).run())


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["weights", "integers_10", "dead_units", "plane"])
def test_other_storage(name, dtype):
    check_solve(Solve(family(name, 140, dtype=dtype)).run())


def test_float64_scores_that_differ_beyond_float32():
    rng = np.random.default_rng(1)
    check_solve(Solve(stored(1 + 1e-12 * rng.standard_normal((150, 150)), "float64")).run())


@pytest.mark.parametrize("largest", [1e-300, 1e290])
def test_float64_scores_beyond_the_range_of_float32(largest):
    rng = np.random.default_rng(2)
    check_solve(Solve(stored(largest * rng.standard_normal((140, 140)), "float64")).run())


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (30, 31), (31, 30), (20, 200), (200, 20), (130, 150)])
@pytest.mark.parametrize("maximize", [True, False])
def test_rectangular(shape, maximize):
    for name in ("weights", "integers_10", "uniform"):
        check_solve(Solve(family(name, *shape), maximize=maximize).run())


@pytest.mark.parametrize("layout", ["columns", "slice", "strided", "backwards"])
@pytest.mark.parametrize("shape", [(40, 40), (20, 45), (45, 20)])
def test_layouts(layout, shape):
    scores = family("weights", *shape)
    if layout == "backwards":
        check_solve(Solve(scores, backwards=True).run())
    else:
        check_solve(Solve(laid_out(scores, layout)).run())


@pytest.mark.parametrize("seed", range(6))
def test_row_scales_that_differ_by_1e18(seed):
    """Rows below the resolution of the auction's prices are left free by it, and cost few steps."""
    rng = np.random.default_rng(seed)
    n = 130
    s = Solve(stored(rng.standard_normal((n, n)) * 10.0 ** rng.integers(-12, 6, (n, 1)))).run()
    check_solve(s)
    assert s.report["path_steps"] <= 20 * n


@pytest.mark.parametrize("name", ["integers_10", "constant", "zeros", "sparse_1", "half_zero"])
def test_ties_end_in_tight_pairs(name):
    """Many ties need no auction and next to no shortest paths: tight pairs are matched."""
    n = 256
    s = Solve(family(name, n)).run()
    check_solve(s)
    assert s.report["phases"] == 0
    assert s.report["paths"] <= 2
    assert s.report["tight_rounds"] <= 8


@emulated_only
def test_work_is_bounded():
    """Counts of a fixed schedule, with room for changes that are not meant to alter them."""
    bounds = {  # bids and scans for each row, path steps, phases
        "weights": (7, 0.2, 800, 0),
        "planted": (1.1, 0, 0, 0),
        "uniform": (9, 0.2, 1600, 0),
        "integers_10": (1.5, 0, 60, 0),
        "dead_units": (6, 0.2, 2100, 0),
        "rank_1": (220, 10, 1000, 12),
        "duplicate_rows": (190, 4, 500, 9),
        "heavy_tails": (8, 0.2, 2200, 0),
    }
    for name, (bids, scans, steps, phases) in bounds.items():
        n = 256
        s = Solve(family(name, n), tuning={"blocks": 16, "threads": 64}).run()
        check_solve(s)
        assert s.report["bids"] <= bids * n, name
        assert s.report["scans"] <= scans * n, name
        assert s.report["path_steps"] <= steps, name
        assert s.report["phases"] <= phases, name
        assert s.launches == 66, name
