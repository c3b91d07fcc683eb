"""B as permutations place it, read where it is stored: the kernels gather as they load, and nothing is copied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from ..terms import Term, View
from .problem import Part, Permutations, Problem, Scored


@dataclass
class Placing:
    """Permutations on a device, and what they make of B.

    ``moved``: the groups that are not known to stay where they are stored; the others need no gather. Permutations are
    replaced, never changed.
    """

    problem: Problem
    permutations: Permutations
    moved: set[str]

    @classmethod
    def at(cls, problem: Problem, permutations: Permutations) -> Placing:
        """``permutations``: on the CPU or on the device."""
        device = next(iter(problem.tensors.values())).a.device
        moved = {g for g, p in permutations.items() if not torch.equal(p, torch.arange(p.shape[-1], device=p.device))}
        needed = moved.union(problem.groups)
        placed = {group: p.to(device) if group in needed else p for group, p in permutations.items()}
        return cls(problem, placed, moved)

    def copy(self) -> Placing:
        return Placing(self.problem, dict(self.permutations), set(self.moved))

    def move(self, group: str, permutation: torch.Tensor) -> None:
        self.permutations[group] = permutation
        self.moved.add(group)

    def indices(self, scored: Scored, instead: Mapping[str, torch.Tensor] | None = None) -> list[torch.Tensor | None]:
        """By which units each axis of a regular tensor is gathered; ``instead``: other permutations of some groups."""
        found: list[torch.Tensor | None] = [None] * scored.b.dim()
        for group, axis in (scored.storage.axis_of or {}).items():
            if instead is not None and group in instead:
                found[axis] = instead[group]
            elif group in self.moved:
                found[axis] = self.permutations[group]
        return found

    def view(self, scored: Scored, instead: Mapping[str, torch.Tensor] | None = None) -> View:
        return View(scored.b, tuple(self.indices(scored, instead)))

    def tensor(self, scored: Scored, but: str | None = None) -> torch.Tensor:
        """B's tensor as placed, a copy where units moved; the units of the group ``but`` as stored."""
        tensor = scored.b
        axis_of = scored.storage.axis_of or {}
        for axis, index in enumerate(self.indices(scored)):
            if index is not None and axis != axis_of.get(but or ""):
                tensor = tensor.index_select(axis, index)
        return tensor

    def term(self, part: Part) -> Term:
        """A part as a term: rows are units of A, columns units of B as stored."""
        scored, b = part.tensor, part.tensor.b
        gathers = [(k, i) for k, i in enumerate(self.indices(scored)) if i is not None and k != part.axis]
        if not gathers:
            return Term(part.rows_a, part.rows(b), scored.weight)
        for axis, index in gathers[:-1]:  # a term gathers one axis
            b = b.index_select(axis, index)
        axis, index = gathers[-1]
        order = _order(part, axis)
        return Term(scored.a.permute(order), b.permute(order), scored.weight, index_b=index)

    def columns(self, part: Part, before: torch.Tensor, count: int) -> tuple[Term, Term]:
        """What a part's product has to gain by columns, and to lose, where ``count`` units of its one other group have
        moved since ``before``.
        """
        (name,) = part.dependencies
        now, scored = self.permutations[name], part.tensor
        # Sorting finds them without a wait: how many there are is known, which they are is not.
        units = (now != before).to(torch.uint8).argsort(descending=True, stable=True)[:count]
        order = _order(part, (scored.storage.axis_of or {})[name])
        a, b = scored.a.permute(order), scored.b.permute(order)
        return (
            Term(a, b, scored.weight, index_a=units, index_b=now[units]),
            Term(a, b, -scored.weight, index_a=units, index_b=before[units]),
        )


def difference(gain: Term, loss: Term) -> Term:
    """The two terms of :meth:`Placing.columns` as one, of gathered copies."""
    a, new = gain.matrices()
    _, old = loss.matrices()
    return Term(a, new - old, gain.weight)


def _order(part: Part, last: int) -> list[int]:
    """Axes of a part's tensor: its own group's, those in between, the one whose positions are gathered."""
    assert part.axis is not None  # the tensor is regular
    return [part.axis, *(k for k in range(part.tensor.a.dim()) if k not in (part.axis, last)), last]


class PlacedTensors(Mapping[str, torch.Tensor]):
    """B's tensors as placed, by name, each gathered when it is asked for."""

    def __init__(self, placing: Placing) -> None:
        self._placing = placing

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._placing.tensor(self._placing.problem.tensors[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._placing.problem.tensors)

    def __len__(self) -> int:
        return len(self._placing.problem.tensors)
