"""Each kernel of the assignment solver against its twin: solves are stopped after a kernel and looked into."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import cuda_twin as twin
from helpers.cuda_assignment import Solve, check_solve, configure, stored
from helpers.device import needs_kernels
from helpers.problems import FAMILIES, forbid

pytestmark = needs_kernels

# Kernels in order: clear, scan, plan; phase 0 with the attempt at paths; 15 phases of 3; release, exact bids; lowering.
SCAN, PLAN, BIDS, ATTEMPT, FIRST_PHASE, PHASE = 2, 3, 5, 6, 9, 3
RELEASED, EXACT_BIDS, WORDS_READ, PROFITS, LOWERED, REBUILT, PATHS = 55, 57, 59, 60, 61, 62, 63

NAMES = ["weights", "uniform", "integers_10", "dead_units", "duplicate_rows", "rank_1", "line"]


@pytest.fixture(autouse=True)
def usual_schedule():
    yield
    configure()


def scores_of(name, n=140, dtype="float32"):
    return stored(FAMILIES[name](np.random.default_rng([2, n]), n, n), dtype)


def stopped(scores, launches, **options):
    """The solve after so many kernels, the scores, and the workspace."""
    s = Solve(scores, tuning={"launches": launches, "full_list": 0, "blocks": 5, "threads": 64}, **options).run()
    assert s.launches == launches
    exact = s.exact if s.maximize else -s.exact
    return exact, s.arrays()


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("name", NAMES)
def test_scan(name, dtype):
    """At zero prices the list holds the best of each of 16 classes at least, and the bound is rigorous."""
    exact, a = stopped(scores_of(name, dtype=dtype), PLAN)
    prices, owner = twin.words(a)
    assert (prices == 0).all()
    assert (owner == -1).all()
    twin.check_lists(exact, prices, a, fewest=16)
    np.testing.assert_array_equal(
        [row.max() for row in exact], [exact[i, j].max() for i, j in enumerate(twin.lists(a))]
    )


def test_scan_of_forbidden_pairs():
    rng = np.random.default_rng(3)
    values = forbid(rng, FAMILIES["weights"](rng, 140, 140), 0.95, np.inf, True)
    exact, a = stopped(stored(values), PLAN, maximize=False)
    twin.check_lists(exact, np.zeros(140), a, fewest=1)


def test_scan_at_start_prices():
    start = np.random.default_rng(4).standard_normal(140)
    exact, a = stopped(scores_of("uniform"), PLAN + 2, start=start)
    prices, _ = twin.words(a)
    assert np.abs(prices - (start - start.min())).max() <= a["delta"][0]
    twin.check_lists(exact, prices, a, fewest=16)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_bids_without_a_tolerance(name, seed):
    """Owners hold exactly their best column, whatever the schedule; prices are multiples of delta."""
    configure(seed=seed)
    exact, a = stopped(scores_of(name), BIDS)
    twin.check_bids(exact, a, 0, a["left"][: a["rows_left"][0]])
    twin.check_lists(exact, twin.words(a)[0], a, fewest=16)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ["duplicate_rows", "rank_1", "line"])
def test_bids_with_a_tolerance(name, seed):
    configure(seed=seed)
    _, before = stopped(scores_of(name), BIDS + 2)
    configure(seed=seed)
    exact, a = stopped(scores_of(name), FIRST_PHASE)
    assert a["phase"][0] == 1
    assert a["eps"][0] > 0
    twin.check_bids(exact, a, a["eps"][0], a["left"][: a["rows_left"][0]])
    assert (twin.words(a)[0] >= twin.words(before)[0]).all()


@pytest.mark.parametrize("name", ["integers_10", "constant", "zeros", "sparse_1", "half_zero"])
def test_tight_pairs_are_matched_as_far_as_they_go(name):
    """No path of tight listed pairs is missed before the first shortest path: compared with a search by depth."""
    scores = scores_of(name)
    exact, a = stopped(scores, BIDS)
    prices, _ = twin.words(a)
    possible = twin.tight_matching_size(exact, {**a, "price": prices})
    s = Solve(scores, tuning={"full_list": 0, "blocks": 5, "threads": 64}).run()
    check_solve(s)
    assert s.report["paths"] == len(exact) - possible


@pytest.mark.parametrize("name", ["duplicate_rows", "rank_1", "line"])
def test_release(name):
    """Rows that are not exactly at their best value give up their columns and are queued; others keep them."""
    exact, a = stopped(scores_of(name), RELEASED)
    assert a["settled"][0] == 0
    twin.check_bids(exact, a, 0, a["queue"][: a["rows_queued"][0]])


@pytest.mark.parametrize("name", ["duplicate_rows", "rank_1", "line"])
def test_prices_of_free_columns_fall(name):
    """Lowering keeps the proof and lowers the bound; lists hold for the new prices."""
    scores = scores_of(name)
    exact, before = stopped(scores, PROFITS)
    _, a = stopped(scores, REBUILT)
    free = a["row_of"] < 0
    assert free.any()
    assert (a["price"] <= before["price"]).all()
    assert (a["price"] == before["price"])[~free].all()
    reached = (exact - before["profit"][:, None]).max(axis=0)
    np.testing.assert_array_equal(a["price"][free], np.minimum(before["price"], reached)[free])
    assert twin.dual_bound(exact, a["price"]) <= twin.dual_bound(exact, before["price"]) + 1e-9
    twin.check_lists(exact, a["price"], a, fewest=16)
    twin.check_state(exact, a)


@pytest.mark.parametrize("name", ["duplicate_rows", "line", "dead_units"])
def test_paths(name):
    """A path assigns one more row, keeps all pairs tight, and lowers the dual bound of its rows by its length."""
    scores = scores_of(name, 100)
    options = {"full_list": 0, "blocks": 5, "threads": 64}
    s = Solve(scores, step_limit=1, tuning={**options, "launches": PATHS}).run()
    exact = s.exact
    for _ in range(4):
        a = s.arrays()
        free = twin.check_state(exact, a)
        if len(free) == 0:
            break
        root = a["left"][a["rows_left"][0] - 1]
        length = twin.shortest_distance(exact, a["price"], a["row_of"], root)
        rows = [*np.flatnonzero(a["column_of"] >= 0), root]
        bound = twin.dual_bound(exact[rows], a["price"])
        s.tuning["launches"] = 1
        s.run(resume=True)
        after = s.arrays()
        assert set(free) - set(twin.check_state(exact, after)) >= {root}
        if a["rows_left"][0] - after["rows_left"][0] == 1:
            fallen = bound - twin.dual_bound(exact[rows], after["price"])
            np.testing.assert_allclose(fallen, length, rtol=1e-9, atol=1e-9)
