"""Whether two large checkpoints are worth lining up, from a few of their layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from ..io.atomic import StrPath
from ..merging.choice import FolderOptions, plan_families
from ..merging.families import Family, residual_groups
from ..merging.seen import Model
from ..merging.sources import open_sources
from ..merging.visits import assembled, visit
from ..spec import PermutationSpec
from .alignment import singular_alignment

_Verdict = Literal["same lineage: identity is best", "align", "unrelated"]

SAMPLED = 4
GAMMA = 0.3
_WIDEST = 1024  # units of the smaller side up to which a layer's singular vectors are computed
_ABOVE_CHANCE = 1.2
_RELATED = 0.5  # cosine of models that stand unit by unit in each other's place


@dataclass(frozen=True)
class LayerDiagnosis:
    """A family of groups: cosine 2 <A, B> / (|A|^2 + |B|^2) as stored, matched, and matched by ``chance``: with B's
    other axes shuffled (None where there is no stream to shuffle). ``r``: singular-vector alignment R(0.3) as stored
    and matched, None for layers of more than 1,024 units on both sides."""

    name: str
    units: int
    moved: int
    stored: float
    matched: float
    chance: float | None
    r_stored: float | None
    r_matched: float | None

    @property
    def distance(self) -> tuple[float, float]:
        """Distance of A and B relative to their length, before and after."""
        return math.sqrt(max(0.0, 2 - 2 * self.stored)), math.sqrt(max(0.0, 2 - 2 * self.matched))


@dataclass(frozen=True)
class CheckpointDiagnosis:
    """``layers`` that were looked at, and what they say together."""

    layers: tuple[LayerDiagnosis, ...]
    verdict: _Verdict


def diagnose_checkpoints(
    a: StrPath, b: StrPath, options: FolderOptions | None = None, layers: int = SAMPLED
) -> CheckpointDiagnosis:
    """Match a few families of two checkpoints, spread over their depth, and judge by them.

    "same lineage: identity is best": no unit has a better place than its own (fine-tunes of one model). "unrelated":
    matched layers are hardly more alike than layers whose inputs were shuffled. Else "align". Errors as of
    ``merge_checkpoints``.
    """
    chosen = options or FolderOptions()
    sources = open_sources([a, b], any_dtype=True)
    try:
        spec, models, parts = plan_families(sources, chosen)
        count = min(layers, len(parts))
        sampled = [parts[k * (len(parts) - 1) // max(1, count - 1)] for k in range(count)]
        found = tuple(_diagnosed(spec, family, models[0], models[1]) for family in sampled)
    finally:
        for source in sources:
            source.close()
    return CheckpointDiagnosis(found, _verdict(found))


def _diagnosed(spec: PermutationSpec, family: Family, a: Model, b: Model) -> LayerDiagnosis:
    found = visit(family, a, b)
    stored, matched = found.cosine
    streams = [name for name in residual_groups(spec) if name not in family.groups]
    chance = None
    if streams:
        generator = torch.Generator().manual_seed(0)
        shuffled = {name: torch.randperm(spec.sizes[name], generator=generator) for name in streams}
        chance = visit(family, a, b, shuffled).cosine[1]
    r_stored, r_matched = _alignment(family, a, b, found.permutations)
    return LayerDiagnosis(family.name, found.units, found.moved, stored, matched, chance, r_stored, r_matched)


def _alignment(
    family: Family, a: Model, b: Model, permutations: dict[str, torch.Tensor]
) -> tuple[float | None, float | None]:
    """R(0.3) of the family's tensors as stored and as placed."""
    shapes = [a.files.entries[key].shape for key in a.keys_of(family.tensors)]
    if any(len(shape) > 1 and min(shape[-2:]) > _WIDEST for shape in shapes):
        return None, None
    params_a, params_b = ({k: t.float() for k, t in assembled(family, m, {}).items()} for m in (a, b))
    identity = family.spec.identity()
    settings = [identity, {**identity, **permutations}]
    before, after = singular_alignment(family.spec, params_a, params_b, settings, gamma=GAMMA)
    return before.pooled, after.pooled


def _verdict(layers: Sequence[LayerDiagnosis]) -> _Verdict:
    if all(layer.moved == 0 for layer in layers) and _mean([layer.stored for layer in layers]) > _RELATED:
        return "same lineage: identity is best"
    known = [layer for layer in layers if layer.chance is not None]
    if known and _mean([layer.matched for layer in known]) < _ABOVE_CHANCE * _mean(
        [layer.chance or 0.0 for layer in known]
    ):
        return "unrelated"
    return "align"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))
