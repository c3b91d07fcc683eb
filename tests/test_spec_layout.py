"""Layout strings and the sizes that they give."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcfast.errors import SpecError
from lmcfast.spec import Atom, Concat, Fixed, Layout, Product, format_layout, parse_layout
from lmcfast.spec.layout import atoms, layout_size, normalize, solve_size

names = st.sampled_from(["h0", "c5", "layers.0:stream~2", "kv.1", "q-2"])
layouts = st.recursive(
    st.one_of(names.map(Atom), st.integers(0, 60).map(Fixed)),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: Product(tuple(parts))),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: Concat(tuple(parts))),
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        (None, Fixed(None)),
        ("h0", Atom("h0")),
        ("_49", Fixed(49)),
        ("c5 _49", Product((Atom("c5"), Fixed(49)))),
        ("z1 | c | z2", Concat((Atom("z1"), Atom("c"), Atom("z2")))),
        ("h q | h v", Concat((Product((Atom("h"), Atom("q"))), Product((Atom("h"), Atom("v")))))),
        ("kv (q _8 | v)", Product((Atom("kv"), Concat((Product((Atom("q"), Fixed(8))), Atom("v")))))),
        ("(h0)", Atom("h0")),
        ("  a(b)c ", Product((Atom("a"), Atom("b"), Atom("c")))),
        ("(a | b) | c", Concat((Atom("a"), Atom("b"), Atom("c")))),
        ("_2 _3 a _1", Product((Fixed(6), Atom("a")))),
        ("_2 | _3 | a", Concat((Fixed(5), Atom("a")))),
    ],
)
def test_parse(text: str | None, layout: Layout) -> None:
    assert parse_layout(text) == layout
    assert parse_layout(format_layout(layout)) == layout


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("(a", "not closed"),
        ("a)", "unexpected"),
        ("a | ", "at the end"),
        ("| a", "before '|'"),
        ("a () b", r"before '\)'"),
        ("_x", "'_x'"),
        ("_-3", "'_-3'"),
        ("a[0]", "neither a group name"),
        ("a{i}", "neither a group name"),
        ("(" * 40 + "a" + ")" * 40, "deep"),
    ],
)
def test_parse_errors_show_the_text(text: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as caught:
        parse_layout(text)
    assert repr(text) in str(caught.value)


def test_parse_refuses_other_types() -> None:
    with pytest.raises(SpecError, match="not int 3"):
        parse_layout(3)  # type: ignore[arg-type]


@given(layouts)
@settings(max_examples=200, deadline=None)
def test_text_round_trip_is_the_normal_form(layout: Layout) -> None:
    normal = normalize(layout)
    text = format_layout(normal)
    assert parse_layout(text) == normal
    assert normalize(normal) == normal
    sizes = {name: 3 for name in atoms(layout)}
    assert layout_size(normal, sizes) == layout_size(layout, sizes)


@given(layouts, st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_solve_size_inverts_layout_size(layout: Layout, size: int) -> None:
    sizes = {name: 2 for name in atoms(layout)}
    for name in set(sizes):
        length = layout_size(layout, {**sizes, name: size})
        found = solve_size(layout, name, sizes, length)
        # A run of length zero beside the group can hide its size; the length must come out right in any case.
        assert found is not None
        assert layout_size(layout, {**sizes, name: found}) == length


def test_solve_size_without_solution() -> None:
    assert solve_size(parse_layout("c _49"), "c", {}, 50) is None
    assert solve_size(parse_layout("a | c | b"), "c", {"a": 4, "b": 4}, 7) is None
    assert solve_size(parse_layout("h | h | h"), "h", {}, 12) == 4


def test_open_axis_stands_alone() -> None:
    with pytest.raises(SpecError, match="open length"):
        normalize(Product((Atom("a"), Fixed(None))))
    with pytest.raises(SpecError, match="open length"):
        normalize(Concat((Fixed(3), Fixed(None))))
