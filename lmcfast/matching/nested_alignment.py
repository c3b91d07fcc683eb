"""B as a setting of nested groups places it, what that is worth, and what a step would gain.

A step is given by *relative* permutations, in the units as they are aligned: place i of the step's group takes aligned
unit r[i], and its members' rows say how the units inside are taken. The setting after it is the composition of the
setting before with the step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..params import outer_sources
from ..spec import PermutationSpec
from .clock import Counts
from .nested_problem import HeldPiece, NestedProblem
from .objective import Placed
from .problem import Permutations
from .sums import inner_product, squared_distance
from .units import move_units
from .units import rises as unit_rises

Relative = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class NestedMove:
    """A step that is judged and not yet taken.

    ``settings``: of the groups that move. ``changed``: how many of their units get another source. ``gain``: what the
    objective gains, float64; ``bound``: how far rounding can have put that off. ``sources``: of each piece that one
    block moves, its axis, the old position of each new one, the rise of its inner product. ``others``: pieces that
    several blocks move, after the step.
    """

    settings: Permutations
    changed: int
    gain: float
    bound: float
    sources: Mapping[int, tuple[int, torch.Tensor, float]]
    others: Mapping[int, Placed]


class NestedAlignment:
    """A setting, and the pieces of B as it places them.

    Settings are replaced, never changed in place; so are pieces that the alignment does not own. ``versions``: how
    often each group has changed.
    """

    def __init__(self, problem: NestedProblem, setting: Mapping[str, torch.Tensor], counts: Counts) -> None:
        self.problem = problem
        self.counts = counts
        self.setting: Permutations = dict(setting)
        self.versions = dict.fromkeys(problem.spec.groups, 0)
        self._owned: set[int] = set()
        self._placed = [self._place(held) for held in problem.pieces]

    def copy(self) -> NestedAlignment:
        """Another alignment at the same point; both can move on by themselves."""
        twin = NestedAlignment.__new__(NestedAlignment)
        self._owned, twin._owned = set(), set()
        twin.problem, twin.counts = self.problem, self.counts
        twin.setting, twin.versions = dict(self.setting), dict(self.versions)
        twin._placed = list(self._placed)
        return twin

    def tensor(self, piece: int) -> torch.Tensor:
        """One piece of B as placed."""
        return self._placed[piece].tensor

    def _place(self, held: HeldPiece) -> Placed:
        tensor = held.b
        for k, block in enumerate(held.piece.blocks):
            source = block.source(self.problem.spec, self.setting)
            if not torch.equal(source, torch.arange(block.size)):
                tensor = self._gather(tensor, held.piece.axis(k), source)
        inner = held.figures.inner if tensor is held.b else inner_product(held.a, tensor)
        return Placed(tensor, inner, held.doubt)

    def _gather(self, tensor: torch.Tensor, axis: int, source: torch.Tensor) -> torch.Tensor:
        moved = tensor.index_select(axis, source.to(tensor.device))
        self.counts.gathered += moved.numel() * moved.element_size()
        return moved

    def propose(self, group: str, relative: Relative) -> NestedMove:
        """Judge a step of a group and its members."""
        spec, plan = self.problem.spec, self.problem.plans[group]
        settings = moved_settings(spec, self.setting, relative)
        changed = sum(int(torch.count_nonzero(new != self.setting[name])) for name, new in settings.items())
        if not changed:
            return NestedMove(settings, 0, 0.0, 0.0, {}, {})
        sources: dict[int, tuple[int, torch.Tensor, float]] = {}
        others: dict[int, Placed] = {}
        alike: dict[object, list[tuple[int, int, torch.Tensor]]] = {}
        for k in plan.pieces:
            piece = self.problem.pieces[k].piece
            blocks = [index for index, block in enumerate(piece.blocks) if group in block.groups]
            if len(blocks) > 1:
                others[k] = self._moved(k, relative)
            else:
                block = piece.blocks[blocks[0]]
                same = alike.setdefault((block, self.problem.pieces[k].a.dtype), [])
                same.append((k, piece.axis(blocks[0]), same[0][2] if same else block.source(spec, relative)))
        for some in alike.values():
            source = some[0][2]
            tensors = [(self.problem.pieces[k].a, self.tensor(k), axis) for k, axis, _ in some]
            _, rises = unit_rises(torch.arange(source.shape[0]), source, tensors)
            sources.update({k: (axis, source, rise) for (k, axis, _), rise in zip(some, rises, strict=True)})
        held = self.problem.pieces
        gained = [held[k].weight * rise for k, (_, _, rise) in sources.items()]
        gained += [held[k].weight * (new.inner - self._placed[k].inner) for k, new in others.items()]
        # A rise is a sum over a * (b_new - b_old), whose factors are at most |A| and 2 |B| long.
        bounds = [2.0 * held[k].weight * held[k].doubt for k in sources]
        bounds += [held[k].weight * (new.doubt + self._placed[k].doubt) for k, new in others.items()]
        return NestedMove(settings, changed, math.fsum(gained), math.fsum(bounds), sources, others)

    def _moved(self, k: int, relative: Relative) -> Placed:
        held = self.problem.pieces[k]
        tensor = self.tensor(k)
        for index, block in enumerate(held.piece.blocks):
            if not relative.keys().isdisjoint(block.groups):
                tensor = self._gather(tensor, held.piece.axis(index), block.source(self.problem.spec, relative))
        return Placed(tensor, inner_product(held.a, tensor), held.doubt)

    def accept(self, move: NestedMove) -> None:
        """Take the step."""
        for name, new in move.settings.items():
            if not torch.equal(new, self.setting[name]):
                self.setting[name] = new
                self.versions[name] += 1
        for k, (axis, source, rise) in move.sources.items():
            now, doubt = self._placed[k], self.problem.pieces[k].doubt
            to = now.tensor if k in self._owned else torch.empty_like(now.tensor)
            move_units(torch.arange(source.shape[0]), source, [(to, now.tensor, axis)])
            self.counts.gathered += to.numel() * to.element_size()
            self._placed[k] = Placed(to, now.inner + rise, now.doubt + 2.0 * doubt)
            self._owned.add(k)
        self._placed = [move.others.get(k, now) for k, now in enumerate(self._placed)]
        self._owned.update(move.others)

    def objective(self) -> float:
        """Sum over the pieces of ``weight * <A, pi(B)>``, in float64: no running sums, whole inner products."""
        for k, (held, now) in enumerate(zip(self.problem.pieces, self._placed, strict=True)):
            if now.doubt > held.doubt:  # a sum of steps
                self._placed[k] = Placed(now.tensor, inner_product(held.a, now.tensor), held.doubt)
        pairs = zip(self.problem.pieces, self._placed, strict=True)
        return math.fsum(held.weight * now.inner for held, now in pairs)

    def distance(self) -> float:
        """Euclidean distance of A and pi(B) over the pieces, weights applied to the squares, in float64."""
        pairs = zip(self.problem.pieces, self._placed, strict=True)
        return math.sqrt(math.fsum(held.weight * squared_distance(held.a, now.tensor) for held, now in pairs))


def distance_as_stored(problem: NestedProblem) -> float:
    """Euclidean distance of A and B, as :meth:`NestedAlignment.distance` of the identity."""
    return math.sqrt(math.fsum(held.weight * squared_distance(held.a, held.b) for held in problem.pieces))


def moved_settings(spec: PermutationSpec, setting: Mapping[str, torch.Tensor], relative: Relative) -> Permutations:
    """The settings, after a step, of the groups that it moves or that are nested in one that moves."""
    identity = {name: torch.arange(spec.sizes[name]).expand(spec.shape_of(name)) for name in spec.groups}
    steps = {**identity, **relative}
    moved = {}
    for name, entry in spec.groups.items():
        if name in relative or not relative.keys().isdisjoint(entry.within):
            outer = [part.unsqueeze(-1) for part in outer_sources(spec, name, steps)]
            moved[name] = setting[name][(*outer, steps[name])]
    return moved
