"""Moving tensors by settings of nested groups: against an oracle by labels, and the laws of the group of settings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lmcfast.errors import SpecError
from lmcfast.params import apply_permutations, compose_permutations, invert_permutations
from lmcfast.spec import Atom, Concat, Fixed, Group, Layout, PermutationSpec, Product, permute_tensor

Path = tuple[tuple[str, int], ...]
Setting = dict[str, torch.Tensor]


# ---- oracle: every position of an axis gets a label, labels are renamed, positions are looked up by label


def labels(layout: Layout, sizes: dict[str, int]) -> list[Path]:
    if isinstance(layout, Atom):
        return [((layout.name, i),) for i in range(sizes[layout.name])]
    if isinstance(layout, Fixed):
        return [(("_", i),) for i in range(layout.size or 0)]
    parts = [labels(part, sizes) for part in layout.parts]
    if isinstance(layout, Product):
        return [sum(combination, ()) for combination in itertools.product(*parts)]
    return [(("|", arm), *path) for arm, part in enumerate(parts) for path in part]


def renamed(path: Path, others: Sequence[Path], spec: PermutationSpec, setting: Setting) -> Path:
    around = {name: index for other in others for name, index in other if name in spec.groups}
    around |= {name: index for name, index in path if name in spec.groups}

    def old(name: str, index: int) -> int:
        if name not in spec.groups:
            return index
        return int(setting[name][(*(around[outer] for outer in spec.groups[name].within), index)])

    return tuple((name, old(name, index)) for name, index in path)


def moved_by_labels(spec: PermutationSpec, name: str, tensor: torch.Tensor, setting: Setting) -> torch.Tensor:
    paths = [labels(layout, spec.sizes) for layout in spec.axes[name]]
    places = [{path: position for position, path in enumerate(axis)} for axis in paths]
    result = torch.empty_like(tensor)
    for new in itertools.product(*(range(length) for length in tensor.shape)):
        here = [axis[position] for axis, position in zip(paths, new, strict=True)]
        source = []
        for axis, path in enumerate(here):
            others = [other for k, other in enumerate(here) if k != axis]
            source.append(places[axis][renamed(path, others, spec, setting)])
        result[new] = tensor[tuple(source)]
    return result


# ---- random specs: a, b within a, c within (a, b), d free, spread over the axes of a few tensors


@st.composite
def layouts_of(draw: st.DrawFn, members: list[str]) -> Layout:
    """A layout of the given groups: a product in some order, with fixed runs, brackets and repeated arms in places."""
    order = draw(st.permutations(members)) if members else []
    parts: list[Layout] = [Atom(name) for name in order]
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), Fixed(draw(st.integers(1, 2))))
    layout: Layout = Product(tuple(parts)) if parts else Fixed(2)
    wrap = draw(st.sampled_from(["none", "none", "twice", "beside", "inner"]))
    if wrap == "twice":
        return Concat((layout, layout))
    if wrap == "beside":
        return Concat((Fixed(2), layout))
    if wrap == "inner" and len(parts) > 1:
        return Product((*parts[:-1], Concat((parts[-1], Fixed(1)))))
    return layout


@st.composite
def specs(draw: st.DrawFn) -> PermutationSpec:
    sizes = {name: draw(st.integers(1, 3)) for name in "abcd"}
    groups = [Group("b", within=("a",)), Group("c", within=draw(st.sampled_from([("a", "b"), ("b", "a"), ("a",)])))]
    axes = {}
    for name in ("w", "v"):
        rank = draw(st.integers(1, 3))
        split: list[list[str]] = [[] for _ in range(rank)]
        for member in draw(st.sampled_from(["abc", "abcd", "ab", "abd", "ad", "acd"])):
            split[draw(st.integers(0, rank - 1))].append(member)
        axes[name] = tuple(draw(layouts_of(members)) for members in split)
    used = {member for layouts in axes.values() for layout in layouts for member, _ in sum(labels(layout, sizes), ())}
    groups = [group for group in groups if group.name in used]
    assume(used & set("abcd"))
    try:
        return PermutationSpec.from_axes(axes, {name: sizes[name] for name in used & set("abcd")}, groups)
    except SpecError:
        assume(False)
        raise


def numbered(spec: PermutationSpec) -> dict[str, torch.Tensor]:
    """Tensors of the spec's shapes, all of whose entries differ."""
    params = {}
    for name, layouts in spec.axes.items():
        shape = [len(labels(layout, spec.sizes)) for layout in layouts]
        params[name] = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    return params


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


HAND_MADE: list[tuple[dict[str, tuple[str, ...]], list[Group]]] = [
    ({"w": ("a b c", "d")}, [Group("b", within=("a",)), Group("c", within=("a", "b"))]),
    ({"w": ("c d", "a", "b")}, [Group("b", within=("a",)), Group("c", within=("a", "b"))]),
    ({"w": ("a", "b | b", "c"), "v": ("d",)}, [Group("b", within=("a",)), Group("c", within=("a", "b"))]),
    ({"w": ("a c", "b _2"), "v": ("d",)}, [Group("b", within=("a",)), Group("c", within=("b", "a"))]),
    # Each axis depends on the other: x (in a) stands beside b, y (in b) stands beside a.
    ({"w": ("a d", "b c")}, [Group("c", within=("a",)), Group("d", within=("b",))]),
    ({"w": ("a (b | c | _2)", "d")}, [Group("b", within=("a",)), Group("c", within=("a",))]),
]


def hand_made(index: int) -> PermutationSpec:
    axes, groups = HAND_MADE[index]
    return PermutationSpec.from_axes(axes, {"a": 2, "b": 3, "c": 2, "d": 3}, groups)


