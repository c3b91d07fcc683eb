"""What a step of a group in a nest is made of: worked out once from the spec and the choice of groups.

A step of group g moves g and the free groups nested in it, its *members*, and holds the rest. The best setting of the
members for "place i of g takes unit j" is a problem of its own for each pair (i, j) (and each index of the groups that
g is nested in), and so on inwards. Everything lies on flat axes: the *path* of a member c are the members around it,
from g inwards, and c; an index along it says where a unit of c stands, and the scores of c are a matrix of such
indices of A by such indices of B.

A piece in which the members are one path (units of experts) adds a product to the scores of its innermost member. A
piece with two members side by side (query and value heads in an output projection) couples them: neither has scores
without the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..spec import PermutationSpec
from .pieces import Block, Piece
from .result import Exactness


@dataclass(frozen=True)
class Entry:
    """A product in the scores of ``group``: rows are (held outer indices, path indices) of A, and of B.

    ``order`` arranges the axes of the piece (an axis for each group) into the held outer groups, the path, the rest.
    ``others``: the groups on the piece that are no members.
    """

    piece: int
    group: str
    order: tuple[int, ...]
    others: frozenset[str]


@dataclass(frozen=True)
class Coupling:
    """A piece that couples two members, leaves that are nested in the same groups.

    ``order``: as of an :class:`Entry`, for held outer groups, the path of the groups around both, both, the rest.
    """

    piece: int
    groups: tuple[str, str]
    order: tuple[int, ...]
    others: frozenset[str]


@dataclass(frozen=True)
class Plan:
    """A step of ``group``.

    ``members``: the group and what it moves with it, outer ones first. ``path``: for each member, the members around it
    and itself; ``held``: the groups around it that are none. ``entries``: products by the member that they score.
    ``inside``: for each member, the members directly in it, those together that are coupled; ``couplings`` of each such
    set. ``pieces``: all that the step moves. ``neighbours``: groups whose moves change what the step finds.
    """

    group: str
    members: tuple[str, ...]
    path: Mapping[str, tuple[str, ...]]
    held: Mapping[str, tuple[str, ...]]
    entries: Mapping[str, tuple[Entry, ...]]
    inside: Mapping[str, tuple[tuple[str, ...], ...]]
    couplings: Mapping[tuple[str, ...], tuple[Coupling, ...]]
    pieces: tuple[int, ...]
    neighbours: tuple[str, ...]
    exactness: Exactness

    @property
    def is_leaf(self) -> bool:
        """Whether the step is one assignment of one matrix."""
        return len(self.members) == 1 and not self.held[self.group]


def make_plan(spec: PermutationSpec, pieces: Sequence[Piece], free: frozenset[str], group: str) -> Plan:
    """The plan of a step of ``group``, with the groups in ``free`` allowed to move."""
    path = _paths(spec, free, group)
    members = tuple(path)
    held = {name: tuple(outer for outer in spec.groups[name].within if outer not in path) for name in members}
    entries: dict[str, list[Entry]] = {name: [] for name in members}
    couplings: list[Coupling] = []
    linear = False
    touched = [k for k, piece in enumerate(pieces) if group in piece.groups]
    for k in touched:
        piece = pieces[k]
        blocks = [index for index, block in enumerate(piece.blocks) if group in block.groups]
        linear = linear or len(blocks) > 1  # the group stands on two axes: a step is quadratic
        for index in blocks:
            block = piece.blocks[index]
            around, rows = _rows_of(block, path, held)
            most = max(block.groups.count(name) for name in members)
            linear = linear or most > 1
            again = set(rows) if len(blocks) > 1 or most > 1 else set()
            others = piece.groups.difference(members) | again
            for occurrence in range(most):
                axes = piece.split_axes(index, occurrence)
                order = _order(piece, axes, (*held[rows[-1]], *(around or ()), *rows))
                if around is None:
                    linear = linear or not path.keys() & set(block.groups) <= set(rows)
                    entries[rows[-1]].append(Entry(k, rows[-1], order, others))
                else:
                    couplings.append(Coupling(k, (rows[0], rows[1]), order, others))
    linear = linear or any(group in spec.groups[name].within and name not in path for name in free)
    sets = _coupled_sets(path, couplings)
    own = {name for k in touched for name in pieces[k].groups}.difference(members)
    return Plan(
        group=group,
        members=members,
        path=path,
        held=held,
        entries={name: tuple(some) for name, some in entries.items()},
        inside={name: tuple(s for s in sets if path[s[0]][:-1] == path[name]) for name in members},
        couplings={s: tuple(c for c in couplings if c.groups[0] in s) for s in sets if len(s) > 1},
        pieces=tuple(touched),
        neighbours=tuple(sorted(own | (set(members) if linear else set()))),
        exactness="linearised" if linear else "lower bound" if couplings else "exact",
    )


def _paths(spec: PermutationSpec, free: frozenset[str], group: str) -> dict[str, tuple[str, ...]]:
    """The members' paths, outer members first.

    A group that is nested in two members neither of which is in the other has no path; it stays where it is.
    """
    path: dict[str, tuple[str, ...]] = {group: (group,)}
    inner = [name for name, entry in spec.groups.items() if name in free and group in entry.within]
    for name in sorted(inner, key=lambda name: len(spec.groups[name].within)):
        around = sorted((outer for outer in spec.groups[name].within if outer in path), key=lambda o: len(path[o]))
        if path[around[-1]] == tuple(around):
            path[name] = (*around, name)
    return path


def _rows_of(
    block: Block, path: Mapping[str, tuple[str, ...]], held: Mapping[str, tuple[str, ...]]
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """(None, path) where the members of a block are one path; (path around, two members) where two stand side by side.

    Else (None, the path of the outermost member): the others are then held, and the scores are those of members that
    stay as they are in their outer units.
    """
    here = [name for name in dict.fromkeys(block.groups) if name in path]
    innermost = max(here, key=lambda name: len(path[name]))
    if set(path[innermost]) == set(here):
        return None, path[innermost]
    inner = [name for name in here if not any(name in path[other][:-1] for other in path)]
    if len(inner) == 2:
        one, two = inner
        around = path[one][:-1]
        if path[two][:-1] == around and held[one] == held[two] and set(here) == {*around, one, two}:
            return around, (one, two)
    return None, path[here[0]]


def _order(piece: Piece, axes: Mapping[str, int], first: Sequence[str]) -> tuple[int, ...]:
    chosen = [axes[name] for name in first]
    return (*chosen, *(axis for axis in range(len(piece.split_shape)) if axis not in chosen))


def _coupled_sets(path: Mapping[str, tuple[str, ...]], couplings: Sequence[Coupling]) -> tuple[tuple[str, ...], ...]:
    """The members but the outermost, those in one tuple that couplings connect."""
    leader = {name: name for name in path if len(path[name]) > 1}
    for coupling in couplings:
        old, new = (leader[name] for name in coupling.groups)
        leader = {name: new if led == old else led for name, led in leader.items()}
    together: dict[str, list[str]] = {}
    for name in leader:
        together.setdefault(leader[name], []).append(name)
    return tuple(map(tuple, together.values()))


def path_size(spec: PermutationSpec, names: Sequence[str]) -> int:
    return math.prod(spec.sizes[name] for name in names)
