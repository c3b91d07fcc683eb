"""Where a descent starts from."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeVar, get_args

import torch

from .clock import Clock, Counts
from .descent import Callback, State, begin, visit
from .objective import Alignment
from .problem import Permutations, Problem
from .scores import ScoreTable

Start = Literal["best", "identity", "forward", "random", "spectra"]
STARTS: tuple[str, ...] = get_args(Start)
MOST_EVIDENCE = 2


def choose_start(
    problem: Problem,
    table: ScoreTable,
    start: str,
    seed: int,
    clock: Clock,
    counts: Counts,
    shuffle: random.Random | None = None,
    callback: Callback | None = None,
) -> tuple[State, dict[str, float]]:
    """The state to descend from, and the objective of every start that was tried, by name, the chosen one first.

    ``start``: one of ``STARTS``. "best" tries the identity, the given ``init`` (where there is one) and the
    forward start; on a tie the first of them is taken. The groups that are held stay at ``init`` in all of
    them.
    """

    def point(name: str) -> State:
        return begin(Alignment(problem, starting_point(problem, name, seed), counts), clock)

    def forward(base: State, name: str) -> State:
        return forward_start(problem, table, base, shuffle, callback)

    # spectra place what has others nested in it, and here nothing has
    return best_start("forward" if start == "spectra" else start, moves_free(problem), point, forward)


class Judged(Protocol):
    """A state of a descent, of which the choice knows the objective alone."""

    @property
    def objective(self) -> float: ...


Found = TypeVar("Found", bound=Judged)


def best_start(
    start: str, moves: bool, point: Callable[[str], Found], forward: Callable[[Found, str], Found]
) -> tuple[Found, dict[str, float]]:
    """The best of the starts that ``start`` asks for, and the objectives of all that were tried, its own first.

    ``point``: the state at "identity", "init" or "random"; ``moves``: whether "init" differs from the identity.
    ``forward``: the start of that name ("forward" or "spectra") from a state.
    """
    if start == "random":
        tried = {"random": point("random")}
    elif start == "best":
        tried = {name: point(name) for name in (("identity", "init") if moves else ("identity",))}
    else:
        name = "init" if moves else "identity"
        tried = {name: point(name)}
    if start in ("best", "forward", "spectra"):
        name = "forward" if start == "best" else start
        begun = forward(list(tried.values())[-1], name)
        tried = {**tried, name: begun} if start == "best" else {name: begun}
    chosen = max(tried, key=lambda name: tried[name].objective)  # max keeps the first of equals
    names = (chosen, *(name for name in tried if name != chosen))
    return tried[chosen], {name: tried[name].objective for name in names}


def forward_start(
    problem: Problem,
    table: ScoreTable,
    base: State,
    shuffle: random.Random | None = None,
    callback: Callback | None = None,
) -> State:
    """Match every group once, level by level from the inputs on; ``base`` is left as it is.

    An unmatched neighbour is noise in a group's scores. So a group is scored only by the parts whose other
    groups are matched or held. Next comes the first group, in the order of first use in the spec (at random
    with ``shuffle``), that has a matrix among them and not only vectors, which say little. No step is
    rejected.
    """
    state = begin(base.alignment.copy(), base.clock, base.objective)
    free = [group for group in problem.spec.movable_groups if group in problem.parts]
    if shuffle is not None:
        shuffle.shuffle(free)
    settled = set(problem.spec.groups).difference(free)
    while free:
        group, found = most_evident(problem, free, settled)
        free.remove(group)
        if found > 0:
            step = visit(problem, table, state, group, 0, frozenset(settled))
            if callback is not None:
                callback(step)
        settled.add(group)
    state.passes += 1
    return state


def evidence(problem: Problem, group: str, settled: set[str]) -> int:
    """2: the group has a matrix part all of whose other groups are settled; 1: only vectors; 0: nothing."""
    usable = [part for part in problem.parts[group] if settled.issuperset(part.dependencies)]
    return MOST_EVIDENCE if any(part.is_matrix for part in usable) else min(1, len(usable))


def most_evident(problem: Problem, free: Sequence[str], settled: set[str]) -> tuple[str, int]:
    """The first of the groups with the most evidence, and how much that is."""
    most, chosen = -1, ""
    for group in free:
        found = evidence(problem, group, settled)
        if found > most:
            most, chosen = found, group
        if most == MOST_EVIDENCE:
            break
    return chosen, most


def moves_free(problem: Problem) -> bool:
    """Whether ``problem.start`` moves a group that the descent may move."""
    if not problem.start_moves:
        return False
    identity = problem.spec.identity()
    return any(not torch.equal(problem.start[group], identity[group]) for group in problem.groups)


def starting_point(problem: Problem, name: str, seed: int) -> Permutations:
    """The permutations at "identity", "init" or "random"."""
    if name == "random":
        return random_permutations(problem, seed)
    return identity(problem) if name == "identity" else problem.start


def random_permutations(problem: Problem, seed: int) -> Permutations:
    """Uniform permutations of the free groups, the others as in ``problem.start``."""
    drawn = problem.spec.random_permutations(seed)
    return {**problem.start, **{group: drawn[group] for group in problem.groups}}


def identity(problem: Problem) -> Permutations:
    if not problem.start_moves:
        return problem.start
    identity = problem.spec.identity()
    return {**problem.start, **{group: identity[group] for group in problem.groups}}
