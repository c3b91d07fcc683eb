"""A group's scores from its parts; products are kept, and brought up to date by the columns that have moved.

A part's product depends only on the permutations of the *other* groups in its tensor. While they stand, it is used as
it is. Where few of the other group's units have moved since, only the columns of those units are multiplied, their
new values less their old ones (an update of rank r). Otherwise it is computed anew.

*Drift.* An update adds the rounding of a dot product over the columns it touches, as a product of that many columns
has it, so a product that was updated with c columns since it was computed is as exact as one of depth + c columns.
Once c exceeds ``DRIFT`` times its depth it is computed anew. Before a descent may end, every updated product is probed
as well (:meth:`ScoreTable.refresh_drifted`): a product with a random vector costs O(n d) instead of O(n^2 d), and
compares the kept matrix with the weights themselves (Freivalds, *Probabilistic machines can use less running time*,
1977).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..terms import Term, add_products
from .objective import Alignment
from .problem import Part, Problem
from .units import empty, unit_differences

KEPT_BYTES = 1 << 30
WORTH_KEEPING = 1 << 21  # multiply-adds: a smaller product costs less than the bookkeeping
WORTH_UPDATING = 1 << 21  # multiply-adds that an update must save, or gathering its columns and probing it cost more
SHALLOW = 32  # a product of this depth costs about as much as adding a kept matrix
FEW_COLUMNS = 0.75  # share of the columns up to which an update pays: it breaks even at about 0.8 to 0.9
DRIFT = 4.0
PROBED = 128  # columns that a probe squares at a time: the cache holds them
PROBE_TOLERANCE = 64.0  # in units of the float32 rounding of a row's norm; a fresh product stays below 2

Stamp = tuple[torch.Tensor, ...]


def same(before: Stamp, now: Stamp) -> bool:
    """Whether two stamps (permutations of the same groups, never changed in place) are equal."""
    return all(x is y or torch.equal(x, y) for x, y in zip(before, now, strict=True))


@dataclass
class Kept:
    """The product of one part, (n, n): rows are units of A, columns units of B as stored.

    ``stamp``: the permutations that it holds for; ``columns``: how many were updated since it was computed.
    """

    stamp: Stamp
    matrix: torch.Tensor
    columns: int = 0


class ScoreTable:
    """Builds score matrices for the groups of a problem. To be used inside ``terms.full_precision``.

    Which products are kept is settled at the start: the deepest first, for they save the most work per byte, as far as
    ``budget`` bytes go. Small and shallow ones are never kept.
    """

    def __init__(self, problem: Problem, budget: int = KEPT_BYTES) -> None:
        self._problem = problem
        self._kept: dict[tuple[str, int], Kept | None] = dict.fromkeys(worth_keeping(problem, budget))
        self._terms: dict[tuple[str, int], tuple[torch.Tensor, Term]] = {}
        self._memory: dict[tuple[torch.dtype, torch.device], torch.Tensor] = {}

    def scores(self, group: str, alignment: Alignment, settled: frozenset[str] | None = None) -> torch.Tensor:
        """The (n, n) score matrix of a group on the CPU: rows are units of A, columns units of B as stored.

        ``settled``: use only the parts all of whose other groups are in it. float32, or float64 where the
        group owns a float64 tensor.
        """
        problem = self._problem
        used = [
            (index, part)
            for index, part in enumerate(problem.parts[group])
            if settled is None or settled.issuperset(part.dependencies)
        ]
        kept = [self._product(group, *entry, alignment) for entry in used if (group, entry[0]) in self._kept]
        others = [entry for entry in used if (group, entry[0]) not in self._kept]
        still: list[Term] = []
        scores: torch.Tensor | None = None
        if any(part.dependencies for _, part in others):
            aligned = [self._term(group, k, part, alignment.tensor(part.tensor.name)) for k, part in others]
            scores = alignment.as_stored(group, self._add(group, aligned, None, alignment))
        else:
            still = [self._term(group, k, part, part.tensor.b) for k, part in others]
        if scores is None and kept:
            # What is kept must not be added to.
            scores = kept.pop() if len(kept) == 1 and not still else kept.pop().clone()
        for matrix in kept:
            scores = matrix if scores is None else scores.add_(matrix)
        return self._add(group, still, scores, alignment).cpu()

    def _add(self, group: str, terms: list[Term], out: torch.Tensor | None, alignment: Alignment) -> torch.Tensor:
        n = self._problem.size(group)
        alignment.counts.computed += len(terms)
        alignment.counts.multiplied += n * n * sum(term.depth for term in terms)
        return add_products(terms, n, self._problem.precision[group], out)

    def _product(self, group: str, index: int, part: Part, alignment: Alignment) -> torch.Tensor:
        """The kept product of a part, brought up to date."""
        stamp = tuple(alignment.permutations[name] for name in part.dependencies)
        kept = self._kept[group, index]
        if kept is not None and same(kept.stamp, stamp):
            alignment.counts.kept += 1
            return kept.matrix
        self._kept[group, index] = None  # an interrupt must not leave a matrix that its stamp does not fit
        if kept is None or not self._update(part, kept, stamp, alignment):
            product = self._add(
                group, [self._term(group, index, part, alignment.tensor(part.tensor.name))], None, alignment
            )
            kept = Kept(stamp, alignment.as_stored(group, product))
        self._kept[group, index] = kept
        return kept.matrix

    def _term(self, group: str, index: int, part: Part, tensor: torch.Tensor) -> Term:
        """The part as a term; ``tensor``: B's, with all of its units aligned, or as stored."""
        before = self._terms.get((group, index))
        if before is not None and before[0] is tensor:  # moved in place, so its views hold
            return before[1]
        term = Term(part.rows_a, part.rows(tensor), part.tensor.weight)
        if term.b.data_ptr() == tensor.data_ptr():  # a view
            self._terms[group, index] = tensor, term
        return term

    def _update(self, part: Part, kept: Kept, stamp: Stamp, alignment: Alignment) -> bool:
        """Bring a kept product up to date by the columns that have moved, if that is cheaper than anew."""
        axis_of = part.tensor.storage.axis_of
        if axis_of is None or len(part.dependencies) != 1:
            return False
        (before,), (now,) = kept.stamp, stamp
        moved = int(torch.count_nonzero(before != now))
        columns = columns_to_update(part, kept.matrix.numel(), kept.columns, moved / now.shape[0])
        if not columns:
            return False
        axis = axis_of[part.dependencies[0]]
        shape = list(part.tensor.a.shape)
        shape[axis] = moved
        a, b = self._scratch(shape, part.tensor.a)
        unit_differences(before, now, (part.tensor.a, part.tensor.b, axis), a, b)
        alignment.counts.gathered += 3 * a.numel() * a.element_size()
        term = Term(part.rows(a), part.rows(b), part.tensor.weight)
        add_products([term], kept.matrix.shape[0], out=kept.matrix)
        kept.stamp, kept.columns = stamp, kept.columns + columns
        alignment.counts.updated += 1
        alignment.counts.multiplied += kept.matrix.numel() * columns
        return True

    def _scratch(self, shape: list[int], like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Two tensors of a shape, in memory that stays between calls."""
        numbers = math.prod(shape)
        key = like.dtype, like.device
        if key not in self._memory or self._memory[key].shape[0] < 2 * numbers:
            self._memory[key] = empty(2 * numbers, *key)
        memory = self._memory[key]
        return memory[:numbers].view(shape), memory[numbers : 2 * numbers].view(shape)

    def refresh_drifted(self, alignment: Alignment, seed: int = 0) -> set[str]:
        """Probe every updated product and drop those that have drifted; the groups whose scores that changes."""
        drifted: set[str] = set()
        if all(kept is None or not kept.columns for kept in self._kept.values()):
            return drifted
        generator = torch.Generator().manual_seed(seed)
        for (group, index), kept in self._kept.items():
            if kept is None or not kept.columns:
                continue
            alignment.counts.rechecked += 1
            part = self._problem.parts[group][index]
            signs = random_signs(kept.matrix.shape[0], generator).to(kept.matrix)
            placed = signs[alignment.permutations[group].to(signs.device)]
            if float(drift(part, kept.matrix, alignment.tensor(part.tensor.name), signs, placed)) > PROBE_TOLERANCE:
                self._kept[group, index] = None
                drifted.add(group)
            else:
                kept.columns = 0
        return drifted


def columns_to_update(part: Part, entries: int, updated: int, share: float, products: int = 1) -> int:
    """How many columns a kept product of ``entries`` numbers is updated by; 0 where it is better computed anew.

    ``updated``: columns that it was updated by since it was computed; ``share``: of the other group's units, those that
    have moved; ``products``: how many are formed of each column.
    """
    depth = part.place.depth
    columns = products * round(share * depth)
    if products * share > FEW_COLUMNS or (depth - columns) * entries < WORTH_UPDATING:
        return 0
    return 0 if updated + columns > DRIFT * depth else columns


def random_signs(count: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 2, (count,), generator=generator) * 2 - 1


def drift(part: Part, matrix: torch.Tensor, b: torch.Tensor, signs: torch.Tensor, placed: torch.Tensor) -> torch.Tensor:
    """How far a kept product is off from the weights, by a product of both with a random vector of signs.

    In units of 2^-24 |a_i| |B|, row by row, the largest: the rounding that one float32 product of the row makes.
    ``b``: B's tensor with the other groups' units where the product has them; ``signs``: for the columns of the
    product, ``placed``: the same for the group's units in ``b``, both in the product's dtype.
    """
    rows_a, rows_b = (part.rows(tensor).to(matrix.dtype) for tensor in (part.tensor.a, b))
    off = matrix @ signs - part.tensor.weight * (rows_a @ (rows_b.T @ placed))
    unit = 2.0**-24 * part.tensor.weight * part.tensor.figures.square_b**0.5
    steps: torch.Tensor = off.abs() / (_lengths(rows_a) * unit).clamp_min(1e-300)
    return steps.max()


def _lengths(rows: torch.Tensor) -> torch.Tensor:
    """The norms of a matrix's rows; ``vector_norm`` takes 16 times as long where the rows lie side by side."""
    squares = rows.new_zeros(rows.shape[0])
    for start in range(0, rows.shape[1], PROBED):
        squares += rows[:, start : start + PROBED].square().sum(dim=1)
    return squares.sqrt()


def worth_keeping(problem: Problem, budget: int) -> list[tuple[str, int]]:
    """Keys (group, index of part) of the products that are kept within ``budget`` bytes, the deepest first."""
    candidates = [
        (part.place.depth, group, index)
        for group in problem.groups
        for index, part in enumerate(problem.parts[group])
        if part.place.depth > SHALLOW and part.place.depth * problem.size(group) ** 2 > WORTH_KEEPING
    ]
    chosen = []
    for _, group, index in sorted(candidates, key=lambda entry: -entry[0]):
        size = problem.size(group)
        needed = size * size * (8 if problem.precision[group] == "float64" else 4)
        if needed <= budget:
            budget -= needed
            chosen.append((group, index))
    return chosen
