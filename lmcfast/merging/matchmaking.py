"""All families of a model matched to those of the first one: one visit each where streams stay, else in sweeps.

Every visit is remembered in the journal by its number, so that a run that was cut off takes the same path again and
goes on where it stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ..io import load_checkpoint, save_checkpoint
from ..io.shards import row_blocks
from ..params import check_permutations
from ..spec import PermutationSpec
from .families import Family
from .journal import Journal
from .seen import Found, Model
from .slots import Setting
from .stream import BLOCK, Aligned, PlacedRows
from .visits import visit

Told = Callable[[str, int], object]
"""Told of what is visited, and of bytes that were read for it."""


@dataclass
class Memory:
    """Visits of one model (its number ``which``) by their order, kept in the journal."""

    journal: Journal | None
    which: int
    count: int = 0

    def visit(self, make: Callable[[], Found], group: str) -> Found:
        """The visit's result: recalled if an earlier run made it, else made and remembered."""
        name = f"{self.which}/{self.count}"
        self.count += 1
        known = self.journal.find("visit", name) if self.journal is not None else None
        if self.journal is None:
            return make()
        path = self.journal.folder / f"visit-{name.replace('/', '-')}.safetensors"
        if known is None:
            found = make()
            save_checkpoint(path, found.permutations)
            figures = {name: getattr(found, name) for name in _FIGURES}
            self.journal.add({"kind": "visit", "name": name, "group": group, **figures})
            return found
        return Found(load_checkpoint(path), **{name: known[name] for name in _FIGURES})

    def value(self, make: Callable[[], float]) -> float:
        """A number, recalled or made."""
        name = f"{self.which}/{self.count}"
        self.count += 1
        known = self.journal.find("value", name) if self.journal is not None else None
        if known is not None:
            return float(known["value"])
        made = make()
        if self.journal is not None:
            self.journal.add({"kind": "value", "name": name, "value": made})
        return made


_FIGURES = ("before", "after", "norms", "gap", "moved", "units")


@dataclass(frozen=True)
class Matched:
    """``setting`` of all groups; ``visits``: the last one of each family; ``objective`` as stored and as placed, over
    the tensors that the families move."""

    setting: dict[str, torch.Tensor]
    visits: Mapping[str, Found]
    before: float
    after: float
    sweeps: int = 1
    families: Sequence[Family] = field(default=(), repr=False)

    @property
    def moved(self) -> int:
        """Units that change their place."""
        return sum(
            int((self.setting[g] != torch.arange(self.setting[g].shape[-1])).sum())
            for family in self.families
            for g in family.groups
        )


def match_apart(
    spec: PermutationSpec, parts: Sequence[Family], a: Model, b: Model, memory: Memory, told: Told | None = None
) -> Matched:
    """Match families that share no tensor: each once."""
    setting = spec.identity()
    visits = {}
    for at, family in enumerate(parts):
        if at + 1 < len(parts):
            _want(parts[at + 1], a, b)
        found = memory.visit(lambda family=family: visit(family, a, b, told=_of(told, family)), family.name)  # type: ignore[misc]
        if told is not None:
            told(family.name, 0)
        setting |= found.permutations
        visits[family.name] = found
    before, after = (math.fsum(getattr(found, name) for found in visits.values()) for name in ("before", "after"))
    return Matched(check_permutations(spec, setting), visits, before, after, families=parts)


def given_match(
    spec: PermutationSpec, parts: Sequence[Family], a: Model, b: Model, given: Setting, memory: Memory
) -> Matched:
    """Permutations that someone else has found, checked, with what they are worth."""
    setting = check_permutations(spec, {**spec.identity(), **given})
    before = memory.value(lambda: _objective(parts, a, b, spec.identity()))
    after = memory.value(lambda: _objective(parts, a, b, setting))
    return Matched(setting, {}, before, after, 0, parts)


