"""One family of groups matched from files: its tensors are read, scored and forgotten, one after the other.

A plain group (units of a feed-forward layer, a residual stream) needs its score matrix and one tensor of A and B at a
time. A family with nested or several groups (heads) is held in memory, and matched as any network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch

from ..assignment import solve_assignment
from ..errors import CheckpointError, InfeasibleError, InvalidParamsError, InvalidScoresError
from ..io.shards import Entry, LazyCheckpoint
from ..matching import weight_matching
from ..spec import check_finite, group_places, unfold
from ..spec.names import NameMap
from ..terms import full_precision
from .families import Family
from .slots import Setting, Slot

CHUNK_BYTES = 1 << 27
"""Of a tensor in float32 that is multiplied at a time."""


@dataclass(frozen=True)
class Model:
    """A checkpoint as the spec sees it: ``slots`` of its keys, ``names`` that lead from keys to the spec's tensors."""

    files: LazyCheckpoint
    names: NameMap
    slots: Mapping[str, Slot]

    def keys_of(self, tensors: Collection[str]) -> list[str]:
        """The keys that hold the tensors, each once, in the order of the files."""
        wanted = {key for name in tensors for key in self.names.sources[name].keys}
        return [key for key in self.files.entries if key in wanted]


@dataclass(frozen=True)
class Found:
    """What a visit found: the permutations of the family's groups, {group: int64 (*sizes of within, size)}.

    ``before`` and ``after``: sum over the family's tensors of <A, B> as B stood before and as it is placed now;
    ``norms``: sum of their squares; ``gap`` of the last assignments; ``moved`` of ``units`` changed their place.
    """

    permutations: dict[str, torch.Tensor]
    before: float
    after: float
    norms: float
    gap: float
    moved: int
    units: int

    @property
    def distances(self) -> tuple[float, float]:
        """Euclidean distance of A and B over the family's tensors, before and after."""
        squares = (max(0.0, self.norms - 2.0 * value) for value in (self.before, self.after))
        before, after = (math.sqrt(square) for square in squares)
        return before, after

    @property
    def cosine(self) -> tuple[float, float]:
        """2 <A, B> / (|A|^2 + |B|^2), before and after: 1 where both are equal."""
        return (2 * self.before / self.norms, 2 * self.after / self.norms) if self.norms else (1.0, 1.0)


Told = Callable[[int], object]
"""Told of bytes that were read."""


def visit(
    family: Family,
    a: Model,
    b: Model,
    setting: Setting | None = None,
    settled: Collection[str] | None = None,
    told: Told | None = None,
) -> Found:
    """Match one family, all other groups as ``setting`` places them (default: where they are).

    ``settled``: score only tensors all of whose other groups are in it, as in the start of a descent; the result is
    then taken whatever it is worth on the others. Raises ``InvalidParamsError`` naming file and tensor.
    """
    others = {name: index for name, index in (setting or {}).items() if name not in family.groups}
    now = {name: index for name, index in (setting or {}).items() if name in family.groups}
    with torch.no_grad(), full_precision():
        if family.is_plain:
            return _plain(family, a, b, others, now, settled, told)
        return _whole(family, a, b, others, now, told)


def read_placed(model: Model, key: str, setting: Setting) -> torch.Tensor:
    """A key's tensor as a setting places it; what it then holds may come from another key."""
    slot = model.slots[key]
    entry = model.files.entries[slot.source(setting)]
    return slot.permute(model.files.read(entry), setting) if slot.moves(setting) else model.files.read(entry)


# ---- plain groups


