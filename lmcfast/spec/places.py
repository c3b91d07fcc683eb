"""Where a group stands: every (tensor, axis, occurrence) that its permutation moves, seen as a matrix of units.

A group's axis may be an axis of its own, a factor of a flattened axis (``"c5 _49"``) or an arm of a
concatenation (``"z1 | c | z2"``). A :class:`Place` says how to cut the tensor so that the group has an axis
to itself; then its unit i is one row of :func:`unfold`, and the scores of the group are sums of products of
such rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from .layout import Atom, Case, Concat, Fixed, Layout, Product, atoms, in_arm, layout_size, selectors
from .nesting import selector_name

if TYPE_CHECKING:
    from .spec import PermutationSpec


@dataclass(frozen=True)
class Arm:
    """Cut: keep ``length`` positions of an axis from ``start`` on (one arm of a concatenation)."""

    axis: int
    start: int
    length: int


@dataclass(frozen=True)
class Split:
    """Cut: give each factor of a product an axis of its own."""

    axis: int
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """One occurrence of a group in a tensor.

    ``cuts`` turn the tensor into one whose axis ``group_axis`` is the group alone; ``layouts`` are the
    layouts of the axes after the cuts, ``moving`` those of them (without ``group_axis``) that some group can
    move, ``sizes`` those of all groups. The unfolded matrix has shape (``size``, ``depth``). ``others`` names
    the groups whose permutations change the columns of that matrix. ``quadratic``: the group itself is one of
    them (it stands on two axes of the tensor, as in a recurrent weight), so its scores are only a
    linearisation.

    Nested groups (``within``) among the others count as held at the identity.
    """

    group: str
    tensor: str
    axis: int
    cuts: tuple[Arm | Split, ...]
    layouts: tuple[Layout, ...]
    group_axis: int
    moving: tuple[int, ...]
    size: int
    depth: int
    others: tuple[str, ...]
    quadratic: bool
    sizes: Mapping[str, int] = field(compare=False, repr=False)


def group_places(
    spec: PermutationSpec, group: str, axes: Mapping[str, tuple[Layout, ...]] | None = None
) -> tuple[Place, ...]:
    """Every place of ``group`` in a bound spec, in the spec's order of tensors.

    Buffers are left out (they move with their units but say nothing about which units match), and so are tied
    aliases (a tied tensor counts once). ``axes``: the layouts to go by, {tensor: (layout, ...)}, where tensors are
    held with their axes in another order than the spec's, or other tensors than the spec's are; default: the spec's.
    """
    if axes is None:
        scored = (name for name in spec.tensors_of(group) if name not in spec.buffers and name not in spec.tied)
        axes = {name: spec.axes[name] for name in scored}
    sizes = spec.sizes
    return tuple(
        _place(spec, sizes, group, tensor, axis, *occurrence)
        for tensor, layouts in axes.items()
        for axis in range(len(layouts))
        for found in _occurrences(sizes, group, layouts, axis)
        for occurrence in _without_cases(sizes, *found)
    )


Occurrence = tuple[tuple[Arm | Split, ...], tuple[Layout, ...], int]
"""The cuts, the layouts after them, and the axis that then is what was looked for."""


def _occurrences(sizes: Mapping[str, int], target: str, layouts: tuple[Layout, ...], axis: int) -> Iterator[Occurrence]:
    """Each occurrence, in the layout of ``axis``, of a group or (``selector_name``) of a named concatenation."""
    layout = layouts[axis]
    if _is(layout, target):
        yield (), layouts, axis
    elif isinstance(layout, Concat):
        for step, inside in _arms(sizes, layouts, axis):
            for cuts, cut_layouts, at in _occurrences(sizes, target, inside, axis):
                yield (step, *cuts), cut_layouts, at
    elif isinstance(layout, Product) and _holds(layout, target):
        lengths = tuple(layout_size(part, sizes) for part in layout.parts)
        inside = (*layouts[:axis], *layout.parts, *layouts[axis + 1 :])
        for k in range(len(lengths)):
            for cuts, cut_layouts, at in _occurrences(sizes, target, inside, axis + k):
                yield (Split(axis, lengths), *cuts), cut_layouts, at
    elif isinstance(layout, Case) and _holds(layout, target):
        for before, inside, here in _in_each_arm(sizes, layout.selector, layouts, axis):
            for cuts, cut_layouts, at in _occurrences(sizes, target, inside, here):
                yield (*before, *cuts), cut_layouts, at


def _is(layout: Layout, target: str) -> bool:
    if isinstance(layout, Atom):
        return layout.name == target
    return isinstance(layout, Concat) and layout.selector is not None and selector_name(layout.selector) == target


def _holds(layout: Layout, target: str) -> bool:
    return target in atoms(layout) or any(_is(part, target) for part in selectors(layout))


def _arms(sizes: Mapping[str, int], layouts: tuple[Layout, ...], axis: int) -> Iterator[tuple[Arm, tuple[Layout, ...]]]:
    """For each arm of the concatenation that is the whole layout of ``axis``: the cut to it, and what then holds."""
    concat = layouts[axis]
    assert isinstance(concat, Concat)
    start = 0
    for arm, part in enumerate(concat.parts):
        length = layout_size(part, sizes)
        inside = (*layouts[:axis], part, *layouts[axis + 1 :])
        if concat.selector is not None:
            selector = concat.selector
            inside = tuple(in_arm(layout, selector, arm) for layout in inside)
        yield Arm(axis, start, length), inside
        start += length


def _in_each_arm(
    sizes: Mapping[str, int], selector: str, layouts: tuple[Layout, ...], kept: int
) -> Iterator[Occurrence]:
    """The cuts to each arm of the concatenation ``selector``, not on axis ``kept``, and where that axis is then."""
    for axis in range(len(layouts)):
        for cuts, found, at in _occurrences(sizes, selector_name(selector), layouts, axis) if axis != kept else ():
            here = kept
            for step in cuts:
                here += len(step.sizes) - 1 if isinstance(step, Split) and step.axis < here else 0
            for arm, inside in _arms(sizes, found, at):
                yield (*cuts, arm), inside, here


def _without_cases(
    sizes: Mapping[str, int], cuts: tuple[Arm | Split, ...], layouts: tuple[Layout, ...], axis: int
) -> Iterator[Occurrence]:
    """The occurrence cut further until no case is left: in each piece every axis then moves by itself."""
    parts = (part for layout in layouts for part in selectors(layout))
    selector = next((part.selector for part in parts if isinstance(part, Case)), None)
    if selector is None:
        yield cuts, layouts, axis
        return
    for more, inside, here in _in_each_arm(sizes, selector, layouts, axis):
        yield from _without_cases(sizes, (*cuts, *more), inside, here)


def _place(
    spec: PermutationSpec,
    sizes: Mapping[str, int],
    group: str,
    tensor: str,
    axis: int,
    cuts: tuple[Arm | Split, ...],
    layouts: tuple[Layout, ...],
    group_axis: int,
) -> Place:
    """The place at an occurrence, with what follows from its layouts."""
    still = {name for name, entry in spec.groups.items() if entry.fixed or entry.within}
    movable = [[name for name in atoms(layout) if name not in still] for layout in layouts]
    moving = tuple(k for k, names in enumerate(movable) if names and k != group_axis)
    others = dict.fromkeys(name for k in moving for name in movable[k])
    lengths = [layout_size(layout, sizes) for layout in layouts]
    return Place(
        group=group,
        tensor=tensor,
        axis=axis,
        cuts=cuts,
        layouts=layouts,
        group_axis=group_axis,
        moving=moving,
        size=lengths[group_axis],
        depth=math.prod(length for k, length in enumerate(lengths) if k != group_axis),
        others=tuple(name for name in others if name != group),
        quadratic=group in others,
        sizes=sizes,
    )


def cut(tensor: torch.Tensor, place: Place) -> torch.Tensor:
    """A view of the tensor on which the group has the axis ``place.group_axis`` to itself."""
    return apply_cuts(tensor, place.cuts)


def apply_cuts(tensor: torch.Tensor, cuts: Iterable[Arm | Split]) -> torch.Tensor:
    """A view of the tensor after the cuts, each of which counts the axes that those before it have left."""
    for step in cuts:
        if isinstance(step, Arm):
            tensor = tensor.narrow(step.axis, step.start, step.length)
        else:
            shape = tensor.shape
            tensor = tensor.view(*shape[: step.axis], *step.sizes, *shape[step.axis + 1 :])
    return tensor


def unfold(tensor: torch.Tensor, place: Place, units: torch.Tensor | None = None) -> torch.Tensor:
    """The tensor as (size, depth): row i holds everything that unit i of the group owns at this place.

    ``units``: only these rows (int64 indices on the tensor's device), in this order. A view where the strides
    allow it, otherwise a copy.
    """
    tensor = cut(tensor, place)
    if units is not None:
        tensor = tensor.index_select(place.group_axis, units)
    return tensor.movedim(place.group_axis, 0).reshape(tensor.shape[place.group_axis], place.depth)


def unfold_permuted(
    tensor: torch.Tensor,
    place: Place,
    permutations: Mapping[str, torch.Tensor],
    units: torch.Tensor | None = None,
) -> torch.Tensor:
    """:func:`unfold` with the other axes permuted and the group's own not: row j is unit j as the others place it.

    Groups that ``permutations`` lacks stay as they are. ``units`` as in :func:`unfold`.
    """
    tensor = cut(tensor, place)
    if units is not None:
        tensor = tensor.index_select(place.group_axis, units)
    for axis in place.moving:
        index = _axis_index(place.layouts[axis], permutations, place)
        tensor = tensor.index_select(axis, index.to(tensor.device))
    return tensor.movedim(place.group_axis, 0).reshape(tensor.shape[place.group_axis], place.depth)


def _axis_index(layout: Layout, permutations: Mapping[str, torch.Tensor], place: Place) -> torch.Tensor:
    """Old position of each new position of an axis."""
    if isinstance(layout, Atom) and layout.name in permutations and layout.name in (*place.others, place.group):
        return permutations[layout.name]
    if isinstance(layout, Atom | Fixed):
        return torch.arange(layout_size(layout, place.sizes))
    parts = [_axis_index(part, permutations, place) for part in layout.parts]
    index, *rest = parts
    for part in rest:
        if isinstance(layout, Product):
            index = (index.unsqueeze(1) * part.shape[0] + part).reshape(-1)
        else:
            index = torch.cat((index, part + index.shape[0]))
    return index