@given(specs(), st.integers(0, 1000))
@example(hand_made(0), 1)
@example(hand_made(1), 1)
@example(hand_made(2), 1)
@example(hand_made(3), 1)
@example(hand_made(4), 1)
@example(hand_made(5), 1)
@settings(max_examples=150, deadline=None)
def test_moved_as_the_labels_say(spec: PermutationSpec, seed: int) -> None:
    setting = spec.random_permutations(seed)
    for name, tensor in numbered(spec).items():
        assert torch.equal(permute_tensor(spec, name, tensor, setting), moved_by_labels(spec, name, tensor, setting))


@given(specs(), st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_laws(spec: PermutationSpec, seed: int) -> None:
    x = numbered(spec)
    p, q, r = (spec.random_permutations(3 * seed + k) for k in range(3))
    identity = spec.identity()
    assert equal(apply_permutations(spec, identity, x), x)
    pq = compose_permutations(spec, p, q)
    assert equal(apply_permutations(spec, pq, x), apply_permutations(spec, q, apply_permutations(spec, p, x)))
    assert equal(compose_permutations(spec, pq, r), compose_permutations(spec, p, compose_permutations(spec, q, r)))
    inverse = invert_permutations(spec, p)
    assert equal(compose_permutations(spec, p, inverse), identity)
    assert equal(compose_permutations(spec, inverse, p), identity)
    assert equal(apply_permutations(spec, inverse, apply_permutations(spec, p, x)), x)
    assert equal(invert_permutations(spec, inverse), p)


@pytest.mark.parametrize("index", range(len(HAND_MADE)))
def test_nested_groups_do_not_compose_as_plain_ones(index: int) -> None:
    """Re-indexing matters: composing each group's arrays row by row, as for plain groups, gives another setting."""
    spec = hand_made(index)
    p = spec.random_permutations(1)
    q = {**spec.random_permutations(2), "a": torch.tensor([1, 0])}
    plain = {name: torch.gather(p[name], -1, q[name]) for name in p}
    assert not equal(plain, compose_permutations(spec, p, q))


def test_skipped_groups_are_held_and_may_be_missing() -> None:
    spec = hand_made(0)
    setting = spec.random_permutations(5)
    x = numbered(spec)["w"]
    held = {**setting, "a": spec.identity()["a"], "d": spec.identity()["d"]}
    given_only = {name: setting[name] for name in ("b", "c")}
    assert torch.equal(permute_tensor(spec, "w", x, given_only, {"a", "d"}), permute_tensor(spec, "w", x, held))
    assert permute_tensor(spec, "w", x, {}, {"a", "b", "c", "d"}) is x


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.complex64, torch.bool])
def test_every_dtype_moves(dtype: torch.dtype) -> None:
    spec = PermutationSpec.from_axes(
        {"w": ("h", "u _2", "e"), "v": ("e", "u")}, {"h": 4, "u": 3, "e": 2}, [Group("u", within=("e",))]
    )
    setting = spec.random_permutations(1)
    x = (torch.arange(48).reshape(4, 6, 2) % 7).to(dtype)
    moved = permute_tensor(spec, "w", x, setting)
    assert moved.dtype == dtype
    expected = moved_by_labels(spec, "w", x.to(torch.complex64), setting)
    assert torch.equal(moved.to(torch.complex64), expected)


def test_strided_and_empty_tensors_move() -> None:
    spec = PermutationSpec.from_axes({"w": ("h", "c _2")}, {"h": 3, "c": 2})
    setting = spec.random_permutations(0)
    x = torch.arange(24.0).reshape(4, 6)[:, ::2].t()
    assert torch.equal(permute_tensor(spec, "w", x, setting), permute_tensor(spec, "w", x.contiguous(), setting))
    empty = PermutationSpec.from_axes({"w": ("h", "c | z")}, {"h": 3, "c": 2, "z": 0})
    x = torch.arange(6.0).reshape(3, 2)
    setting = empty.random_permutations(0)
    assert torch.equal(permute_tensor(empty, "w", x, setting), x[setting["h"]][:, setting["c"]])
    nothing = PermutationSpec.from_axes({"w": ("h", None)}, {"h": 3})
    assert permute_tensor(nothing, "w", torch.zeros(3, 0), nothing.random_permutations(0)).shape == (3, 0)


def test_moving_is_differentiable() -> None:
    spec = hand_made(3)
    x = numbered(spec)["w"].requires_grad_()
    setting = spec.random_permutations(7)
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    (permute_tensor(spec, "w", x, setting) * weights).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.equal(x.grad, permute_tensor(spec, "w", weights, invert_permutations(spec, setting)))


def test_plain_axes_take_the_permutation_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast path: one index_select for each axis, and no index made where an axis is one group."""
    calls = []
    select = torch.Tensor.index_select

    def counted(tensor: torch.Tensor, axis: int, index: torch.Tensor) -> torch.Tensor:
        calls.append(index.data_ptr())
        return select(tensor, axis, index)

    monkeypatch.setattr(torch.Tensor, "index_select", counted)
    monkeypatch.setattr(torch, "arange", lambda *args, **options: pytest.fail("an index was made"))
    spec = PermutationSpec.from_axes({"w": ("h", "c", None, None)}, {"h": 4, "c": 3})
    setting = {"h": torch.tensor([2, 0, 3, 1]), "c": torch.tensor([1, 2, 0])}
    permute_tensor(spec, "w", torch.zeros(4, 3, 3, 3), setting)
    assert calls == [setting["h"].data_ptr(), setting["c"].data_ptr()]
