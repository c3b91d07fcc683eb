"""Two specs of one network: equal up to names, or where they differ; and how much freedom a spec finds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .layout import Atom, Fixed, Layout, Product, format_layout

if TYPE_CHECKING:
    from .spec import PermutationSpec


def bits(spec: PermutationSpec) -> float:
    """log2 of the number of distinct settings of a bound spec; fixed groups count nothing."""
    return sum(
        math.prod(spec.shape_of(name)[:-1]) * math.lgamma(spec.sizes[name] + 1) / math.log(2)
        for name in spec.movable_groups
    )


def difference(first: PermutationSpec, second: PermutationSpec) -> str | None:
    """The first difference between two specs in one line; None where they are equal up to names.

    Names of groups and selectors do not count, nor the order of the entries, nor the reasons.
    """
    for one, other, where in ((first, second, "second"), (second, first, "first")):
        missing = [name for name in one.axes if name not in other.axes]
        if missing:
            return f"tensor {missing[0]!r} has no entry in the {where} spec"
    for what in ("tied", "buffers", "stacks"):
        if getattr(first, what) != getattr(second, what):
            return f"{what} differ"
    names = _Names()
    for tensor, layouts in first.axes.items():
        if len(layouts) != len(second.axes[tensor]):
            return f"{tensor} has {len(layouts)} axes and {len(second.axes[tensor])}"
        selectors = _Names()
        for axis, (one_layout, other_layout) in enumerate(zip(layouts, second.axes[tensor], strict=True)):
            if not _alike(one_layout, other_layout, names, selectors):
                texts = format_layout(one_layout), format_layout(other_layout)
                return f"{tensor}[{axis}] is {texts[0]!r} and {texts[1]!r}"
    return _group_difference(first, second, names.forward)


def _group_difference(first: PermutationSpec, second: PermutationSpec, names: dict[str, str]) -> str | None:
    for name, other_name in names.items():
        group, other = first.groups[name], second.groups[other_name]
        within = {names.get(outer) for outer in group.within}
        if (group.size, group.fixed, within) != (other.size, other.fixed, set(other.within)):
            return f"group {name!r} is {group} and {other}"
    return None


class _Names:
    """A bijection of names that grows as long as it stays one."""

    def __init__(self) -> None:
        self.forward: dict[str, str] = {}
        self.back: dict[str, str] = {}

    def fit(self, one: str, other: str) -> bool:
        return self.forward.setdefault(one, other) == other and self.back.setdefault(other, one) == one


def _alike(one: Layout, other: Layout, names: _Names, selectors: _Names) -> bool:
    if isinstance(one, Atom) and isinstance(other, Atom):
        return names.fit(one.name, other.name)
    if isinstance(one, Atom | Fixed) or isinstance(other, Atom | Fixed):
        return one == other
    if type(one) is not type(other) or len(one.parts) != len(other.parts):
        return False
    if not isinstance(one, Product) and not isinstance(other, Product):
        if (one.selector is None) != (other.selector is None):
            return False
        if one.selector is not None and other.selector is not None and not selectors.fit(one.selector, other.selector):
            return False
    return all(_alike(a, b, names, selectors) for a, b in zip(one.parts, other.parts, strict=True))
