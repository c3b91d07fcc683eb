"""Terms, places and the score matrix of a group."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.matching import plain_objective, random_like
from hypothesis import given, settings
from hypothesis import strategies as st

import lmcfast
from lmcfast import PermutationSpec, _native
from lmcfast.spec.places import group_places, unfold, unfold_permuted
from lmcfast.terms import Term, accumulate, accumulate_ref

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def operands(n: int, depth: int, dtype: torch.dtype, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, depth, generator=generator).to(dtype)
    b = torch.randn(depth, n, generator=generator).to(dtype).T  # strided on purpose
    return a, b


# ---- terms


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "depth"), [(1, 1), (7, 3), (33, 130), (64, 1), (5, 0)])
def test_accumulate_is_as_exact_as_torch(n: int, depth: int, dtype: torch.dtype) -> None:
    a, b = operands(n, depth, dtype, seed=n + depth)
    terms = [Term(a, b), Term(a.flip(0), b, weight=0.5)]
    found = accumulate(terms, n)
    exact = accumulate_ref(terms, n)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    plain = a.to(wide) @ b.to(wide).T + 0.5 * (a.flip(0).to(wide) @ b.to(wide).T)
    error_of_torch = float((plain.double() - exact).abs().max())
    magnitude = accumulate_ref([Term(a.abs(), b.abs())], n)  # rounding of one operation, and of the reference itself
    floor = 2 * torch.finfo(wide).eps * float(magnitude.max())
    assert found.dtype == wide
    assert float((found.double() - exact).abs().max()) <= 2 * error_of_torch + floor


def test_accumulate_in_float64_is_exact_to_float64() -> None:
    a, b = operands(20, 300, torch.float32, seed=1)
    found = accumulate([Term(a, b)], 20, precision="float64")
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, accumulate_ref([Term(a, b)], 20), rtol=1e-13, atol=1e-13)


def test_accumulate_adds_to_what_is_there() -> None:
    a, b = operands(6, 4, torch.float32, seed=2)
    out = torch.ones(6, 6)
    assert accumulate([Term(a, b)], 6, out=out) is out
    torch.testing.assert_close(out, 1 + a @ b.T)
    assert torch.equal(accumulate([], 3), torch.zeros(3, 3))


@pytest.mark.parametrize("n", [16, 32, 48, 64])
@pytest.mark.parametrize("depth", [0, 1, 5, 128, 300])
def test_small_groups_have_a_kernel_for_either_layout(n: int, depth: int) -> None:
    a, b = operands(n, depth, torch.float32, n + depth)
    by_depth_a, by_depth_b = a.T.contiguous().T, b.T.contiguous().T
    terms = [Term(a, b), Term(by_depth_a, b, 0.5), Term(a, by_depth_b, -2.0), Term(by_depth_a, by_depth_b, 1.5)]
    assert all((term.arrays is not None) == (depth > 0) for term in terms)
    expected = accumulate_ref(terms, n)
    within = 1e-6 * (1.0 + accumulate_ref([Term(a.abs(), b.abs(), 5.0)], n))
    assert torch.all((accumulate(terms, n) - expected).abs() <= within)
    out = torch.ones(n, n)
    assert accumulate(terms, n, out=out) is out
    assert torch.all((out - 1.0 - expected).abs() <= within)


def test_the_kernel_for_small_groups_refuses_what_does_not_fit() -> None:
    out, a = np.zeros((16, 16), np.float32), np.zeros((16, 4), np.float32)
    for wrong in (out[:, ::2], out.astype(np.float64), np.zeros((8, 8), np.float32), np.zeros((80, 80), np.float32)):
        with pytest.raises(ValueError, match="out"):
            _native.add_small_products(wrong, [], True)
    for other in (a[:, :3], a[:8], a.astype(np.float64), np.zeros((32, 8), np.float32)[::2, ::2], a[:, 0]):
        with pytest.raises(ValueError, match="terms"):
            _native.add_small_products(out, [(a, other, 1.0)], True)


def test_reduced_precision_of_the_caller_does_not_reach_the_scores() -> None:
    a, b = operands(200, 500, torch.float32, seed=3)
    full = accumulate([Term(a, b)], 200)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        found = accumulate([Term(a, b)], 200)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(found, full)


# ---- places

# layouts, shape, place in which group "c" stands: (index of unit i in the tensor) as explicit slices
PLACES = [
    (("c", None), (3, 4), lambda t, i: t[i]),
    ((None, "c"), (4, 3), lambda t, i: t[:, i]),
    ((None, "c", None), (4, 3, 5), lambda t, i: t[:, i]),
    ((None, "c _4"), (2, 12), lambda t, i: t[:, 4 * i : 4 * i + 4]),
    ((None, "_4 c"), (2, 12), lambda t, i: t[:, i::3]),
    (("_2 c _2",), (12,), lambda t, i: t.reshape(2, 3, 2)[:, i]),
    (("_2 | c | _1", None), (6, 2), lambda t, i: t[2 + i]),
    (("_2 | c _2", None), (8, 2), lambda t, i: t[2 + 2 * i : 4 + 2 * i]),
    (("_2 (_1 | c)",), (8,), lambda t, i: t.reshape(2, 4)[:, 1 + i]),
]


@pytest.mark.parametrize(("layouts", "shape", "unit"), PLACES, ids=lambda value: str(value)[:20])
def test_unfold_gives_one_row_per_unit(layouts, shape, unit) -> None:  # type: ignore[no-untyped-def]
    tensor = torch.randn(shape)
    spec = PermutationSpec.from_axes({"t": layouts}, sizes={"c": 3}).bind({"t": tensor})
    (place,) = group_places(spec, "c")
    rows = unfold(tensor, place)
    assert rows.shape == (3, place.depth) == (place.size, place.depth)
    for i in range(3):
        assert torch.equal(rows[i], unit(tensor, i).reshape(-1))
    assert torch.equal(unfold(tensor, place, torch.tensor([2, 0])), rows[[2, 0]])
    assert place.others == ()
    assert not place.quadratic


def test_several_occurrences_in_one_axis_are_several_places() -> None:
    tensor = torch.randn(2, 8)
    spec = PermutationSpec.from_axes({"t": (None, "c | _2 | c")}, sizes={"c": 3}).bind({"t": tensor})
    first, second = group_places(spec, "c")
    assert torch.equal(unfold(tensor, first), tensor[:, :3].T)
    assert torch.equal(unfold(tensor, second), tensor[:, 5:].T)
    assert not first.quadratic
    assert not second.quadratic


@pytest.mark.parametrize("layouts", [("c", "c"), ("c | c", "c"), ("c c",), ("c _2", "_1 | c")])
def test_a_group_that_meets_itself_is_quadratic(layouts: tuple[str, ...]) -> None:
    lengths = {"c": 3, "c | c": 6, "c c": 9, "c _2": 6, "_1 | c": 4}
    tensor = torch.randn([lengths[layout] for layout in layouts])
    spec = PermutationSpec.from_axes({"t": layouts}, sizes={"c": 3}).bind({"t": tensor})
    assert all(place.quadratic for place in group_places(spec, "c"))


def test_buffers_and_aliases_have_no_places() -> None:
    axes = {"w": ("c", None), "running_mean": ("c",), "counts": ("c",)}
    spec = PermutationSpec.from_axes(axes, tied={"alias": "w"}, buffers={"running_mean", "counts"})
    tensor = torch.randn(3, 2)
    bound = spec.bind({"w": tensor, "alias": tensor, "running_mean": tensor[:, 0], "counts": tensor[:, 0]})
    assert [place.tensor for place in group_places(bound, "c")] == ["w"]


def test_other_axes_are_permuted_and_the_own_is_not() -> None:
    tensor = torch.randn(3, 8)
    spec = PermutationSpec.from_axes({"t": ("c", "d _2")}).bind({"t": tensor})
    (place,) = group_places(spec, "c")
    assert place.others == ("d",)
    moves = {"c": torch.tensor([2, 0, 1]), "d": torch.tensor([3, 1, 0, 2])}
    expected = tensor.reshape(3, 4, 2)[:, moves["d"]].reshape(3, 8)
    assert torch.equal(unfold_permuted(tensor, place, moves), expected)
    assert torch.equal(unfold_permuted(tensor, place, moves, torch.tensor([1])), expected[1:2])
    assert torch.equal(unfold_permuted(tensor, place, {}), tensor)


# ---- similarity


def mlp_pair() -> tuple[PermutationSpec, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    axes = {
        "0.weight": ("h0", None),
        "0.bias": ("h0",),
        "2.weight": ("h1", "h0"),
        "2.bias": ("h1",),
        "4.weight": (None, "h1"),
        "4.bias": (None,),
    }
    shapes = {
        "0.weight": (9, 5),
        "0.bias": (9,),
        "2.weight": (11, 9),
        "2.bias": (11,),
        "4.weight": (4, 11),
        "4.bias": (4,),
    }
    like = {name: torch.empty(shape, dtype=torch.float64) for name, shape in shapes.items()}
    return PermutationSpec.from_axes(axes), random_like(like, 1), random_like(like, 2)


def matrix(permutation: torch.Tensor) -> torch.Tensor:
    """P with P x = x[p]."""
    return torch.eye(permutation.shape[0], dtype=torch.float64)[permutation]


def test_the_papers_formula() -> None:
    """S_l = W_l^a P_{l-1} (W_l^b)^T + (W_{l+1}^a)^T P_{l+1} W_{l+1}^b + b_l^a (b_l^b)^T."""
    spec, a, b = mlp_pair()
    moves = spec.bind(a).random_permutations(3)
    p0, p1 = matrix(moves["h0"]), matrix(moves["h1"])
    eye = torch.eye(5, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    first = (
        a["0.weight"] @ eye[0] @ b["0.weight"].T
        + a["2.weight"].T @ p1 @ b["2.weight"]
        + torch.outer(a["0.bias"], b["0.bias"])
    )
    # W P_{l-1} (W^b)^T in the paper's convention pi(W) = P_l W P_{l-1}^T: the columns of W^b are taken by p0
    second = (
        a["2.weight"] @ p0 @ b["2.weight"].T
        + a["4.weight"].T @ eye[1] @ b["4.weight"]
        + torch.outer(a["2.bias"], b["2.bias"])
    )
    torch.testing.assert_close(lmcfast.similarity(spec, "h0", a, b, moves), first)
    torch.testing.assert_close(lmcfast.similarity(spec, "h1", a, b, moves), second)
    del moves["h0"]
    plain = a["2.weight"] @ b["2.weight"].T + a["4.weight"].T @ b["4.weight"] + torch.outer(a["2.bias"], b["2.bias"])
    torch.testing.assert_close(lmcfast.similarity(spec, "h1", a, b), plain)


def test_convolution_and_flattened_channel_by_einsum() -> None:
    axes = {"conv": ("c", "d", None, None), "line": (None, "c _4"), "norm": ("c",)}
    spec = PermutationSpec.from_axes(axes)
    like = {"conv": torch.empty(6, 3, 2, 2), "line": torch.empty(5, 24), "norm": torch.empty(6)}
    a, b = random_like(like, 1), random_like(like, 2)
    moves = {"d": torch.tensor([2, 0, 1])}
    expected = (
        torch.einsum("idhw,jdhw->ij", a["conv"], b["conv"][:, moves["d"]])
        + torch.einsum("oir,ojr->ij", a["line"].reshape(5, 6, 4), b["line"].reshape(5, 6, 4))
        + torch.einsum("i,j->ij", a["norm"], b["norm"])
    )
    torch.testing.assert_close(lmcfast.similarity(spec, "c", a, b, moves), expected)


LAYOUTS = [None, "a", "b", "c", "a _2", "_3 b", "a b", "b a _2", "a | _3 | b", "a | a", "_2 (a | b)", "c | b _2", "_4"]
SIZES = {"a": 4, "b": 3, "c": 5}


@st.composite
def problems(draw: st.DrawFn) -> PermutationSpec:
    count = draw(st.integers(1, 4))
    axes = {f"t{k}": tuple(draw(st.lists(st.sampled_from(LAYOUTS), min_size=1, max_size=3))) for k in range(count)}
    return PermutationSpec.from_axes({**axes, "all": ("a", "b", "c")})


@given(problems(), st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_scores_are_the_change_of_the_objective(spec: PermutationSpec, seed: int) -> None:
    """Moving one group changes the objective by what its scores say: sum_i S[i, p[i]] - sum_i S[i, q[i]]."""
    lengths = {
        "a _2": 8, "_3 b": 9, "a b": 12, "b a _2": 24, "a | _3 | b": 10, "a | a": 8, "_2 (a | b)": 14, "c | b _2": 11,
        "_4": 4, None: 2, **SIZES,
    }  # fmt: skip
    text = {name: [lmcfast.spec.format_layout(layout) for layout in layouts] for name, layouts in spec.axes.items()}
    like = {name: torch.empty([lengths[t] for t in texts], dtype=torch.float64) for name, texts in text.items()}
    a, b = random_like(like, seed), random_like(like, seed + 1)
    bound = spec.bind(a)
    old, new = bound.random_permutations(seed), bound.random_permutations(seed + 1)
    for group in SIZES:
        if any(place.quadratic for place in group_places(bound, group)):
            continue
        scores = lmcfast.similarity(bound, group, a, b, old)
        rows = torch.arange(SIZES[group])
        change = float((scores[rows, new[group]] - scores[rows, old[group]]).sum())
        before = plain_objective(bound, old, a, b)
        after = plain_objective(bound, {**old, group: new[group]}, a, b)
        assert change == pytest.approx(after - before, rel=1e-9, abs=1e-9)


def test_dtypes_and_precision() -> None:
    spec, a, b = mlp_pair()
    single = [{name: tensor.float() for name, tensor in params.items()} for params in (a, b)]
    assert lmcfast.similarity(spec, "h0", *single).dtype == torch.float32
    assert lmcfast.similarity(spec, "h0", *single, precision="float64").dtype == torch.float64
    assert lmcfast.similarity(spec, "h0", a, b).dtype == torch.float64
    mixed = {**single[0], "0.bias": a["0.bias"]}
    assert lmcfast.similarity(spec, "h0", mixed, single[1]).dtype == torch.float64
    half = [{name: tensor.bfloat16() for name, tensor in params.items()} for params in (a, b)]
    exact = lmcfast.similarity(spec, "h0", *half, precision="float64")
    torch.testing.assert_close(lmcfast.similarity(spec, "h0", *half).double(), exact, rtol=1e-5, atol=1e-5)


def test_wrong_arguments_are_named() -> None:
    spec, a, b = mlp_pair()
    with pytest.raises(lmcfast.SpecError, match="'h7'"):
        lmcfast.similarity(spec, "h7", a, b)
    with pytest.raises(ValueError, match="float16"):
        lmcfast.similarity(spec, "h0", a, b, precision="float16")  # type: ignore[arg-type]
    with pytest.raises(lmcfast.InvalidPermutationError, match="'h1'"):
        lmcfast.similarity(spec, "h0", a, b, {"h1": torch.arange(10)})
    with pytest.raises(lmcfast.InvalidParamsError, match="params_b"):
        lmcfast.similarity(spec, "h0", a, {**b, "2.bias": torch.zeros(3)})


def test_nested_groups_are_refused_unless_they_rest() -> None:
    groups = [lmcfast.Group("u", 3, within=("h",))]
    spec = PermutationSpec.from_axes({"w": ("h u", None)}, groups=groups)
    params = {"w": torch.randn(6, 4)}
    assert lmcfast.similarity(spec, "h", params, params).shape == (2, 2)
    with pytest.raises(lmcfast.SpecError, match="nested"):
        lmcfast.similarity(spec, "u", params, params)
    with pytest.raises(lmcfast.SpecError, match="nested"):
        lmcfast.similarity(spec, "h", params, params, {"u": torch.tensor([[0, 1, 2], [1, 0, 2]])})
