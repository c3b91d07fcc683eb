"""Where the units of a group show in the forward pass: inputs and outputs of the modules whose weights have layouts.

The columns of a weight say which units a module reads, its rows which it writes. The input of a reader comes after
nonlinearity, normalisation and residual sum, so a plain group is observed at its readers, and at its writers where no
module reads it. Nested groups, and those that others are nested in, are observed at writers alone: there each unit
stands beside its own outer index and no other (a value unit is written once for each key-value head, and read once for
each query head).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from ..errors import SpecError
from ..spec import PermutationSpec
from ..spec.layout import Atom, Concat, Fixed, Layout, Product, layout_size

Side = Literal["input", "output"]


@dataclass(frozen=True)
class Site:
    """The units of one chain of groups, at the input or output of ``module`` (its path).

    ``axis``: of the observed tensor (-1 features, 1 channels). ``start``: the first position. ``groups``: from the
    outside in, each nested in all before it; ``sizes``: of the factors that follow each other from ``start`` on, in
    storage order, with ``group_of`` the group of each, None for a fixed run.
    """

    module: str
    side: Side
    axis: int
    start: int
    sizes: tuple[int, ...]
    group_of: tuple[str | None, ...]

    @property
    def unit_sizes(self) -> tuple[int, ...]:
        """Sizes of the groups, fixed runs left out."""
        return tuple(size for size, group in zip(self.sizes, self.group_of, strict=True) if group is not None)

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(group for group in self.group_of if group is not None)


def find_sites(spec: PermutationSpec, module: nn.Module, groups: Sequence[str]) -> dict[str, tuple[Site, ...]]:
    """The sites of each group (of its innermost factor) in the order of the modules; a group may have none."""
    nesting = {name for entry in spec.groups.values() for name in (entry.name, *entry.within) if entry.within}
    readers: dict[str, list[Site]] = {group: [] for group in groups}
    writers: dict[str, list[Site]] = {group: [] for group in groups}
    for path, layer in module.named_modules():
        for side, axis, layout in _ends(spec, path, layer):
            for site in _chains(spec, path, side, axis, layout):
                innermost = site.groups[-1]
                if innermost in readers:
                    (readers if side == "input" and innermost not in nesting else writers)[innermost].append(site)
    return {group: tuple(readers[group] or writers[group]) for group in groups}


def given_sites(
    spec: PermutationSpec, sites: Mapping[str, Sequence[str]], module: nn.Module
) -> dict[str, tuple[Site, ...]]:
    """Sites named by the caller: paths of modules whose output holds the group, as channels (axis 1) of tensors of four
    axes and more, else in the last axis. ``SpecError`` for a group or path that is not there, or a nested group."""
    paths = {path for path, _ in module.named_modules()}
    found = {}
    for group, places in sites.items():
        if group not in spec.groups:
            raise SpecError(f"sites: the spec has no group {group!r}", group=group)
        if spec.groups[group].within:
            raise SpecError(f"sites: group {group!r} is nested; its sites are those of its weights", group=group)
        for path in places:
            if path not in paths:
                raise SpecError(f"sites: the module has no part {path!r}, named for group {group!r}", group=group)
        found[group] = tuple(Site(path, "output", 0, 0, (spec.sizes[group],), (group,)) for path in places)
    return found


def _ends(spec: PermutationSpec, path: str, layer: nn.Module) -> list[tuple[Side, int, Layout]]:
    """What the module's weight says of its input and output; nothing for other kinds of modules."""
    layouts = spec.axes.get(f"{path}.weight" if path else "weight", ())
    if len(layouts) < 2:
        return []
    if isinstance(layer, nn.Linear):
        return [("input", -1, layouts[1]), ("output", -1, layouts[0])]
    if type(layer).__name__ == "Conv1D" and len(layouts) == 2:  # transformers' linear layer with weights (in, out)
        return [("input", -1, layouts[0]), ("output", -1, layouts[1])]
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        output: tuple[Side, int, Layout] = ("output", 1, layouts[0])
        return [("input", 1, layouts[1]), output] if layer.groups == 1 else [output]
    return []


def _chains(spec: PermutationSpec, path: str, side: Side, axis: int, layout: Layout) -> list[Site]:
    """A site for every arm whose groups are a chain of nesting and whose innermost unit is one of them."""
    found = []
    for start, factors in _arms(layout, spec.sizes, 0):
        groups = [factor.name for factor in factors if isinstance(factor, Atom)]
        chained = all(set(spec.groups[group].within) == set(groups[:k]) for k, group in enumerate(groups))
        if groups and chained and all(isinstance(factor, Atom | Fixed) for factor in factors):
            sizes = tuple(layout_size(factor, spec.sizes) for factor in factors)
            names = tuple(factor.name if isinstance(factor, Atom) else None for factor in factors)
            found.append(Site(path, side, axis, start, sizes, names))
    return found


def _arms(layout: Layout, sizes: Mapping[str, int], start: int) -> list[tuple[int, tuple[Layout, ...]]]:
    """The arms of a concatenation, each with its first position, as sequences of factors."""
    if isinstance(layout, Concat):
        found = []
        for part in layout.parts:
            found += _arms(part, sizes, start)
            start += layout_size(part, sizes)
        return found
    return [(start, layout.parts if isinstance(layout, Product) else (layout,))]


def observed(site: Site, args: tuple[object, ...], output: object) -> torch.Tensor:
    """The units at the site as (rows, outer, ..., inner), fixed runs last: float32 or wider."""
    value = args[0] if site.side == "input" and args else output
    while isinstance(value, tuple | list) and value:
        value = value[0]
    if not isinstance(value, torch.Tensor):
        raise SpecError(f"site {site.module!r}: its {site.side} is no tensor but {type(value).__name__}")
    tensor = value.detach()
    axis = site.axis or (1 if tensor.ndim >= 4 else -1)
    length = 1
    for size in site.sizes:
        length *= size
    if tensor.shape[axis] < site.start + length:
        raise SpecError(
            f"site {site.module!r}: axis {axis} of its {site.side} has {tensor.shape[axis]} positions, and "
            f"{' '.join(map(str, site.groups))} would need {site.start + length}",
            group=site.groups[-1],
        )
    units = tensor.narrow(axis, site.start, length).movedim(axis, -1).reshape(-1, *site.sizes)
    fixed = [k + 1 for k, group in enumerate(site.group_of) if group is None]
    units = units.permute(0, *fixed, *(k + 1 for k, group in enumerate(site.group_of) if group is not None))
    units = units.reshape(
        -1, *(size for size, group in zip(site.sizes, site.group_of, strict=True) if group is not None)
    )
    return units if units.dtype == torch.float64 else units.float()
