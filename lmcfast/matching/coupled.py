"""Members that share a tensor inside one unit: query and value heads in the output projection of a group of heads.

For a pair of outer units, with s and t the permutations of two coupled members, the value is

    sum_k L[k, s(k)] + sum_m M[m, t(m)] + sum_km T[k, m, s(k), t(m)],

and its maximum over both is a quadratic problem. The *hub* is the member that all couplings share, the smallest one if
there are several.

*Bound and start.* If t could be chosen anew for each k, the best t for "place k takes unit l" would be an assignment of
its own, with scores T[k, :, l, :] + M / K, K the size of the hub: the shares of M add up to M where the choices agree.
The best s is then an assignment as well, its value is an upper bound, and where the choices agree it is the optimum.
*Alternation.* From that s, the members are solved in turn, each with the others held, until no value rises. Beside it
stands the setting that moves nothing, so a value is never below what is there already.
*Large tables* are not formed (``factored.py``). Start and bound are then those of sorted weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from .factored import Factored

MOST_ROUNDS = 20

Solve = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""(batch, n, n) scores -> columns (batch, n) int64 and optima (batch,) float64."""


@dataclass(frozen=True)
class Pairs:
    """Problems, one for each pair of outer units.

    ``linear``: {member: (problems, n, n)}. ``tables``: of each coupling its two members, each with ``linear`` scores,
    and (problems, one, two, one', two'): what places (k, m) gain if they take units (l, n); all of them tables, or all
    factored.
    """

    linear: Mapping[str, torch.Tensor]
    tables: Sequence[tuple[tuple[str, str], torch.Tensor | Factored]]


@dataclass(frozen=True)
class Solved:
    """``columns``: {member: (problems, n)}; ``value``, ``bound``: (problems,) float64, what they are worth and what
    nothing exceeds (NaN: no bound is known)."""

    columns: dict[str, torch.Tensor]
    value: torch.Tensor
    bound: torch.Tensor


def solve_coupled(pairs: Pairs, solve: Solve) -> Solved:
    """Settings of the members that no one of them alone can improve, and a bound on the best."""
    hub = _hub(pairs)
    relaxed = _sorted if any(isinstance(table, Factored) for _, table in pairs.tables) else _relaxed
    columns, bound = relaxed(pairs, hub, solve)
    free = [name for name in pairs.linear if name != hub]
    for name in free:
        columns[name], _ = solve(_given(pairs, name, columns))
    value = value_of(pairs, columns)
    for _ in range(MOST_ROUNDS):
        for name in (hub, *free):
            columns[name], _ = solve(_given(pairs, name, columns))
        risen = value_of(pairs, columns)
        if not bool((risen > value + 1e-6 * value.abs()).any()):
            value = risen
            break
        value = risen
    still = {name: torch.arange(scores.shape[-1]).expand(scores.shape[:2]) for name, scores in pairs.linear.items()}
    unmoved = value_of(pairs, still)
    better = unmoved > value
    columns = {name: torch.where(better.unsqueeze(1), still[name], rows) for name, rows in columns.items()}
    value = torch.maximum(value, unmoved)
    return Solved(columns, value, torch.maximum(bound, value))  # NaN stays


def _hub(pairs: Pairs) -> str:
    """The member in the most couplings, of those the smallest."""
    count = dict.fromkeys(pairs.linear, 0)
    for names, _ in pairs.tables:
        for name in names:
            count[name] += 1
    return min(count, key=lambda name: (-count[name], pairs.linear[name].shape[-1]))


def _relaxed(pairs: Pairs, hub: str, solve: Solve) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The hub's permutation if every other member may be chosen anew for each of its units; the value of that."""
    scores = pairs.linear[hub].double()
    problems, size = scores.shape[:2]
    bounded = all(hub in names for names, _ in pairs.tables)
    above = torch.zeros(problems, dtype=torch.float64)
    tables: dict[str, torch.Tensor] = {}
    for names, table in pairs.tables:
        if hub in names and isinstance(table, torch.Tensor):
            other = names[1] if names[0] == hub else names[0]
            table = table if names[0] == hub else table.permute(0, 2, 1, 4, 3)
            tables[other] = tables[other] + table if other in tables else table
    for other in pairs.linear:
        if other == hub:
            continue
        own = pairs.linear[other]
        if other not in tables:
            above = above + solve(own)[1]
            continue
        n = own.shape[-1]
        each = tables[other].transpose(2, 3) + own[:, None, None] / size  # (problems, hub, hub', n, n)
        scores = scores + solve(each.reshape(-1, n, n))[1].view(problems, size, size)
    columns, best = solve(scores)
    bound = best + above if bounded else torch.full_like(best, float("nan"))
    return {hub: columns}, bound


def _sorted(pairs: Pairs, hub: str, solve: Solve) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """As :func:`_relaxed`, by bounds on what the couplings can add to each choice of the hub."""
    scores = pairs.linear[hub].double()
    for names, table in pairs.tables:
        if hub in names and isinstance(table, Factored):
            scores = scores + (table if names[0] == hub else table.turned()).most()
    columns, bound = solve(scores)
    for name, own in pairs.linear.items():
        if name != hub:
            bound = bound + solve(own)[1]
    bounded = all(hub in names for names, _ in pairs.tables)
    return {hub: columns}, bound if bounded else torch.full_like(bound, float("nan"))


def _given(pairs: Pairs, name: str, columns: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The scores of one member with the others held at ``columns``; couplings to members that it lacks are left out."""
    scores = pairs.linear[name]
    for (one, two), table in pairs.tables:
        if name == one and two in columns:
            scores = scores + _held(table, columns[two], second=True)
        elif name == two and one in columns:
            scores = scores + _held(table, columns[one])
    return scores


def _held(table: torch.Tensor | Factored, columns: torch.Tensor, second: bool = False) -> torch.Tensor:
    """Sum over k of table[:, k, :, columns[k], :], the scores of the second member; ``second``: of the first one, with
    the second held."""
    if isinstance(table, Factored):
        return (table.turned() if second else table).given(columns)
    table = table.permute(0, 2, 1, 4, 3) if second else table
    problems = torch.arange(table.shape[0]).unsqueeze(1)
    places = torch.arange(table.shape[1])
    return table[problems, places, :, columns, :].sum(dim=1)


def value_of(pairs: Pairs, columns: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What settings of all members are worth, (problems,) float64."""
    total = torch.zeros(next(iter(pairs.linear.values())).shape[0], dtype=torch.float64)
    for name, scores in pairs.linear.items():
        total += scores.gather(2, columns[name].unsqueeze(2)).double().sum(dim=(1, 2))
    for (one, two), table in pairs.tables:
        given = _held(table, columns[one])
        total += given.gather(2, columns[two].unsqueeze(2)).double().sum(dim=(1, 2))
    return total
