"""The kernels that hold tensors, move their units and judge moves, against their readable twins."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcfast import _native
from lmcfast.matching import units
from lmcfast.matching.holding import Holding
from lmcfast.matching.storage import storages
from lmcfast.matching.sums import stored_figures
from lmcfast.spec import PermutationSpec

shapes = st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple)
dtypes = st.sampled_from([torch.float32, torch.float64])


def drawn(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def permutations(size: int, moved: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A random permutation, and another that differs from it at no more than ``moved`` places."""
    generator = torch.Generator().manual_seed(seed)
    before = torch.randperm(size, generator=generator)
    chosen = torch.randperm(size, generator=generator)[:moved]
    now = before.clone()
    now[chosen] = before[chosen[torch.randperm(chosen.shape[0], generator=generator)]]
    return before, now


@given(shapes, dtypes, st.integers(0, 40), st.integers(0, 10_000), st.data())
@settings(max_examples=80, deadline=None)
def test_moves_and_their_worth(
    shape: tuple[int, ...], dtype: torch.dtype, moved: int, seed: int, data: st.DataObject
) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    before, now = permutations(shape[axis], moved, seed)
    a, b = drawn(shape, dtype, seed), drawn(shape, dtype, seed + 1)

    changed, (rise,) = units.rises(before, now, [(a, b, axis)])
    expected_changed, (expected,) = units.rises_ref(before, now, [(a, b, axis)])
    assert changed == expected_changed == int((before != now).sum())
    assert math.isclose(rise, expected, rel_tol=1e-12, abs_tol=1e-11)

    moved_ref, moved_new, in_place = torch.empty_like(b), torch.empty_like(b), b.clone()
    units.move_units_ref(before, now, [(moved_ref, b, axis)])
    units.move_units(before, now, [(moved_new, b, axis), (in_place, in_place, axis)])
    assert torch.equal(moved_new, moved_ref)
    assert torch.equal(in_place, moved_ref)
    whole = float((a.double() * (moved_ref.double() - b.double())).sum())
    assert math.isclose(rise, whole, rel_tol=1e-9, abs_tol=1e-9)

    few = (*shape[:axis], changed, *shape[axis + 1 :])
    outputs = [torch.full(few, math.nan, dtype=dtype) for _ in range(4)]
    units.unit_differences(before, now, (a, b, axis), outputs[0], outputs[1])
    units.unit_differences_ref(before, now, (a, b, axis), outputs[2], outputs[3])
    assert torch.equal(outputs[0], outputs[2])
    assert torch.equal(outputs[1], outputs[3])


