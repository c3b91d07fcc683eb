"""Several settings at once, narrow and wide dtypes, a merge against its parents, the objective by singular vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers.networks import inputs, mlp
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import lmcfast
from lmcfast.analysis import (
    barrier,
    distance_reduction,
    input_energy,
    layer_difference,
    merged_alignment,
    singular_alignment,
    singular_objective,
    spectra,
    taylor_barrier,
)

Params = dict[str, Tensor]
WEIGHTS = ("0.weight", "2.weight", "4.weight")


def pair() -> tuple[nn.Module, lmcfast.PermutationSpec, Params, Params]:
    module = mlp((6, 9, 8, 4), seed=0)
    a, b = dict(module.state_dict()), dict(mlp((6, 9, 8, 4), seed=1).state_dict())
    return module, lmcfast.spec_from_params(a).bind(a), a, b


def vectors(weight: Tensor, gamma: float) -> list[tuple[float, Tensor, Tensor]]:
    u, s, v = torch.linalg.svd(weight.double(), full_matrices=False)
    return [(float(s[i]), u[:, i], v[i]) for i in range(len(s)) if s[i] >= max(gamma, 1e-6) * s[0]]


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_the_objective_is_the_double_sum_of_theorem_4_1(gamma: float) -> None:
    _, spec, a, b = pair()
    setting = spec.random_permutations(2)
    moved = lmcfast.apply_permutations(spec, setting, b)
    found = singular_objective(spec, a, b, setting, gamma)
    total = 0.0
    for name in WEIGHTS:
        expected = math.fsum(
            sa * sb * float(ua @ ub) * float(va @ vb)
            for sa, ua, va in vectors(a[name], gamma)
            for sb, ub, vb in vectors(moved[name], gamma)
        )
        assert found.per_layer[name].kept == pytest.approx(expected, abs=1e-9)
        total += float((a[name].double() * moved[name].double()).sum())
    assert found.whole == pytest.approx(total, rel=1e-12)
    assert (found.kept == pytest.approx(found.whole, rel=1e-9)) == (gamma == 0.0)
    with pytest.raises(ValueError, match=r"gamma: .* not -0\.1"):
        singular_objective(spec, a, b, setting, -0.1)


def test_the_objective_of_a_match_is_what_its_layers_add_up_to() -> None:
    module = mlp((6, 9, 8, 4), seed=0, bias=False)
    a, b = dict(module.state_dict()), dict(mlp((6, 9, 8, 4), seed=1, bias=False).state_dict())
    match = lmcfast.weight_matching(lmcfast.spec_from_params(a), a, b)
    found = singular_objective(match.spec, a, b, match.permutations)
    assert found.whole == pytest.approx(match.objective, rel=1e-9)


@pytest.mark.parametrize("weight", [0.5, 0.25])
def test_the_merge_against_its_parents(weight: float) -> None:
    _, spec, a, b = pair()
    setting = spec.random_permutations(3)
    moved = lmcfast.apply_permutations(spec, setting, b)
    merged = lmcfast.interpolate(a, moved, weight)
    found = merged_alignment(spec, a, b, setting, 0.3, weight=weight)
    assert found.with_a.pooled == pytest.approx(singular_alignment(spec, merged, a, gamma=0.3).pooled, abs=1e-12)
    assert found.with_b.pooled == pytest.approx(singular_alignment(spec, merged, moved, gamma=0.3).pooled, abs=1e-12)
    first, second = merged_alignment(spec, a, b, [spec.identity(), setting], 0.3, weight=weight)
    assert second.with_a == found.with_a
    assert first.with_b == merged_alignment(spec, a, b, None, 0.3, weight=weight).with_b
    whole = merged_alignment(spec, a, b, setting, weight=0.0)
    assert whole.with_a.pooled == pytest.approx(1.0, abs=1e-9)
    (layer,) = merged_alignment(spec, a, b, setting, layers=["2.*"]).with_a.per_layer
    assert layer == "2.weight"


def test_several_settings_give_one_result_each() -> None:
    module, spec, a, b = pair()
    settings = [spec.random_permutations(seed) for seed in (1, 2)]
    x = [inputs(5, 6)]
    assert distance_reduction(spec, a, b, settings) == [distance_reduction(spec, a, b, one) for one in settings]
    found = layer_difference(spec, module, a, b, x, settings)
    for one, setting in zip(found, settings, strict=True):
        alone = layer_difference(spec, module, a, b, x, setting)
        assert one.keys() == alone.keys()
        for name in one:
            assert one[name].difference == pytest.approx(alone[name].difference, rel=1e-12)
            assert one[name].norm_b == pytest.approx(alone[name].norm_b, rel=1e-12)
    assert distance_reduction(spec, a, b, []) == []
    with pytest.raises(lmcfast.InvalidPermutationError):
        layer_difference(spec, module, a, b, x, [{}])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_every_quantity_takes_other_dtypes(dtype: torch.dtype) -> None:
    """Weights rounded to the dtype, against the same weights in float64: what is stored decides, not where it lies."""
    _, spec, a, b = pair()
    narrow = [{name: tensor.to(dtype) for name, tensor in params.items()} for params in (a, b)]
    wide = [{name: tensor.double() for name, tensor in params.items()} for params in narrow]
    setting = spec.random_permutations(1)
    for function in (singular_alignment, singular_objective):
        found, expected = (function(spec, *ends, setting, 0.3) for ends in (narrow, wide))
        for name in WEIGHTS:
            left, right = vars(found.per_layer[name]), vars(expected.per_layer[name])
            assert left == pytest.approx(right, abs=1e-9)
    merged = [merged_alignment(spec, *ends, setting, 0.3).with_a.pooled for ends in (narrow, wide)]
    assert merged[0] == pytest.approx(merged[1], abs=0.02)  # the merge is rounded to the dtype
    rates = [distance_reduction(spec, *ends, setting).rate for ends in (narrow, wide)]
    assert rates[0] == pytest.approx(rates[1], abs=1e-12)
    for name, values in spectra(spec, narrow).values.items():
        np.testing.assert_allclose(values, spectra(spec, wide).values[name], atol=1e-12)
    networks = [nn.Sequential(*mlp((6, 9, 8, 4))).to(kind) for kind in (dtype, torch.float64)]
    batches = [[(inputs(7, 6).to(kind), torch.arange(7) % 4)] for kind in (dtype, torch.float64)]
    share = [
        input_energy(spec, network, ends[0], data)["0.weight"].energy
        for network, ends, data in zip(networks, (narrow, wide), batches, strict=True)
    ]
    np.testing.assert_allclose(share[0], share[1], rtol=0.05)
    lines = []
    for network, ends, data in zip(networks, (narrow, wide), batches, strict=True):
        given = (network, *ends, data, cross_entropy)
        lines.append([barrier(*given, lambdas=3).midpoint, taylor_barrier(*given).midpoint])
    np.testing.assert_allclose(lines[0], lines[1], rtol=0.05, atol=0.05)
