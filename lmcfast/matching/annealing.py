"""Annealing: sweeps of coordinate descent on scores with noise that dies away.

Descent ends at the first point where no group alone can be improved. Noise of a fraction of the scores' own spread lets
units change places that cost little; as it falls, sweep by sweep, what fits together stays. A sweep costs what one of
the descent does (products that nothing touched are kept), so a run costs a few descents. What it finds is judged by the
true objective and dropped where it is no better.
"""

from __future__ import annotations

import torch

from ..assignment import solve_assignment
from .descent import State, begin, descend
from .problem import Problem
from .scores import ScoreTable

STRENGTH = 0.25  # of the standard deviation of a group's scores: 0.5 already destroys what the start has found
SWEEPS = 24
LEFT = 0.2  # share of the noise in the last sweep


def anneal(
    problem: Problem, table: ScoreTable, state: State, seed: int, max_sweeps: int, sweeps: int = SWEEPS
) -> tuple[State, int, bool]:
    """The better one of ``state`` and of where annealing from it leads, sweeps of its descent, whether that converged.

    ``state`` is left as it is.
    """
    generator = torch.Generator().manual_seed(seed)
    alignment = state.alignment.copy()
    prices = dict(state.prices)
    for sweep in range(sweeps):
        strength = STRENGTH * LEFT ** (sweep / max(1, sweeps - 1))
        for group in problem.groups[::-1] if sweep % 2 else problem.groups:
            scores = table.scores(group, alignment)
            noise = torch.randn(scores.shape, generator=generator, dtype=scores.dtype)
            state.clock.lap("products")
            solved = solve_assignment(noise.mul_(strength * float(scores.std())).add_(scores), prices=prices.get(group))
            prices[group] = solved.prices
            state.clock.lap("assignment")
            alignment.accept(alignment.propose(group, solved.columns))
            state.clock.lap("steps")
    found = begin(alignment, state.clock)
    found.prices, found.passes = prices, sweeps
    done, converged = descend(problem, table, found, max_sweeps)
    if found.objective > state.objective:
        found.trace = [*state.trace, *found.trace]
        return found, done, converged
    return state, 0, True
