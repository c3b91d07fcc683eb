"""Groups on two axes of one tensor: parts of a step, and swaps, by the true objective."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers.matching import noisy, plain_objective, random_like

import lmcfast
from lmcfast import PermutationSpec, weight_matching
from lmcfast.matching.objective import Alignment
from lmcfast.matching.problem import make_problem
from lmcfast.matching.scores import ScoreTable
from lmcfast.matching.swaps import cycles_between, swap_gains

RECURRENT = {"w_ih": ("h | h | h | h", None), "w_hh": ("h | h | h | h", "h"), "b": ("h | h | h | h",), "o": (None, "h")}
SQUARE = {"w": ("h _2", "h"), "x": ("h", None)}


def recurrent_case(n: int) -> tuple[PermutationSpec, dict[str, torch.Tensor]]:
    like = {"w_ih": torch.empty(4 * n, 3), "w_hh": torch.empty(4 * n, n), "b": torch.empty(4 * n)}
    return PermutationSpec.from_axes(RECURRENT), {**like, "o": torch.empty(2, n)}


def square_case(n: int) -> tuple[PermutationSpec, dict[str, torch.Tensor]]:
    return PermutationSpec.from_axes(SQUARE), {"w": torch.empty(2 * n, n), "x": torch.empty(n, 3)}


@pytest.mark.parametrize("case", [recurrent_case, square_case])
def test_swap_gains_are_differences_of_objectives(case) -> None:  # type: ignore[no-untyped-def]
    spec, like = case(5)
    a, b = (random_like({k: t.double() for k, t in like.items()}, seed) for seed in (1, 2))
    problem = make_problem(spec, a, b, tensor_weights={"w*": 0.5})
    setting = problem.spec.random_permutations(3)
    gains = swap_gains(problem, ScoreTable(problem), Alignment(problem, setting), "h")
    alignment = Alignment(problem, setting)
    for r, s in itertools.combinations(range(5), 2):
        swapped = setting["h"].clone()
        swapped[[r, s]] = swapped[[s, r]]
        assert float(gains[r, s]) == pytest.approx(alignment.propose("h", swapped).gain, rel=1e-9, abs=1e-9)
    torch.testing.assert_close(gains, gains.T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", [recurrent_case, square_case])
def test_no_swap_gains_at_the_end(case) -> None:  # type: ignore[no-untyped-def]
    for seed in range(4):
        spec, like = case(7)
        a, b = random_like(like, 2 * seed), random_like(like, 2 * seed + 1)
        result = weight_matching(spec, a, b)
        assert result.exactness == {"h": "linearised"}
        assert all(later.objective >= earlier.objective for earlier, later in itertools.pairwise(result.trace[1:]))
        assert result.objective == pytest.approx(plain_objective(spec, result.permutations, a, b), rel=1e-12)
        assert result.objective == pytest.approx(result.trace[-1].objective, rel=1e-9)
        for r, s in itertools.combinations(range(7), 2):
            swapped = result.permutations["h"].clone()
            swapped[[r, s]] = swapped[[s, r]]
            assert plain_objective(spec, {"h": swapped}, a, b) <= result.objective * (1 + 1e-9)


def test_a_hidden_order_of_recurrent_units_is_recovered() -> None:
    spec, like = recurrent_case(40)
    a = random_like(like, 1)
    hidden = spec.bind(a).random_permutations(2)
    b = lmcfast.apply_permutations(spec, hidden, noisy(a, 0.1, 3))
    result = weight_matching(spec, a, b)
    assert torch.equal(result.permutations["h"], torch.argsort(hidden["h"]))


def test_cycles_are_the_way_between_two_permutations() -> None:
    before, target = torch.tensor([3, 0, 1, 2, 5, 4, 6]), torch.tensor([0, 3, 1, 5, 4, 2, 6])
    cycles = list(cycles_between(before, target))
    assert [sorted(cycle.tolist()) for cycle in cycles] == [[3, 4, 5], [0, 1]]
    now = before.clone()
    for places in cycles:
        now[places] = target[places]
        assert torch.equal(now.sort().values, torch.arange(7))
    assert torch.equal(now, target)
