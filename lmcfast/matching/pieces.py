"""Tensors cut so that every group on them has an axis to itself: what the matching of nested groups works on.

A tensor whose layouts hold concatenations is cut into one :class:`Piece` for each choice of arms; the objective is the
sum over the pieces. The groups of a piece that depend on each other (heads, and the dimensions in each head) form a
:class:`Block`, which is held as one axis: whatever its groups do, they permute the positions of that axis, and no other
axis has a say in it. So moving a piece is one gather for each of its blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from ..errors import SpecError
from ..spec import PermutationSpec
from ..spec.layout import Atom, Case, Concat, Layout, Product, format_layout, in_arm, layout_size
from ..spec.places import Arm, Split, apply_cuts

Setting = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Block:
    """Groups of one piece that depend on each other, each after those that it is nested in; held as one axis.

    One that no other of the block is nested in may stand there twice (in and out channels of a grouped convolution).
    """

    groups: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.sizes)

    def source(self, spec: PermutationSpec, setting: Setting) -> torch.Tensor:
        """Old position of each position of the axis; groups that ``setting`` lacks stay."""
        grid: dict[str, torch.Tensor] = {}
        old = torch.zeros((), dtype=torch.int64)
        for k, (name, size) in enumerate(zip(self.groups, self.sizes, strict=True)):
            shape = [1] * len(self.groups)
            shape[k] = size
            index = grid[name] = torch.arange(size).reshape(shape)
            if name in setting:
                index = setting[name][(*(grid[outer] for outer in spec.groups[name].within), index)]
            old = old * size + index
        return old.expand(self.sizes).reshape(-1)


@dataclass(frozen=True)
class Piece:
    """A part of a tensor without concatenations.

    ``cuts`` lead to it and ``order`` arranges the axes after them as held: the first block, the fixed positions, the
    further blocks. ``shape`` is that of the piece as held, one axis for each block and one for what is fixed
    (``depth``); ``axis(k)`` is that of block k. ``is_matrix``: whether a unit of some group owns more than one number.
    """

    name: str
    tensor: str
    cuts: tuple[Arm | Split, ...]
    order: tuple[int, ...]
    blocks: tuple[Block, ...]
    depth: int

    @property
    def shape(self) -> tuple[int, ...]:
        sizes = [block.size for block in self.blocks]
        return (*sizes[:1], self.depth, *sizes[1:])

    @property
    def split_shape(self) -> tuple[int, ...]:
        """The shape as held with an axis for each group."""
        sizes = [block.sizes for block in self.blocks]
        return (*(sizes[0] if sizes else ()), self.depth, *(size for more in sizes[1:] for size in more))

    @property
    def is_matrix(self) -> bool:
        return self.depth > 1 or len(self.blocks) > 1

    @property
    def groups(self) -> frozenset[str]:
        return frozenset(name for block in self.blocks for name in block.groups)

    def axis(self, block: int) -> int:
        """The axis of a block as held."""
        return block + 1 if block else 0

    def split_axes(self, block: int, occurrence: int = 0) -> dict[str, int]:
        """The axis of each group of a block, with an axis for each group; of one that stands there twice, either."""
        start = sum(len(before.groups) for before in self.blocks[:block]) + (block > 0)
        axes: dict[str, list[int]] = {}
        for k, name in enumerate(self.blocks[block].groups):
            axes.setdefault(name, []).append(start + k)
        return {name: some[min(occurrence, len(some) - 1)] for name, some in axes.items()}

    def hold(self, tensor: torch.Tensor, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """The piece of a tensor, contiguous; the tensor's own memory where nothing has to change."""
        part = apply_cuts(tensor.detach(), self.cuts).permute(self.order)
        return part.to(device, dtype).contiguous().view(self.shape)


@dataclass(frozen=True)
class _Factor:
    """One axis after the cuts. ``path``: the axis of the tensor and the products and arms that it stands in."""

    layout: Layout
    path: tuple[int, ...]


