"""A group's scores from its parts, with the products kept that still hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..terms import accumulate
from .problem import Part, Problem

KEPT_BYTES = 1 << 30
SHALLOW = 16  # a product of this depth costs about as much as reading a kept matrix

Stamp = tuple[torch.Tensor, ...]


def same(before: Stamp, now: Stamp) -> bool:
    """Whether two stamps (permutations of the same groups, never changed in place) are equal."""
    return all(x is y or torch.equal(x, y) for x, y in zip(before, now, strict=True))


@dataclass
class Kept:
    """The product of one part. ``stamp``: the permutations that it was made with; ``matrix``: (n, n)."""

    stamp: Stamp
    matrix: torch.Tensor


@dataclass
class Counts:
    """How many products were computed, and how many were taken as kept."""

    computed: int = 0
    kept: int = 0


class ScoreTable:
    """Builds score matrices for the groups of a problem.

    A part's product depends only on the permutations of the *other* groups in its tensor, so it is kept and
    used again until one of them moves, which the permutations that it was made with tell. Which products are
    kept is settled at the start: the deepest first, for they save the most work per byte, as far as
    ``budget`` bytes go. Shallow parts are never kept, since reading a matrix costs as much as such a product.
    """

    def __init__(self, problem: Problem, budget: int = KEPT_BYTES) -> None:
        self.counts = Counts()
        self._problem = problem
        self._kept: dict[tuple[str, int], Kept | None] = dict.fromkeys(_worth_keeping(problem, budget))

    def scores(
        self,
        group: str,
        permutations: Mapping[str, torch.Tensor],
        settled: frozenset[str] | None = None,
    ) -> torch.Tensor:
        """The (n, n) score matrix of a group on the CPU: rows are units of A, columns units of B as stored.

        ``settled``: use only the parts all of whose other groups are in it. float32, or float64 where the
        group owns a float64 tensor.
        """
        problem = self._problem
        n = problem.size(group)
        precision = problem.precision[group]
        scores: torch.Tensor | None = None
        for index, part in enumerate(problem.parts[group]):
            if settled is not None and not settled.issuperset(part.dependencies):
                continue
            if (group, index) in self._kept:
                matrix = self._product(group, index, part, permutations)
                scores = matrix.clone() if scores is None else scores.add_(matrix)
            else:
                self.counts.computed += 1
                scores = accumulate([part.term(permutations)], n, precision, out=scores)
        if scores is None:
            scores = accumulate([], n, precision)
        return scores.cpu()

    def _product(self, group: str, index: int, part: Part, permutations: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The kept product of a part, brought up to date."""
        stamp = tuple(permutations[name] for name in part.dependencies)
        kept = self._kept[group, index]
        if kept is not None and same(kept.stamp, stamp):
            self.counts.kept += 1
            return kept.matrix
        self.counts.computed += 1
        matrix = accumulate([part.term(permutations)], self._problem.size(group), self._problem.precision[group])
        self._kept[group, index] = Kept(stamp, matrix)
        return matrix


def _worth_keeping(problem: Problem, budget: int) -> list[tuple[str, int]]:
    """Keys (group, index of part) of the products that are kept within ``budget`` bytes, the deepest first."""
    candidates = [
        (part.place.depth, group, index)
        for group in problem.groups
        for index, part in enumerate(problem.parts[group])
        if part.place.depth > SHALLOW and len(problem.parts[group]) > 1
    ]
    chosen = []
    for _, group, index in sorted(candidates, key=lambda entry: -entry[0]):
        size = problem.size(group)
        needed = size * size * (8 if problem.precision[group] == "float64" else 4)
        if needed <= budget:
            budget -= needed
            chosen.append((group, index))
    return chosen
