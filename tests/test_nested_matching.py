"""Weight matching of nested groups: steps against brute force, hidden settings, promises, what is refused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from helpers import nests
from helpers.matching import noisy, plain_objective

import lmcfast
from lmcfast import Group, PermutationSpec, weight_matching
from lmcfast.matching import Counts
from lmcfast.matching.clock import Clock
from lmcfast.matching.nested_alignment import NestedAlignment, moved_settings
from lmcfast.matching.nested_problem import NestedProblem, make_nested_problem
from lmcfast.matching.nested_scores import NestedScores
from lmcfast.terms import full_precision

Params = dict[str, torch.Tensor]


# ---- tiny nests, small enough to try every setting of a step


def heads() -> PermutationSpec:
    """As in GPT-2: query-key and value dimensions in each head, fused."""
    groups = [Group("qk", 2, within=("h",)), Group("v", 3, within=("h",))]
    axes = {"in": ("s", "h qk | h qk | h v"), "bias": ("h qk | h qk | h v",), "out": ("h v", "s"), "norm": ("s",)}
    return PermutationSpec.from_axes(axes, {"s": 4, "h": 2}, groups)


def experts_in_groups() -> PermutationSpec:
    """Three levels: groups of experts, experts, units."""
    groups = [Group("e", 2, within=("g",)), Group("u", 2, within=("g", "e"))]
    axes = {"router": ("g e", "s"), "bias": ("g",), "up": ("g e", "u | u", "s"), "down": ("g e", "s", "u")}
    return PermutationSpec.from_axes(axes, {"s": 3, "g": 2}, groups)


def grouped_heads() -> PermutationSpec:
    """As in Llama: query heads and value dimensions share the output projection."""
    groups = [Group("q", 2, within=("kv",)), Group("v", 3, within=("kv",))]
    axes = {"q": ("kv q _2", "s"), "k": ("kv _2", "s"), "v": ("kv v", "s"), "o": ("s", "kv q v")}
    return PermutationSpec.from_axes(axes, {"s": 3, "kv": 2}, groups)


def star() -> PermutationSpec:
    """As grouped heads without rotary: query heads share one tensor with the query dimensions, one with the values."""
    groups = [Group(name, 2, within=("kv",)) for name in "qdv"]
    axes = {"q": ("kv q d", "s"), "k": ("kv d", "s"), "v": ("kv v", "s"), "o": ("s", "kv q v")}
    return PermutationSpec.from_axes(axes, {"s": 3, "kv": 2}, groups)


def two_outer_groups() -> PermutationSpec:
    """Units that are nested in two groups, neither of which is nested in the other."""
    axes = {"w": ("a", "b", "u", "_3"), "x": ("a", "_3"), "y": ("_2", "b")}
    return PermutationSpec.from_axes(axes, {"a": 2, "b": 3}, [Group("u", 2, within=("a", "b"))])


def held_around() -> PermutationSpec:
    """Heads that may not move, with dimensions that may, and a plain group beside."""
    groups = [Group("h", 2, fixed=True), Group("d", 3, within=("h",))]
    return PermutationSpec.from_axes({"w": ("h d", "s"), "o": ("s", "h d"), "c": ("h",)}, {"s": 4}, groups)


EXACT: dict[str, Callable[[], PermutationSpec]] = {
    "heads": heads,
    "experts in groups": experts_in_groups,
    "two outer groups": two_outer_groups,
    "held around": held_around,
}
COUPLED: dict[str, Callable[[], PermutationSpec]] = {"grouped heads": grouped_heads, "star": star}
ALL = EXACT | COUPLED


def random_problem(spec: PermutationSpec, seed: int) -> tuple[NestedProblem, NestedAlignment, Params, Params]:
    a, b = (nests.random_params(spec, 2 * seed + k, torch.float64) for k in (0, 1))
    problem = make_nested_problem(spec, a, b)
    assert problem is not None
    return problem, NestedAlignment(problem, spec.random_permutations(seed), Counts()), a, b


def best_step(problem: NestedProblem, alignment: NestedAlignment, group: str, a: Params, b: Params) -> float:
    """The best objective after a step of the group, by trying every setting of its members."""
    spec = problem.spec
    settings = (
        {**alignment.setting, **moved_settings(spec, alignment.setting, relative)}
        for relative in nests.settings_of(problem, group)
    )
    return max(plain_objective(spec, setting, a, b) for setting in settings)


@pytest.mark.parametrize("name", ALL)
def test_a_step_is_as_good_as_it_says(name: str) -> None:
    """Exact steps are the best of all settings; of others the gap bounds what they miss."""
    for seed in range(2):
        problem, alignment, a, b = random_problem(ALL[name](), seed)
        for group in problem.groups:
            with full_precision():
                found = NestedScores(alignment, problem.plans[group], Clock()).best()
            before = plain_objective(problem.spec, alignment.setting, a, b)
            move = alignment.propose(group, found.relative)
            setting = {**alignment.setting, **move.settings}
            after = plain_objective(problem.spec, setting, a, b)
            assert move.gain == pytest.approx(after - before, rel=1e-9, abs=1e-9)
            best = best_step(problem, alignment, group, a, b)
            exactness = problem.plans[group].exactness
            assert exactness == ("lower bound" if name in COUPLED and group == "kv" else "exact")
            if exactness == "exact":
                assert after == pytest.approx(best, rel=1e-9)
                assert found.gap < 1e-9
            assert after <= best + 1e-9
            assert best <= after + found.gap + 1e-9
            assert after >= before - 1e-9


@pytest.mark.parametrize("name", ALL)
def test_the_end_is_a_local_optimum_under_every_step(name: str) -> None:
    spec = ALL[name]()
    a, b = (nests.random_params(spec, seed, torch.float64) for seed in (5, 6))
    for start in ("best", "identity", "random", "spectra"):
        result = weight_matching(spec, a, b, start=start)
        assert result.converged
        assert result.objective == pytest.approx(plain_objective(spec, result.permutations, a, b), rel=1e-12)
        problem = make_nested_problem(spec, a, b)
        assert problem is not None
        alignment = NestedAlignment(problem, result.permutations, Counts())
        for group in problem.groups:
            if result.exactness[group] == "exact":
                assert best_step(problem, alignment, group, a, b) <= result.objective * (1 + 1e-12)


# ---- hidden settings


NETWORKS = {"gpt2": nests.gpt2, "llama": nests.llama, "mixtral": nests.mixtral, "vit": nests.vit}


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_hidden_setting_is_recovered(name: str, noise: float) -> None:
    spec = NETWORKS[name]()
    a = nests.random_params(spec, 1)
    hidden = spec.random_permutations(7)
    b = lmcfast.apply_permutations(spec, hidden, noisy(a, noise, 2))
    for start in ("best", "forward", "spectra"):
        result = weight_matching(spec, a, b, start=start)  # type: ignore[arg-type]
        assert nests.same_settings(result.permutations, lmcfast.invert_permutations(spec, hidden))
        assert result.converged
        assert result.gap <= 1e-6 * result.objective


WIDE = {
    "gpt2": lambda: nests.gpt2(4, 512, 8),
    "llama": lambda: nests.llama(4, 512, 4, 2, 64),
    "llama without rotary": lambda: nests.llama(4, 512, 4, 2, 64, rotary=False),
    "mixtral": lambda: nests.mixtral(4, 512, 8, 192, 4),
    "vit": lambda: nests.vit(4, 512, 8),
}


def test_a_hidden_setting_of_wide_heads_is_recovered() -> None:
    recovered(nests.llama(1, 256, 4, 2, 32), 0.1)


@pytest.mark.long
@pytest.mark.parametrize("noise", [0.01, 0.1])
@pytest.mark.parametrize("name", WIDE)
def test_a_hidden_setting_is_recovered_at_width_512(name: str, noise: float) -> None:
    recovered(WIDE[name](), noise)


def recovered(spec: PermutationSpec, noise: float) -> None:
    a = nests.random_params(spec, 1)
    hidden = spec.random_permutations(7)
    b = lmcfast.apply_permutations(spec, hidden, noisy(a, noise, 2))
    result = weight_matching(spec, a, b)
    assert nests.same_settings(result.permutations, lmcfast.invert_permutations(spec, hidden))
    assert result.sweeps <= 2


def test_spectra_find_the_heads_whatever_happens_inside_them() -> None:
    """With heads, their dimensions and the stream hidden, and nothing but the start's first steps taken."""
    spec = nests.gpt2(layers=1, hidden=48, heads=6)
    a = nests.random_params(spec, 1)
    hidden = spec.random_permutations(3)
    b = lmcfast.apply_permutations(spec, hidden, noisy(a, 0.01, 2))
    steps = []
    weight_matching(spec, a, b, start="spectra", max_sweeps=0, callback=steps.append)
    assert steps[0].group == "h.0"
    fixed = weight_matching(spec, a, b, start="spectra", max_sweeps=0, only=["h.0", "qk.0", "v.0"])
    assert torch.equal(fixed.permutations["h.0"], lmcfast.invert_permutations(spec, hidden)["h.0"])