def pieces_of(spec: PermutationSpec, tensor: str) -> tuple[Piece, ...]:
    """The pieces of a tensor of a bound spec. ``SpecError`` for a layout that cannot be cut."""
    factors = [_Factor(layout, (axis,)) for axis, layout in enumerate(spec.axes[tensor])]
    found = list(_cut(spec, tensor, (), factors))
    several = len(found) > 1
    return tuple(
        _piece(spec, f"{tensor} [{k}]" if several else tensor, tensor, cuts, flat)
        for k, (cuts, flat) in enumerate(found)
    )


def _cut(
    spec: PermutationSpec, tensor: str, cuts: tuple[Arm | Split, ...], factors: list[_Factor]
) -> Iterator[tuple[tuple[Arm | Split, ...], list[_Factor]]]:
    """Every way down to factors that are single groups or fixed runs: the cuts, the factors."""
    for axis, factor in enumerate(factors):
        layout = factor.layout
        if isinstance(layout, Product):
            parts = [_Factor(part, (*factor.path, k)) for k, part in enumerate(layout.parts)]
            sizes = tuple(layout_size(part, spec.sizes) for part in layout.parts)
            yield from _cut(spec, tensor, (*cuts, Split(axis, sizes)), [*factors[:axis], *parts, *factors[axis + 1 :]])
            return
        if isinstance(layout, Concat):
            start = 0
            for k, arm in enumerate(layout.parts):
                length = layout_size(arm, spec.sizes)
                inside = [*factors[:axis], _Factor(arm, (*factor.path, k)), *factors[axis + 1 :]]
                if layout.selector is not None:
                    inside = [_Factor(in_arm(some.layout, layout.selector, k), some.path) for some in inside]
                yield from _cut(spec, tensor, (*cuts, Arm(axis, start, length)), inside)
                start += length
            return
    still = [factor for factor in factors if isinstance(factor.layout, Case)]
    if still:  # the concatenation that decides it is in none of the axes
        raise SpecError(f"tensor {tensor!r}: nothing decides {format_layout(still[0].layout)!r}", tensor=tensor)
    yield cuts, factors


def _piece(
    spec: PermutationSpec, name: str, tensor: str, cuts: tuple[Arm | Split, ...], factors: Sequence[_Factor]
) -> Piece:
    sizes = [layout_size(factor.layout, spec.sizes) for factor in factors]
    groups = {k: factor.layout.name for k, factor in enumerate(factors) if isinstance(factor.layout, Atom)}
    blocks: list[Block] = []
    axes: list[list[int]] = []
    for members in _connected(spec, factors, groups):
        members.sort(key=lambda k: len(spec.groups[groups[k]].within))  # an inner group names all of its outer ones
        axes.append(members)
        names = [groups[k] for k in members]
        for outer in {outer for name in names for outer in spec.groups[name].within}:
            if names.count(outer) > 1:
                raise SpecError(f"tensor {tensor!r} has several indices of {outer!r} around one group", tensor, outer)
        blocks.append(Block(tuple(groups[k] for k in members), tuple(sizes[k] for k in members)))
    fixed = [k for k in range(len(factors)) if k not in groups]
    order = (*(axes[0] if axes else ()), *fixed, *(k for members in axes[1:] for k in members))
    return Piece(name, tensor, cuts, order, tuple(blocks), math.prod(sizes[k] for k in fixed))


def _connected(spec: PermutationSpec, factors: Sequence[_Factor], groups: Mapping[int, str]) -> list[list[int]]:
    """The factors that are groups, those together that depend on each other, in the order of their first one."""
    leader = {k: k for k in groups}
    for k, name in groups.items():
        for outer in spec.groups[name].within:
            # Several candidates occur only where the spec's rule (nesting.py) takes the one nearest in the layout.
            nearest = max(
                (other for other in groups if groups[other] == outer),
                key=lambda other: _shared(factors[k].path, factors[other].path),
            )
            old, new = leader[k], leader[nearest]
            leader = {at: new if led == old else led for at, led in leader.items()}
    together: dict[int, list[int]] = {}
    for k in groups:
        together.setdefault(leader[k], []).append(k)
    return list(together.values())


def _shared(path: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many of the products and arms around two factors they share."""
    count = 0
    for here, there in zip(path[:-1], other[:-1], strict=False):
        if here != there:
            break
        count += 1
    return count
