"""Different widths: expanded networks compute what they did, and the matching is the rectangular assignment."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from helpers.networks import mlp, randomize
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

import lmcfast

State = dict[str, Tensor]


def state(module: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def convolutions(first: int, second: int) -> nn.Module:
    """A BatchNorm, and a flattened axis with a fixed run behind each channel."""
    layers = [nn.Conv2d(2, first, 3), nn.BatchNorm2d(first), nn.ReLU(), nn.Conv2d(first, second, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(second * 4, 5))


CONVOLUTION_AXES = {
    "0.weight": ("c", None, None, None), "0.bias": ("c",), "1.weight": ("c",), "1.bias": ("c",),
    "1.running_mean": ("c",), "1.running_var": ("c",), "3.weight": ("d", "c", None, None), "3.bias": ("d",),
    "6.weight": (None, "d _4"), "6.bias": (None,),
}  # fmt: skip


def run(module: nn.Module, params: State, inputs: Tensor) -> Tensor:
    module = module.double().eval()
    module.load_state_dict(params)
    with torch.no_grad():
        output: Tensor = module(inputs.double())
    return output


def test_an_expanded_network_computes_what_it_did() -> None:
    source = torch.Generator().manual_seed(3)
    narrow, images = randomize(convolutions(4, 5), 1), torch.randn(6, 2, 6, 6, generator=source)
    spec = lmcfast.PermutationSpec.from_axes(CONVOLUTION_AXES)
    wide = lmcfast.expand(spec, state(narrow), {"c": 7, "d": 9})
    before, after = run(narrow, state(narrow), images), run(convolutions(7, 9), wide, images)
    torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)
    assert wide["6.weight"].shape == (5, 36)
    assert float(before.abs().max()) > 0.1

    small, inputs = mlp((6, 8, 7, 5), seed=2), torch.randn(9, 6, generator=source)
    spec = lmcfast.spec_from_params(state(small)).bind(state(small))
    wide = lmcfast.expand(spec, state(small), {spec.movable_groups[1]: 12})
    torch.testing.assert_close(run(mlp((6, 8, 12, 5)), wide, inputs), run(small, state(small), inputs))


def test_concatenated_axes_grow_piece_by_piece() -> None:
    spec = lmcfast.PermutationSpec.from_axes({"w": ("a | b", None), "v": ("a",), "u": ("b",)})
    params = {"w": torch.arange(10.0).reshape(5, 2), "v": torch.ones(2), "u": torch.ones(3)}
    wide = lmcfast.expand(spec, params, {"a": 3})
    assert torch.equal(wide["w"][[0, 1, 3, 4, 5]], params["w"])
    assert torch.equal(wide["w"][2], torch.zeros(2))
    assert torch.equal(wide["u"], params["u"])


@pytest.mark.parametrize(("widths_a", "widths_b"), [((9,), (6,)), ((6,), (9,))])
def test_one_group_is_the_rectangular_assignment(widths_a: tuple[int, ...], widths_b: tuple[int, ...]) -> None:
    """Against scipy on the scores of the units alone, no zeros in them."""
    for seed in range(4):
        a, b = (state(mlp((5, *w, 4), seed=2 * seed + k)) for k, w in enumerate((widths_a, widths_b)))
        scores = sum(
            (
                x.double() @ y.double().T
                for x, y in ((a["0.weight"], b["0.weight"]), (a["2.weight"].T, b["2.weight"].T))
            ),
            a["0.bias"].double()[:, None] * b["0.bias"].double()[None],
        )
        rows, columns = linear_sum_assignment(scores.numpy(), maximize=True)
        found = lmcfast.partial_matching(lmcfast.spec_from_params(a), a, b)
        (partners,) = found.partners.values()
        value = sum(float(scores[i, j]) for i, j in enumerate(partners.tolist()) if j >= 0)
        assert value == pytest.approx(float(scores.numpy()[rows, columns].sum()), rel=1e-5)
        assert int((partners >= 0).sum()) == min(*widths_a, *widths_b)


def test_the_narrow_network_is_found_inside_the_wide_one() -> None:
    """The wide one is the narrow one, its units shuffled, with more units of which nobody reads much."""
    small = state(mlp((6, 8, 7, 5), seed=1))
    spec = lmcfast.spec_from_params(small)
    first, second = spec.movable_groups
    wide = lmcfast.expand(spec, small, {first: 12, second: 10})
    noise = torch.Generator().manual_seed(0)
    wide = {name: tensor + 0.01 * torch.randn(tensor.shape, generator=noise) for name, tensor in wide.items()}
    bound = lmcfast.spec_from_params(wide).bind(wide)
    hidden = bound.random_permutations(5)
    wide = lmcfast.apply_permutations(bound, hidden, wide)
    for a, b in ((wide, small), (small, wide)):
        found = lmcfast.partial_matching(spec, a, b)
        aligned = found.apply()
        assert lmcfast.distance(bound, *aligned) < 0.5
        assert all(share < 0.01 for share in (*found.left_over_a.values(), *found.left_over_b.values()))
        merged = found.merge()
        inputs = torch.randn(20, 6, generator=noise)
        before = run(mlp((6, 8, 7, 5)), small, inputs)
        after = run(mlp((6, 12, 10, 5)), merged, inputs)
        assert float((after - before).abs().max()) < 0.1 * float(before.abs().max())
    for group, partners in lmcfast.partial_matching(spec, wide, small).partners.items():
        wanted = torch.where(
            hidden[group] < len(small["2.weight" if group == second else "0.weight"]), hidden[group], -1
        )
        assert torch.equal(partners, wanted)


def test_each_network_may_be_the_wider_one_and_what_is_lost_is_stated() -> None:
    a, b = state(mlp((5, 9, 6, 4), seed=0)), state(mlp((5, 7, 8, 4), seed=1))
    spec = lmcfast.spec_from_params(a)
    found = lmcfast.partial_matching(spec, a, b, method="annealing")
    first, second = spec.movable_groups
    assert {group: len(partners) for group, partners in found.partners.items()} == {first: 9, second: 6}
    assert int((found.partners[first] < 0).sum()) == 2
    assert int((found.partners[second] < 0).sum()) == 0
    free = found.partners[first] < 0
    squares = sum(a[name].double().square().reshape(9, -1).sum(1) for name in ("0.weight", "0.bias"))
    squares = squares + a["2.weight"].double().square().sum(0)
    assert found.left_over_a == {first: pytest.approx(float(squares[free].sum() / squares.sum())), second: 0.0}
    unused = [j for j in range(8) if j not in found.partners[second].tolist()]
    squares = sum(b[name].double().square().reshape(8, -1).sum(1) for name in ("2.weight", "2.bias"))
    squares = squares + b["4.weight"].double().square().sum(0)
    assert found.left_over_b == {first: 0.0, second: pytest.approx(float(squares[unused].sum() / squares.sum()))}
    aligned_a, aligned_b = found.apply()
    inputs = torch.randn(9, 5, generator=torch.Generator().manual_seed(1))
    for own, expanded, widths in ((a, aligned_a, (5, 9, 6, 4)), (b, aligned_b, (5, 7, 8, 4))):
        torch.testing.assert_close(run(mlp((5, 9, 8, 4)), expanded, inputs), run(mlp(widths), own, inputs))
    true = sum(float((aligned_a[n].double() * aligned_b[n].double()).sum()) for n in a)
    assert found.match.objective == pytest.approx(true, rel=1e-9)


def test_no_setting_of_a_tiny_pair_is_better_than_what_restarts_find() -> None:
    """Every injection of the narrow network's units tried."""
    a, b = state(mlp((3, 4, 3, 2), seed=5)), state(mlp((3, 3, 2, 2), seed=6))
    spec = lmcfast.spec_from_params(a)
    best = -np.inf
    for one in itertools.permutations(range(4), 3):
        for two in itertools.permutations(range(3), 2):
            first, second = list(one), list(two)
            value = float((a["0.weight"][first] * b["0.weight"]).sum() + (a["0.bias"][first] * b["0.bias"]).sum())
            value += float((a["2.weight"][second][:, first] * b["2.weight"]).sum())
            value += float((a["2.bias"][second] * b["2.bias"]).sum())
            value += float((a["4.weight"][:, second] * b["4.weight"]).sum() + (a["4.bias"] * b["4.bias"]).sum())
            best = max(best, value)
    assert lmcfast.partial_matching(spec, a, b, restarts=20).match.objective == pytest.approx(best, rel=1e-5)


