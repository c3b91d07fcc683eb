"""What makes a spec whole: layouts that read, groups that nest, entries that agree.

Every check raises ``SpecError`` that names the tensor or the group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import SpecError
from .layout import Atom, Case, Concat, Fixed, Layout, Product, normalize, parse_layout, without_idle_names

if TYPE_CHECKING:
    from .spec import Group, PermutationSpec


def parse_axes(name: str, layouts: Sequence[str | Layout | None]) -> tuple[Layout, ...]:
    """A tensor's layouts, strings among them read. ``SpecError`` names the tensor and the axis."""
    if isinstance(layouts, str) or not isinstance(layouts, Sequence):
        raise SpecError(f"tensor {name!r}: its layouts are a sequence, one for each axis, not {layouts!r}", tensor=name)
    parsed = []
    for axis, layout in enumerate(layouts):
        try:
            is_layout = isinstance(layout, Atom | Fixed | Product | Concat | Case)
            parsed.append(layout if is_layout else parse_layout(layout))  # type: ignore[arg-type]
        except SpecError as error:
            raise SpecError(f"tensor {name!r}, axis {axis}: {error}", tensor=name) from None
    return tuple(parsed)  # type: ignore[arg-type]


def normal_axes(name: str, layouts: Sequence[Layout]) -> tuple[Layout, ...]:
    """A tensor's layouts in normal form. ``SpecError`` names the tensor, and the axis where it is one axis's fault."""
    normal = []
    for axis, layout in enumerate(layouts):
        try:
            normal.append(normalize(layout))
        except SpecError as error:
            raise SpecError(f"tensor {name!r}, axis {axis}: {error}", tensor=name, group=error.group) from None
    try:
        return without_idle_names(normal)
    except SpecError as error:
        raise SpecError(f"tensor {name!r}: {error}", tensor=name) from None


def check_tied(alias: str, canonical: str, tied: Mapping[str, str], axes: Mapping[str, tuple[Layout, ...]]) -> None:
    if canonical not in axes or canonical in tied:
        raise SpecError(
            f"tied: {alias!r} is an alias of {canonical!r}, which is not a tensor with an entry of its own",
            tensor=alias,
        )
    if axes.get(alias, axes[canonical]) != axes[canonical]:
        raise SpecError(f"tied: {alias!r} and {canonical!r} are one tensor but have different layouts", tensor=alias)


def check_groups(groups: Mapping[str, Group]) -> None:
    for name, group in groups.items():
        if group.name != name:
            raise SpecError(f"group {group.name!r} is filed under the name {name!r}", group=name)
        if group.size is not None and (not isinstance(group.size, int) or group.size < 0):
            raise SpecError(f"group {name!r} has size {group.size!r}", group=name)
        if len(set(group.within)) != len(group.within) or name in group.within:
            raise SpecError(f"group {name!r} is nested in itself or twice in one group: {group.within}", group=name)
        for outer in group.within:
            if outer not in groups:
                raise SpecError(f"group {name!r} is nested in {outer!r}, which is not a group", group=name)
            # An inner permutation is indexed by new outer indices, so composing two settings needs to know where each
            # outer index came from, which depends on what that outer group is itself nested in.
            missing = set(groups[outer].within) - set(group.within)
            if missing:
                raise SpecError(
                    f"group {name!r} is nested in {outer!r} and must then name the groups that {outer!r} is nested in: "
                    f"{some(sorted(missing))}",
                    group=name,
                )


def check_uses(spec: PermutationSpec) -> None:
    for name, tensors in spec.uses.items():
        if name not in spec.groups:
            raise SpecError(f"tensor {tensors[0]!r} uses group {name!r}, which is not a group", tensors[0], name)
    for name in spec.groups:
        if name not in spec.uses:
            raise SpecError(f"group {name!r} is not in any tensor", group=name)
    for name in sorted(spec.buffers):
        if name not in spec.axes:
            raise SpecError(f"buffers: {name!r} is not a tensor with an entry", tensor=name)
    for name, axis in spec.why_fixed:
        if not 0 <= axis < len(spec.axes.get(name, ())):
            raise SpecError(f"why_fixed: tensor {name!r} has no axis {axis} in the spec", tensor=name)
    for name, number in spec.stacks.items():
        if name not in spec.axes or name.split(".").count("*") != 1:
            raise SpecError(f"stacks: {name!r} is not a tensor with an entry and one part '*'", tensor=name)
        first = (*spec.axes[name], Fixed(None))[0]
        if isinstance(first, Fixed) and first.size not in (None, number):
            raise SpecError(f"stacks: {name!r} has {number} tensors, but its first axis {first.size}", tensor=name)
    _ = spec.outer_axes  # raises where an outer group has no unique index


def some(names: Iterable[str], limit: int = 5) -> str:
    """``'a', 'b' and 3 more``."""
    listed = [repr(name) for name in names]
    more = len(listed) - limit
    return ", ".join(listed[:limit]) + (f" and {more} more" if more > 0 else "")
