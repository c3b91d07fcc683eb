"""Which groups of a network are decided together, which are held, and what part each plays.

With the residual streams held, the rest of a transformer falls into *families* that share no tensor: the units of one
feed-forward layer, the heads of one attention layer with all that is nested in them. Each family is then a problem of
its own, visited once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ..errors import OptionError
from ..spec import PermutationSpec
from ..spec.layout import Atom, Fixed, Layout, Product, atoms, rebuild

ROLES = ("ffn", "heads", "kv", "experts", "residual")
"""Parts that groups play: units of feed-forward layers (and of experts), attention heads with the dimensions in them,
key and value heads that serve several query heads, experts, residual streams."""

_ATTENTION = re.compile(r"attn|attention|c_attn|[qkv]_proj|query|key|value|qkv", re.IGNORECASE)


@dataclass(frozen=True)
class Family:
    """Groups that are decided together: ``groups``, those that may move; ``tensors`` of the spec that they stand on.

    ``spec``: of these tensors alone, all other groups fixed. ``roles`` of the groups.
    """

    name: str
    groups: tuple[str, ...]
    tensors: tuple[str, ...]
    spec: PermutationSpec
    roles: tuple[str, ...]

    @property
    def is_plain(self) -> bool:
        """Whether it is one group that stands on no tensor twice along different axes: one exact assignment."""
        if len(self.groups) != 1 or self.spec.groups[self.groups[0]].within:
            return False
        group = self.groups[0]
        axes = ([layout for layout in self.spec.axes[t] if group in atoms(layout)] for t in self.tensors)
        return len(self.spec.groups) == 1 and all(len(found) == 1 for found in axes)


def residual_groups(spec: PermutationSpec) -> tuple[str, ...]:
    """The residual streams: plain groups that several layers both read and write, most shared ones first.

    A layer reads a stream with one tensor and writes it with another, so its family shares two or more tensors with it;
    layers of a chain share one with the next. Of two such neighbours the stream is the one with more of them.
    """
    plain = {name for name, group in spec.groups.items() if not group.within and not group.fixed}
    tops = {name: _top(spec, name) for name in spec.groups}
    shared: dict[str, dict[str, set[str]]] = {}
    for tensor, layouts in spec.axes.items():
        if tensor in spec.tied or tensor in spec.buffers or len(layouts) < 2:
            continue
        here = {tops[name] for layout in layouts for name in atoms(layout)}
        for one in here:
            for other in here - {one}:
                shared.setdefault(one, {}).setdefault(other, set()).add(tensor)
    around = {one: {o for o, tensors in others.items() if len(tensors) > 1} for one, others in shared.items()}
    nests = {group.within[0] for group in spec.groups.values() if group.within}
    found: list[str] = []
    while True:
        left = {name: len(others.difference(found)) for name, others in around.items() if name not in found}
        choices = [name for name, count in left.items() if count and name in plain and name not in nests]
        if not choices:
            return tuple(found)
        best = max(choices, key=lambda name: (left[name], len(spec.uses[name])))
        found.append(best)


def _top(spec: PermutationSpec, name: str) -> str:
    group = spec.groups[name]
    return next((outer for outer in group.within if not spec.groups[outer].within), name)


def roles_of(spec: PermutationSpec, residual: Collection[str]) -> dict[str, str]:
    """The part that each group plays."""
    roles: dict[str, str] = {}
    for name, group in spec.groups.items():
        nest = {other for other, entry in spec.groups.items() if _top(spec, other) == _top(spec, name)}
        attention = any(_ATTENTION.search(t) for member in nest for t in spec.uses[member])
        if name in residual:
            roles[name] = "residual"
        elif attention:
            roles[name] = "kv" if not group.within and _is_grouped(spec, nest - {name}) else "heads"
        else:
            roles[name] = "experts" if not group.within and len(nest) > 1 else "ffn"
    return roles


def _is_grouped(spec: PermutationSpec, inner: Collection[str]) -> bool:
    """Whether two groups of a nest stand side by side in one product: query heads, and dimensions of the values."""
    return any(
        isinstance(layout, Product) and sum(part.name in inner for part in layout.parts if isinstance(part, Atom)) > 1
        for layouts in spec.axes.values()
        for layout in layouts
    )


def chosen_roles(roles: Iterable[str], residual: str) -> frozenset[str]:
    """The parts that move. ``OptionError`` for one that is not known."""
    wanted = frozenset(roles)
    for role in wanted:
        if role not in ROLES:
            raise OptionError(f"must be of {', '.join(ROLES)}, not {role!r}", "groups")
    if residual == "keep" and "residual" in wanted:
        raise OptionError("moves the residual stream, which needs residual permute", "groups")
    return wanted


def families(spec: PermutationSpec, free: Collection[str]) -> tuple[Family, ...]:
    """The groups in ``free``, those together that share a tensor or are nested in each other; in the spec's order."""
    roles = roles_of(spec, residual_groups(spec))
    leader = {name: name for name in spec.groups if name in free}

    def join(names: Iterable[str]) -> None:
        led = [leader[name] for name in names if name in leader]
        for old in led[1:]:
            for name, first in leader.items():
                if first == old:
                    leader[name] = led[0]

    for name in leader:
        join([name, *spec.groups[name].within])
    members: dict[str, list[str]] = {}
    for tensor in spec.axes:
        join(spec.groups_of(tensor))
    for name, first in leader.items():
        members.setdefault(first, []).append(name)
    return tuple(family_of(spec, tuple(names), roles) for names in members.values())


def family_of(spec: PermutationSpec, groups: tuple[str, ...], roles: Mapping[str, str]) -> Family:
    """A family by its groups: the spec of its tensors, in which all other groups are fixed."""
    tensors = tuple(name for name in spec.axes if not set(groups).isdisjoint(spec.groups_of(name)))
    needed = {*groups, *(outer for name in groups for outer in spec.groups[name].within)}
    axes = {name: tuple(_held(spec, layout, needed) for layout in spec.axes[name]) for name in tensors}
    used = {name for layouts in axes.values() for layout in layouts for name in atoms(layout)}
    entries = {
        name: group if name in groups else type(group)(name, group.size, group.within, fixed=True)
        for name, group in spec.groups.items()
        if name in used
    }
    own = PermutationSpec(
        entries,
        axes,
        {alias: name for alias, name in spec.tied.items() if alias in axes},
        spec.buffers.intersection(axes),
    )
    return Family(groups[0], groups, tensors, own, tuple(roles[name] for name in groups))


def _held(spec: PermutationSpec, layout: Layout, needed: Collection[str]) -> Layout:
    """The layout with the groups that are not needed turned into fixed runs."""
    if isinstance(layout, Atom):
        return layout if layout.name in needed else Fixed(spec.sizes[layout.name])
    return rebuild(layout, lambda part: _held(spec, part, needed))