def test_equal_widths_are_plain_weight_matching() -> None:
    a, b = (state(mlp((6, 9, 8, 5), seed=seed)) for seed in (0, 1))
    spec = lmcfast.spec_from_params(a)
    found, plain = lmcfast.partial_matching(spec, a, b), lmcfast.weight_matching(spec, a, b)
    assert found.match.objective == plain.objective
    assert set(found.left_over_a.values()) == set(found.left_over_b.values()) == {0.0}


def test_what_cannot_be_expanded_is_refused_by_name() -> None:
    params = state(mlp((6, 9, 5)))
    spec = lmcfast.spec_from_params(params)
    (group,) = spec.movable_groups
    with pytest.raises(lmcfast.SpecError, match=rf"group '{group}' has 9 units, and 8 are asked for"):
        lmcfast.expand(spec, params, {group: 8})
    with pytest.raises(lmcfast.SpecError, match=r"sizes: the spec has no group 'magic'"):
        lmcfast.expand(spec, params, {"magic": 8})
    normed = lmcfast.PermutationSpec.from_axes(
        {"a.weight": ("h", None), "norm.weight": ("h",), "b.weight": (None, "h")}
    )
    tensors = {"a.weight": torch.ones(3, 2), "norm.weight": torch.ones(3), "b.weight": torch.ones(2, 3)}
    with pytest.raises(lmcfast.SpecError, match=r"'norm.weight' looks like the scale of a norm over group 'h'"):
        lmcfast.expand(normed, tensors, {"h": 4})
    nest = lmcfast.PermutationSpec.from_axes(
        {"a": ("head unit", None), "b": (None, "head unit")},
        sizes={"head": 2},
        groups=[lmcfast.Group("head"), lmcfast.Group("unit", within=("head",))],
    )
    heads = {"a": torch.ones(6, 2), "b": torch.ones(2, 6)}
    with pytest.raises(lmcfast.SpecError, match=r"group 'unit' belongs to a nest"):
        lmcfast.expand(nest, heads, {"unit": 4})
    other = state(mlp((7, 9, 5)))
    with pytest.raises(lmcfast.InvalidParamsError, match=r"0.weight"):
        lmcfast.partial_matching(spec, params, other)
