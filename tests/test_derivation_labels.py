"""The algebra of labels: unifying refines, splitting and cutting keep sizes, what does not fit together is fixed."""

from __future__ import annotations

import random

import pytest

from lmcfast.spec.derivation.labels import Labels
from lmcfast.spec.derivation.terms import ONE, Atom, Case, Concat, Label, Product


def coordinates(labels: Labels, label: Label, position: int) -> list[tuple[int, int]]:
    """The atoms that can move at a position of a label, each with its index there; the arms of a case in turn."""
    if isinstance(label, Atom):
        return [] if labels.is_fixed(label) else [(label.index, position)]
    found: list[tuple[int, int]] = []
    if isinstance(label, Product):
        for part in reversed(label.parts):
            position, inner = divmod(position, labels.size(part))
            found = coordinates(labels, part, inner) + found
    elif isinstance(label, Case):
        for arm in label.arms:
            found += coordinates(labels, arm, position)
    else:
        for arm in label.arms:
            if 0 <= position < labels.size(arm):
                found = coordinates(labels, arm, position)
            position -= labels.size(arm)
    return found


def agree(labels: Labels, first: Label, second: Label) -> bool:
    """Whether two labels say the same of every position, however they are bracketed."""
    first, second = labels.normal(first), labels.normal(second)
    return all(coordinates(labels, first, k) == coordinates(labels, second, k) for k in range(labels.size(first)))


def index_of(label: Label) -> int:
    assert isinstance(label, Atom)
    return label.index


def test_length_one_has_no_atom() -> None:
    labels = Labels()
    assert labels.atom(1) == ONE
    assert labels.size(ONE) == 1
    assert labels.atoms(ONE) == []


def test_unified_atoms_are_one_and_share_the_reason() -> None:
    labels = Labels()
    a, b = labels.atom(4), labels.atom(4, fixed="an input")
    labels.unify(a, b, "add")
    assert labels.normal(a) == labels.normal(b)
    assert labels.is_fixed(a)
    assert labels.reason(labels.atoms(a)[0]) == "an input"


def test_unifying_other_lengths_is_an_error() -> None:
    labels = Labels()
    with pytest.raises(ValueError, match="add: dimensions of length 4 and 5"):
        labels.unify(labels.atom(4), labels.atom(5), "add")


def test_a_split_atom_is_a_product_whose_inner_part_may_vary_with_the_outer_one() -> None:
    labels = Labels()
    n = labels.atom(12)
    heads, width = labels.split(n, 3, "view")
    assert labels.normal(n) == Product((heads, width))
    assert labels.dependencies(index_of(width)) == {index_of(heads)}
    assert labels.dependencies(index_of(heads)) == set()


def test_products_of_other_factors_are_refined_to_common_ones() -> None:
    labels = Labels()
    first = labels.product(labels.atom(2), labels.atom(6))
    second = labels.product(labels.atom(4), labels.atom(3))
    labels.unify(first, second, "view")
    assert [labels.size(Atom(i)) for i in labels.atoms(first)] == [2, 2, 3]
    assert labels.normal(first) == labels.normal(second)
    assert not labels.misfits


def test_factors_that_do_not_divide_are_fixed() -> None:
    labels = Labels()
    first, second = labels.product(labels.atom(2), labels.atom(3)), labels.product(labels.atom(3), labels.atom(2))
    labels.unify(first, second, "view")
    assert labels.is_fixed(first)
    assert labels.is_fixed(second)
    assert labels.misfits == ["view: factors of 2 and 3"]


def test_a_dimension_that_would_be_part_of_itself_is_fixed() -> None:
    labels = Labels()
    part = labels.atom(6)
    whole = labels.concat([part, labels.atom(6)])
    labels.unify(labels.atom(12), labels.product(labels.atom(2), part), "view")
    labels.unify(whole, labels.concat([labels.product(labels.atom(2), labels.atom(3)), part]), "add")
    assert agree(labels, whole, labels.concat([part, part]))
    shifted = labels.atom(8)
    labels.unify(labels.concat([labels.atom(1), shifted]), labels.concat([shifted, labels.atom(1)]), "roll")
    assert labels.is_fixed(shifted)


def test_a_cut_atom_is_a_concatenation() -> None:
    labels = Labels()
    n = labels.atom(9)
    (first, _), (second, _) = labels.cut(n, [4, 5], "split")
    whole = labels.normal(n)
    assert isinstance(whole, Concat)
    assert whole.arms == (first, second)


def test_concatenations_with_other_ends_are_cut_at_all_ends() -> None:
    labels = Labels()
    first, second = labels.concat([labels.atom(2), labels.atom(6)]), labels.concat([labels.atom(5), labels.atom(3)])
    labels.unify(first, second, "add")
    assert [labels.size(Atom(i)) for i in labels.atoms(first)] == [2, 3, 3]
    assert labels.atoms(first) == labels.atoms(second)


def test_what_varies_with_a_cut_atom_becomes_a_case() -> None:
    labels = Labels()
    outer = labels.atom(6)
    inner = labels.atom(4, [index_of(outer)])
    (top, chain), (_, _) = labels.cut(outer, [2, 4], "split")
    cases = labels.normal(inner)
    assert isinstance(cases, Case)
    kept = labels.reselect(inner, chain)
    assert kept == cases.arms[0]
    assert labels.dependencies(index_of(kept)) == {index_of(top)}