# ---- promises


@pytest.mark.parametrize("name", NETWORKS)
def test_the_objective_is_monotone_and_the_trace_adds_up(name: str) -> None:
    spec = NETWORKS[name]()
    a, b = (nests.random_params(spec, seed) for seed in (1, 2))
    result = weight_matching(spec, a, b, start="identity")
    for before, after in itertools.pairwise(result.trace):
        assert after.objective >= before.objective
        assert after.objective == pytest.approx(before.objective + after.gain, rel=1e-12)
        assert (after.gain > 0) == (after.changed > 0)
    assert result.objective == pytest.approx(result.trace[-1].objective, rel=1e-12)
    assert result.objective == pytest.approx(plain_objective(spec, result.permutations, a, b), rel=1e-12)
    moved = result.apply(b)
    assert result.distance_after == pytest.approx(lmcfast.distance(spec, a, moved), rel=1e-9)
    assert result.distance_before == pytest.approx(lmcfast.distance(spec, a, b), rel=1e-9)
    best = weight_matching(spec, a, b)
    assert best.objective >= max(best.starts.values()) * (1 - 1e-14)
    again = weight_matching(spec, a, b, init=best.permutations)
    assert again.objective >= best.objective * (1 - 1e-14)
    assert again.exactness == best.exactness


