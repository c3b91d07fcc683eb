"""Random problems of every family, dtype, layout and shape against scipy: the objective never differs."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.checks import check_optimal
from helpers.problems import FAMILIES, LAYOUTS, forbid, with_layout
from scipy.optimize import linear_sum_assignment

import lmcfast


def solve_random_problem(seed: int, largest: int) -> str:
    """One random problem; returns what became of it."""
    rng = np.random.default_rng([20240204, seed])
    n, m = (int(np.exp(rng.uniform(0, np.log(largest)))) for _ in range(2))
    if rng.random() < 0.5:
        m = n
    family = list(FAMILIES)[seed % len(FAMILIES)]
    maximize = bool(rng.random() < 0.5)
    scores = FAMILIES[family](rng, n, m) * 10.0 ** rng.integers(-12, 7)
    scores = scores.astype(np.float32 if rng.random() < 0.5 else np.float64)
    outcome = "solved"
    if rng.random() < 0.2:
        outcome = "forbidden"
        value = -np.inf if maximize else np.inf
        scores = forbid(rng, scores, rng.uniform(0, 1), value, feasible=bool(rng.random() < 0.5))
    scores = with_layout(scores, LAYOUTS[rng.integers(len(LAYOUTS))])
    try:
        linear_sum_assignment(scores, maximize=maximize)
    except ValueError:
        with pytest.raises(lmcfast.InfeasibleError):
            lmcfast.solve_assignment(scores, maximize=maximize)
        return "infeasible"
    prices = rng.normal(0, np.abs(scores[np.isfinite(scores)]).max(), m) if rng.random() < 0.2 else None
    a = lmcfast.solve_assignment(scores, maximize=maximize, prices=prices, certify="full")
    check_optimal(scores, a, maximize)
    return outcome


def fuzz(seeds: range, largest: int) -> set[str]:
    """Solves a random problem for each seed; returns the kinds of outcome that were met."""
    outcomes = [solve_random_problem(seed, largest) for seed in seeds]
    print({outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))})
    return set(outcomes)


def test_a_thousand_random_problems_equal_scipy():
    assert fuzz(range(1000), 200) == {"solved", "forbidden", "infeasible"}


@pytest.mark.long
def test_twenty_thousand_random_problems_equal_scipy():
    assert fuzz(range(1000, 21_000), 600) == {"solved", "forbidden", "infeasible"}