def test_a_rise_is_exact_beyond_one_piece() -> None:
    """Rows longer than a piece, more rows than a piece has numbers, and sums of more digits than float32 has."""
    for shape, axis in (((3, 70_001), 0), ((70_001, 3), 1), ((2, 40_000), 1)):
        before, now = permutations(shape[axis], shape[axis], 5)
        a, b = drawn(shape, torch.float32, 6), drawn(shape, torch.float32, 7) + 4096
        _, (rise,) = units.rises(before, now, [(a, b, axis)])
        source = torch.argsort(before)[now]
        products = (a.double() * (b.index_select(axis, source).double() - b.double())).flatten()
        assert math.isclose(rise, math.fsum(products.tolist()), rel_tol=1e-12, abs_tol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("large", [False, True])
def test_tensors_are_held_as_their_twin_holds_them(
    dtype: torch.dtype, strided: bool, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:  # the block begins somewhere inside its memory
        monkeypatch.setattr(units, "WORTH_LARGE", 1)
    spec = PermutationSpec.from_axes(
        {
            "in.weight": ("u", None, None, None),
            "in.bias": ("u",),
            "norm": ("u",),
            "mid.weight": ("v", "u", None, None),
            "back.weight": ("u", "v", None, None),
            "out.weight": (None, "v"),
            "wide.weight": ("v", "u"),
            "bias": (None,),
        }
    )
    shapes = {
        "in.weight": (7, 2, 3, 3), "in.bias": (7,), "norm": (7,), "mid.weight": (5, 7, 3, 1),
        "back.weight": (7, 5, 1, 1), "out.weight": (3, 5), "wide.weight": (5, 7), "bias": (3,),
    }  # fmt: skip
    pair = []
    for seed in (0, 50):
        params = {name: drawn(shape, dtype, seed + k) for k, (name, shape) in enumerate(shapes.items())}
        if strided:
            params = {name: torch.stack((t, t), -1)[..., 0] for name, t in params.items()}
            params["mid.weight"] = params["mid.weight"].to(memory_format=torch.channels_last)
        pair.append(params)
    held_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    bound = spec.bind(pair[0])
    cpu = torch.device("cpu")
    doubles = set(shapes) if dtype == torch.float64 else set()
    plan = storages(bound, dict.fromkeys(shapes, 1.0))
    for storage, (a, b, figures) in Holding(plan, bound).hold(pair[0], pair[1], cpu, doubles):
        expected_a, expected_b = (storage.hold(params, cpu, held_dtype) for params in pair)
        assert torch.equal(a, expected_a)
        assert torch.equal(b, expected_b)
        assert a.is_contiguous()
        assert b.is_contiguous()
        expected = stored_figures(expected_a, expected_b)
        for found, value in zip(vars(figures).values(), vars(expected).values(), strict=True):
            assert math.isclose(found, value, rel_tol=1e-12, abs_tol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("units", [1, 15, 33, 64])
@pytest.mark.parametrize("kernel", [1, 2, 4, 8, 9, 16, 25, 49])
def test_kernels_of_every_size_are_turned(kernel: int, units: int, dtype: torch.dtype) -> None:
    a, b = (drawn((3, units, kernel), dtype, seed) for seed in (1, 2))
    held_a, held_b = (torch.full((3, kernel, units), float("nan"), dtype=dtype) for _ in range(2))
    table = np.array([[3, kernel, units, units * kernel, 1, kernel, 0, kernel * units, 0]])
    arrays = held_a.view(-1).numpy(), held_b.view(-1).numpy()
    _native.hold_pairs([a.numpy()], [b.numpy()], *arrays, table, 1)
    torch.testing.assert_close(held_a, a.transpose(1, 2), rtol=0, atol=0)
    torch.testing.assert_close(held_b, b.transpose(1, 2), rtol=0, atol=0)


def test_what_does_not_fit_is_refused() -> None:
    """The kernels follow pointers, so the extension itself refuses what would lead them astray."""
    order, a = np.arange(4), np.zeros((3, 4), np.float32)
    with pytest.raises(ValueError, match="permutation"):
        _native.unit_rises(order, np.array([0, 1, 1, 2]), [(a, a, 1)])
    with pytest.raises(ValueError, match="permutation"):
        _native.unit_rises(order, np.array([0, 1, 2, 9]), [(a, a, 1)])
    with pytest.raises(ValueError, match="same length"):
        _native.unit_rises(order, np.arange(3), [(a, a, 1)])
    with pytest.raises(ValueError, match="dense arrays"):
        _native.unit_rises(order, order, [(a, a, 0)])
    with pytest.raises(ValueError, match="dense arrays"):
        _native.move_units(order, order, [(a, a.astype(np.float64), 1)])
    with pytest.raises(ValueError, match="dense arrays"):
        _native.move_units(order, order, [(a, np.zeros((3, 8), np.float32)[:, ::2], 1)])
    with pytest.raises(ValueError, match="axis"):
        _native.move_units(order, order, [(a, a, 2)])
    with pytest.raises(ValueError, match="float32 or float64"):
        _native.move_units(order, order, [(a.astype(np.float16), a.astype(np.float16), 1)])
    with pytest.raises(ValueError, match="outputs"):
        _native.unit_differences(order, order[::-1].copy(), (a, a, 1), a[:, :2].copy(), a)
    for row, match in (
        ([3, 1, 4, 4, 4, 1, 1, 4, 0], "fit"),
        ([3, 1, 4, 5, 4, 1, 0, 4, 0], "fit"),
        ([3, 1, 5, 4, 4, 1, -1, 4, 0], "fit"),
        ([3, 0, 4, 4, 4, 1, 0, 4, 0], "at least 1"),
        ([3, 1, 4, 4, 4, 1, 0, 4, 1], "range"),
    ):
        with pytest.raises(ValueError, match=match):
            _native.hold_pairs([a], [a], a.copy(), a.copy(), np.array([row]), 1)
    with pytest.raises(ValueError, match="one type"):
        _native.hold_pairs([a], [a.astype(np.float64)], a.copy(), a.copy(), np.array([[3, 1, 4, 4, 4, 1, 0, 4, 0]]), 1)
    with pytest.raises(ValueError, match="one size and type"):
        _native.inner_products([(a, a[:2])])
