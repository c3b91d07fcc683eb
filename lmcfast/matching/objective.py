"""B as permutations place it, what that is worth, and what a step would gain (true float64 gains, ``sums.py``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..spec.gather import permute_tensor
from .clock import Counts
from .problem import Permutations, Problem, Scored
from .sums import difference, inner_product, squared_distance

FEW = 0.3  # share of a group's units up to which a step gathers only the units that change
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
    rounding can have put that off. ``tensors``: the group's tensors after it; where ``units`` is given only those
    units of them, along the axis given.
    """

    group: str
    permutation: torch.Tensor
    changed: int
    gain: float
    bound: float
    tensors: Mapping[str, tuple[Placed, int | None]]
    units: torch.Tensor


class Alignment:
    """Permutations, and the tensors of B as they place them.

    Scores are computed with these tensors, so a product needs no gather, and a step gathers each of its group's
    tensors once, along one axis. Permutations are replaced, never changed in place; so are tensors that the alignment
    does not own (B's as stored, and those that :meth:`copy` shares).
    """

    def __init__(
        self, problem: Problem, permutations: Mapping[str, torch.Tensor], counts: Counts | None = None
    ) -> None:
        self.problem = problem
        self.counts = counts or Counts()
        self.permutations: Permutations = dict(permutations)
        self._inverses: Permutations = {}
        self._owned: set[str] = set()
        self._moved = {group for group, p in permutations.items() if not torch.equal(p, torch.arange(p.shape[-1]))}
        self._placed = {name: self._place(scored) for name, scored in problem.tensors.items()}

    def copy(self) -> Alignment:
        """Another alignment at the same point; both can move on by themselves."""
        twin = Alignment.__new__(Alignment)
        self._owned, twin._owned = set(), set()
        twin.problem, twin.counts = self.problem, self.counts
        twin.permutations, twin._inverses = dict(self.permutations), dict(self._inverses)
        twin._moved, twin._placed = set(self._moved), dict(self._placed)
        return twin

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor of B as placed, its axes as held."""
        return self._placed[name].tensor

    def inverse(self, group: str) -> torch.Tensor:
        """Where each unit of B lies in the aligned tensors: ``inverse[p[i]] = i``."""
        if group not in self._inverses:
            p = self.permutations[group]
            self._inverses[group] = torch.empty_like(p).scatter_(0, p, torch.arange(p.shape[0]))
        return self._inverses[group]

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
        self.counts.gathered += chosen.numel() * chosen.element_size()
        return chosen

    def as_stored(self, group: str, scores: torch.Tensor) -> torch.Tensor:
        """Scores whose columns are the group's aligned units, with the columns in the order stored."""
        return self.gather(scores, 1, self.inverse(group)) if group in self._moved else scores

    def propose(self, group: str, permutation: torch.Tensor) -> Move:
        """Judge a step of one group."""
        units = (permutation != self.permutations[group]).nonzero().squeeze(1)
        changed = units.shape[0]
        if not changed:
            return Move(group, permutation, 0, 0.0, 0.0, {}, units)
        source = self.inverse(group)[permutation]  # where the units to come lie now
        few = changed <= FEW * permutation.shape[0]
        tensors: dict[str, tuple[Placed, int | None]] = {}
        gained, bound = [], 0.0
        for scored in self.problem.tensors_of[group]:
            now, axis_of = self._placed[scored.name], scored.storage.axis_of
            if axis_of is not None and few:
                axis = axis_of[group]
                new, rise = self._few(scored, group, axis, units, source)
                # 2 |A| |B|, and the rounding of the sum that becomes the new inner product
                doubt = 2.0 * scored.doubt
                tensors[scored.name] = Placed(new, now.inner + rise, now.doubt + doubt), axis
            else:
                if axis_of is None:
                    others = [name for name in self.problem.spec.groups if name != group]
                    new = permute_tensor(self.problem.spec, scored.name, now.tensor, {group: source}, skip=others)
                    self.counts.gathered += new.numel() * new.element_size()
                else:
                    new = self.gather(now.tensor, axis_of[group], source)
                inner = inner_product(scored.a, new)
                rise, doubt = inner - now.inner, now.doubt + scored.doubt
                tensors[scored.name] = Placed(new, inner, scored.doubt), None
            gained.append(scored.weight * rise)
            bound += scored.weight * doubt
        return Move(group, permutation, changed, math.fsum(gained), bound, tensors, units)

    def _few(
        self, scored: Scored, group: str, axis: int, units: torch.Tensor, source: torch.Tensor
    ) -> tuple[torch.Tensor, float]:
        """What comes to some units of a tensor, and what its inner product gains by it."""
        if axis == 2 and (turned := scored.turned) is not None:
            a, b = turned
            (first,) = (name for name in scored.storage.axis_of or () if name != group)
            old = self.gather(b, 0, self.permutations[group][units])
            if first in self._moved:
                old = self.gather(old, 2, self.permutations[first])
            # The units that move change places among themselves: what comes is what goes, in another order.
            place = torch.empty_like(source)
            place[units] = torch.arange(units.shape[0])
            new = self.gather(old, 0, place[source[units]])
            return new.permute(2, 1, 0), difference(self.gather(a, 0, units), new, old)
        tensor = self._placed[scored.name].tensor
        new, old = self.gather(tensor, axis, source[units]), self.gather(tensor, axis, units)
        return new, difference(self.gather(scored.a, axis, units), new, old)

    def accept(self, move: Move) -> None:
        """Take the step."""
        for name, (placed, axis) in move.tensors.items():
            if axis is not None:
                whole = self._placed[name].tensor
                if name not in self._owned:
                    whole = whole.clone()
                    self.counts.gathered += whole.numel() * whole.element_size()
                whole.index_copy_(axis, move.units.to(whole.device), placed.tensor)
                placed = Placed(whole, placed.inner, placed.doubt)
            if placed.tensor is not self.problem.tensors[name].b:
                self._owned.add(name)
            self._placed[name] = placed
        self.permutations[move.group] = move.permutation
        self._inverses.pop(move.group, None)
        self._moved.add(move.group)

    def objective(self) -> float:
        """Sum over the scored tensors of ``weight * <A, pi(B)>``, in float64: no running sums, whole inner products."""
        values = []
        for name, scored in self.problem.tensors.items():
            now = self._placed[name]
            if now.doubt > scored.doubt:  # a sum of steps
                now = self._placed[name] = Placed(now.tensor, inner_product(scored.a, now.tensor), scored.doubt)
            values.append(scored.weight * now.inner)
        return math.fsum(values)

    def distance(self, objective: float) -> float:
        """Euclidean distance of A and pi(B) over the scored tensors, weights applied to the squares, in float64."""
        return distance_of(self.problem, objective, {name: placed.tensor for name, placed in self._placed.items()})


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
