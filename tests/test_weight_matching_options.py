"""Weight matching: inputs of every kind, options, callbacks, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import networks
from helpers.matching import (
    MLP_AXES,
    axis_strings,
    mlp_case,
    mlp_params,
    naive,
    plain_objective,
    random_like,
    residual_case,
)

import lmcfast
from lmcfast import PermutationSpec, weight_matching
from lmcfast.spec import spec_from_params


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_inputs_are_not_changed_and_gradients_are_ignored(dtype: torch.dtype) -> None:
    spec, *pair = mlp_case()
    a, b = ({name: tensor.to(dtype) for name, tensor in params.items()} for params in pair)
    copies = [{name: tensor.clone() for name, tensor in params.items()} for params in (a, b)]
    learning = {name: tensor.clone().requires_grad_() for name, tensor in a.items()}
    result = weight_matching(spec, learning, b)
    weight_matching(spec, a, b, init=result.permutations)
    for params, copy in zip((a, b), copies, strict=True):
        assert all(torch.equal(params[name], copy[name]) for name in copy)


def test_numbers_of_other_dtypes() -> None:
    spec, a, b = mlp_case()
    exact = weight_matching(spec, a, b).objective
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        cast = [{name: tensor.to(dtype) for name, tensor in params.items()} for params in (a, b)]
        result = weight_matching(spec, *cast)
        assert result.objective == pytest.approx(plain_objective(spec, result.permutations, *cast), rel=1e-12)
        assert result.objective == pytest.approx(exact, rel=0.05)


# ---- what counts


def test_tied_tensors_count_once() -> None:
    spec, a, b = mlp_case()
    tied = PermutationSpec.from_axes(MLP_AXES, tied={"again": "0.weight"})
    a_tied, b_tied = ({**params, "again": params["0.weight"]} for params in (a, b))
    plain, counted = weight_matching(spec, a, b), weight_matching(tied, a_tied, b_tied)
    assert counted.objective == plain.objective
    assert counted.distance_before == plain.distance_before
    moved = counted.apply(b_tied)
    assert torch.equal(moved["again"], moved["0.weight"])


def test_buffers_move_and_are_not_scored() -> None:
    spec, a, b = residual_case()
    wild = {name: tensor * 1e6 if "running" in name else tensor for name, tensor in b.items()}
    result, reference = weight_matching(spec, a, wild), weight_matching(spec, a, b)
    assert result.objective == reference.objective
    stream = result.spec.groups_of("bn1.running_mean")[0]
    assert torch.equal(result.apply(wild)["bn1.running_mean"], wild["bn1.running_mean"][result.permutations[stream]])


def test_tensor_weights_scale_and_drop() -> None:
    spec, a, b = mlp_case()
    doubled = weight_matching(spec, a, b, tensor_weights={"*": 2.0})
    plain = weight_matching(spec, a, b)
    assert doubled.objective == pytest.approx(2 * plain.objective, rel=1e-12)
    only_first = weight_matching(spec, a, b, tensor_weights={"*": 0.0, "0.*": 1.0})
    scores = a["0.weight"] @ b["0.weight"].T + torch.outer(a["0.bias"], b["0.bias"])
    assert only_first.objective == pytest.approx(lmcfast.solve_assignment(scores, certify="full").objective, rel=1e-5)
    assert torch.equal(only_first.permutations["h1"], torch.arange(20))


def test_normalized_weights_make_each_share_a_cosine() -> None:
    """Whatever a tensor's scale, which then changes neither the permutations nor the objective."""
    spec, a, b = mlp_case()
    result = weight_matching(spec, a, b, tensor_weights="normalized")
    aligned = result.apply(b)
    cosines = [torch.cosine_similarity(a[name].double().flatten(), aligned[name].double().flatten(), 0) for name in a]
    assert result.objective == pytest.approx(float(sum(cosines)), rel=1e-6)
    scaled = {name: tensor * 2.0**k for k, (name, tensor) in enumerate(b.items())}
    again = weight_matching(spec, a, scaled, tensor_weights="normalized")
    assert again.objective == pytest.approx(result.objective, rel=1e-9)
    zeroed = {**b, "0.bias": torch.zeros_like(b["0.bias"])}
    assert weight_matching(spec, a, zeroed, tensor_weights="normalized").objective <= len(a) - 1
    many = lmcfast.match_many(spec, [a, b], method="mean", tensor_weights="normalized")
    squares = {name: (a[name].double().square().sum() + b[name].double().square().sum()) / 2 for name in a}
    one, two = many.apply()
    value = sum(float((one[name].double() * two[name].double()).sum() / squares[name]) for name in a)
    assert many.objective == pytest.approx(value, rel=1e-6)