@dataclass
class _Sums:
    """Scores of a group, rows of A by units of B, and the squares that bound their rounding."""

    scores: torch.Tensor
    squares_a: torch.Tensor
    squares_b: torch.Tensor
    depth: int = 0

    @classmethod
    def of(cls, n: int, dtype: torch.dtype) -> _Sums:
        squares = torch.zeros((2, n), dtype=torch.float64)
        return cls(torch.zeros((n, n), dtype=dtype), squares[0], squares[1])

    def add(self, a: torch.Tensor, b: torch.Tensor) -> None:
        """Add the products of the units of A and B, both (n, depth) of any floating dtype."""
        n, depth = a.shape
        step = max(1, CHUNK_BYTES // (self.scores.element_size() * n))
        for start in range(0, depth, step):
            part_a, part_b = (t[:, start : start + step].to(self.scores.dtype) for t in (a, b))
            self.scores.addmm_(part_a, part_b.T)
            self.squares_a += part_a.square().sum(dim=1)
            self.squares_b += part_b.square().sum(dim=1)
        self.depth += depth


def _plain(
    family: Family,
    a: Model,
    b: Model,
    others: Setting,
    now: Setting,
    settled: Collection[str] | None,
    told: Told | None,
) -> Found:
    group = family.groups[0]
    n = family.spec.sizes[group]
    keys = _scored_keys(family, a, others.keys() if settled is None else settled, settled is not None)
    wide = any(m.files.entries[key].code == "F64" for m in (a, b) for key in keys)
    sums = _Sums.of(n, torch.float64 if wide else torch.float32)
    for at, key in enumerate(keys):
        if at + 1 < len(keys):
            for model in (a, b):
                model.files.want(model.files.entries[keys[at + 1]])
        _add_key(sums, group, key, a, b, others, told)
    current = now.get(group, torch.arange(n))
    return _solved(group, sums, current, settled is not None)


def _scored_keys(family: Family, model: Model, known: Collection[str], partial: bool) -> list[str]:
    """The keys that count: floating ones of tensors that are no buffers; with ``partial`` those of known neighbours."""
    tensors = [t for t in family.tensors if t not in family.spec.buffers and t not in family.spec.tied]
    keys = [key for key in model.keys_of(tensors) if model.files.entries[key].is_floating]
    if not partial:
        return keys
    free = {name for name in known} | set(family.groups)
    return [key for key in keys if free.issuperset(_groups_on(model.slots[key]))]


def _groups_on(slot: Slot) -> set[str]:
    movable = {name for name, group in slot.spec.groups.items() if not group.fixed}
    return movable | ({slot.order} if slot.order is not None else set())


def _add_key(sums: _Sums, group: str, key: str, a: Model, b: Model, others: Setting, told: Told | None) -> None:
    placed = read_placed(b, key, others)
    whole = a.files.read(a.files.entries[key])
    for place in group_places(a.slots[key].spec, group):
        sums.add(unfold(whole, place), unfold(placed, place))
    for model, squares in ((a, sums.squares_a), (b, sums.squares_b)):
        if not bool(squares.isfinite().all()):
            tensor = model.files.read(model.files.entries[model.slots[key].source(others if model is b else {})])
            check_tensor(model.files.entries[key], tensor)
    if told is not None:
        told(a.files.entries[key].size + b.files.entries[key].size)


def check_tensor(entry: Entry, tensor: torch.Tensor) -> None:
    """``InvalidParamsError`` naming the file and the tensor where it is not finite."""
    try:
        check_finite({entry.key: tensor}, str(entry.path))
    except InvalidParamsError as error:
        raise InvalidParamsError(str(error), entry.key) from None


def _solved(group: str, sums: _Sums, current: torch.Tensor, always: bool) -> Found:
    """The best permutation, taken where it gains more than the products' rounding (or ``always``)."""
    rows = torch.arange(current.shape[0])
    try:
        solved = solve_assignment(sums.scores)
    except (InvalidScoresError, InfeasibleError) as error:
        raise InvalidParamsError(f"the scores of group {group!r} overflow: the weights are too large") from error
    columns = solved.columns
    before, after = (float(sums.scores[rows, p].double().sum()) for p in (current, columns))
    eps = torch.finfo(sums.scores.dtype).eps * math.sqrt(max(1, sums.depth))
    changed = columns != current
    lengths_b = sums.squares_b.sqrt()
    doubt = sums.squares_a.sqrt() * (lengths_b[columns] + lengths_b[current])
    if not always and after - before <= eps * float(doubt[changed].sum()):
        columns, after = current, before
    norms = float(sums.squares_a.sum() + sums.squares_b.sum())
    moved = int((columns != current).sum())
    return Found({group: columns}, before, after, norms, float(solved.gap), moved, current.shape[0])


# ---- families that are held in memory


def _whole(family: Family, a: Model, b: Model, others: Setting, now: Setting, told: Told | None) -> Found:
    params_a = assembled(family, a, {}, told)
    params_b = assembled(family, b, others, told)
    for params, model in ((params_a, a), (params_b, b)):
        for name, tensor in params.items():
            _check_held(model, name, tensor)
    init = dict(now) or None
    result = weight_matching(family.spec, params_a, params_b, init=init)
    start = result.starts.get("init", result.starts["identity"])
    scored = [t for t in family.tensors if t not in family.spec.buffers and t not in family.spec.tied]
    norms = math.fsum(float(p[t].double().square().sum()) for p in (params_a, params_b) for t in scored)
    identity = family.spec.identity()
    found = {name: result.permutations[name] for name in family.groups}
    moved = sum(int((index != now.get(name, identity[name])).sum()) for name, index in found.items())
    units = sum(index.numel() for index in found.values())
    return Found(found, start, result.objective, norms, result.gap, moved, units)


def assembled(family: Family, model: Model, others: Setting, told: Told | None = None) -> dict[str, torch.Tensor]:
    """The family's tensors as the spec names them, with ``others`` placed."""
    sources = {name: model.names.sources[name] for name in family.tensors}
    keys = model.keys_of(family.tensors)
    for key in keys:
        model.files.want(model.files.entries[key])
    held = {}
    for key in keys:
        held[key] = read_placed(model, key, others)
        if told is not None:
            told(model.files.entries[key].size)
    return NameMap(sources).to_module(held)


def _check_held(model: Model, name: str, tensor: torch.Tensor) -> None:
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float().sum())):
        for key in model.names.sources[name].keys:
            entry = model.files.entries[key]
            check_tensor(entry, model.files.read(entry))
    elif tensor.is_complex():
        raise CheckpointError(f"{model.files.path}: tensor {name!r} is complex", str(model.files.path))
