"""B as permutations place it, what that is worth, and what a step would gain (true float64 gains, ``sums.py``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..spec.gather import permute_tensor
from .clock import Counts
from .problem import Permutations, Problem, Scored
from .sums import inner_product, inner_products, squared_distance
from .units import Block, move_units
from .units import rises as unit_rises

CANCELLED = 0.01  # a squared distance below this share of the squared norms has lost digits: it is summed directly


@dataclass(frozen=True)
class Placed:
    """One tensor of B as placed: its inner product with A's, float64, and how far rounding can have put that off."""

    tensor: torch.Tensor
    inner: float
    doubt: float


@dataclass(frozen=True)
class Move:
    """A step that is judged and not yet taken.

    ``changed``: how many units get another source. ``gain``: what the objective gains, float64; ``bound``: how far
    rounding can have put that off. ``rises``: what the inner product of each regular tensor gains; ``irregular``: the
    other tensors, after the step.
    """

    group: str
    permutation: torch.Tensor
    changed: int
    gain: float
    bound: float
    rises: Mapping[str, float]
    irregular: Mapping[str, Placed]


class Alignment:
    """Permutations, and the tensors of B as they place them.

    Scores are computed with these tensors, so a product needs no gather. A step reads each of its group's tensors once
    to be judged and, if it is taken, moves the units in place. Permutations are replaced, never changed in place; so
    are tensors that the alignment does not own (B's as stored, and those that :meth:`copy` shares).
    """

    def __init__(
        self, problem: Problem, permutations: Mapping[str, torch.Tensor], counts: Counts | None = None
    ) -> None:
        self.problem = problem
        self.counts = counts or Counts()
        self.permutations: Permutations = dict(permutations)
        self._owned: set[str] = set()
        self._blocks: dict[tuple[torch.dtype, torch.device], Block] = {}
        self._moved = {group for group, p in permutations.items() if not torch.equal(p, torch.arange(p.shape[-1]))}
        self._placed = {name: self._place(scored) for name, scored in problem.tensors.items()}

    def copy(self) -> Alignment:
        """Another alignment at the same point; both can move on by themselves."""
        twin = Alignment.__new__(Alignment)
        self._owned, twin._owned = set(), set()
        self._blocks, twin._blocks = {}, {}  # what is shared stays as it is
        twin.problem, twin.counts = self.problem, self.counts
        twin.permutations = dict(self.permutations)
        twin._moved, twin._placed = set(self._moved), dict(self._placed)
        return twin

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor of B as placed, its axes as held."""
        return self._placed[name].tensor

    def _place(self, scored: Scored) -> Placed:
        tensor, axis_of = scored.b, scored.storage.axis_of
        if axis_of is None:
            tensor = permute_tensor(self.problem.spec, scored.name, tensor, self.permutations)
        else:
            for group in axis_of.keys() & self._moved:
                tensor = self.gather(tensor, axis_of[group], self.permutations[group])
        if tensor is scored.b:
            return Placed(tensor, scored.figures.inner, scored.doubt)
        return Placed(tensor, inner_product(scored.a, tensor), scored.doubt)

    def gather(self, tensor: torch.Tensor, axis: int, index: torch.Tensor) -> torch.Tensor:
        """``index_select``, counted."""
        chosen = tensor.index_select(axis, index if tensor.is_cpu else index.to(tensor.device))
        self.counts.gathered += _bytes(chosen)
        return chosen

    def as_stored(self, group: str, scores: torch.Tensor) -> torch.Tensor:
        """Scores whose columns are the group's aligned units, with the columns in the order stored."""
        if group not in self._moved:
            return scores
        stored = torch.empty_like(scores)
        permutation = self.permutations[group]
        move_units(permutation, torch.arange(permutation.shape[0]), [(stored, scores, 1)])
        self.counts.gathered += _bytes(scores)
        return stored

    def propose(self, group: str, permutation: torch.Tensor) -> Move:
        """Judge a step of one group."""
        before = self.permutations[group]
        regular = [scored for scored in self.problem.tensors_of[group] if scored.storage.axis_of is not None]
        placed = [self._placed[scored.name].tensor for scored in regular]
        tensors = [(s.a, b, s.storage.axis_of[group]) for s, b in zip(regular, placed, strict=True)]  # type: ignore[index]
        changed, rises = unit_rises(before, permutation, tensors)
        if not changed:
            return Move(group, permutation, 0, 0.0, 0.0, {}, {})
        # A rise is a sum over a * (b_new - b_old), whose factors are at most |A| and 2 |B| long.
        gained = [scored.weight * rise for scored, rise in zip(regular, rises, strict=True)]
        bound = math.fsum(2.0 * scored.weight * scored.doubt for scored in regular)
        irregular = {}
        if len(regular) < len(self.problem.tensors_of[group]):
            irregular = self._irregular(group, permutation)
        for name, new in irregular.items():
            now, scored = self._placed[name], self.problem.tensors[name]
            gained.append(scored.weight * (new.inner - now.inner))
            bound += scored.weight * (now.doubt + new.doubt)
        by_name = {scored.name: rise for scored, rise in zip(regular, rises, strict=True)}
        return Move(group, permutation, changed, math.fsum(gained), bound, by_name, irregular)

    def _irregular(self, group: str, permutation: torch.Tensor) -> dict[str, Placed]:
        """The group's irregular tensors as a step would place them."""
        before = self.permutations[group]
        source = torch.empty_like(before).scatter_(0, before, torch.arange(before.shape[0]))[permutation]
        others = [name for name in self.problem.spec.groups if name != group]
        found = {}
        for scored in self.problem.tensors_of[group]:
            if scored.storage.axis_of is None:
                now = self._placed[scored.name].tensor
                new = permute_tensor(self.problem.spec, scored.name, now, {group: source}, skip=others)
                self.counts.gathered += _bytes(new)
                found[scored.name] = Placed(new, inner_product(scored.a, new), scored.doubt)
        return found

    def accept(self, move: Move) -> None:
        """Take the step."""
        if not move.changed:
            return
        moving = []
        for name, rise in move.rises.items():
            scored, now = self.problem.tensors[name], self._placed[name]
            to = now.tensor if name in self._owned else self._new(now.tensor, name)
            axis = scored.storage.axis_of[move.group]  # type: ignore[index]
            moving.append((to, now.tensor, axis))
            share = move.changed / move.permutation.shape[0] if name in self._owned else 1.0
            self.counts.gathered += round(share * _bytes(to))
            self._placed[name] = Placed(to, now.inner + rise, now.doubt + 2.0 * scored.doubt)
            self._owned.add(name)
        move_units(self.permutations[move.group], move.permutation, moving)
        self._placed.update(move.irregular)
        self.permutations[move.group] = move.permutation
        self._moved.add(move.group)

    def _new(self, like: torch.Tensor, name: str) -> torch.Tensor:
        """Memory for a tensor that the alignment is to own."""
        key = like.dtype, like.device
        if key not in self._blocks:
            tensors = self.problem.tensors.values()
            shapes = {s.name: s.a.shape for s in tensors if (s.a.dtype, s.a.device) == key}
            self._blocks[key] = Block(shapes, *key)
        return self._blocks[key].tensor(name)

    def objective(self) -> float:
        """Sum over the scored tensors of ``weight * <A, pi(B)>``, in float64: no running sums, whole inner products."""
        tensors = self.problem.tensors
        summed = [name for name, now in self._placed.items() if now.doubt > tensors[name].doubt]  # a sum of steps
        whole = inner_products([(tensors[name].a, self._placed[name].tensor) for name in summed])
        for name, inner in zip(summed, whole, strict=True):
            self._placed[name] = Placed(self._placed[name].tensor, inner, tensors[name].doubt)
        return math.fsum(tensors[name].weight * now.inner for name, now in self._placed.items())

    def distance(self, objective: float) -> float:
        """Euclidean distance of A and pi(B) over the scored tensors, weights applied to the squares, in float64."""
        return distance_of(self.problem, objective, {name: placed.tensor for name, placed in self._placed.items()})


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def distance_as_stored(problem: Problem) -> float:
    """Euclidean distance of A and B, as :meth:`Alignment.distance` of the identity."""
    tensors = problem.tensors
    inner = math.fsum(scored.weight * scored.figures.inner for scored in tensors.values())
    return distance_of(problem, inner, {name: scored.b for name, scored in tensors.items()})


def distance_of(problem: Problem, objective: float, placed: Mapping[str, torch.Tensor]) -> float:
    """|A - B| from the norms and <A, B>, or where they cancel from the differences."""
    tensors = problem.tensors.values()
    norms = math.fsum(s.weight * (s.figures.square_a + s.figures.square_b) for s in tensors)
    square = norms - 2.0 * objective
    if square < CANCELLED * norms:
        square = math.fsum(s.weight * squared_distance(s.a, placed[s.name]) for s in tensors)
    return math.sqrt(square)


def objective(problem: Problem, permutations: Mapping[str, torch.Tensor]) -> float:
    """Sum over the scored tensors of ``weight * <A, pi(B)>``, in float64."""
    return Alignment(problem, permutations).objective()


def gain(
    problem: Problem, group: str, permutations: Mapping[str, torch.Tensor], proposed: torch.Tensor
) -> tuple[float, float]:
    """What the objective gains if ``group`` moves to ``proposed``, and the bound on the rounding of that figure."""
    move = Alignment(problem, permutations).propose(group, proposed)
    return move.gain, move.bound