def test_cuts_inside_cuts_keep_the_right_arms_of_the_other_dimension() -> None:
    labels = Labels()
    outer = labels.atom(6)
    inner = labels.atom(4, [index_of(outer)])
    (_, _), (rest, chain) = labels.cut(outer, [2, 4], "select")
    after = labels.reselect(inner, chain)
    (middle, deeper), (_, _) = labels.cut(rest, [1, 3], "select")
    assert labels.size(middle) == 1
    value = labels.reselect(after, deeper)
    (_, _), (again, both), (_, _) = labels.cut(outer, [2, 1, 3], "slice")
    assert labels.size(again) == 1
    assert labels.reselect(inner, both) == labels.normal(value)


def test_a_kept_run_over_several_arms_keeps_a_case_over_them() -> None:
    labels = Labels()
    selector = labels.selector()
    row = labels.concat([labels.atom(2), labels.atom(3), labels.atom(4)], selector)
    columns = [labels.atom(5) for _ in range(3)]
    case = labels.case(selector, columns)
    (segment, chain), (_, _) = labels.cut(row, [5, 4], "slice")
    kept = labels.reselect(case, chain)
    assert isinstance(segment, Concat)
    assert isinstance(kept, Case)
    assert kept.selector == segment.selector
    assert list(kept.arms) == columns[:2]


def test_a_case_of_equal_arms_is_the_arm_and_unifying_a_case_joins_all_arms() -> None:
    labels = Labels()
    a, b, c = (labels.atom(5) for _ in range(3))
    selector = labels.selector()
    assert labels.case(selector, [a, a]) == a
    labels.unify(labels.case(selector, [a, b]), c, "linear")
    assert labels.normal(a) == labels.normal(b) == labels.normal(c)


def test_a_concatenation_leads_no_product() -> None:
    labels = Labels()
    a, b, c = labels.atom(2), labels.atom(3), labels.atom(4)
    selector = labels.selector()
    assert labels.product(labels.concat([a, b], selector), c) == labels.concat(
        [labels.product(a, c), labels.product(b, c)], selector
    )


def test_cutting_what_cannot_move_gives_fresh_fixed_labels() -> None:
    labels = Labels()
    n = labels.atom(6, fixed="a position")
    (first, chain), (second, _) = labels.cut(n, [2, 4], "slice")
    assert chain == ()
    assert labels.is_fixed(first)
    assert labels.is_fixed(second)
    assert labels.normal(n) == n


def test_fixing_a_whole_fixes_its_parts_later_on() -> None:
    labels = Labels()
    n = labels.atom(6)
    labels.fix(n, "an output")
    assert all(labels.is_fixed(part) for part in labels.split(n, 2, "view"))


@pytest.mark.parametrize("seed", range(40))
def test_random_programs_keep_sizes_and_what_was_stated(seed: int) -> None:
    """Whatever the order of views, cuts and unifications: earlier statements still hold at the end."""
    rng = random.Random(seed)
    labels = Labels()
    pool: list[Label] = [labels.atom(size) for size in (2, 3, 4, 6, 8, 12, 12, 24, 24, 24, 36)]
    stated: list[tuple[Label, Label]] = []
    for _ in range(30):
        kind, label = rng.choice(["split", "cut", "unify", "product", "concat"]), rng.choice(pool)
        size = labels.size(label)
        if kind == "split":
            outer = rng.choice([k for k in range(1, size + 1) if size % k == 0])
            parts = labels.split(label, outer, "view")
            assert [labels.size(part) for part in parts] == [outer, size // outer]
            stated.append((label, labels.product(*parts)))
            pool += [part for part in parts if part != ONE]
        elif kind == "cut" and size > 1:
            first = rng.randrange(1, size)
            segments = [segment for segment, _ in labels.cut(label, [first, size - first], "slice")]
            assert [labels.size(segment) for segment in segments] == [first, size - first]
            pool += [segment for segment in segments if segment != ONE]
        elif kind == "unify":
            other = rng.choice([x for x in pool if labels.size(x) == size])
            labels.unify(label, other, "add")
            stated.append((label, other))
        elif kind == "product":
            pool.append(labels.product(label, rng.choice(pool)))
        elif kind == "concat":
            pool.append(labels.concat([label, rng.choice(pool)]))
        pool = [x for x in pool if labels.size(x) <= 200]
    for label in pool:
        assert labels.normal(labels.normal(label)) == labels.normal(label)
        assert labels.size(labels.normal(label)) == labels.size(label)
    for first_, second in stated:
        assert agree(labels, first_, second)


def test_deep_terms_are_brought_to_normal_form_once() -> None:
    """Each level holds the one below twice over: without a memory of normal forms this takes two to the 40 steps."""
    labels = Labels()
    label = labels.atom(2)
    for _ in range(40):
        label = Concat(labels.selector(), (labels.atom(1), Product((label,))))
    assert labels.size(labels.normal(label)) == 42