def test_never_below_the_identity() -> None:
    spec = nests.llama()
    a = nests.random_params(spec, 1)
    for scale in (1e-3, 0.3, 1.0):
        b = noisy(a, scale, 4)
        identity = plain_objective(spec, spec.identity(), a, b)
        assert weight_matching(spec, a, b).objective >= identity * (1 - 1e-14)


def test_dtypes_weights_restarts_and_repeats() -> None:
    spec = nests.llama(layers=1)
    a, b = (nests.random_params(spec, seed) for seed in (1, 2))
    exact = weight_matching(spec, a, b, restarts=3, seed=2)
    assert len(exact.attempts) == 3
    assert exact.objective == pytest.approx(max(exact.attempts), rel=1e-12)
    again = weight_matching(spec, a, b, restarts=3, seed=2)
    assert nests.same_settings(exact.permutations, again.permutations)
    wide = [{name: tensor.double() for name, tensor in params.items()} for params in (a, b)]
    assert weight_matching(spec, *wide).objective == pytest.approx(exact.attempts[0], rel=1e-6)
    mixed = {name: tensor.double() if "o_proj" in name else tensor for name, tensor in a.items()}
    assert weight_matching(spec, mixed, b).objective == pytest.approx(exact.attempts[0], rel=1e-6)
    weights = {"*": 0.0, "0.o_proj": 2.0}
    one = weight_matching(spec, a, b, tensor_weights=weights)
    moved = one.apply(b)["0.o_proj"].double()
    assert one.objective == pytest.approx(2.0 * float((a["0.o_proj"].double() * moved).sum()), rel=1e-12)
    assert "norm_1" not in one.exactness


