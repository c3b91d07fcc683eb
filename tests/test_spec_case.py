"""Layouts with cases: what they say, how tensors move by them, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lmcfast.errors import InvalidParamsError, SpecError
from lmcfast.params import apply_permutations, compose_permutations, invert_permutations
from lmcfast.spec import (
    Atom,
    Case,
    Concat,
    Fixed,
    Group,
    PermutationSpec,
    Product,
    format_layout,
    parse_layout,
    permute_tensor,
    similarity,
    verify_spec,
)

SHUFFLED = "[s ? a | b] [s = _1 | _1]"

SPECS: dict[str, tuple[dict[str, tuple[str, ...]], dict[str, int], list[Group]]] = {
    "interleaved": ({"w": (SHUFFLED, "c"), "v": ("c", SHUFFLED)}, {"a": 3, "b": 3, "c": 4}, []),
    "other axis": ({"w": ("[s = a | b]", "[s ? c | d]")}, {"a": 2, "b": 3, "c": 4, "d": 4}, []),
    "partly": ({"w": ("[s ? a | _6]", "[s = _2 | d]")}, {"a": 6, "d": 3}, []),
    "products": ({"w": ("[s ? a b | d _2] e", "e [s = _1 | _2]")}, {"a": 2, "b": 3, "d": 3, "e": 2}, []),
    "nested": (
        {"w": ("[s = h | k]", "[s ? v | u]")},
        {"h": 2, "k": 3, "v": 3, "u": 3},
        [Group("v", within=("h",)), Group("u", within=("k",))],
    ),
    "nested in arms": (
        {"w": ("[s = _2 | _1]", "[s ? h v | k _2]", "[s ? h | k]")},
        {"h": 3, "v": 2, "k": 3},
        [Group("v", within=("h",))],
    ),
    "two selectors": ({"w": ("[s = a | [t = b | _2]]", "[s ? c | [t ? d | e]]")}, dict.fromkeys("abcde", 3), []),
}


def make(name: str) -> PermutationSpec:
    axes, sizes, groups = SPECS[name]
    if name == "nested in arms":  # v stands beside h twice in one arm: keep one of them
        axes = {"w": (*axes["w"][:2],)}
    return PermutationSpec.from_axes(axes, sizes, groups)


def numbered(spec: PermutationSpec) -> dict[str, torch.Tensor]:
    from lmcfast.spec.layout import layout_size

    shapes = {name: [layout_size(layout, spec.sizes) for layout in axes] for name, axes in spec.axes.items()}
    return {name: torch.arange(float(torch.Size(shape).numel())).reshape(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        ("[s ? a | b]", Case("s", (Atom("a"), Atom("b")))),
        ("[s = _1 | _1]", Concat((Fixed(1), Fixed(1)), "s")),
        (SHUFFLED, Product((Case("s", (Atom("a"), Atom("b"))), Concat((Fixed(1), Fixed(1)), "s")))),
        ("a | [s = b | _2 _3]", Concat((Atom("a"), Concat((Atom("b"), Fixed(6)), "s")))),
        ("[s ? (a | b) | c d]", Case("s", (Concat((Atom("a"), Atom("b"))), Product((Atom("c"), Atom("d")))))),
        ("[s ? [t ? a | b] | c]", Case("s", (Case("t", (Atom("a"), Atom("b"))), Atom("c")))),
        ("[s ? a | a]", Atom("a")),
    ],
)
def test_parse(text: str, layout: object) -> None:
    assert parse_layout(text) == layout
    assert parse_layout(format_layout(parse_layout(text))) == layout


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[s a | b]", "a name and '=' or '\\?'"),
        ("[s ? a | b", "not closed"),
        ("[s ? a | b)", "not closed"),
        ("a ]", "unexpected ']'"),
        ("[_2 = a | b]", "a name and"),
        ("[s = ]", "before ']'"),
        ("[", "a name and"),
    ],
)
def test_malformed(text: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        parse_layout(text)


@pytest.mark.parametrize(
    ("axes", "reason"),
    [
        (("[s ? a | b]", "c"), "a case on axis 0 refers to the concatenation 's', which is not beside it"),
        (("[s ? a | b]", "[s = c | d]", "[s = c | d]"), "'s', which has several indices"),
        (("[s ? a | b]", "[s = c | d] | _2"), "'s'"),
        (("[s = c | d]", "[s ? a | b | e]"), "an arm too many"),
    ],
)
def test_a_case_needs_its_concatenation(axes: tuple[str, ...], reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        PermutationSpec.from_axes({"w": axes})


def test_an_idle_name_goes() -> None:
    assert PermutationSpec.from_axes({"w": ("[s = a | _2 | _3]",)}) == PermutationSpec.from_axes({"w": ("a | _5",)})


def test_an_interleaved_axis_moves_arm_by_arm() -> None:
    spec = make("interleaved")
    setting = spec.random_permutations(1)
    w = numbered(spec)["w"]
    moved = torch.empty_like(w)
    moved[0::2] = w[0::2][setting["a"]]
    moved[1::2] = w[1::2][setting["b"]]
    assert torch.equal(permute_tensor(spec, "w", w, setting), moved[:, setting["c"]])


def test_an_axis_moves_as_the_arm_on_the_other_says() -> None:
    spec = make("nested")
    setting = spec.random_permutations(3)
    w = numbered(spec)["w"]
    rows = [w[old][setting["v"][new]] for new, old in enumerate(setting["h"])]
    rows += [w[2:][old][setting["u"][new]] for new, old in enumerate(setting["k"])]
    assert torch.equal(permute_tensor(spec, "w", w, setting), torch.stack(rows))


@pytest.mark.parametrize("name", SPECS)
def test_laws(name: str) -> None:
    spec = make(name)
    x = numbered(spec)
    p, q = spec.random_permutations(1), spec.random_permutations(2)
    once = apply_permutations(spec, p, x)
    twice = apply_permutations(spec, q, once)
    both = apply_permutations(spec, compose_permutations(spec, p, q), x)
    back = apply_permutations(spec, invert_permutations(spec, p), once)
    for tensor in x:
        assert sorted(once[tensor].flatten().tolist()) == sorted(x[tensor].flatten().tolist())
        assert not torch.equal(once[tensor], x[tensor])
        assert torch.equal(twice[tensor], both[tensor])
        assert torch.equal(back[tensor], x[tensor])


@pytest.mark.parametrize("name", ["interleaved", "other axis", "partly", "products", "two selectors"])
def test_scores_are_the_inner_product(name: str) -> None:
    """Two permutations of one group differ in the scores' sum as in the inner product of A with the moved B."""
    spec = make(name)
    generator = torch.Generator().manual_seed(0)
    a, b = (
        {t: torch.randn(x.shape, dtype=torch.float64, generator=generator) for t, x in numbered(spec).items()}
        for _ in range(2)
    )
    setting, other = spec.random_permutations(4), spec.random_permutations(5)
    for group in spec.movable_groups:
        scores = similarity(spec, group, a, b, setting, precision="float64")
        values = []
        for index in (setting[group], other[group]):
            moved = apply_permutations(spec, {**setting, group: index}, b)
            product = sum(float((a[t] * moved[t]).sum()) for t in spec.tensors_of(group))
            values.append((float(scores[torch.arange(len(index)), index].sum()), product))
        assert values[0][0] - values[1][0] == pytest.approx(values[0][1] - values[1][1], abs=1e-9)


