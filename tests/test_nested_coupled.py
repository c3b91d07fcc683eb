"""Weight matching of coupled groups: the alternation against all settings, grouped convolutions."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers import nests
from helpers.matching import noisy, plain_objective

import lmcfast
from lmcfast import Group, PermutationSpec, weight_matching
from lmcfast.matching import Counts
from lmcfast.matching.coupled import Pairs, solve_coupled, value_of
from lmcfast.matching.factored import Factored


def solve(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    solved = lmcfast.solve_assignment(batch)
    return solved.columns, solved.objective


def test_coupled_members_against_all_settings() -> None:
    """The alternation ends where no member alone can gain, below the bound; with one choice in the hub it is exact."""
    generator = torch.Generator().manual_seed(3)
    for sizes in ((2, 3), (3, 3), (1, 4)):
        one, two = sizes
        linear = {
            "q": torch.randn(6, one, one, generator=generator),
            "v": torch.randn(6, two, two, generator=generator),
        }
        pairs = Pairs(linear, [(("q", "v"), torch.randn(6, one, two, one, two, generator=generator))])

        solved = solve_coupled(pairs, solve)
        torch.testing.assert_close(value_of(pairs, solved.columns), solved.value, rtol=1e-6, atol=1e-6)
        values = [
            value_of(pairs, {"q": torch.tensor(q).expand(6, -1), "v": torch.tensor(v).expand(6, -1)})
            for q, v in itertools.product(itertools.permutations(range(one)), itertools.permutations(range(two)))
        ]
        best = torch.stack(values).max(dim=0).values
        assert bool((solved.value <= best + 1e-5).all())
        assert bool((best <= solved.bound + 1e-5).all())
        if one == 1:
            torch.testing.assert_close(solved.value, best, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(solved.bound, best, rtol=1e-6, atol=1e-6)
        for name, n in (("q", one), ("v", two)):
            for order in itertools.permutations(range(n)):
                other = {**solved.columns, name: torch.tensor(order).expand(6, -1)}
                assert bool((value_of(pairs, other) <= solved.value + 1e-4).all())


@pytest.mark.parametrize("held", [1, 2])
def test_a_coupling_without_its_table(held: int) -> None:
    """Both forms of a coupling are worth the same at the same setting, and nothing exceeds the sorted bound."""
    generator = torch.Generator().manual_seed(3)
    rows, pairs, one, two, depth = 2, 3, 3, 4, 5
    a = torch.randn(held, rows, one, two, depth, generator=generator)
    b = torch.randn(held, pairs, one, two, depth, generator=generator)
    linear = {name: torch.randn(held * rows * pairs, n, n, generator=generator) for name, n in (("q", one), ("v", two))}
    table = 0.5 * torch.einsum("hrkmd,hplnd->hrpkmln", a, b).reshape(-1, one, two, one, two)
    formed = Pairs(linear, [(("q", "v"), table)])
    factored = Pairs(linear, [(("q", "v"), Factored(a, b, 0.5, Counts()))])

    solved = solve_coupled(factored, solve)
    for name, n in (("q", one), ("v", two)):
        for order in itertools.permutations(range(n)):
            other = {**solved.columns, name: torch.tensor(order).expand(held * rows * pairs, -1)}
            torch.testing.assert_close(value_of(factored, other), value_of(formed, other), rtol=1e-5, atol=1e-5)
            assert bool((value_of(formed, other) <= solved.value + 1e-4).all())
    best = torch.stack(
        [
            value_of(formed, {"q": torch.tensor(q).expand(len(table), -1), "v": torch.tensor(v).expand(len(table), -1)})
            for q, v in itertools.product(itertools.permutations(range(one)), itertools.permutations(range(two)))
        ]
    )
    assert bool((solved.value <= best.max(dim=0).values + 1e-4).all())
    assert bool((best.max(dim=0).values <= solved.bound + 1e-4).all())


@pytest.mark.parametrize("seed", [1, 4])
def test_channels_of_grouped_convolutions_are_recovered_without_tables(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmcfast.matching.nested_scores.TABLE_BYTES", 0)
    spec = nests.resnext(3, 48, 8, 6)
    a = nests.random_params(spec, seed)
    hidden = spec.random_permutations(7)
    b = lmcfast.apply_permutations(spec, hidden, noisy(a, 0.05, 2))
    result = weight_matching(spec, a, b)
    assert nests.same_settings(result.permutations, lmcfast.invert_permutations(spec, hidden))
    assert {result.exactness[name] for name in spec.groups if name.startswith("g")} == {"lower bound"}
    unrelated = nests.random_params(spec, 9)
    other = weight_matching(spec, a, unrelated)
    assert other.objective == pytest.approx(plain_objective(spec, other.permutations, a, unrelated), rel=1e-12)


def test_channels_of_a_grouped_convolution_that_keeps_its_stream() -> None:
    """Each group's channels stand on both axes of its block: a step of them is quadratic, and said to be so."""
    spec = PermutationSpec.from_axes(
        {"conv": ("g c", "c", "_3"), "bias": ("g c",), "o": ("s", "g c"), "i": ("g c", "_9")},
        {"g": 3, "s": 7},
        [Group("c", 4, within=("g",))],
    )
    a = nests.random_params(spec, 1)
    hidden = spec.random_permutations(2)
    b = lmcfast.apply_permutations(spec, hidden, noisy(a, 0.05, 3))
    result = weight_matching(spec, a, b)
    assert result.exactness == {"g": "linearised", "c": "linearised", "s": "exact"}
    assert result.objective == pytest.approx(plain_objective(spec, result.permutations, a, b), rel=1e-12)
    assert all(step.gain >= 0 for step in result.trace if step.kind == "step")
    assert nests.same_settings(result.permutations, lmcfast.invert_permutations(spec, hidden))
    unrelated = nests.random_params(spec, 9)
    other = weight_matching(spec, a, unrelated)
    assert other.objective == pytest.approx(plain_objective(spec, other.permutations, a, unrelated), rel=1e-12)
