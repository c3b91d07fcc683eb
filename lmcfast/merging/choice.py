"""What a large merge does and what it returns; which families of groups it decides on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from ..errors import OptionError
from ..io.shards import LazyCheckpoint
from ..matching.problem import matching_names
from ..spec import PermutationSpec
from .families import Family, chosen_roles, families, residual_groups, roles_of
from .matchmaking import Matched
from .seen import Model
from .sources import bind, seen_alike, spec_of_sources

Residual = Literal["keep", "permute"]
Progress = Callable[[str, str, int, int], object]
"""Told of (phase, what, bytes done, bytes in all)."""


@dataclass(frozen=True)
class FolderOptions:
    """What a run does beside the recipe: which groups move, and what the result is stored as.

    ``spec``: "auto" by the configuration (else the tensors' names), a spec file or folder, or a spec. ``residual``:
    "keep" holds the residual streams, so layers are independent and each is visited once; "permute" moves them too, in
    up to ``max_sweeps`` sweeps. ``groups``: the parts that move (``families.ROLES``); ``fix``, ``only``: names of
    groups (wildcards) that stay, that alone may move. ``dtype``: of the floating tensors of the output, default as
    stored; then the inputs may differ in theirs. ``max_memory``: bytes that the process may take. ``prove``: verify the
    spec of a configuration on a tiny network of its class, where transformers is installed. ``resume``: go on with
    what an earlier run has left.
    """

    spec: str | PermutationSpec = "auto"
    residual: Residual = "keep"
    groups: tuple[str, ...] = ("ffn", "heads", "kv", "experts")
    fix: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    max_sweeps: int = 20
    dtype: str | None = None
    max_memory: int | None = None
    prove: bool = True
    resume: bool = True


@dataclass(frozen=True)
class FamilyFigures:
    """A family of a model: ``groups``, how many of ``units`` ``moved``, 2 <A, B> / (|A|^2 + |B|^2) before and after."""

    model: int
    name: str
    groups: tuple[str, ...]
    units: int
    moved: int
    before: float
    after: float
    cosine_before: float
    cosine_after: float
    gap: float


@dataclass(frozen=True)
class MergedFolder:
    """Result of :func:`merge_checkpoints` and :func:`align_checkpoint`.

    ``objective``: of each model after the first, sum of <A, B> over the tensors that could move, before and after.
    ``seconds`` by phase, of this run alone; ``resumed``: visits and shards that an earlier run had done.
    ``finished``: an earlier run had done all of it.
    """

    out: Path
    families: tuple[FamilyFigures, ...] = ()
    objective: tuple[tuple[float, float], ...] = ()
    bytes_read: int = 0
    bytes_written: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    resumed: int = 0
    finished: bool = False
    proved: bool = False
    notes: tuple[str, ...] = ()

    @property
    def identity_won(self) -> bool:
        """Whether nothing is better placed than it was: the models line up as they are."""
        return not self.finished and all(figures.moved == 0 for figures in self.families)


def plan_families(
    sources: Sequence[LazyCheckpoint], options: FolderOptions, notes: list[str] | None = None
) -> tuple[PermutationSpec, list[Model], tuple[Family, ...]]:
    """The bound spec, the models as it sees them, and the families that are to be matched."""
    if options.residual not in ("keep", "permute"):
        raise OptionError(f"must be keep or permute, not {options.residual!r}", "residual")
    roles = chosen_roles(options.groups, options.residual)
    spec, first = bind(spec_of_sources(options.spec, sources[0]), sources[0])
    models = [first, *(seen_alike(first, source) for source in sources[1:])]
    parts = roles_of(spec, residual_groups(spec))
    wanted = roles | ({"residual"} if options.residual == "permute" else set())
    free = [name for name in spec.movable_groups if parts[name] in wanted and spec.sizes[name] > 1]
    if options.only is not None:
        free = [name for name in free if name in matching_names(spec.groups, options.only, "only", "group")]
    held = matching_names(spec.groups, options.fix, "fix", "group")
    free = [name for name in free if name not in held]
    if not free and notes is not None:
        notes.append("no group may move: the models are merged as they stand")
    if options.residual == "permute":
        streams = [name for name in free if parts[name] == "residual"]
        apart = families(spec, [name for name in free if name not in streams])
        alone = tuple(family for name in streams for family in families(spec, [name]))
        return spec, models, (*alone, *apart)
    return spec, models, families(spec, free)


def figures_of(matched: Sequence[Matched]) -> tuple[FamilyFigures, ...]:
    figures = []
    for which, found in enumerate(matched, 1):
        for family in found.families:
            seen = found.visits.get(family.name)
            if seen is None:
                continue
            moved = sum(
                int((found.setting[g] != torch.arange(found.setting[g].shape[-1])).sum()) for g in family.groups
            )
            cosines = seen.cosine
            figures.append(
                FamilyFigures(
                    which, family.name, family.groups, seen.units, moved, seen.before, seen.after, *cosines, seen.gap
                )
            )
    return tuple(figures)
