"""Weight matching: what it finds and what it promises."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import pytest
import torch
from helpers import networks
from helpers.matching import (
    CASES,
    MLP_AXES,
    axis_strings,
    mlp_case,
    mlp_params,
    naive,
    noisy,
    plain_objective,
    random_like,
    single_group_optima,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import lmcfast
from lmcfast import PermutationSpec, weight_matching
from lmcfast.matching import Counts
from lmcfast.matching.objective import Alignment, gain, objective
from lmcfast.matching.problem import make_problem
from lmcfast.matching.scores import ScoreTable
from lmcfast.matching.sums import CHUNK, Sum64
from lmcfast.spec import spec_from_params

# ---- what it finds


ARCHITECTURES = {name: module for name, module, _ in networks.architectures()}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_planted_permutation_is_recovered(name: str) -> None:
    module = ARCHITECTURES[name]
    params = networks.params_of(module)
    spec = spec_from_params(params).bind(params)
    planted = spec.random_permutations(7)
    result = weight_matching(spec, params, lmcfast.apply_permutations(spec, planted, params))
    inverse = lmcfast.invert_permutations(spec, planted)
    assert result.converged
    assert result.sweeps <= 4
    assert all(torch.equal(result.permutations[group], inverse[group]) for group in spec.groups)
    assert result.distance_after == 0.0


def test_a_planted_permutation_of_wide_layers_is_recovered_from_any_start() -> None:
    spec = PermutationSpec.from_axes(naive.mlp_axes(3))
    params = mlp_params((64, 96, 96, 96, 10), 3)
    planted = spec.bind(params).random_permutations(1)
    moved = lmcfast.apply_permutations(spec, planted, params)
    for start in ("best", "forward", "identity"):
        result = weight_matching(spec, params, moved, start=start)
        assert result.sweeps <= 4, start
        assert result.distance_after == 0.0, start


def test_two_groups_reach_a_coordinate_wise_optimum() -> None:
    spec = PermutationSpec.from_axes(MLP_AXES)
    for seed in range(5):
        a, b = (random_like(mlp_params((3, 4, 4, 2), 0), 10 * seed + k) for k in (1, 2))
        result = weight_matching(spec, a, b)
        best = single_group_optima(result.spec, result.permutations, a, b)
        assert result.objective == pytest.approx(best, rel=1e-12)


def test_one_group_is_solved_to_the_global_optimum() -> None:
    spec = PermutationSpec.from_axes({"w": ("h", None), "v": (None, "h")})
    like = {"w": torch.empty(6, 3), "v": torch.empty(2, 6)}
    a, b = random_like(like, 1), random_like(like, 2)
    result = weight_matching(spec, a, b)
    best = single_group_optima(result.spec, result.spec.identity(), a, b)
    assert result.objective == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0])
@pytest.mark.parametrize("case", CASES)
def test_never_below_the_identity(case: str, scale: float) -> None:
    """B = A + noise, as two fine-tunes of one base: the identity is a very good start."""
    spec, a, _ = CASES[case]()
    for seed in range(3):
        b = noisy(a, scale, seed)
        identity = plain_objective(spec, spec.bind(a).identity(), a, b)
        assert weight_matching(spec, a, b).objective >= identity * (1 - 1e-14)


def test_never_below_any_start() -> None:
    spec, a, b = mlp_case()
    init = spec.bind(a).random_permutations(5)
    result = weight_matching(spec, a, b, init=init)
    assert set(result.starts) == {"identity", "init", "forward"}
    assert result.starts["init"] == pytest.approx(plain_objective(spec, init, a, b), rel=1e-12)
    assert result.objective >= max(result.starts.values()) * (1 - 1e-14)
    again = weight_matching(spec, a, b, init=result.permutations)
    assert next(iter(again.starts)) == "init"
    assert again.objective >= result.objective * (1 - 1e-14)


def wide_mlps(seed: int) -> dict[str, torch.Tensor]:
    return mlp_params((12, 100, 100, 5), seed)


def wide_resnets(seed: int) -> dict[str, torch.Tensor]:
    return networks.params_of(networks.resnet((16, 24), seed=seed))


@pytest.mark.parametrize("make", [wide_mlps, wide_resnets])
def test_not_worse_than_the_naive_twin(make: Callable[[int], dict[str, torch.Tensor]]) -> None:
    """Over several pairs: on a single pair of narrow networks either side can be lucky."""
    spec = spec_from_params(make(0))
    axes = axis_strings(spec)
    ours = twins = 0.0
    for seed in range(3):
        a, b = make(2 * seed), make(2 * seed + 1)
        arrays = [{name: params[name].numpy() for name in axes} for params in (a, b)]
        found = [naive.naive_matching(axes, *arrays, seed=k) for k in range(3)]
        twins += statistics.median(twin.objective for twin in found)
        ours += weight_matching(spec, a, b).objective
        theirs = {group: torch.from_numpy(p) for group, p in found[0].permutations.items()}
        assert found[0].objective == pytest.approx(plain_objective(spec, theirs, a, b), rel=1e-6)
    assert ours >= 0.999 * twins


def test_not_worse_than_the_naive_twin_on_trained_weights() -> None:
    a, b = (train(seed) for seed in (0, 1))
    spec = PermutationSpec.from_axes(MLP_AXES)
    arrays = [{name: tensor.numpy() for name, tensor in params.items()} for params in (a, b)]
    twins = [naive.naive_matching(MLP_AXES, *arrays, seed=seed).objective for seed in range(3)]
    result = weight_matching(spec, a, b)
    assert result.objective >= statistics.median(twins) * 0.999
    assert result.distance_after < result.distance_before


def train(seed: int) -> dict[str, torch.Tensor]:
    """A small MLP trained on a made-up classification task; the task is the same for every seed."""
    task = torch.Generator().manual_seed(99)
    x = torch.randn(256, 12, generator=task)
    y = (x @ torch.randn(12, 5, generator=task)).argmax(1)
    params = mlp_params((12, 100, 100, 5), seed)
    for _ in range(150):
        params = {name: tensor.detach().requires_grad_() for name, tensor in params.items()}
        hidden = torch.relu(x @ params["0.weight"].T + params["0.bias"])
        hidden = torch.relu(hidden @ params["2.weight"].T + params["2.bias"])
        loss = torch.nn.functional.cross_entropy(hidden @ params["4.weight"].T + params["4.bias"], y)
        slopes = torch.autograd.grad(loss, list(params.values()))
        params = {name: tensor - 0.5 * slope for (name, tensor), slope in zip(params.items(), slopes, strict=True)}
    return {name: tensor.detach() for name, tensor in params.items()}


# ---- what it promises


@pytest.mark.parametrize("case", CASES)
def test_the_objective_is_monotone_and_the_trace_adds_up(case: str) -> None:
    spec, a, b = CASES[case]()
    result = weight_matching(spec, a, b, start="identity")
    assert result.trace[0].group == ""
    assert result.trace[0].objective == pytest.approx(plain_objective(spec, spec.bind(a).identity(), a, b), rel=1e-12)
    for before, after in zip(result.trace, result.trace[1:], strict=False):
        assert after.objective >= before.objective
        assert after.objective == pytest.approx(before.objective + after.gain, rel=1e-12)
        assert (after.gain > 0) == (after.changed > 0)
        assert after.gap <= 1e-6 * abs(after.objective)
    assert result.objective == pytest.approx(result.trace[-1].objective, rel=1e-12)
    assert result.objective == pytest.approx(plain_objective(spec, result.permutations, a, b), rel=1e-12)


def test_the_forward_start_is_marked() -> None:
    spec, a, b = mlp_case()
    result = weight_matching(spec, a, b, start="forward")
    kinds = [(step.kind, step.group) for step in result.trace[:3]]
    assert kinds == [("start", ""), ("start", "h0"), ("start", "h1")]
    assert all(step.sweep == 0 for step in result.trace[:3])
    assert all(step.kind == "step" for step in result.trace[3:])


@given(st.integers(0, 10_000), st.sampled_from(["mlp", "resnet", "concat", "quadratic"]))
@settings(max_examples=25, deadline=None)
def test_the_true_gain_is_the_difference_of_objectives(seed: int, kind: str) -> None:
    if kind == "concat":
        spec = PermutationSpec.from_axes({"w": ("a | b", "b _2"), "v": ("b | _1 | b",)}, sizes={"a": 3, "b": 4})
        like = {"w": torch.empty(7, 8), "v": torch.empty(9)}
        a, b = random_like(like, seed), random_like(like, seed + 1)
    elif kind == "quadratic":
        spec = PermutationSpec.from_axes({"w": ("h | h", "h"), "v": ("h", None)}, sizes={"h": 5})
        like = {"w": torch.empty(10, 5), "v": torch.empty(5, 3)}
        a, b = random_like(like, seed), random_like(like, seed + 1)
    else:
        spec, a, b = CASES[kind]()
    problem = make_problem(spec, a, b, tensor_weights={"w*": 0.5} if "w" in a else None)
    old, new = (problem.spec.random_permutations(seed + k) for k in (0, 1))
    for group in problem.groups:
        value, bound = gain(problem, group, old, new[group])
        difference = objective(problem, {**old, group: new[group]}) - objective(problem, old)
        assert value == pytest.approx(difference, rel=1e-9, abs=1e-9)
        assert 0 <= bound <= 1e-6


def test_the_rounding_bound_holds() -> None:
    """Sums of numbers that cancel, against exact rational arithmetic."""
    from fractions import Fraction

    generator = torch.Generator().manual_seed(0)
    for size in (1, 10, 1000):
        x = torch.randn(size, generator=generator, dtype=torch.float64)
        y = torch.randn(size, generator=generator, dtype=torch.float64)
        total = Sum64()
        total.add(x, y, 0.3)
        total.add(x, -y, 0.3)
        total.add(x, y, 1e-8)
        products = [Fraction(p) * Fraction(q) for p, q in zip(x.tolist(), y.tolist(), strict=True)]
        exact = Fraction(1e-8) * sum(products)
        assert abs(Fraction(total.value) - exact) <= Fraction(total.bound)
        assert total.bound < 1e-9
    assert CHUNK >= 1000


def test_a_step_within_rounding_is_not_taken() -> None:
    """Two equal units: swapping them gains nothing, so nothing moves and the first sweep is the last."""
    spec = PermutationSpec.from_axes({"w": ("h", None)})
    row = torch.randn(1, 50)
    params = {"w": row.repeat(4, 1)}
    result = weight_matching(spec, params, params, start="identity")
    assert torch.equal(result.permutations["h"], torch.arange(4))
    assert result.sweeps == 1


def test_groups_that_are_optimal_are_skipped() -> None:
    """Between two visits of a group one of its neighbours has moved."""
    spec, a, b = mlp_case(60)
    result = weight_matching(spec, a, b, start="identity")
    moved_since = {"h0": True, "h1": True}
    for step in result.trace[1:]:
        assert moved_since[step.group]
        moved_since[step.group] = False
        if step.changed:
            moved_since["h1" if step.group == "h0" else "h0"] = True
    assert result.converged


def test_kept_products_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, a, b = mlp_case(160)
    problem = make_problem(spec, a, b)
    table, bare = ScoreTable(problem), ScoreTable(problem, budget=0)
    counts, bare_counts = Counts(), Counts()
    setting = problem.spec.identity()
    for round_ in range(3):
        alignment, plain = Alignment(problem, setting, counts), Alignment(problem, setting, bare_counts)
        for group in problem.groups:
            kept = table.scores(group, alignment)
            torch.testing.assert_close(kept, bare.scores(group, plain), rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(kept, lmcfast.similarity(spec, group, a, b, setting), rtol=1e-5, atol=1e-5)
        setting = {**setting, "h1": problem.spec.random_permutations(round_)["h1"]}
    assert counts.kept > 0
    assert bare_counts.kept == 0


def test_the_same_input_and_seed_give_the_same_result() -> None:
    spec, a, b = mlp_case(60)
    first, second = (weight_matching(spec, a, b, restarts=3, seed=4) for _ in range(2))
    assert first.objective == second.objective
    assert all(torch.equal(first.permutations[group], second.permutations[group]) for group in first.permutations)
    strict = weight_matching(spec, a, b, restarts=3, seed=4, deterministic=True)
    assert strict.objective == first.objective
    assert not torch.are_deterministic_algorithms_enabled()


def test_restarts_keep_the_best() -> None:
    spec, a, b = mlp_case(30)
    for start in ("best", "identity", "random"):
        single = weight_matching(spec, a, b, start=start)
        many = weight_matching(spec, a, b, start=start, restarts=6)
        assert len(many.attempts) == 6
        assert many.attempts[0] == pytest.approx(single.objective, rel=1e-12)
        assert many.objective == pytest.approx(max(many.attempts), rel=1e-12)
        assert len({round(value, 6) for value in many.attempts}) > 1
