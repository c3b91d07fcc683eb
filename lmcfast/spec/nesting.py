"""Which outer index belongs to a nested group's unit in one tensor, and which arm to a case.

A group that is nested in others (``Group.within``) has one permutation for each index of them. Where one of its units
stands, each outer group must therefore have exactly one index. It is looked for beside the unit: first among the other
factors of the product that the unit stands in, from the inside outwards, then on the other axes of the tensor. The arms
of a concatenation are different positions and never see each other.

The concatenation that a case refers to is looked for in the same way; here it goes by :func:`selector_name`. In an arm
of a case or of a named concatenation, all that is looked at is what holds in that arm (``layout.in_arm``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import SpecError
from .layout import Atom, Case, Concat, Fixed, Layout, Product, in_arm


def selector_name(selector: str) -> str:
    """A name for "the arm that ``selector`` is in", which no group can have."""
    return f"[{selector}]"


@dataclass(frozen=True)
class _Need:
    """``nested`` (a group or a case) needs the index of ``outer``, in these arms (selector, number)."""

    nested: str
    outer: str
    arms: tuple[tuple[str, int], ...] = ()

    def seen(self, layout: Layout) -> Layout:
        """What the layout is in those arms."""
        for selector, arm in self.arms:
            layout = in_arm(layout, selector, arm)
        return layout

    def __str__(self) -> str:
        if self.outer.startswith("["):
            return f"a case refers to the concatenation {self.outer[1:-1]!r}"
        return f"group {self.nested!r} is nested in {self.outer!r}"

    def error(self, text: str) -> SpecError:
        return SpecError(f"{text}", group=None if self.outer.startswith("[") else self.nested)


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
    if isinstance(layout, Case):
        return frozenset(), everywhere | unclear
    if isinstance(layout, Concat):
        clear = frozenset.intersection(*known) - unclear
        if layout.selector is not None:
            clear |= {selector_name(layout.selector)}
    else:
        clear = frozenset(name for name in everywhere - unclear if sum(name in part for part in known) == 1)
    return clear, (everywhere | unclear) - clear


def beside(parts: Sequence[Layout], index: int) -> Product:
    """The parts other than ``parts[index]`` as one product."""
    return Product(tuple(part for k, part in enumerate(parts) if k != index))


def _needs(layout: Layout, within: Mapping[str, Sequence[str]]) -> frozenset[_Need]:
    """What the layout leaves open."""
    if isinstance(layout, Atom):
        return frozenset(_Need(layout.name, outer) for outer in within[layout.name])
    if isinstance(layout, Fixed):
        return frozenset()
    found: set[_Need] = set()
    if isinstance(layout, Product):
        for index, part in enumerate(layout.parts):
            found |= _unresolved(_needs(part, within), beside(layout.parts, index))
        return frozenset(found)
    if isinstance(layout, Case):
        found.add(_Need(layout.selector, selector_name(layout.selector)))
    for arm, part in enumerate(layout.parts):
        if layout.selector is None:
            found |= _needs(part, within)
        else:
            inside = _needs(in_arm(part, layout.selector, arm), within)
            found |= {replace(need, arms=(*need.arms, (layout.selector, arm))) for need in inside}
    return frozenset(found)


def _unresolved(needs: frozenset[_Need], around: Layout) -> set[_Need]:
    found = set()
    for need in sorted(needs, key=repr):
        clear, unclear = determined(need.seen(around))
        if need.outer in unclear:
            raise need.error(f"{need}, which has several indices beside it, or one only in places")
        if need.outer not in clear:
            found.add(need)
    return found


def outer_axes(layouts: Sequence[Layout], within: Mapping[str, Sequence[str]]) -> tuple[tuple[int, ...], ...]:
    """For each axis of a tensor, the other axes on whose indices its layout depends.

    Raises ``SpecError`` (``group``: the nested group) where an outer group does not appear in the tensor, or appears
    so that its index is not unique; so for the concatenation that a case refers to.
    """
    found: list[tuple[int, ...]] = []
    for axis, layout in enumerate(layouts):
        needs = _needs(layout, within)
        for need in sorted(_unresolved(needs, beside(layouts, axis)), key=repr):
            raise need.error(f"{_at(need, axis)}, which is not beside it in this tensor")
        others = [k for k in range(len(layouts)) if k != axis]
        found.append(tuple(k for k in others if any(_tells(layouts[k], need) for need in needs)))
    return tuple(found)


def _at(need: _Need, axis: int) -> str:
    return str(need).replace(" is nested", f" on axis {axis} is nested").replace("a case", f"a case on axis {axis}")


def _tells(layout: Layout, need: _Need) -> bool:
    return need.outer in determined(need.seen(layout))[0]
