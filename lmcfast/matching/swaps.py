"""Steps of a group that stands on two axes of one tensor, as the hidden units of a recurrent layer do.

The objective is quadratic in such a group's permutation, so its assignment only solves a linearisation. Where that
step loses, parts of it may gain: its cycles are tried one by one. After it, pairs of units trade places while that
gains. Every change is judged by the true objective, as any step is.

*What a swap gains.* Let S be the linearised scores at the present permutation, columns in the order placed. To swap
what stands at places r and s changes the linear part by S[r,s] + S[s,r] - S[r,r] - S[s,s]. On a tensor that has the
group on both axes the two places also meet each other, which adds

    (A[r,r] - A[r,s] - A[s,r] + A[s,s]) (B[r,r] - B[r,s] - B[s,r] + B[s,s]),

B as placed, summed over the fixed positions: the second difference of the quadratic form, exact.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .objective import Alignment
from .pieces import pieces_of
from .problem import Problem
from .scores import ScoreTable

ROUNDS = 50  # of swaps in one visit; each begins with fresh scores


def improve(problem: Problem, table: ScoreTable, alignment: Alignment, group: str, target: torch.Tensor) -> float:
    """Take what gains of the way to ``target``, then swaps; what the objective gained by all of it."""
    gained = 0.0
    for places in cycles_between(alignment.permutations[group], target):
        step = alignment.permutations[group].clone()
        step[places] = target[places]
        gained += _take(alignment, group, step)
    for _ in range(ROUNDS):
        gain = _swap(problem, table, alignment, group)
        if not gain:
            break
        gained += gain
    return gained


def _take(alignment: Alignment, group: str, permutation: torch.Tensor) -> float:
    """Take a step if it counts; its gain, or 0."""
    move = alignment.propose(group, permutation)
    if move.gain <= move.bound:
        return 0.0
    alignment.accept(move)
    return move.gain


def cycles_between(before: torch.Tensor, target: torch.Tensor) -> Iterator[torch.Tensor]:
    """The places of each cycle that leads from one permutation to the other, the longest cycle first.

    ``before`` with ``target``'s units at the places of some of the cycles is a permutation again.
    """
    place = torch.empty_like(before).scatter_(0, before, torch.arange(before.shape[0]))
    source = place[target].tolist()
    seen = [False] * len(source)
    cycles: list[list[int]] = []
    for at in range(len(source)):
        cycle = []
        while not seen[at]:
            seen[at] = True
            cycle.append(at)
            at = source[at]
        if len(cycle) > 1:
            cycles.append(cycle)
    for cycle in sorted(cycles, key=len, reverse=True):
        yield torch.tensor(cycle)


def _swap(problem: Problem, table: ScoreTable, alignment: Alignment, group: str) -> float:
    """Take the most promising swaps that touch no unit twice: all at once, or as many of the best as gain together."""
    gains = swap_gains(problem, table, alignment, group)
    rows, columns = torch.triu_indices(gains.shape[0], gains.shape[1], offset=1)
    values = gains[rows, columns]
    used: set[int] = set()
    chosen: list[tuple[int, int]] = []
    for k in torch.argsort(values, descending=True)[: 2 * gains.shape[0]].tolist():
        pair = int(rows[k]), int(columns[k])
        if values[k] <= 0:
            break
        if used.isdisjoint(pair):
            used.update(pair)
            chosen.append(pair)
    while chosen:
        permutation = alignment.permutations[group].clone()
        for r, s in chosen:
            permutation[[r, s]] = permutation[[s, r]]
        gain = _take(alignment, group, permutation)
        if gain:
            return gain
        chosen = chosen[: len(chosen) // 2]
    return 0.0


def swap_gains(problem: Problem, table: ScoreTable, alignment: Alignment, group: str) -> torch.Tensor:
    """What the objective gains by swapping what stands at places r and s, (n, n) float64, symmetric.

    Exact up to the rounding of the scores for groups on two axes of a tensor; for one on three it lacks their meeting.
    """
    scores = table.scores(group, alignment).double()[:, alignment.permutations[group]]
    gains = _second_difference(scores.unsqueeze(2)).squeeze(2).neg_()
    for name in dict.fromkeys(part.tensor.name for part in problem.parts[group] if part.place.quadratic):
        scored = problem.tensors[name]
        for piece in pieces_of(problem.spec, name):
            axes = [piece.axis(k) for k, block in enumerate(piece.blocks) if block.groups == (group,)]
            if len(axes) != 2:
                continue
            one, two = (
                piece.hold(t, torch.device("cpu"), torch.float64).movedim(axes, [0, 1]).flatten(2)
                for t in (scored.a, alignment.tensor(name))
            )
            gains += scored.weight * (_second_difference(one) * _second_difference(two)).sum(dim=2)
    return gains


def _second_difference(x: torch.Tensor) -> torch.Tensor:
    """x[r,r] - x[r,s] - x[s,r] + x[s,s] of (n, n, depth)."""
    diagonal = x.diagonal(dim1=0, dim2=1).T
    return diagonal.unsqueeze(0) + diagonal.unsqueeze(1) - x - x.transpose(0, 1)
