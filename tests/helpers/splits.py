"""Groups that are one although they could be two: some of a group's places moved without the others."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from lmcfast.spec import Group, PermutationSpec
from lmcfast.spec.layout import Atom, Fixed, Layout, atoms, rebuild
from lmcfast.spec.trial import TOLERANCE, Trial
from lmcfast.spec.verify import insensitive_tensors

Place = tuple[str, int]


@dataclass(frozen=True)
class Split:
    """``places`` (tensor, axis) of ``group`` that may move alone."""

    group: str
    places: tuple[Place, ...]


def splits(trial: Trial, most: int = 8) -> list[Split]:
    """The groups of at most ``most`` places that hold together for no reason, each with a part that may move alone.

    Tensors without any effect on the output are left out: they may always move.
    """
    spec = trial.spec
    moving = [name for name in spec.axes if spec.groups_of(name) and name not in spec.tied]
    silent = set(insensitive_tensors(trial, moving))
    found = []
    for group in spec.movable_groups:
        places = [
            (tensor, axis)
            for tensor in spec.tensors_of(group)
            if tensor not in silent and tensor not in spec.tied
            for axis, layout in enumerate(spec.axes[tensor])
            if group in atoms(layout)
        ]
        if 2 <= len(places) <= most:
            found += _split(trial, group, places)
    return found


def _split(trial: Trial, group: str, places: list[Place]) -> list[Split]:
    """Whether a part with the first place moves alone; the other parts are what such a part leaves."""
    first, *others = places
    for count in range(len(others)):
        for chosen in itertools.combinations(others, count):
            part = (first, *chosen)
            if _holds(trial, group, frozenset(part)):
                return [Split(group, part)]
    return []


def _holds(trial: Trial, group: str, part: frozenset[Place]) -> bool:
    alone = _restricted(trial.spec, group, part)
    setting = alone.identity()
    setting[group] = setting[group].roll(1, -1)
    return trial.error(trial.moved(alone, setting)) < TOLERANCE


def _restricted(spec: PermutationSpec, group: str, part: frozenset[Place]) -> PermutationSpec:
    """The spec with ``group`` in some of its places only; what it is nested in stands still, all else is fixed."""
    outer = spec.groups[group].within
    kept = {group, *outer}

    def change(layout: Layout, here: bool) -> Layout:
        if isinstance(layout, Atom):
            stays = layout.name in outer or (layout.name == group and here)
            return layout if stays else Fixed(spec.sizes[layout.name])
        return rebuild(layout, lambda inner: change(inner, here))

    tensors = {tensor for tensor, _ in part}
    aliases = {alias: name for alias, name in spec.tied.items() if name in tensors}
    axes = {
        tensor: tuple(change(layout, (tensor, axis) in part) for axis, layout in enumerate(spec.axes[tensor]))
        for tensor in tensors
    }
    groups: dict[str, Group] = {
        name: replace(spec.groups[name], fixed=name != group) for name in spec.groups if name in kept
    }
    used = {name for layouts in axes.values() for layout in layouts for name in atoms(layout)}
    return PermutationSpec({name: groups[name] for name in groups if name in used}, axes, aliases)
