"""A checkpoint as a spec sees it, what a visit finds, and the sums that a visit solves."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch

from ..assignment import solve_assignment
from ..errors import InfeasibleError, InvalidParamsError, InvalidScoresError
from ..io.shards import Entry, LazyCheckpoint
from ..spec import check_finite
from ..spec.names import NameMap
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


def read_placed(model: Model, key: str, setting: Setting) -> torch.Tensor:
    """A key's tensor as a setting places it; what it then holds may come from another key."""
    slot = model.slots[key]
    entry = model.files.entries[slot.source(setting)]
    return slot.permute(model.files.read(entry), setting) if slot.moves(setting) else model.files.read(entry)


@dataclass
class Sums:
    """Scores of a group, rows of A by units of B, and the squares that bound their rounding."""

    scores: torch.Tensor
    squares_a: torch.Tensor
    squares_b: torch.Tensor
    depth: int = 0

    @classmethod
    def of(cls, n: int, dtype: torch.dtype) -> Sums:
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


def check_tensor(entry: Entry, tensor: torch.Tensor) -> None:
    """``InvalidParamsError`` naming the file and the tensor where it is not finite."""
    try:
        check_finite({entry.key: tensor}, str(entry.path))
    except InvalidParamsError as error:
        raise InvalidParamsError(str(error), entry.key) from None


def solved(group: str, sums: Sums, current: torch.Tensor, always: bool) -> Found:
    """The best permutation, taken where it gains more than the products' rounding (or ``always``)."""
    rows = torch.arange(current.shape[0])
    try:
        best = solve_assignment(sums.scores)
    except (InvalidScoresError, InfeasibleError) as error:
        raise InvalidParamsError(f"the scores of group {group!r} overflow: the weights are too large") from error
    columns = best.columns
    before, after = (float(sums.scores[rows, p].double().sum()) for p in (current, columns))
    eps = torch.finfo(sums.scores.dtype).eps * math.sqrt(max(1, sums.depth))
    changed = columns != current
    lengths_b = sums.squares_b.sqrt()
    doubt = sums.squares_a.sqrt() * (lengths_b[columns] + lengths_b[current])
    if not always and after - before <= eps * float(doubt[changed].sum()):
        columns, after = current, before
    norms = float(sums.squares_a.sum() + sums.squares_b.sum())
    moved = int((columns != current).sum())
    return Found({group: columns}, before, after, norms, float(best.gap), moved, current.shape[0])
