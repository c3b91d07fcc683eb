"""Frank-Wolfe and annealing: the line it searches is the true objective, and no method is worse than a simpler one."""

from __future__ import annotations

import optima_experiments as experiments
import pytest
import torch
from helpers.networks import mlp
from torch import Tensor

import lmcfast
from lmcfast.matching.clock import Clock, Counts
from lmcfast.matching.frank_wolfe import Relaxed, _parabola, _scores, relax
from lmcfast.matching.problem import make_problem
from lmcfast.matching.scores import ScoreTable
from lmcfast.matching.soft import soften
from lmcfast.spec.places import group_places
from lmcfast.terms import full_precision

METHODS = ("descent", "frank_wolfe", "annealing")


def pair(widths: tuple[int, ...], seed: int) -> tuple[lmcfast.PermutationSpec, dict[str, Tensor], dict[str, Tensor]]:
    a, b = (dict(mlp(widths, seed=2 * seed + k).state_dict()) for k in (0, 1))
    return lmcfast.spec_from_params(a).bind(a), a, b


def soft_objective(
    spec: lmcfast.PermutationSpec, a: dict[str, Tensor], b: dict[str, Tensor], x: dict[str, Tensor]
) -> float:
    """sum over tensors of <A, X applied to B's axes>, by matrix products, float64."""
    value = 0.0
    for name in spec.axes:
        places = [place for group in x for place in group_places(spec, group) if place.tensor == name]
        value += float((a[name].double() * soften(b[name].double(), places, x)).sum())
    return value


@pytest.mark.parametrize("seed", range(3))
def test_the_line_of_a_step_is_the_true_objective(seed: int) -> None:
    spec, a, b = pair((6, 9, 8, 7, 4), seed)
    problem = make_problem(spec, a, b)
    table, clock, counts = ScoreTable(problem), Clock(), Counts()
    here, there, mixed_with = (spec.random_permutations(10 * seed + k) for k in range(3))
    with torch.no_grad(), full_precision():
        x = {g: 0.6 * torch.eye(len(p))[p] + 0.4 * torch.eye(len(p))[mixed_with[g]] for g, p in here.items()}
        one, two = (_scores(problem, table, p, counts, clock) for p in (here, mixed_with))
        at = Relaxed(x, {g: 0.6 * one[g] + 0.4 * two[g] for g in one})  # the gradient is affine in X
        slope, bend = _parabola(at, there, _scores(problem, table, there, counts, clock))
    start = soft_objective(spec, a, b, x)
    for t in (0.25, 0.5, 1.0):
        point = {g: (1 - t) * m + t * torch.eye(len(m))[there[g]] for g, m in x.items()}
        expected = soft_objective(spec, a, b, point) - start
        assert slope * t + bend * t * t == pytest.approx(expected, abs=1e-4)


def test_relaxation_recovers_a_hidden_setting() -> None:
    spec, a, _ = pair((12, 24, 20, 6), 1)
    b = lmcfast.apply_permutations(spec, spec.random_permutations(4), a)
    problem = make_problem(spec, a, b)
    with torch.no_grad(), full_precision():
        found = relax(problem, ScoreTable(problem), problem.start, Counts(), Clock())
    assert lmcfast.distance(spec, a, lmcfast.apply_permutations(spec, found, b)) < 1e-6


def test_each_method_is_at_least_as_good_as_the_descent() -> None:
    better = dict.fromkeys(METHODS, 0)
    for seed in range(8):
        spec, a, b = pair((10, 24, 24, 24, 5), seed)
        results = {method: lmcfast.weight_matching(spec, a, b, method=method) for method in METHODS}  # type: ignore[arg-type]
        values = [results[method].objective for method in METHODS]
        for after, method in zip(values[1:], METHODS[1:], strict=True):
            assert after >= values[0] * (1 - 1e-12)
            better[method] += after > values[0] * (1 + 1e-6)
        for method, result in results.items():
            aligned = result.apply(b)
            true = sum(float((a[name].double() * aligned[name].double()).sum()) for name in a)
            assert result.objective == pytest.approx(true, rel=1e-9), method
            assert max(result.attempts) == pytest.approx(result.objective, rel=1e-9)
    assert better["frank_wolfe"] + better["annealing"] >= 6  # of 16: they find more than the descent does


def test_methods_keep_held_groups_and_repeat_themselves() -> None:
    spec, a, b = pair((10, 16, 16, 5), 3)
    init = {"h1" if "h1" in spec.groups else spec.movable_groups[0]: torch.arange(16).flip(0)}
    held = next(iter(init))
    for method in METHODS[1:]:
        first, second = (
            lmcfast.weight_matching(spec, a, b, init=init, fix=held, method=method, seed=5)  # type: ignore[arg-type]
            for _ in range(2)
        )
        assert torch.equal(first.permutations[held], init[held])
        assert first.objective == second.objective
    with pytest.raises(ValueError, match=r"method must be one of .* not 'magic'"):
        lmcfast.weight_matching(spec, a, b, method="magic")  # type: ignore[arg-type]


def test_experiments_measure_what_they_say() -> None:
    """Block moves end no lower than the descent, truncation keeps the leading part, all objectives are true."""
    spec, a, b = pair((10, 16, 16, 5), 2)
    small = experiments.truncated(a, 0.3)
    for name, tensor in a.items():
        if tensor.ndim == 2:
            values, kept = torch.linalg.svdvals(tensor), torch.linalg.svdvals(small[name])
            rank = int((values > 0.3 * values[0]).sum())
            torch.testing.assert_close(kept[:rank], values[:rank], rtol=1e-4, atol=1e-5)
            assert float(kept[rank:].sum()) < 1e-4
    descent = lmcfast.weight_matching(spec, a, b).objective
    for way in (experiments.block_moves, experiments.truncated_start, experiments.random_order):
        found = way(spec, a, b, 1)
        aligned = found.apply(b)
        true = sum(float((a[name].double() * aligned[name].double()).sum()) for name in a)
        assert found.objective == pytest.approx(true, rel=1e-9)
        assert found.objective >= descent * (1 - 1e-12) or way is not experiments.block_moves