def test_options_hold_groups_by_wildcards() -> None:
    spec = nests.gpt2()
    a, b = (nests.random_params(spec, seed) for seed in (1, 2))
    identity = spec.identity()
    for options in ({"fix": ["stream", "mlp.*"]}, {"only": ["h.*", "qk.*", "v.*"]}):
        result = weight_matching(spec, a, b, **options)  # type: ignore[arg-type]
        assert set(result.exactness) == {f"{name}.{i}" for name in ("h", "qk", "v") for i in (0, 1)}
        assert all(torch.equal(result.permutations[name], identity[name]) for name in ("stream", "mlp.0", "mlp.1"))
    inner = weight_matching(spec, a, b, only=["v.1"])
    assert {step.group for step in inner.trace[1:]} == {"v.1"}
    with pytest.raises(lmcfast.SpecError, match="'heads' matches no group"):
        weight_matching(spec, a, b, fix="heads")


def test_inner_steps_are_one_batch_over_all_outer_units() -> None:
    spec = nests.mixtral(layers=1, experts=4, units=16)
    a = nests.random_params(spec, 1)
    hidden = {**spec.identity(), "unit.0": spec.random_permutations(1)["unit.0"]}
    b = lmcfast.apply_permutations(spec, hidden, a)
    result = weight_matching(spec, a, b, only=["unit.0"])
    assert result.distance_after == 0.0
    assert result.counts is not None
    assert result.counts.visits == 1
    assert result.counts.multiplied == 4 * 16 * 16 * 3 * 24  # experts, pairs of units, three matrices of depth 24


@pytest.mark.parametrize("name", ["heads", "experts in groups", "grouped heads"])
def test_scores_in_chunks_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ALL[name]()
    a, b = (nests.random_params(spec, seed) for seed in (1, 2))
    whole = weight_matching(spec, a, b)
    monkeypatch.setattr("lmcfast.matching.nested_scores.CHUNK_BYTES", 1)
    assert weight_matching(spec, a, b).objective == pytest.approx(whole.objective, rel=1e-12)


def test_a_group_on_two_axes_beside_nested_ones_is_said_to_be_linearised() -> None:
    groups = [Group("d", 3, within=("h",))]
    spec = PermutationSpec.from_axes({"w": ("h d", "s"), "r": ("s", "s"), "o": ("s", "h d")}, {"s": 6, "h": 3}, groups)
    a, b = (nests.random_params(spec, seed) for seed in (1, 2))
    result = weight_matching(spec, a, b, start="identity")
    assert result.exactness == {"s": "linearised", "h": "exact", "d": "exact"}
    assert result.objective == pytest.approx(plain_objective(spec, result.permutations, a, b), rel=1e-12)
    assert all(step.gain >= 0 for step in result.trace)


def test_what_cannot_be_matched_is_refused() -> None:
    spec = heads()
    a, b = (nests.random_params(spec, seed) for seed in (1, 2))
    huge = [{name: tensor * 1e30 for name, tensor in params.items()} for params in (a, b)]
    with pytest.raises(lmcfast.InvalidParamsError, match="overflow float32"):
        weight_matching(spec, *huge)
    broken = {**b, "out": torch.full_like(b["out"], math.nan)}
    with pytest.raises(lmcfast.InvalidParamsError, match="params_b: tensor 'out' holds NaN"):
        weight_matching(spec, a, broken)
