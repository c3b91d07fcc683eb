"""Frank-Wolfe on the relaxed matching: all groups move at once through doubly stochastic matrices.

Coordinate descent fixes all groups but one, and ends where no group alone can be improved. Here every group holds a
doubly stochastic matrix X_g, the mean of permutations with common weights; a step goes from X towards the vertex D
whose permutations fit X's gradient best (one assignment a group) by the best step length.

*What it costs.* Where each tensor stands on at most two groups, the objective is f(X) = L(X) + Q(X, X), linear and
bilinear, so the gradient of a group, its score matrix, is affine in X: G(X + t (D - X)) = (1 - t) G(X) + t G(D). G(D)
are the ordinary scores at permutations. No product with a doubly stochastic matrix is ever formed; a step costs about
what a sweep does. On the line f is the parabola f(X) + t <G(X), D - X> + t^2 q with 2 q = <G(D) - G(X), D - X>. With
three groups and more on one tensor the mean of the scores stands in for the gradient.

At the end each X_g is rounded to the permutation nearest to it, by one more assignment, and coordinate descent goes on
from there: the relaxation only says where to start (Frank and Wolfe 1956; for matching of networks Crisostomi et al.,
*C2M3*, arXiv:2405.17897).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ..assignment import solve_assignment
from .clock import Clock, Counts
from .objective import Alignment
from .problem import Permutations, Problem
from .scores import ScoreTable

ITERATIONS = 16
TOLERANCE = 1e-4  # of the duality gap, as a share of the largest gap seen


@dataclass
class Relaxed:
    """Where the relaxation stands: X (float32), its scores G, and the prices of the last assignments, by group."""

    x: dict[str, torch.Tensor]
    scores: dict[str, torch.Tensor]
    prices: dict[str, torch.Tensor] = field(default_factory=dict)


def relax(
    problem: Problem,
    table: ScoreTable,
    start: Permutations,
    counts: Counts,
    clock: Clock,
    iterations: int = ITERATIONS,
) -> Permutations:
    """The permutations nearest to where Frank-Wolfe ends from ``start``; groups that may not move stay there."""
    x = {group: torch.eye(problem.size(group))[start[group]] for group in problem.groups}
    at = Relaxed(x, _scores(problem, table, start, counts, clock))
    largest = 0.0
    for _ in range(iterations):
        vertex = _fitting(at, at.scores, clock)
        ahead = _scores(problem, table, {**start, **vertex}, counts, clock)
        slope, bend = _parabola(at, vertex, ahead)
        largest = max(largest, slope)
        if not slope > TOLERANCE * largest:
            break
        step = 1.0 if slope + 2.0 * bend >= 0.0 else -slope / (2.0 * bend)
        for group, matrix in at.x.items():
            matrix.mul_(1.0 - step)
            matrix[torch.arange(len(matrix)), vertex[group]] += step
            at.scores[group].lerp_(ahead[group], step)
        clock.lap("steps")
    return {**start, **_fitting(at, at.x, clock)}


def _scores(
    problem: Problem, table: ScoreTable, permutations: Permutations, counts: Counts, clock: Clock
) -> dict[str, torch.Tensor]:
    alignment = Alignment(problem, permutations, counts)
    clock.lap("steps")
    found = {group: table.scores(group, alignment).clone() for group in problem.groups}
    clock.lap("products")
    return found


def _fitting(at: Relaxed, matrices: Mapping[str, torch.Tensor], clock: Clock) -> Permutations:
    """The permutation of each group whose matrix entries sum highest."""
    found = {}
    for group, matrix in matrices.items():
        solved = solve_assignment(matrix, prices=at.prices.get(group))
        found[group] = solved.columns
        if matrices is at.scores:
            at.prices[group] = solved.prices
    clock.lap("assignment")
    return found


def _parabola(at: Relaxed, vertex: Permutations, ahead: Mapping[str, torch.Tensor]) -> tuple[float, float]:
    """Slope and half the second derivative of the objective from X towards the vertex, float64."""
    slope = bend = 0.0
    for group, x in at.x.items():
        rows, columns = torch.arange(len(x)), vertex[group]
        here, there = at.scores[group], ahead[group]
        here_x = float((here * x).sum(dtype=torch.float64))
        there_x = float((there * x).sum(dtype=torch.float64))
        here_d = float(here[rows, columns].sum(dtype=torch.float64))
        there_d = float(there[rows, columns].sum(dtype=torch.float64))
        slope += here_d - here_x
        bend += (there_d - here_d - there_x + here_x) / 2.0
    return slope, bend