def test_fix_and_only() -> None:
    spec, a, b = mlp_case()
    init = {"h0": spec.bind(a).random_permutations(3)["h0"]}
    held = weight_matching(spec, a, b, fix="h0", init=init)
    assert torch.equal(held.permutations["h0"], init["h0"])
    assert {step.group for step in held.trace} == {"", "h1"}
    scores = lmcfast.similarity(spec, "h1", a, b, init)
    rows = torch.arange(20)
    best = lmcfast.solve_assignment(scores, certify="full").objective
    assert float(scores[rows, held.permutations["h1"]].sum()) == pytest.approx(best, rel=1e-5)
    same = weight_matching(spec, a, b, only=["h1"], init=init)
    assert same.objective == held.objective
    still = weight_matching(spec, a, b, fix="h*")
    assert still.converged
    assert torch.equal(still.permutations["h1"], torch.arange(20))


def test_a_recurrent_group_counts_by_the_true_objective() -> None:
    """hh has the group on both axes: the scores are a linearisation, the acceptance is not."""
    spec = PermutationSpec.from_axes({"ih": ("h", None), "hh": ("h", "h"), "out": (None, "h")})
    like = {"ih": torch.empty(8, 6), "hh": torch.empty(8, 8), "out": torch.empty(3, 8)}
    a, b = random_like(like, 1), random_like(like, 2)
    result = weight_matching(spec, a, b)
    assert result.objective == pytest.approx(plain_objective(spec, result.permutations, a, b), rel=1e-12)
    assert result.objective >= max(result.starts.values()) * (1 - 1e-14)
    gains = [step.gain for step in result.trace if step.kind == "step"]
    assert all(value >= 0 for value in gains)
    planted = result.spec.random_permutations(1)
    found = weight_matching(spec, a, lmcfast.apply_permutations(spec, planted, a))
    assert found.distance_after == 0.0


def test_groups_of_one_unit_and_empty_groups() -> None:
    spec = PermutationSpec.from_axes({"w": ("one", "none"), "v": ("one", "h"), "u": ("h", "none")})
    like = {"w": torch.empty(1, 0), "v": torch.empty(1, 3), "u": torch.empty(3, 0)}
    result = weight_matching(spec, random_like(like, 1), random_like(like, 2))
    assert result.permutations["none"].shape == (0,)
    assert torch.equal(result.permutations["one"], torch.tensor([0]))
    assert {step.group for step in result.trace} == {"", "h"}


def test_sweeps_are_bounded() -> None:
    spec, a, b = mlp_case(60)
    nothing = weight_matching(spec, a, b, start="identity", max_sweeps=0)
    assert not nothing.converged
    assert nothing.sweeps == 0
    assert nothing.objective == next(iter(nothing.starts.values()))
    one = weight_matching(spec, a, b, start="identity", max_sweeps=1)
    assert not one.converged
    assert max(step.sweep for step in one.trace) == 1


def test_callback_sees_every_step_and_may_interrupt() -> None:
    spec, a, b = mlp_case()
    seen: list[lmcfast.matching.Step] = []
    result = weight_matching(spec, a, b, start="forward", callback=seen.append)
    assert seen == [step for step in result.trace if step.group]

    def interrupt(step: lmcfast.matching.Step) -> None:
        raise KeyboardInterrupt

    precision = torch.get_float32_matmul_precision()
    with pytest.raises(KeyboardInterrupt):
        weight_matching(spec, a, b, callback=interrupt)
    assert torch.get_float32_matmul_precision() == precision
    assert torch.is_grad_enabled()
    assert weight_matching(spec, a, b).objective == result.objective


# ---- what it refuses


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_named(value: float) -> None:
    spec, a, b = mlp_case()
    bad = {**b, "2.bias": b["2.bias"].clone()}
    bad["2.bias"][3] = value
    with pytest.raises(lmcfast.InvalidParamsError, match=r"params_b.*'2\.bias'"):
        weight_matching(spec, a, bad)
    with pytest.raises(lmcfast.InvalidParamsError, match=r"params_a.*'2\.bias'"):
        weight_matching(spec, bad, b)