def match_together(
    spec: PermutationSpec,
    parts: Sequence[Family],
    a: Model,
    b: Model,
    memory: Memory,
    max_sweeps: int,
    told: Told | None = None,
) -> Matched:
    """Coordinate descent over families that share tensors, from the better of the identity and a forward start."""
    identity = spec.identity()
    unmoved = memory.value(lambda: _objective(parts, a, b, identity))
    setting, visits = _forward(spec, parts, a, b, memory, told)
    forward = dict(setting)
    if memory.value(lambda: _objective(parts, a, b, forward)) <= unmoved:
        setting, visits = identity, {}
    versions = dict.fromkeys(spec.groups, 0)
    seen: dict[str, tuple[int, ...]] = {}
    sweep = 0
    while sweep < max_sweeps:
        sweep += 1
        changed = False
        for family in parts:
            stamp = tuple(versions[g] for g in _neighbours(spec, family))
            if seen.get(family.name) == stamp:
                continue
            now = dict(setting)
            found = memory.visit(
                lambda family=family, now=now: visit(family, a, b, now, told=_of(told, family)),  # type: ignore[misc]
                family.name,
            )
            visits[family.name] = found
            for group, index in found.permutations.items():
                if not torch.equal(index, setting[group]):
                    setting[group] = index
                    versions[group] += 1
                    changed = True
            seen[family.name] = stamp
        if not changed:
            break
    final = dict(setting)
    after = memory.value(lambda: _objective(parts, a, b, final))
    return Matched(check_permutations(spec, setting), visits, unmoved, after, sweep, parts)


def _forward(
    spec: PermutationSpec, parts: Sequence[Family], a: Model, b: Model, memory: Memory, told: Told | None
) -> tuple[dict[str, torch.Tensor], dict[str, Found]]:
    """Each family scored by what is matched already: those first for which most is known."""
    setting = spec.identity()
    visits: dict[str, Found] = {}
    moving = {group for family in parts for group in family.groups}
    settled = set(spec.groups).difference(moving)
    left = list(parts)
    while left:
        family = max(left, key=lambda f: _evidence(spec, f, settled))  # max keeps the first of equals
        left.remove(family)
        if _evidence(spec, family, settled) > 0:
            now, known = dict(setting), frozenset(settled)
            found = memory.visit(
                lambda family=family, now=now, known=known: visit(family, a, b, now, known, _of(told, family)),  # type: ignore[misc]
                family.name,
            )
            setting |= found.permutations
            visits[family.name] = found
        settled.update(family.groups)
    return setting, visits


def _evidence(spec: PermutationSpec, family: Family, settled: set[str]) -> int:
    """2 for a matrix all of whose other groups are settled, 1 for vectors only, 0 for nothing to go by."""
    known = settled | set(family.groups)
    usable = [t for t in family.tensors if t not in spec.buffers and known.issuperset(spec.groups_of(t))]
    return 2 if any(len(spec.axes[t]) > 1 for t in usable) else min(1, len(usable))


def _neighbours(spec: PermutationSpec, family: Family) -> list[str]:
    around = {group for tensor in family.tensors for group in spec.groups_of(tensor)}
    return sorted(around.difference(family.groups) if family.is_plain else around)


def _objective(parts: Sequence[Family], a: Model, b: Model, setting: Setting) -> float:
    """Sum over the families' tensors of <A, B as placed>, in float64."""
    tensors = {t for family in parts for t in family.tensors if t not in family.spec.buffers | set(family.spec.tied)}
    aligned = Aligned(b, setting)
    sums = []
    for key in a.keys_of(tensors):
        entry = a.files.entries[key]
        if not entry.is_floating:
            continue
        placed = PlacedRows(aligned, key)
        for start, stop in row_blocks(entry, BLOCK):
            one, other = a.files.read(entry, start, stop), placed.rows(start, stop)
            sums.append(float((one.double() * other.double()).sum()))
    return math.fsum(sums)


def _want(family: Family, a: Model, b: Model) -> None:
    """Let the system read the next family while this one is computed."""
    for model in (a, b):
        for key in model.keys_of(family.tensors):
            model.files.want(model.files.entries[key])


def _of(told: Told | None, family: Family) -> Callable[[int], object] | None:
    return None if told is None else lambda count: told(family.name, count)
