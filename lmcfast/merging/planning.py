"""What a large merge will take, before it begins: memory, bytes, products, and from a short calibration the time."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import OptionError
from ..io.shards import LazyCheckpoint
from ..matching.nested_scores import CHUNK_BYTES as SCORES_BYTES
from ..spec import PermutationSpec, group_places
from .families import Family
from .seen import CHUNK_BYTES, Model
from .stacked import Stack, stack_of
from .stream import BLOCK

_LISTS = 1500
"""Bytes for each unit of a large assignment: candidate lists, prices, bounds."""

_CALIBRATION = 1024  # units and depth of the product that is timed


@dataclass(frozen=True)
class FamilyPlan:
    """A family: bytes that its visit reads from both models, operations of its products, memory that it needs."""

    name: str
    groups: tuple[str, ...]
    roles: tuple[str, ...]
    units: int
    read: int
    operations: int
    memory: int


@dataclass(frozen=True)
class Plan:
    """``memory``: the largest of the visits and of the last pass, bytes beside what the process has already.

    ``read`` and ``written`` in all; ``operations`` of all products; ``seconds``: of products at the rate of a short
    trial, and of reading at the rate of the first 64 MiB, assignments left out.
    """

    families: tuple[FamilyPlan, ...]
    memory: int
    largest: str
    read: int
    written: int
    operations: int
    seconds: float
    held: tuple[str, ...]


def make_plan(
    spec: PermutationSpec,
    models: Sequence[Model],
    parts: Sequence[Family],
    written: int,
    sweeps: int = 1,
    calibrate: bool = True,
) -> Plan:
    """The plan of a run that visits each family ``sweeps`` times for each model after the first."""
    plans = tuple(family_plan(family, models[0], models[-1]) for family in parts)
    times = sweeps * (len(models) - 1)
    last = merge_memory(models)
    most = max(plans, key=lambda plan: plan.memory, default=None)
    memory, largest = (most.memory, most.name) if most is not None and most.memory > last else (last, "the merge")
    read = times * sum(plan.read for plan in plans) + sum(model.files.size for model in models)
    operations = times * sum(plan.operations for plan in plans)
    seconds = operations / _product_rate() + (read + written) / _read_rate(models[0].files) if calibrate else 0.0
    moving = {group for family in parts for group in family.groups}
    held = tuple(name for name in spec.movable_groups if name not in moving)
    return Plan(plans, memory, largest, read, written, operations, seconds, held)


def family_plan(family: Family, a: Model, b: Model) -> FamilyPlan:
    """What a visit of a family takes."""
    keys = a.keys_of([t for t in family.tensors if t not in family.spec.tied])
    read = sum(model.files.entries[key].size for model in (a, b) for key in keys)
    sizes = [family.spec.sizes[group] for group in family.groups]
    stack = None if family.is_plain else stack_of(family, a)
    if stack is not None:
        return _stacked_plan(family, stack, a, b, read)
    if not family.is_plain:
        numbers = sum(a.files.entries[key].numel for key in keys)
        # A, B, B as placed from two starts, in float32, and what was read.
        memory = 16 * numbers + read + 2 * SCORES_BYTES
        operations = 2 * numbers * max(family.spec.sizes.values()) * len(family.groups)
        return FamilyPlan(family.name, family.groups, family.roles, sum(sizes), read, operations, memory)
    n = sizes[0]
    pairs = [a.files.entries[key].size + b.files.entries[key].size for key in keys]
    places = [(key, place) for key in keys for place in group_places(a.slots[key].spec, family.groups[0])]
    operations = sum(2 * n * n * place.depth for _, place in places)
    chunk = max((min(CHUNK_BYTES, 4 * n * place.depth) for _, place in places), default=0)
    memory = 4 * n * n + _LISTS * n + max(pairs, default=0) + 3 * chunk
    return FamilyPlan(family.name, family.groups, family.roles, n, read, operations, memory)


def _stacked_plan(family: Family, stack: Stack, a: Model, b: Model, read: int) -> FamilyPlan:
    """Each pair of experts is a plain group of its own."""
    n, experts = family.spec.sizes[stack.inner], len(stack.keys)
    pairs = experts * experts if stack.outer in family.groups else experts
    keys = stack.keys[0]
    depth = sum(a.files.entries[key].numel for key in keys) // n
    largest = max(a.files.entries[key].size + b.files.entries[key].size for key in keys)
    memory = 4 * n * n + _LISTS * n + largest + 3 * min(CHUNK_BYTES, 4 * n * depth) + 8 * pairs * n
    units = experts * n + (experts if stack.outer in family.groups else 0)
    again = read * (experts if stack.outer in family.groups else 1)
    return FamilyPlan(family.name, family.groups, family.roles, units, again, pairs * 2 * n * n * depth, memory)


def merge_memory(models: Sequence[Model]) -> int:
    """What the last pass takes: of each model a tensor as stored, and blocks."""
    largest = max((entry.size for entry in models[0].files.entries.values()), default=0)
    row = max((entry.row_size for entry in models[0].files.entries.values()), default=0)
    return 2 * largest + (largest if len(models) > 2 else 0) + 8 * len(models) * max(BLOCK, row)


def check_memory(
    spec: PermutationSpec, models: Sequence[Model], parts: Sequence[Family], max_memory: int | None
) -> None:
    """``OptionError`` where ``max_memory`` cannot hold the largest group beside what the process has already."""
    if max_memory is None:
        return
    plan = make_plan(spec, models, parts, 0, calibrate=False)
    need = plan.memory + anonymous_memory()
    if need > max_memory:
        raise OptionError(
            f"{plan.largest} needs {need / 2**30:.2f} GiB, and {max_memory / 2**30:.2f} GiB are allowed; hold its "
            "groups (--fix, --groups) or allow more",
            "max-memory",
        )


def anonymous_memory() -> int:
    """Bytes of memory of this process that no file backs."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) << 10
    except OSError:
        return 0
    return 0


def _product_rate() -> float:
    """Operations a second of a product like those to come."""
    a = torch.ones(_CALIBRATION, _CALIBRATION)
    a @ a
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - started)
    return 2.0 * _CALIBRATION**3 / best


def _read_rate(files: LazyCheckpoint) -> float:
    """Bytes a second from the first file, where it is not in memory: 64 MiB of it."""
    path = files.shards[0].path
    with open(path, "rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 1 << 26, os.POSIX_FADV_DONTNEED)
        started = time.perf_counter()
        count = 0
        while count < 1 << 26 and (piece := file.read(1 << 24)):
            count += len(piece)
        return max(count, 1) / max(time.perf_counter() - started, 1e-9)
