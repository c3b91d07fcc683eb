"""The tests of other projects, where they are installed, pass against lmcfast's faces; docs/compat.md has them all."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.peer_suites import run_suite

from lmcfast.compat import lap

# lap's tests demand one of several optimal assignments of these (cost, what they demand).
TIED = {
    4: ([[10, 10, 13], [4, 8, 8], [8, 5, 8]], [2, 0, 1]),
    6: ([[12, 4, 9], [16, 15, 14], [19, 13, 17]], [1, 0, 2]),
    7: ([[2, 5, 7], [7, 10, 12], [1, 5, 9]], [2, 1, 0]),
    9: ([[10, 10, 13], [4, 8, 8], [8, 5, 8]], [2, 0, 1]),
    10: ([[2, 5, 7], [7, 10, 12], [1, 5, 9]], [2, 1, 0]),
}
LAP_DIFFERS = {f"{module}::test_square[cost{k}-expected{k}]" for module in ("test_lapjv", "test_lapmod") for k in TIED}


def test_all_of_scipys_tests_pass():
    outcomes = run_suite("scipy", "scipy.optimize.tests.test_linear_assignment", "--pyargs")
    assert len(outcomes) > 20
    assert {name: outcome for name, outcome in outcomes.items() if outcome != "passed"} == {}


def test_laps_tests_pass_but_for_ties(tmp_path):
    found = importlib.util.find_spec("lap")
    folder = Path(found.origin).parent / "tests" if found and found.origin else None
    if folder is None or not folder.is_dir():
        pytest.skip("the project lap, whose package holds its tests, is not installed")
    shutil.copytree(folder, tmp_path / "lap_tests")
    outcomes = run_suite("lap", str(tmp_path / "lap_tests"))
    failed = {name.rpartition("lap_tests.")[2] for name, outcome in outcomes.items() if outcome.startswith("failed")}
    assert len(outcomes) > 50
    assert failed <= LAP_DIFFERS


@pytest.mark.parametrize("case", TIED)
def test_where_laps_tests_differ_the_costs_are_equal(case):
    matrix, demanded = TIED[case]
    costs = np.array(matrix)
    total, x, _ = lap.lapjv(costs)
    assert total == costs[range(3), x].sum() == costs[range(3), demanded].sum()
