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

from .layout import Atom, Concat, Fixed, Layout, Product, atoms, layout_size

if TYPE_CHECKING:
    from .spec import PermutationSpec

Indices = dict[str, torch.Tensor]


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
    coordinates: dict[int, Indices] = {}
    for place, axis in enumerate(joint):
        shape = [1] * len(joint)
        shape[place] = -1
        positions[axis] = torch.arange(tensor.shape[axis], device=tensor.device).reshape(shape)
        coordinates[axis] = setting.coordinates(layouts[axis], positions[axis])
    index = []
    for axis in joint:
        scope: Indices = {}
        for other in joint:
            if other != axis:
                scope.update(coordinates[other])
        index.append(setting.source(layouts[axis], positions[axis], scope))
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
        return self.source(layout, torch.arange(self.size(layout), device=self.device), {})

    def split(self, layout: Product, position: torch.Tensor) -> list[torch.Tensor]:
        """Position within each factor of a product."""
        found = []
        for part in reversed(layout.parts):
            size = self.size(part)
            found.append(position % size)
            position = position // size
        return found[::-1]

    def arms(self, layout: Concat, position: torch.Tensor) -> Iterator[tuple[Layout, torch.Tensor, torch.Tensor, int]]:
        """Each arm of a concatenation that is not empty: the arm, where it holds, the position within it, its start."""
        start = 0
        for part in layout.parts:
            size = self.size(part)
            if size:
                here = (position >= start) & (position < start + size)
                yield part, here, (position - start).clamp(0, size - 1), start
            start += size

    def coordinates(self, layout: Layout, position: torch.Tensor) -> Indices:
        """New index of each group at ``position``; of use for the groups that have just one there (``nesting.py``)."""
        if isinstance(layout, Atom):
            return {layout.name: position}
        found: Indices = {}
        if isinstance(layout, Product):
            for part, inner in zip(layout.parts, self.split(layout, position), strict=True):
                found.update(self.coordinates(part, inner))
        elif isinstance(layout, Concat):
            for part, here, inner, _ in self.arms(layout, position):
                for name, index in self.coordinates(part, inner).items():
                    found[name] = torch.where(here, index, found[name]) if name in found else index
        return found

    def source(self, layout: Layout, position: torch.Tensor, scope: Indices) -> torch.Tensor:
        """Old position of each new ``position``; ``scope`` holds the new indices of the groups around the layout."""
        if isinstance(layout, Fixed) or not self.moves(layout):
            return position
        if isinstance(layout, Atom):
            permutation = self.permutations[layout.name].to(self.device)
            within = self.spec.groups[layout.name].within
            return permutation[(*(scope[outer] for outer in within), position)]
        if isinstance(layout, Concat):
            result = position
            for part, here, inner, start in self.arms(layout, position):
                if self.moves(part):
                    result = torch.where(here, self.source(part, inner, scope) + start, result)
            return result
        inner_positions = self.split(layout, position)
        coordinates = [self.coordinates(p, c) for p, c in zip(layout.parts, inner_positions, strict=True)]
        result = torch.zeros((), dtype=torch.int64, device=self.device)
        for k, (part, inner) in enumerate(zip(layout.parts, inner_positions, strict=True)):
            around = dict(scope)
            for other, indices in enumerate(coordinates):
                if other != k:
                    around.update(indices)
            result = result * self.size(part) + self.source(part, inner, around)
        return result