@pytest.mark.parametrize("name", SPECS)
def test_sizes_are_read_off_and_checked(name: str) -> None:
    spec = make(name)
    axes = {tensor: [format_layout(layout) for layout in layouts] for tensor, layouts in spec.axes.items()}
    loose = PermutationSpec.from_axes(axes, {k: v for k, v in spec.sizes.items() if k in "ehk"}, spec.groups.values())
    assert loose.bind(numbered(spec)).sizes == spec.sizes
    assert PermutationSpec.from_json(spec.to_json()) == spec


def test_arms_of_different_length_are_refused() -> None:
    spec = PermutationSpec.from_axes({"w": ("[s = _1 | _2]", "[s ? a | b]"), "v": ("a", "b")}, {"a": 3, "b": 2})
    with pytest.raises((SpecError, InvalidParamsError), match="axis 1 has length 3, not 2, with layout"):
        spec.bind({"w": torch.zeros(3, 3), "v": torch.zeros(3, 2)})


class Shuffled(nn.Module):
    """Two branches, their channels interleaved, then a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(5, 4)
        self.right = nn.Linear(5, 4)
        self.last = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = torch.stack([self.left(x).relu(), self.right(x).relu()], dim=-1)
        out: torch.Tensor = self.last(branches.flatten(1))
        return out


def test_a_channel_shuffle_is_proved() -> None:
    torch.manual_seed(0)
    axes: dict[str, tuple[str | None, ...]] = {
        "left.weight": ("a", None),
        "left.bias": ("a",),
        "right.weight": ("b", None),
        "right.bias": ("b",),
        "last.weight": (None, SHUFFLED),
        "last.bias": (None,),
    }
    module = Shuffled()
    spec = PermutationSpec.from_axes(axes).bind(module.state_dict())
    assert spec.sizes == {"a": 4, "b": 4}
    assert not verify_spec(spec, module, torch.randn(3, 5)).insensitive
    wrong = PermutationSpec.from_axes({**axes, "last.weight": (None, "a | b")})
    with pytest.raises(SpecError):
        verify_spec(wrong, module, torch.randn(3, 5))
