"""The pass that builds the lists: a row is read from global memory once where it fits in shared memory, else twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import cuda_twin as twin
from helpers.cuda_assignment import DTYPES, Solve, check_solve, configure, laid_out, stored
from helpers.device import emulated_only, needs_kernels
from helpers.problems import FAMILIES

pytestmark = [needs_kernels, emulated_only]

SCAN, PLAN = 2, 3  # kernels up to there
SMALL = 4096  # bytes of shared memory of a block: less than a row takes


@pytest.fixture(autouse=True)
def usual_device():
    yield
    configure()


def problem(n: int, m: int, dtype: str = "float32", name: str = "weights") -> torch.Tensor:
    return stored(FAMILIES[name](np.random.default_rng([n, m]), n, m), dtype)


def bytes_read(scores: torch.Tensor, **options: Any) -> int:
    """By the kernels up to the scan; ``clear`` reads none."""
    from lmcfast import _emulated

    _emulated.reset_counters()
    Solve(scores, tuning={"launches": SCAN, "blocks": 4, "threads": 64, "full_list": 0}, **options).run()
    return int(_emulated.counters()["input_bytes"])


def check_lists(scores: torch.Tensor, fewest: int = 16, **options: Any) -> None:
    s = Solve(scores, tuning={"launches": PLAN, "blocks": 4, "threads": 64, "full_list": 0}, **options).run()
    exact = s.exact if s.exact.shape[0] <= s.exact.shape[1] else s.exact.T
    arrays = s.arrays()
    twin.check_lists(exact, np.zeros(exact.shape[1]), arrays, fewest=fewest)
    best = [exact[i, columns].max() for i, columns in enumerate(twin.lists(arrays))]
    np.testing.assert_array_equal(exact.max(axis=1), best)


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_of_a_score(dtype: str, held: bool) -> None:
    scores = problem(6, 2100, dtype)
    configure(shared_limit=227 << 10 if held else SMALL)
    assert bytes_read(scores) == scores.numel() * scores.element_size() * (1 if held else 2)
    check_lists(scores)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [257, 1030])
@pytest.mark.parametrize("layout", ["slice", "columns", "strided", "backwards"])
def test_rows_anywhere_in_memory(layout: str, columns: int, dtype: str) -> None:
    """Rows that begin at any offset from a multiple of 16 bytes, or whose scores do not lie side by side."""
    scores, options = problem(5, columns, dtype), {}
    if layout == "backwards":
        options["backwards"] = True
    else:
        scores = laid_out(scores, layout)
    assert bytes_read(scores, **options) == scores.numel() * scores.element_size()
    check_lists(scores, **options)


def test_columns_as_rows() -> None:
    scores = problem(1100, 7)
    assert bytes_read(scores) == scores.numel() * scores.element_size()
    check_lists(scores)


@pytest.mark.parametrize("name", ["constant", "integers_10", "zeros"])
def test_ties_are_listed_from_what_is_held(name: str) -> None:
    scores = problem(4, 1500, name=name)
    assert bytes_read(scores) == scores.numel() * scores.element_size()
    check_lists(scores, fewest=100)


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_solves_with_rows_held_and_not(dtype: str, held: bool) -> None:
    for seed in (0, 3):
        configure(seed=seed, shared_limit=48 << 10 if held else SMALL)
        check_solve(Solve(problem(60, 2100, dtype), tuning={"blocks": 3, "threads": 64}).run())


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("column", [0, 1, 700, 1029])
def test_invalid_scores_are_found_in_packs_and_beside_them(column: int, value: float) -> None:
    scores = problem(3, 1030)
    scores[1, column] = float(value)
    s = Solve(scores).run()
    assert s.report["status"] & 1
    assert (s.report["row"], s.report["column"]) == (1, column)
