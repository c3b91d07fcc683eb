"""The objective and its changes, in float64, with bounds on their rounding.

The objective of permutations pi is the sum over the scored tensors of ``weight * <A, pi(B)>``. A step of the
descent counts only if its *true* gain, the difference of two objectives, exceeds what rounding can have made
of it. The float32 scores that proposed the step are never asked.

Rounding. A dot product of d float64 numbers, added in whatever order, is off by at most gamma(d) * |x| |y|,
with gamma(d) = d u / (1 - d u), u = 2^-53 and |.| the Euclidean norm (Higham, *Accuracy and Stability of
Numerical Algorithms*, 2nd ed., section 3.1, and Cauchy-Schwarz). The gain is the sum over chunks of at most c
products a * (b_new - b_old): the stored values are exact in float64, the difference, the weight and the
factor are one rounding each, and k chunks are added with k - 1 further ones, so with x and y the two factors
of a chunk

    |computed - true gain| <= gamma(c + k + 3) * sum over chunks of weight |x| |y|.

A gain beyond that bound is positive in exact arithmetic on the stored values, so every accepted step raises
the exact objective and the descent cannot cycle.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch

from ..spec.gather import permute_tensor
from ..spec.places import unfold, unfold_permuted
from .problem import Problem, Scored

CHUNK = 1 << 16  # products of one dot: small enough to stay in cache, and the rounding bound grows with it
UNIT_ROUNDOFF = 2.0**-53


class Sum64:
    """A float64 sum of dot products with its rounding bound (module docstring)."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self._magnitude = 0.0
        self._longest = 0

    def add(self, x: torch.Tensor, y: torch.Tensor, weight: float = 1.0) -> None:
        """Add ``weight * <x, y>``; x and y are 1-D float64."""
        self._values.append(weight * float(torch.dot(x, y)))
        self._magnitude += weight * math.sqrt(float(torch.dot(x, x)) * float(torch.dot(y, y)))
        self._longest = max(self._longest, x.shape[0])

    @property
    def value(self) -> float:
        return math.fsum(self._values)

    @property
    def bound(self) -> float:
        """No exact sum is further than this from ``value``.

        Doubled, which covers the rounding of the norms and of the bound itself many times over.
        """
        terms = (self._longest + len(self._values) + 3) * UNIT_ROUNDOFF
        return 2.0 * terms / (1.0 - terms) * self._magnitude


def chunks(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Tensors of one shape as aligned flat float64 pieces of at most ``CHUNK`` numbers."""
    flat = [tensor.reshape(-1) for tensor in tensors]
    for start in range(0, flat[0].shape[0], CHUNK):
        yield tuple(piece[start : start + CHUNK].double() for piece in flat)


def aligned(problem: Problem, scored: Scored, permutations: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """pi(B) of one tensor."""
    return permute_tensor(problem.spec, scored.name, scored.b, permutations)


def objective(problem: Problem, permutations: Mapping[str, torch.Tensor]) -> float:
    """Sum over the scored tensors of ``weight * <A, pi(B)>``, in float64."""
    values = [
        scored.weight * float(torch.dot(a, b))
        for scored in problem.tensors.values()
        for a, b in chunks(scored.a, aligned(problem, scored, permutations))
    ]
    return math.fsum(values)


def distance(problem: Problem, permutations: Mapping[str, torch.Tensor]) -> float:
    """Euclidean distance of A and pi(B) over the scored tensors, weights applied to the squares, in float64."""
    squares = []
    for scored in problem.tensors.values():
        for a, b in chunks(scored.a, aligned(problem, scored, permutations)):
            difference = a - b  # never in place: a float64 chunk is the caller's own memory
            squares.append(scored.weight * float(torch.dot(difference, difference)))
    return math.sqrt(math.fsum(squares))


def gain(
    problem: Problem, group: str, permutations: Mapping[str, torch.Tensor], proposed: torch.Tensor
) -> tuple[float, float]:
    """What the objective gains if ``group`` moves to ``proposed``, and the bound on the rounding of that figure."""
    total = Sum64()
    if group in problem.quadratic:
        _add_tensors(problem, group, permutations, proposed, total)
    else:
        _add_units(problem, group, permutations, proposed, total)
    return total.value, total.bound


def _add_units(
    problem: Problem, group: str, permutations: Mapping[str, torch.Tensor], proposed: torch.Tensor, total: Sum64
) -> None:
    """The gain over the units that change their source; all others contribute nothing."""
    current = permutations[group]
    changed = torch.nonzero(current != proposed).squeeze(1)
    for part in problem.parts[group]:
        rows = max(1, CHUNK * 4 // max(1, part.place.depth))
        for units in torch.split(changed, rows):
            device = part.a.device
            a = unfold(part.a, part.place, units.to(device))
            new = unfold_permuted(part.b, part.place, permutations, proposed[units].to(device))
            old = unfold_permuted(part.b, part.place, permutations, current[units].to(device))
            for x, y, z in chunks(a, new, old):
                total.add(x, y - z, part.weight)


def _add_tensors(
    problem: Problem, group: str, permutations: Mapping[str, torch.Tensor], proposed: torch.Tensor, total: Sum64
) -> None:
    """The gain over whole tensors: where the group stands on two axes of one, its units do not add up."""
    moved = {**permutations, group: proposed}
    for scored in problem.tensors_of(group):
        new = aligned(problem, scored, moved)
        old = aligned(problem, scored, permutations)
        for x, y, z in chunks(scored.a, new, old):
            total.add(x, y - z, scored.weight)
