"""Experts that a file holds one by one: which expert goes where, and where each one's units go, a pair at a time.

What "place i takes expert f" is worth is the optimum of the assignment of f's units to those of i, plus what the two
have in common elsewhere (rows of the router). Both steps are exact, and only one pair's scores are held at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ..assignment import solve_assignment
from ..spec import group_places, unfold
from .families import Family
from .seen import Found, Model, Sums, Told, check_tensor, read_placed, solved
from .slots import Setting


@dataclass(frozen=True)
class Stack:
    """``keys``: of each expert, those that hold its units; ``shared``: keys on which experts are an axis."""

    outer: str
    inner: str
    keys: tuple[tuple[str, ...], ...]
    shared: tuple[str, ...]


def stack_of(family: Family, model: Model) -> Stack | None:
    """The family as a stack; None where it is another kind."""
    nested = [name for name in family.groups if family.spec.groups[name].within]
    if len(nested) != 1 or len(family.spec.groups) != 2:
        return None
    inner = nested[0]
    outer = family.spec.groups[inner].within[0]
    tensors = [t for t in family.tensors if t not in family.spec.buffers and t not in family.spec.tied]
    keys = [key for key in model.keys_of(tensors) if model.files.entries[key].is_floating]
    experts: list[list[str]] = [[] for _ in range(family.spec.sizes[outer])]
    shared = []
    for key in keys:
        slot = model.slots[key]
        if inner in slot.spec.groups:
            if slot.inner.get(inner) is None or len(slot.row) != len(experts):
                return None
        elif outer in slot.spec.groups:
            shared.append(key)
    for row in dict.fromkeys(model.slots[key].row for key in keys if inner in model.slots[key].spec.groups):
        for expert, key in zip(experts, row, strict=True):
            expert.append(key)
    return Stack(outer, inner, tuple(map(tuple, experts)), tuple(shared)) if all(experts) else None


def is_stacked(family: Family, model: Model) -> bool:
    """Whether the file holds the family's outer units one by one, each with inner units of its own."""
    return stack_of(family, model) is not None


@dataclass
class _Pairs:
    """Of each pair (place, expert) the units' best permutation and what it is worth; squares of both sides."""

    best: dict[tuple[int, int], Found] = field(default_factory=dict)
    squares_a: dict[int, float] = field(default_factory=dict)
    squares_b: dict[int, float] = field(default_factory=dict)
    depth: int = 1


def visit_stacked(family: Family, a: Model, b: Model, others: Setting, now: Setting, told: Told | None) -> Found:
    """As ``visits.visit``."""
    stack = stack_of(family, a)
    assert stack is not None
    experts, units = family.spec.sizes[stack.outer], family.spec.sizes[stack.inner]
    outer = now.get(stack.outer, torch.arange(experts))
    inner = now.get(stack.inner, torch.arange(units).expand(experts, units))
    free = stack.outer in family.groups
    pairs = _Pairs()
    for place in range(experts):
        for expert in range(experts) if free else [int(outer[place])]:
            stays = expert == int(outer[place])
            current = inner[place] if stays else torch.arange(units)
            pairs.best[place, expert] = _pair(stack, place, expert, a, b, others, current, not stays, pairs, told)
    shared, norms = _shared(stack, experts, a, b, others)
    chosen, gap = _chosen(pairs, shared, outer) if free else (outer, 0.0)
    rows = torch.arange(experts)
    found = [pairs.best[i, int(chosen[i])] for i in range(experts)]
    before = math.fsum(pairs.best[i, int(outer[i])].before for i in range(experts)) + float(shared[rows, outer].sum())
    after = math.fsum(f.after for f in found) + float(shared[rows, chosen].sum())
    columns = torch.stack([f.permutations[stack.inner] for f in found])
    moved = int((columns != inner).sum()) + int((chosen != outer).sum())
    gap += math.fsum(f.gap for f in found)
    norms += math.fsum(pairs.squares_a.values()) + math.fsum(pairs.squares_b.values())
    settings = {stack.outer: chosen, stack.inner: columns}
    kept = {name: settings[name] for name in family.groups}
    size = columns.numel() + (experts if free else 0)
    return Found(kept, before, after, norms, gap, moved, size)


def _pair(
    stack: Stack,
    place: int,
    expert: int,
    a: Model,
    b: Model,
    others: Setting,
    current: torch.Tensor,
    always: bool,
    pairs: _Pairs,
    told: Told | None,
) -> Found:
    """The best permutation of the units of an expert of B at a place of A."""
    sides = list(zip(stack.keys[place], stack.keys[expert], strict=True))
    wide = any(m.files.entries[key].code == "F64" for pair in sides for m, key in zip((a, b), pair, strict=True))
    sums = Sums.of(current.shape[0], torch.float64 if wide else torch.float32)
    for key_a, key_b in sides:
        placed = read_placed(b, key_b, others)
        whole = a.files.read(a.files.entries[key_a])
        for one in group_places(a.slots[key_a].spec, stack.inner):
            sums.add(unfold(whole, one), unfold(placed, one))
        for model, key, squares in ((a, key_a, sums.squares_a), (b, key_b, sums.squares_b)):
            if not bool(squares.isfinite().all()):
                check_tensor(model.files.entries[key], model.files.read(model.files.entries[key]))
        if told is not None and place == expert:
            told(a.files.entries[key_a].size + b.files.entries[key_b].size)
    pairs.squares_a[place], pairs.squares_b[expert] = float(sums.squares_a.sum()), float(sums.squares_b.sum())
    pairs.depth = max(pairs.depth, sums.depth)
    return solved(stack.inner, sums, current, always)


def _shared(stack: Stack, experts: int, a: Model, b: Model, others: Setting) -> tuple[torch.Tensor, float]:
    """Products of what each place and each expert own elsewhere, (experts, experts) float64, and the squares."""
    scores = torch.zeros((experts, experts), dtype=torch.float64)
    norms = 0.0
    for key in stack.shared:
        placed = read_placed(b, key, others)
        whole = a.files.read(a.files.entries[key])
        check_tensor(a.files.entries[key], whole)
        check_tensor(b.files.entries[key], placed)
        for one in group_places(a.slots[key].spec, stack.outer):
            rows_a, rows_b = unfold(whole, one).double(), unfold(placed, one).double()
            scores += rows_a @ rows_b.T
            norms += float(rows_a.square().sum() + rows_b.square().sum())
    return scores, norms


def _chosen(pairs: _Pairs, shared: torch.Tensor, outer: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Which expert comes to each place; those there already unless others are worth more than rounding."""
    scores = shared.clone()
    for (place, expert), found in pairs.best.items():
        scores[place, expert] += found.after
    best = solve_assignment(scores)
    rows = torch.arange(scores.shape[0])
    lengths: Mapping[int, float] = {k: math.sqrt(value) for k, value in pairs.squares_b.items()}
    doubt = math.fsum(
        math.sqrt(pairs.squares_a[i]) * (lengths[int(best.columns[i])] + lengths[int(outer[i])])
        for i in range(scores.shape[0])
        if best.columns[i] != outer[i]
    )
    gain = float(scores[rows, best.columns].sum() - scores[rows, outer].sum())
    if gain <= torch.finfo(torch.float32).eps * math.sqrt(pairs.depth) * doubt:
        return outer, float(best.gap)
    return best.columns, float(best.gap)
