"""State dicts moved, joined and compared."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from helpers import networks
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcfast.errors import InvalidParamsError, InvalidPermutationError, SpecError
from lmcfast.params import (
    apply_permutations,
    check_finite,
    check_params,
    check_permutations,
    compose_permutations,
    distance,
    interpolate,
    invert_permutations,
)
from lmcfast.spec import Group, PermutationSpec, spec_from_params
from lmcfast.spec.binding import added_prefix

MODULE = networks.vgg()
PARAMS = networks.params_of(MODULE)
SPEC = spec_from_params(PARAMS)


def same_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.data_ptr() == b.data_ptr()


# ---- apply


def test_apply_copies_every_key_in_order() -> None:
    before = {name: tensor.clone() for name, tensor in PARAMS.items()}
    moved = apply_permutations(SPEC, SPEC.random_permutations(0), PARAMS)
    assert list(moved) == list(PARAMS)
    for name, tensor in PARAMS.items():
        assert (moved[name].shape, moved[name].dtype) == (tensor.shape, tensor.dtype)
        assert not same_memory(moved[name], tensor)
        assert torch.equal(tensor, before[name])
    moved["classifier.6.bias"].zero_()
    assert torch.equal(PARAMS["classifier.6.bias"], before["classifier.6.bias"])


def test_apply_gathers() -> None:
    setting = SPEC.random_permutations(0)
    moved = apply_permutations(SPEC, setting, PARAMS)
    c0, c1 = setting["c0"], setting["c1"]
    assert torch.equal(moved["features.4.weight"], PARAMS["features.4.weight"][c1][:, c0])
    assert torch.equal(moved["features.1.running_var"], PARAMS["features.1.running_var"][c0])
    old = PARAMS["classifier.0.weight"].reshape(7, 6, 4)
    assert torch.equal(moved["classifier.0.weight"].reshape(7, 6, 4), old[setting["h0"]][:, setting["c3"]])


@given(st.integers(0, 1000), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_laws_on_a_network(a: int, b: int) -> None:
    p, q = SPEC.random_permutations(a), SPEC.random_permutations(b)
    both = apply_permutations(SPEC, compose_permutations(SPEC, p, q), PARAMS)
    twice = apply_permutations(SPEC, q, apply_permutations(SPEC, p, PARAMS))
    back = apply_permutations(SPEC, invert_permutations(SPEC, p), apply_permutations(SPEC, p, PARAMS))
    for name, tensor in PARAMS.items():
        assert torch.equal(both[name], twice[name])
        assert torch.equal(back[name], tensor)


def test_unbound_specs_are_bound_to_the_params() -> None:
    spec = PermutationSpec.from_axes({"w": ("h", None), "v": (None, "h _2")})
    params = {"w": torch.arange(6.0).reshape(3, 2), "v": torch.arange(6.0).reshape(1, 6)}
    moved = apply_permutations(spec, {"h": torch.tensor([2, 0, 1])}, params)
    assert moved["v"].tolist() == [[4, 5, 0, 1, 2, 3]]


def test_tied_aliases_share_where_they_shared() -> None:
    module, arguments = networks.tied_autoencoder()
    spec = PermutationSpec.from_axes(**arguments)
    params = networks.params_of(module)
    assert same_memory(params["encoder.weight"], params["again.weight"])
    bound = spec.bind(params)
    moved = apply_permutations(spec, bound.random_permutations(0), params)
    assert moved["again.weight"] is moved["encoder.weight"]
    assert not same_memory(moved["encoder.weight"], params["encoder.weight"])
    apart = {name: tensor.clone() for name, tensor in params.items()}
    moved = apply_permutations(spec, bound.random_permutations(0), apart)
    assert not same_memory(moved["again.weight"], moved["encoder.weight"])
    assert torch.equal(moved["again.weight"], moved["encoder.weight"])
    with torch.no_grad():
        x = networks.inputs(4, 6)
        before = module(x)
        module.load_state_dict(moved)
        torch.testing.assert_close(module(x), before)


def test_views_of_one_storage_are_not_taken_for_one_tensor() -> None:
    both = torch.arange(6.0)
    params = {"a": both[:3], "b": both[3:], "c": both[:3]}
    spec = PermutationSpec.from_axes({"a": ("h",), "b": ("h",), "c": (None,)})
    moved = apply_permutations(spec, {"h": torch.tensor([2, 1, 0])}, params)
    assert [moved[name].tolist() for name in "abc"] == [[2, 1, 0], [5, 4, 3], [0, 1, 2]]


def test_keys_without_entry() -> None:
    extra = {"scale": torch.tensor(2.0), "mask": torch.ones(3, dtype=torch.bool), "ids": torch.arange(4)}
    moved = apply_permutations(SPEC, SPEC.identity(), {**PARAMS, **extra})
    assert all(torch.equal(moved[name], tensor) for name, tensor in extra.items())
    unknown = {**PARAMS, "extra.weight": torch.zeros(3), "more.weight": torch.zeros(3)}
    with pytest.raises(InvalidParamsError, match=r"'extra.weight' has no entry in the spec \(and 1 more\)") as caught:
        apply_permutations(SPEC, SPEC.identity(), unknown)
    assert caught.value.tensor == "extra.weight"
    moved = apply_permutations(SPEC, SPEC.identity(), unknown, strict=False)
    assert torch.equal(moved["extra.weight"], unknown["extra.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features.0.bias": None}, "'features.0.bias' is missing"),
        ({"features.0.bias": torch.zeros(5)}, "'features.0.bias': axis 0 has length 5, not 4"),
        ({"features.0.bias": torch.zeros(4, 1)}, r"'features.0.bias' has shape \(4, 1\), but the spec gives it 1 axes"),
        ({"classifier.0.weight": torch.zeros(7, 25)}, "'classifier.0.weight': axis 1 has length 25, not 24"),
        ({"features.0.bias": [1.0] * 4}, "'features.0.bias' is not a tensor but list"),
    ],
)
def test_params_errors_name_argument_and_tensor(change: dict[str, Any], message: str) -> None:
    params = {name: tensor for name, tensor in {**PARAMS, **change}.items() if tensor is not None}
    with pytest.raises(InvalidParamsError, match="params_b: .*" + message) as caught:
        check_params(SPEC, params, "params_b")
    assert caught.value.tensor == next(iter(change))
    with pytest.raises(InvalidParamsError):
        apply_permutations(SPEC, SPEC.identity(), params)


def test_params_must_be_a_mapping() -> None:
    with pytest.raises(InvalidParamsError, match="a state dict is needed, not Sequential"):
        check_params(SPEC, networks.mlp())  # type: ignore[arg-type]


def test_contradicting_shapes_are_a_spec_error() -> None:
    spec = PermutationSpec.from_axes({"w": ("h",), "v": ("h",)})
    with pytest.raises(SpecError, match="params: tensor 'v': axis 0 has length 4, not 3"):
        check_params(spec, {"w": torch.zeros(3), "v": torch.zeros(4)})


def test_check_finite() -> None:
    check_finite({"a": torch.ones(3), "i": torch.arange(3), "e": torch.zeros(0)})
    bad = {"a": torch.ones(3), "b": torch.tensor([1.0, math.nan]), "c": torch.tensor([math.inf], dtype=torch.bfloat16)}
    with pytest.raises(
        InvalidParamsError, match=r"params_a: tensor 'b' holds NaN or infinity \(and 1 more\)"
    ) as caught:
        check_finite(bad, "params_a")
    assert caught.value.tensor == "b"
    with pytest.raises(InvalidParamsError, match="'c'"):
        check_finite({"c": torch.tensor([math.nan]).to(torch.float8_e4m3fn)})


# ---- settings


NESTED = PermutationSpec.from_axes(
    {"w": ("h u", "f")}, {"h": 2, "u": 3, "f": 2}, [Group("u", within=("h",)), Group("f", fixed=True)]
)
GOOD = {"h": torch.tensor([1, 0]), "u": torch.tensor([[0, 2, 1], [2, 1, 0]])}


def test_settings_in_other_forms() -> None:
    for setting in (
        GOOD,
        {name: index.numpy() for name, index in GOOD.items()},
        {name: index.tolist() for name, index in GOOD.items()},
        {name: index.to(torch.int32) for name, index in GOOD.items()},
        {name: index.numpy().astype(np.uint8) for name, index in GOOD.items()},
    ):
        checked = check_permutations(NESTED, setting)  # type: ignore[arg-type]
        assert {name: index.dtype for name, index in checked.items()} == dict.fromkeys(["u", "f", "h"], torch.int64)
        assert torch.equal(checked["u"], GOOD["u"])
        assert checked["f"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("change", "message", "group"),
    [
        ({"h": None}, "group 'h' has no permutation", "h"),
        ({"x": torch.arange(2)}, "the spec has no group 'x'", "x"),
        ({"h": torch.tensor([0, 1, 2])}, r"group 'h' has shape \(3,\), not \(2,\)", "h"),
        ({"u": torch.arange(3)}, r"group 'u' has shape \(3,\), not \(2, 3\)", "u"),
        ({"h": torch.tensor([0, 0])}, r"group 'h' is not a permutation of 0..1$", "h"),
        ({"h": torch.tensor([1, 2])}, "group 'h' is not a permutation", "h"),
        ({"h": torch.tensor([-1, 0])}, "group 'h' is not a permutation", "h"),
        (
            {"u": torch.tensor([[0, 1, 2], [0, 1, 1]])},
            r"group 'u' is not a permutation of 0..2 at outer index \(1,\)",
            "u",
        ),
        ({"h": torch.tensor([1.0, 0.0])}, "group 'h' has dtype torch.float32", "h"),
        ({"h": torch.tensor([True, False])}, "group 'h' has dtype torch.bool", "h"),
        ({"f": torch.tensor([1, 0])}, "group 'f' is fixed", "f"),
    ],
)
def test_wrong_settings_name_the_group(change: dict[str, Any], message: str, group: str) -> None:
    setting = {name: index for name, index in {**GOOD, **change}.items() if index is not None}
    with pytest.raises(InvalidPermutationError, match="^permutations: .*" + message) as caught:
        apply_permutations(NESTED, setting, {"w": torch.zeros(6, 2)})
    assert caught.value.group == group
    with pytest.raises(InvalidPermutationError):
        invert_permutations(NESTED, setting)
    with pytest.raises(InvalidPermutationError, match="second"):
        compose_permutations(NESTED, GOOD, setting)


# ---- interpolate


@pytest.mark.parametrize("weight", [0.0, 0.25, 0.5, 1.0, -0.5, 1.7])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_interpolate_rounds_once(weight: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(257, generator=generator).to(dtype) for _ in range(2))
    mixed = interpolate({"w": a}, {"w": b}, weight)["w"]
    assert mixed.dtype == dtype
    exact = (1 - weight) * a.double() + weight * b.double()
    if dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn):
        # Within half a unit in the last place of the exact value, up to the error of the wide sum.
        error = (mixed.double() - exact).abs()
        nearest = (exact.to(dtype).double() - exact).abs()
        assert bool((error <= nearest + 1e-6 * exact.abs().clamp_min(1e-3)).all())
    else:
        torch.testing.assert_close(mixed, exact, rtol=1e-15, atol=1e-15)


def test_interpolate_is_wider_than_the_storage() -> None:
    """In float16 the scaled terms would overflow or round twice."""
    a, b = torch.tensor([60000.0]).half(), torch.tensor([60000.0]).half()
    assert interpolate({"w": a}, {"w": b}, 3.0)["w"].item() == 60000.0
    a, b = torch.tensor([1.0]).bfloat16(), torch.tensor([1.0078125]).bfloat16()
    assert interpolate({"w": a}, {"w": b}, 0.75)["w"].item() == 1.0078125


def test_ends_are_exact_copies_even_beside_infinity() -> None:
    a, b = {"w": torch.tensor([1.1, -0.0])}, {"w": torch.tensor([math.inf, 2.0])}
    for weight, end in ((0, a), (1, b)):
        mixed = interpolate(a, b, weight)["w"]
        assert torch.equal(mixed, end["w"])
        assert not same_memory(mixed, end["w"])


def test_integer_tensors_come_from_a_with_a_warning() -> None:
    a = {
        "w": torch.ones(2),
        "ids": torch.arange(3),
        "mask": torch.tensor([True]),
        "bn.num_batches_tracked": torch.tensor(4),
    }
    b = {
        "w": torch.zeros(2),
        "ids": torch.arange(3) + 1,
        "mask": torch.tensor([False]),
        "bn.num_batches_tracked": torch.tensor(9),
    }
    with pytest.warns(UserWarning, match="taken from params_a: ids, mask$"):
        mixed = interpolate(a, b)
    assert mixed["ids"].tolist() == [0, 1, 2]
    assert mixed["bn.num_batches_tracked"].item() == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        interpolate({**a, "bn.num_batches_tracked": torch.tensor(1)}, a)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": None}, "'b' is in params_a but not in params_b"),
        ({"c": torch.ones(2)}, "'c' is in params_b but not in params_a"),
        ({"b": torch.ones(3)}, r"'b' has shape \(2,\) in params_a and \(3,\) in params_b"),
        ({"b": torch.ones(2, dtype=torch.float64)}, "'b' is torch.float32 in params_a and torch.float64"),
    ],
)
def test_interpolate_names_what_differs(change: dict[str, Any], message: str) -> None:
    a = {"a": torch.ones(2), "b": torch.ones(2)}
    b = {name: tensor for name, tensor in {**a, **change}.items() if tensor is not None}
    with pytest.raises(InvalidParamsError, match=message) as caught:
        interpolate(a, b)
    assert caught.value.tensor == next(iter(change))


@pytest.mark.parametrize("weight", [math.nan, math.inf, "0.5", None])
def test_interpolate_refuses_a_weight_that_is_no_number(weight: Any) -> None:
    with pytest.raises(ValueError, match="weight: a finite number"):
        interpolate({"w": torch.ones(1)}, {"w": torch.ones(1)}, weight)


def test_interpolate_keeps_tied_tensors_tied() -> None:
    shared_a, shared_b = torch.ones(2), torch.zeros(2)
    a, b = {"x": shared_a, "y": shared_a, "z": shared_a}, {"x": shared_b, "y": shared_b, "z": torch.ones(2)}
    mixed = interpolate(a, b)
    assert mixed["x"] is mixed["y"]
    assert mixed["z"].tolist() == [1, 1]


# ---- distance


def test_distance_leaves_out_buffers_and_counts_ties_once() -> None:
    shared_a, shared_b = torch.full((3,), 2.0), torch.zeros(3)
    a = {"w": shared_a, "alias": shared_a, "bn.running_mean": torch.ones(3), "n": torch.tensor(7)}
    b = {"w": shared_b, "alias": shared_b, "bn.running_mean": torch.zeros(3), "n": torch.tensor(1)}
    spec = PermutationSpec.from_axes({"w": ("h",), "bn.running_mean": ("h",)}, tied={"alias": "w"})
    assert distance(spec, a, b) == pytest.approx(math.sqrt(12), rel=1e-15)
    assert distance(None, a, b) == pytest.approx(math.sqrt(12), rel=1e-15)
    apart = {**a, "alias": shared_a.clone()}
    assert distance(None, apart, b) == pytest.approx(math.sqrt(24), rel=1e-15)
    assert distance(spec, apart, b) == pytest.approx(math.sqrt(12), rel=1e-15)


def test_distance_is_in_float64_and_unchanged_by_a_common_move() -> None:
    a, b = torch.tensor([1e8, 1.0]), torch.tensor([1e8, 0.0])
    assert distance(None, {"w": a.bfloat16()}, {"w": b.bfloat16()}) == 1.0
    other = networks.params_of(networks.vgg(seed=5))
    setting = SPEC.random_permutations(2)
    moved = (apply_permutations(SPEC, setting, params) for params in (PARAMS, other))
    assert distance(SPEC, *moved) == pytest.approx(distance(SPEC, PARAMS, other), rel=1e-12)
    assert distance(SPEC, PARAMS, other) > 1


def test_distance_without_a_spec_says_how() -> None:
    for arguments in ((PARAMS, PARAMS), (PARAMS, PARAMS, PARAMS), (SPEC, PARAMS)):
        with pytest.raises(TypeError, match=r"distance\(None, params_a, params_b\)"):
            distance(*arguments)  # type: ignore[arg-type]


def test_names_with_a_prefix_are_recognised() -> None:
    wrapped = {f"module.{name}": tensor for name, tensor in PARAMS.items()}
    with pytest.raises(InvalidParamsError, match=r"params: tensor .* begin with 'module\.', those in the spec do not"):
        check_params(SPEC, wrapped)
    spec = PermutationSpec.from_axes({f"net.{name}": layouts for name, layouts in SPEC.axes.items()})
    with pytest.raises(InvalidParamsError, match=r"do not begin with 'net\.', those in the spec do;"):
        check_params(spec, PARAMS)


def test_distance_checks_both() -> None:
    with pytest.raises(InvalidParamsError, match=r"params_b: tensor 'features\.0\.weight' is missing"):
        distance(SPEC, PARAMS, {})
    with pytest.raises(InvalidParamsError, match="'w' is in params_a but not"):
        distance(None, {"w": torch.ones(1)}, {})


@pytest.mark.parametrize(
    ("has", "lacks", "prefix"),
    [
        (["module.a", "module.b"], ["a", "b"], "module."),
        (["x.y.a", "x.y.b", "x.y.steps"], ["b", "a"], "x.y."),
        (["net.a"], ["steps", "a", "b"], "net."),
        (["module.a", "b"], ["a", "b"], ""),
        (["module.a", "module.c"], ["a", "b"], ""),
        (["xa", "xb"], ["a", "b"], ""),
        (["a", "b"], ["a", "b"], ""),
        ([], ["a"], ""),
        (["a.a"], [], ""),
    ],
)
def test_added_prefix(has: list[str], lacks: list[str], prefix: str) -> None:
    assert added_prefix(has, lacks) == prefix
