"""The work of a matching: what it holds, keeps and brings up to date, and how much of it there may be."""

from __future__ import annotations

import pytest
import torch
from helpers import networks
from helpers.matching import load_naive, plain_objective, random_like
from hypothesis import given, settings
from hypothesis import strategies as st

import lmcfast
from lmcfast import PermutationSpec, weight_matching
from lmcfast.matching import Counts, scores
from lmcfast.matching.objective import Alignment
from lmcfast.matching.problem import Problem, make_problem
from lmcfast.matching.scores import ScoreTable
from lmcfast.spec import spec_from_params

naive = load_naive()

Params = dict[str, torch.Tensor]
ARCHITECTURES = {name: module for name, module, _ in networks.architectures()}


def mlp_params(widths: tuple[int, ...], seed: int) -> Params:
    return {name: torch.from_numpy(array) for name, array in naive.random_mlp(widths, seed).items()}


def mlp_problem(width: int = 150) -> Problem:
    a, b = (mlp_params((40, width, width, 10), seed) for seed in (1, 2))
    return make_problem(spec_from_params(a), a, b)


def swapped(permutation: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """The permutation with ``count`` of its entries moved round by one."""
    chosen = torch.randperm(permutation.shape[0], generator=torch.Generator().manual_seed(seed))[:count]
    moved = permutation.clone()
    moved[chosen] = permutation[chosen.roll(1)]
    return moved


# ---- what is held


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_scores_of_held_tensors_are_those_of_the_stored_ones(name: str) -> None:
    a = networks.params_of(ARCHITECTURES[name])
    b = random_like(a, 3)
    problem = make_problem(spec_from_params(a), a, b)
    setting = problem.spec.random_permutations(4)
    alignment, table = Alignment(problem, setting), ScoreTable(problem)
    for group in problem.groups:
        expected = lmcfast.similarity(problem.spec, group, a, b, setting)
        torch.testing.assert_close(table.scores(group, alignment), expected, rtol=1e-4, atol=1e-4)


@given(st.integers(0, 10_000), st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_steps_keep_tensors_and_objective_true(seed: int, count: int) -> None:
    """Steps of few units, which are gathered alone, and of many, in any order; a copy stays where it was."""
    a, b = (networks.params_of(networks.resnet((12, 16), seed=k)) for k in (1, 2))
    problem = make_problem(spec_from_params(a), a, b)
    alignment = Alignment(problem, problem.start)
    total = alignment.objective()
    for k, group in enumerate(problem.groups):
        if k == 1:
            left = alignment.copy()
            setting, value = dict(left.permutations), left.objective()
        n = problem.size(group)
        move = alignment.propose(group, swapped(alignment.permutations[group], min(2 + (count + k) % n, n), seed + k))
        alignment.accept(move)
        total += move.gain
    assert alignment.objective() == pytest.approx(total, rel=1e-12, abs=1e-11)
    assert alignment.objective() == pytest.approx(
        plain_objective(problem.spec, alignment.permutations, a, b), rel=1e-12, abs=1e-11
    )
    for at in (alignment, left):
        fresh = Alignment(problem, at.permutations)
        assert all(torch.equal(at.tensor(name), fresh.tensor(name)) for name in problem.tensors)
    assert left.permutations == setting
    assert left.objective() == value


def test_what_a_spec_remembers_depends_on_the_shapes() -> None:
    spec = PermutationSpec.from_axes(naive.mlp_axes(2))
    for width in (20, 30, 20):
        a, b = (mlp_params((12, width, width, 5), seed) for seed in (1, 2))
        fresh = weight_matching(PermutationSpec.from_axes(naive.mlp_axes(2)), a, b)
        again = weight_matching(spec, a, b)
        assert again.objective == fresh.objective
        assert weight_matching(spec, a, b, only="h0").objective < again.objective
        double = weight_matching(spec, a, {name: tensor.double() for name, tensor in b.items()})
        assert double.objective == pytest.approx(fresh.objective, rel=1e-3)
    with pytest.raises(lmcfast.LmcfastError, match="params_b"):
        weight_matching(spec, a, mlp_params((12, 21, 20, 5), 2))


# ---- what is kept


def test_updated_products_do_not_drift() -> None:
    """After many updates by a few columns the kept products are as exact as fresh ones."""
    problem = mlp_problem()
    counts = Counts()
    alignment, table = Alignment(problem, problem.start, counts), ScoreTable(problem)
    for step in range(40):
        for group in problem.groups:
            table.scores(group, alignment)
            move = alignment.propose(group, swapped(alignment.permutations[group], 12, step))
            alignment.accept(move)
    assert counts.updated >= 60
    for group in problem.groups:
        exact = table_of(problem, group, alignment)
        found = table.scores(group, alignment).double()
        fresh = ScoreTable(problem, budget=0).scores(group, alignment).double()
        assert float((found - exact).abs().max()) <= 4 * float((fresh - exact).abs().max())
    assert table.refresh_drifted(alignment) == set()
    assert counts.rechecked > 0


def table_of(problem: Problem, group: str, alignment: Alignment) -> torch.Tensor:
    """The group's scores in float64, from the weights."""
    a, b = ({name: tensor.double() for name, tensor in mlp_params((40, 150, 150, 10), seed).items()} for seed in (1, 2))
    return lmcfast.similarity(problem.spec, group, a, b, alignment.permutations)


def test_a_product_that_is_off_is_found_and_made_anew() -> None:
    problem = mlp_problem()
    alignment, table = Alignment(problem, problem.start), ScoreTable(problem)
    group = problem.groups[0]
    right = table.scores(group, alignment).clone()
    kept = [entry for (name, _), entry in table._kept.items() if name == group and entry is not None]
    assert kept
    kept[0].matrix[3, 5] += 1e-3 * float(right.abs().max())
    kept[0].columns = 1
    assert table.refresh_drifted(alignment) == {group}
    assert torch.equal(table.scores(group, alignment), right)


def test_a_descent_ends_only_on_products_that_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no tolerance every updated product is made anew once before the end, and the result is a local optimum."""
    a, b = independent()
    spec = spec_from_params(a)
    monkeypatch.setattr(scores, "PROBE_TOLERANCE", 0.0)
    strict = weight_matching(spec, a, b, start="identity")
    assert strict.converged
    assert strict.counts is not None
    assert strict.counts.updated > 0
    assert strict.counts.rechecked > 0
    again = weight_matching(spec, a, b, init=strict.permutations, start="identity")
    assert not any(step.changed for step in again.trace)


def independent() -> tuple[Params, Params]:
    """Two random MLPs. From the identity the descent takes many sweeps, the late ones moving few units."""
    first, second = (mlp_params((40, 150, 150, 150, 10), seed) for seed in (1, 2))
    return first, second


# ---- how much work there may be: figures of fixed seeds, with some room, that a slower algorithm would break


def test_the_work_on_an_mlp_is_bounded() -> None:
    a, b = (mlp_params((40, 200, 200, 200, 10), seed) for seed in (1, 2))
    counts = weight_matching(spec_from_params(a), a, b).counts
    assert counts is not None
    whole = 2 * (40 + 200 + 200 + 200 + 10) * 200 * 200
    assert counts.visits <= 6
    assert counts.multiplied <= 0.85 * whole
    assert counts.gathered <= 4 * 4 * sum(tensor.numel() for tensor in b.values())
    assert counts.reads <= 15 * counts.visits * 200 * 200
    repeated = weight_matching(spec_from_params(a), a, b).counts
    assert repeated == counts


def test_the_work_on_a_residual_network_is_bounded() -> None:
    a, b = (networks.params_of(networks.resnet((16, 24), seed=seed)) for seed in (1, 2))
    counts = weight_matching(spec_from_params(a), a, b).counts
    assert counts is not None
    assert counts.visits <= 13
    assert counts.computed <= 38
    assert counts.gathered <= 0.35 * counts.visits * 4 * sum(tensor.numel() for tensor in b.values())


def test_few_moves_cost_few_columns() -> None:
    """Late sweeps update their products instead of computing them."""
    a, b = independent()
    result = weight_matching(spec_from_params(a), a, b, start="identity")
    counts = result.counts
    assert counts is not None
    assert counts.updated >= 5
    assert counts.kept >= 5
    one_visit = (40 + 10 + 4 * 150) * 150 * 150 / 3  # multiply-adds of one group's scores computed whole, on average
    assert counts.multiplied <= 0.45 * counts.visits * one_visit


def test_nothing_is_multiplied_to_prove_convergence() -> None:
    """Started at a local optimum: one visit a group, no second sweep, nothing gathered."""
    a, b = independent()
    spec = spec_from_params(a)
    found = weight_matching(spec, a, b)
    again = weight_matching(spec, a, b, init=found.permutations, start="identity")
    assert again.sweeps == 1
    assert again.counts is not None
    assert again.counts.visits == 3
    assert again.counts.moves == 0


def test_the_time_is_accounted_for() -> None:
    a, b = independent()
    seconds = weight_matching(spec_from_params(a), a, b).seconds
    assert set(seconds) == {"setup", "products", "assignment", "steps", "objective", "other"}
    assert all(value >= 0 for value in seconds.values())
