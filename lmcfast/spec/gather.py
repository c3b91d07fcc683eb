"""Moving one tensor by a setting of its spec.

Each axis gets an index of old positions, ``new[i] = old[index[i]]``. Where the index of an axis does not depend on
other axes, which is nearly always so, the axis is one ``index_select``, and an axis that is one group without nesting
uses the group's own permutation as it is. Axes whose nested groups depend on other axes are gathered jointly.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .layout import Atom, Case, Concat, Fixed, Layout, Product, atoms, layout_size
from .nesting import selector_name

if TYPE_CHECKING:
    from .spec import PermutationSpec

Around = tuple[tuple[Layout, torch.Tensor], ...]
"""Layouts beside the one at hand, each with the new position in it, the nearest first."""

Arms = Mapping[str, int]
"""The arms in which one is, by the names of the concatenations."""


def permute_tensor(
    spec: PermutationSpec,
    name: str,
    tensor: torch.Tensor,
    permutations: Mapping[str, torch.Tensor],
    skip: Collection[str] = frozenset(),
) -> torch.Tensor:
    """``tensor`` (the spec's tensor ``name``) moved by ``permutations``.

    ``permutations``: ``{group: int64 tensor (*sizes of within, size)}``, taken as valid (``check_permutations``
    checks); those of the groups in ``skip``, which are held at the identity, may be missing. The spec must be bound to
    shapes like the tensor's. Any dtype and device; differentiable. Where nothing moves, the result is ``tensor``
    itself.
    """
    layouts = spec.axes[name]
    setting = _Setting(spec, permutations, frozenset(skip), tensor.device)
    moving = [axis for axis, layout in enumerate(layouts) if setting.moves(layout)]
    if not moving or tensor.numel() == 0:
        return tensor
    outer = spec.outer_axes[name]
    joint = sorted({k for axis in moving if outer[axis] for k in (axis, *outer[axis])})
    for axis in moving:
        if axis not in joint:
            tensor = tensor.index_select(axis, setting.axis_index(layouts[axis]))
    return _gather_jointly(tensor, layouts, joint, setting) if joint else tensor


def _gather_jointly(
    tensor: torch.Tensor, layouts: tuple[Layout, ...], joint: list[int], setting: _Setting
) -> torch.Tensor:
    """Gather the axes in ``joint``, each index of which may depend on the others' positions."""
    positions = {}
    for place, axis in enumerate(joint):
        shape = [1] * len(joint)
        shape[place] = -1
        positions[axis] = torch.arange(tensor.shape[axis], device=tensor.device).reshape(shape)
    index = []
    for axis in joint:
        around = tuple((layouts[other], positions[other]) for other in joint if other != axis)
        index.append(setting.source(layouts[axis], positions[axis], around, {}))
    order = [*joint, *(axis for axis in range(tensor.ndim) if axis not in joint)]
    moved = tensor.permute(order)[tuple(index)]
    return moved.permute([order.index(axis) for axis in range(tensor.ndim)]).contiguous()


@dataclass(frozen=True)
class _Setting:
    """A setting with what is needed to turn layouts into indices. Positions and indices are int64."""

    spec: PermutationSpec
    permutations: Mapping[str, torch.Tensor]
    skip: frozenset[str]
    device: torch.device

    def held(self, group: str) -> bool:
        return group in self.skip or self.spec.groups[group].fixed

    def moves(self, layout: Layout) -> bool:
        return not all(self.held(group) for group in atoms(layout))

    def size(self, layout: Layout) -> int:
        return layout_size(layout, self.spec.sizes)

    def axis_index(self, layout: Layout) -> torch.Tensor:
        """Old position of each position of an axis that depends on no other axis."""
        if isinstance(layout, Atom):
            return self.permutations[layout.name].to(self.device)
        return self.source(layout, torch.arange(self.size(layout), device=self.device), (), {})

    def split(self, layout: Product, position: torch.Tensor) -> list[torch.Tensor]:
        """Position within each factor of a product."""
        found = []
        for part in reversed(layout.parts):
            size = self.size(part)
            found.append(position % size)
            position = position // size
        return found[::-1]

    def arms(self, layout: Concat, position: torch.Tensor) -> Iterator[tuple[int, torch.Tensor, torch.Tensor, int]]:
        """Each arm of a concatenation that is not empty: its number, where it holds, the position in it, its start."""
        start = 0
        for arm, part in enumerate(layout.parts):
            size = self.size(part)
            if size:
                here = (position >= start) & (position < start + size)
                yield arm, here, (position - start).clamp(0, size - 1), start
            start += size

    def index_in(self, name: str, layout: Layout, position: torch.Tensor, arms: Arms) -> torch.Tensor | None:
        """New index of a group, or arm of a named concatenation, at ``position``; None where the layout has not one."""
        if isinstance(layout, Atom):
            return position if layout.name == name else None
        if isinstance(layout, Case):
            arm = arms.get(layout.selector)
            return None if arm is None else self.index_in(name, layout.parts[arm], position, arms)
        if isinstance(layout, Product):
            for part, inner in zip(layout.parts, self.split(layout, position), strict=True):
                index = self.index_in(name, part, inner, arms)
                if index is not None:
                    return index
        return self.index_in_arms(name, layout, position, arms) if isinstance(layout, Concat) else None

    def index_in_arms(self, name: str, layout: Concat, position: torch.Tensor, arms: Arms) -> torch.Tensor | None:
        found: torch.Tensor | None = None
        known = None if layout.selector is None else arms.get(layout.selector)
        wanted = layout.selector is not None and name == selector_name(layout.selector)
        for arm, here, inner, _ in self.arms(layout, position):
            if known not in (None, arm):
                continue
            index = torch.full_like(inner, arm) if wanted else self.index_in(name, layout.parts[arm], inner, arms)
            if index is None:
                return None
            found = index if found is None else torch.where(here, index, found)
        return found

    def index_of(self, name: str, around: Around, arms: Arms) -> torch.Tensor:
        """The same in the nearest layout that has it; the spec has been checked: there is one (``nesting.py``)."""
        found = (self.index_in(name, layout, position, arms) for layout, position in around)
        return next(index for index in found if index is not None)

    def source(self, layout: Layout, position: torch.Tensor, around: Around, arms: Arms) -> torch.Tensor:
        """Old position of each new ``position``."""
        if isinstance(layout, Fixed) or not self.moves(layout):
            return position
        if isinstance(layout, Atom):
            permutation = self.permutations[layout.name].to(self.device)
            within = self.spec.groups[layout.name].within
            return permutation[(*(self.index_of(outer, around, arms) for outer in within), position)]
        if isinstance(layout, Product):
            return self.source_of_product(layout, position, around, arms)
        result = position
        if isinstance(layout, Concat):
            for arm, here, inner, start in self.arms(layout, position):
                if self.moves(layout.parts[arm]):
                    within_arm = arms if layout.selector is None else {**arms, layout.selector: arm}
                    old = self.source(layout.parts[arm], inner, around, within_arm) + start
                    result = torch.where(here, old, result)
            return result
        if layout.selector in arms:
            return self.source(layout.parts[arms[layout.selector]], position, around, arms)
        selected = self.index_of(selector_name(layout.selector), around, arms)
        for arm, part in enumerate(layout.parts):
            if self.moves(part):
                old = self.source(part, position, around, {**arms, layout.selector: arm})
                result = torch.where(selected == arm, old, result)
        return result

    def source_of_product(self, layout: Product, position: torch.Tensor, around: Around, arms: Arms) -> torch.Tensor:
        factors = list(zip(layout.parts, self.split(layout, position), strict=True))
        result = torch.zeros((), dtype=torch.int64, device=self.device)
        for k, (part, inner) in enumerate(factors):
            beside = (*factors[:k], *factors[k + 1 :], *around)
            result = result * self.size(part) + self.source(part, inner, beside, arms)
        return result