def test_shapes_that_do_not_fit_are_named() -> None:
    spec, a, _ = mlp_case()
    with pytest.raises(lmcfast.LmcfastError, match=r"params_b.*(21.*20|20.*21)"):
        weight_matching(spec, a, mlp_params((12, 21, 20, 5), 1))
    missing = {name: tensor for name, tensor in a.items() if name != "4.bias"}
    with pytest.raises(lmcfast.InvalidParamsError, match=r"params_a.*'4\.bias'"):
        weight_matching(spec, missing, a)
    with pytest.raises(lmcfast.InvalidParamsError, match=r"params_b.*'extra'"):
        weight_matching(spec, a, {**a, "extra": torch.zeros(2)})


def test_patterns_and_options_that_make_no_sense() -> None:
    spec, a, b = mlp_case()
    for wrong, message in [
        ({"fix": "h9*"}, "fix: 'h9"),
        ({"only": ["h0", "conv*"]}, "only: 'conv"),
        ({"tensor_weights": {"9.*": 1.0}}, "tensor_weights: '9"),
        ({"tensor_weights": {"0.*": -1.0}}, "tensor_weights.*-1"),
        ({"tensor_weights": {"0.*": float("nan")}}, "tensor_weights.*nan"),
        ({"tensor_weights": "even"}, "tensor_weights: must be a mapping or 'normalized', not 'even'"),
        ({"start": "backward"}, "start.*'backward'"),
        ({"max_sweeps": -1}, "max_sweeps.*-1"),
        ({"restarts": 0}, "restarts.*0"),
        ({"init": {"h7": torch.arange(3)}}, "init.*'h7'"),
        ({"init": {"h0": torch.zeros(20, dtype=torch.int64)}}, "init.*'h0'"),
        ({"init": {"h0": torch.arange(19)}}, "init.*'h0'"),
    ]:
        with pytest.raises(ValueError, match=message):
            weight_matching(spec, a, b, **wrong)


def test_nested_groups_can_be_held() -> None:
    groups = [lmcfast.Group("u", 3, within=("h",))]
    spec = PermutationSpec.from_axes({"w": ("h u", None), "v": (None, "h u")}, groups=groups)
    like = {"w": torch.empty(12, 4), "v": torch.empty(5, 12)}
    a = random_like(like, 1)
    planted = {**spec.bind(a).identity(), "h": torch.tensor([2, 0, 3, 1])}
    moved = lmcfast.apply_permutations(spec, planted, a)
    assert weight_matching(spec, a, moved, fix="u").distance_after == 0.0
    turned = {**spec.bind(a).identity(), "u": torch.tensor([[1, 0, 2]] * 4)}
    both = lmcfast.apply_permutations(spec, planted, lmcfast.apply_permutations(spec, turned, a))
    assert weight_matching(spec, a, both, fix="u", init={"u": turned["u"]}).distance_after == 0.0
    uneven = {"u": torch.tensor([[1, 0, 2]] * 3 + [[0, 1, 2]])}
    with pytest.raises(lmcfast.SpecError, match="'u' is held, but differs between the units of 'h'"):
        weight_matching(spec, a, moved, fix="u", init=uneven)
    held = weight_matching(spec, a, moved, fix=["u", "h"], init=uneven)
    assert torch.equal(held.permutations["u"], uneven["u"])


def test_weights_whose_products_overflow_are_named() -> None:
    spec, a, b = mlp_case()
    huge = {name: tensor * 1e30 for name, tensor in a.items()}
    with pytest.raises(lmcfast.InvalidParamsError, match="'h0' overflow float32"):
        weight_matching(spec, huge, {name: tensor * 1e30 for name, tensor in b.items()})


def test_the_naive_twin_reads_flattened_channels() -> None:
    params = networks.params_of(networks.cnn(seed=1))
    spec = spec_from_params(params)
    planted = spec.bind(params).random_permutations(2)
    moved = lmcfast.apply_permutations(spec, planted, params)
    axes = axis_strings(spec)
    arrays = [{name: tensors[name].numpy() for name in axes} for tensors in (params, moved)]
    best = max(naive.naive_matching(axes, *arrays, seed=seed).objective for seed in range(10))
    norm = sum(float(np.vdot(array.astype(np.float64), array)) for array in arrays[0].values())
    assert best <= norm * (1 + 1e-6)
    assert best >= 0.8 * norm
