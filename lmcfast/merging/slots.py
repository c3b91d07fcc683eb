"""Where each key of a checkpoint stands in a spec, so that a tensor of a file can be moved by itself.

A spec speaks of a module's tensors; a file may hold them in parts: experts one by one, the arms of a fused projection
apart (``spec/names.py``). A :class:`Slot` is what a key holds of a tensor: one index of a stack, some arms of the
joined axis. Seen so, a key has layouts of its own; in a stack that a group orders, moving it is taking another key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from ..errors import SpecError
from ..spec import Group, NameMap, PermutationSpec, permute_tensor
from ..spec.layout import Atom, Concat, Fixed, Layout, atoms, concat, in_arm, layout_size
from ..spec.names import Source

Setting = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Slot:
    """``tensor``: the spec's tensor of which ``key`` holds a part. ``spec``: of the key alone, by its own name.

    ``order``: the group that orders the stack in which the key has place ``index``; ``row`` are the keys of the same
    part at each place. ``inner``: for each group in ``spec`` that is nested in ``order``, on which of its outer axes.
    """

    key: str
    tensor: str
    spec: PermutationSpec
    order: str | None = None
    index: int = 0
    row: tuple[str, ...] = ()
    inner: Mapping[str, int] = field(default_factory=dict)

    def source(self, setting: Setting) -> str:
        """The key whose tensor comes here."""
        if self.order is None or self.order not in setting:
            return self.key
        return self.row[int(setting[self.order][self.index])]

    def setting(self, setting: Setting) -> dict[str, torch.Tensor]:
        """The setting as it holds inside this key."""
        found = {}
        for name in self.spec.groups:
            if name in setting:
                axis = self.inner.get(name)
                found[name] = setting[name] if axis is None else setting[name].select(axis, self.index)
        return found

    @cached_property
    def layouts(self) -> tuple[Layout, ...]:
        return self.spec.axes[self.key]

    def moves(self, setting: Setting) -> bool:
        """Whether anything inside the tensor changes its place."""
        return any(not _is_still(index) for index in self.setting(setting).values())

    def axis_sources(self, setting: Setting) -> list[torch.Tensor | None] | None:
        """For each axis the old position of each new one, None where it stays; None where axes move jointly."""
        if any(self.spec.outer_axes[self.key]):
            return None
        here = {name: index for name, index in self.setting(setting).items() if not _is_still(index)}
        skip = [name for name in self.spec.groups if name not in here]
        found: list[torch.Tensor | None] = []
        for layout in self.layouts:
            if not here.keys() & set(atoms(layout)):
                found.append(None)
                continue
            groups = {name: self.spec.groups[name] for name in atoms(layout)}
            alone = PermutationSpec(groups, {self.key: (layout,)})
            length = layout_size(layout, self.spec.sizes)
            found.append(permute_tensor(alone, self.key, torch.arange(length), here, skip))
        return found

    def permute(self, tensor: torch.Tensor, setting: Setting) -> torch.Tensor:
        """The tensor of :meth:`source` as it stands here."""
        here = self.setting(setting)
        return permute_tensor(self.spec, self.key, tensor, here, [g for g in self.spec.groups if g not in here])


def _is_still(index: torch.Tensor) -> bool:
    return torch.equal(index, torch.arange(index.shape[-1]).expand_as(index))


def make_slots(spec: PermutationSpec, names: NameMap, shapes: Mapping[str, Sequence[int]]) -> dict[str, Slot]:
    """The slot of each key that a tensor of the bound spec needs. ``SpecError``: parts that no layout can tell."""
    slots: dict[str, Slot] = {}
    for tensor, source in names.sources.items():
        if source.keys[0] in slots:  # another name of a tied tensor
            continue
        for slot in _slots_of(spec, tensor, source, shapes):
            slots[slot.key] = slot
    return slots


def _slots_of(spec: PermutationSpec, tensor: str, source: Source, shapes: Mapping[str, Sequence[int]]) -> list[Slot]:
    layouts = spec.axes[tensor]
    order: str | None = None
    if source.stacked:
        first, *rest = layouts
        if not isinstance(first, Atom | Fixed):
            raise SpecError(f"tensor {tensor!r}: a stack whose order is no group cannot be merged key by key", tensor)
        order = first.name if isinstance(first, Atom) and not spec.groups[first.name].fixed else None
        if order is not None and spec.groups[order].within:
            raise SpecError(f"tensor {tensor!r}: its stack is ordered by a nested group", tensor, order)
        outer = first.name if isinstance(first, Atom) else None
        layouts = tuple(rest)
    else:
        outer = None
    found = []
    for index, row in enumerate(source.rows):
        for part, (key, parts) in enumerate(_parted(spec, tensor, layouts, row, shapes)):
            groups, inner = _groups_within(spec, parts, outer)
            own = PermutationSpec(groups, {key: parts}, buffers=frozenset({key} if tensor in spec.buffers else ()))
            keys = tuple(other[part] for other in source.rows)
            found.append(Slot(key, tensor, own, order, index, keys, inner))
    return found


def _parted(
    spec: PermutationSpec,
    tensor: str,
    layouts: tuple[Layout, ...],
    row: Sequence[str],
    shapes: Mapping[str, Sequence[int]],
) -> list[tuple[str, tuple[Layout, ...]]]:
    """The layouts of each key of a row, which are joined along the first axis."""
    if len(row) == 1:
        return [(row[0], layouts)]
    joined = layouts[0]
    if isinstance(joined, Fixed):
        return [(key, (Fixed(int(shapes[key][0])), *layouts[1:])) for key in row]
    arms = list(joined.parts) if isinstance(joined, Concat) else [joined]
    selector = joined.selector if isinstance(joined, Concat) else None
    found, at = [], 0
    for key in row:
        length, first = int(shapes[key][0]), at
        while length > 0 and at < len(arms):
            length -= layout_size(arms[at], spec.sizes)
            at += 1
        if length != 0 or (selector is not None and at != first + 1):
            raise SpecError(f"tensor {tensor!r}: its layout does not end where key {key!r} does", tensor)
        parts = (concat(arms[first:at]), *layouts[1:])
        if selector is not None:
            parts = tuple(in_arm(layout, selector, first) for layout in parts)
        found.append((key, parts))
    return found


def _groups_within(
    spec: PermutationSpec, layouts: tuple[Layout, ...], outer: str | None
) -> tuple[dict[str, Group], dict[str, int]]:
    """The groups of a key's layouts, those nested in the stack's group without it, and where it stood in them."""
    groups: dict[str, Group] = {}
    inner: dict[str, int] = {}
    for layout in layouts:
        for name in atoms(layout):
            group = spec.groups[name]
            if outer is not None and outer in group.within:
                inner[name] = group.within.index(outer)
                group = replace(group, within=tuple(other for other in group.within if other != outer))
            groups[name] = group
    return groups, inner
