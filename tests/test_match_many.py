"""Several networks in one frame: objective, cycle consistency, independence of their order, merges."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from helpers.networks import mlp
from torch import Tensor

import lmcfast

Params = dict[str, Tensor]
METHODS = ("anchor", "mean", "cycle")


def relatives(count: int, noise: float = 0.3, widths: tuple[int, ...] = (8, 16, 14, 5)) -> list[Params]:
    """Hidden permutations of one network, each with noise of its own."""
    base = dict(mlp(widths, seed=0).state_dict())
    spec = lmcfast.spec_from_params(base).bind(base)
    found = []
    for k in range(count):
        source = torch.Generator().manual_seed(k)
        noisy = {n: t + noise * t.std() * torch.randn(t.shape, generator=source) for n, t in base.items()}
        found.append(lmcfast.apply_permutations(spec, spec.random_permutations(100 + k), noisy))
    return found


def spec_of(models: list[Params]) -> lmcfast.PermutationSpec:
    return lmcfast.spec_from_params(models[0]).bind(models[0])


def pairwise(aligned: list[Params]) -> float:
    return sum(
        float((one[name].double() * two[name].double()).sum())
        for one, two in itertools.combinations(aligned, 2)
        for name in one
    )


@pytest.mark.parametrize("method", METHODS)
def test_objective_and_consistency(method: Any) -> None:
    models = relatives(4)
    spec = spec_of(models)
    many = lmcfast.match_many(spec, models, method, anchor=2)
    assert many.objective == pytest.approx(pairwise(many.apply()), rel=1e-9)
    for group, index in spec.identity().items():
        assert torch.equal(many.permutations[2][group], index)
    for i, j, k in itertools.permutations(range(4), 3):
        way = lmcfast.compose_permutations(spec, many.between(i, j), many.between(k, i))
        for group, index in many.between(k, j).items():
            assert torch.equal(way[group], index)
    placed = lmcfast.apply_permutations(spec, many.between(0, 1), models[1])
    aligned = many.apply()
    assert lmcfast.distance(spec, models[0], placed) == pytest.approx(
        lmcfast.distance(spec, aligned[0], aligned[1]), rel=1e-6
    )
    assert list(many.history) == sorted(many.history)


@pytest.mark.parametrize("method", METHODS)
def test_hidden_permutations_are_found(method: Any) -> None:
    models = relatives(3, noise=0.05)
    spec = spec_of(models)
    aligned = lmcfast.match_many(spec, models, method).apply()
    for one, two in itertools.combinations(aligned, 2):
        assert (
            lmcfast.distance(spec, one, two) < 0.15 * lmcfast.distance(spec, one, {n: -t for n, t in two.items()}) / 2
        )


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_networks_does_not_count(method: Any) -> None:
    models = [dict(mlp((8, 16, 14, 5), seed=k).state_dict()) for k in range(4)]
    spec = spec_of(models)
    values = []
    for order in ((0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)):
        many = lmcfast.match_many(spec, [models[k] for k in order], method, anchor=order.index(1))
        values.append(many.objective)
        assert many.converged
    assert max(values) - min(values) <= 1e-9 * abs(max(values))


def test_mean_and_cycle_are_at_least_as_good_as_an_anchor() -> None:
    gained = 0
    for seed in range(3):
        models = [dict(mlp((8, 20, 20, 5), seed=10 * seed + k).state_dict()) for k in range(4)]
        spec = spec_of(models)
        anchor, mean, cycle = (lmcfast.match_many(spec, models, method).objective for method in METHODS)  # type: ignore[arg-type]
        gained += mean > anchor and cycle > anchor
    assert gained == 3


def test_two_networks_are_weight_matching() -> None:
    models = relatives(2)
    spec = spec_of(models)
    many = lmcfast.match_many(spec, models, "anchor")
    assert many.objective == pytest.approx(lmcfast.weight_matching(spec, *models).objective, rel=1e-9)


def test_thirty_two_networks_merge() -> None:
    models = relatives(32, noise=0.5)
    spec = spec_of(models)
    many = lmcfast.match_many(spec, models, "mean")
    merged = many.merge()
    base = lmcfast.apply_permutations(spec, many.permutations[0], models[0])
    for name, tensor in merged.items():
        assert tensor.dtype == models[0][name].dtype
        expected = torch.stack([one[name].double() for one in many.apply()]).mean(0)
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-6)
    # Averaging independent noise brings the merge closer to each network than they are to each other.
    others = [lmcfast.distance(spec, base, one) for one in many.apply()[1:]]
    assert lmcfast.distance(spec, base, merged) < 0.85 * min(others)


def test_weights_of_a_merge() -> None:
    models = relatives(3)
    spec = spec_of(models)
    many = lmcfast.match_many(spec, models)
    only = many.merge([0.0, 1.0, 0.0])
    for name, tensor in many.apply()[1].items():
        assert torch.equal(only[name], tensor)
    with pytest.raises(ValueError, match="weights: 3 finite numbers"):
        many.merge([0.5, 0.5])


def test_options_reach_the_matching_and_bad_input_is_named() -> None:
    models = relatives(3)
    spec = spec_of(models)
    held = spec.movable_groups[0]
    many = lmcfast.match_many(spec, models, "mean", fix=held)
    for setting in many.permutations:
        assert torch.equal(setting[held], spec.identity()[held])
    for match, arguments in (
        ("method must be one of .* not 'median'", {"method": "median"}),
        ("anchor: must be an index of the 3 networks, not 3", {"anchor": 3}),
        ("max_rounds must be at least 1, not 0", {"max_rounds": 0}),
    ):
        with pytest.raises(ValueError, match=match):
            lmcfast.match_many(spec, models, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least two state dicts"):
        lmcfast.match_many(spec, models[:1])
    broken = [*models[:2], {**models[2], "0.bias": torch.full_like(models[2]["0.bias"], torch.nan)}]
    with pytest.raises(lmcfast.InvalidParamsError, match=r"models\[2\].*0\.bias"):
        lmcfast.match_many(spec, broken)
