"""Which outer index belongs to a nested group's unit in one tensor.

A group that is nested in others (``Group.within``) has one permutation for each index of them. Where one of its units
stands, each outer group must therefore have exactly one index. It is looked for beside the unit: first among the other
factors of the product that the unit stands in, from the inside outwards, then on the other axes of the tensor. The arms
of a concatenation are different positions and never see each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import SpecError
from .layout import Atom, Concat, Fixed, Layout, Product


def determined(layout: Layout) -> tuple[frozenset[str], frozenset[str]]:
    """Groups with one index at every position of the layout, and groups with several, or with one only in places."""
    if isinstance(layout, Atom):
        return frozenset((layout.name,)), frozenset()
    if isinstance(layout, Fixed):
        return frozenset(), frozenset()
    known: list[frozenset[str]] = []
    unclear: frozenset[str] = frozenset()
    for part in layout.parts:
        part_known, part_unclear = determined(part)
        known.append(part_known)
        unclear |= part_unclear
    everywhere = frozenset().union(*known)
    if isinstance(layout, Concat):
        clear = frozenset.intersection(*known) - unclear
    else:
        clear = frozenset(name for name in everywhere - unclear if sum(name in part for part in known) == 1)
    return clear, (everywhere | unclear) - clear


def beside(parts: Sequence[Layout], index: int) -> Product:
    """The parts other than ``parts[index]`` as one product."""
    return Product(tuple(part for k, part in enumerate(parts) if k != index))


def _needs(layout: Layout, within: Mapping[str, Sequence[str]]) -> frozenset[tuple[str, str]]:
    """Pairs (nested group, outer group) that the layout leaves open."""
    if isinstance(layout, Atom):
        return frozenset((layout.name, outer) for outer in within[layout.name])
    if isinstance(layout, Fixed):
        return frozenset()
    if isinstance(layout, Concat):
        return frozenset().union(*(_needs(part, within) for part in layout.parts))
    open_pairs: set[tuple[str, str]] = set()
    for index, part in enumerate(layout.parts):
        open_pairs |= _unresolved(_needs(part, within), beside(layout.parts, index))
    return frozenset(open_pairs)


def _unresolved(needs: frozenset[tuple[str, str]], around: Layout) -> set[tuple[str, str]]:
    if not needs:
        return set()
    clear, unclear = determined(around)
    for nested, outer in sorted(needs):
        if outer in unclear:
            raise SpecError(
                f"group {nested!r} is nested in {outer!r}, which has several indices beside it, or one only in places",
                group=nested,
            )
    return {pair for pair in needs if pair[1] not in clear}


def outer_axes(layouts: Sequence[Layout], within: Mapping[str, Sequence[str]]) -> tuple[tuple[int, ...], ...]:
    """For each axis of a tensor, the other axes on whose indices its layout depends.

    Raises ``SpecError`` (``group``: the nested group) where an outer group does not appear in the tensor, or appears
    so that its index is not unique.
    """
    found: list[tuple[int, ...]] = []
    for axis, layout in enumerate(layouts):
        needs = _needs(layout, within)
        for nested, outer in sorted(_unresolved(needs, beside(layouts, axis))):
            raise SpecError(
                f"group {nested!r} on axis {axis} is nested in {outer!r}, which is not beside it in this tensor",
                group=nested,
            )
        names = {outer for _, outer in needs}
        found.append(
            tuple(k for k, other in enumerate(layouts) if k != axis and not names.isdisjoint(determined(other)[0]))
        )
    return tuple(found)
