"""Annealing: sweeps of coordinate descent on scores with noise that dies away.

Descent ends at the first point where no group alone can be improved. Noise of a fraction of the scores' own spread lets
units change places that cost little; as it falls, sweep by sweep, what fits together stays. A sweep costs what one of
the descent does (products that nothing touched are kept). What it finds is judged by the true objective and dropped
where it is no better.

Networks that share much (trained ones) find more at little noise, unrelated ones at more of it, so the noise goes
through both. Strength and length are chosen on networks of 512 units so that it ends within the time of one run of the
naive algorithm (docs/methods.md).
"""

from __future__ import annotations

import torch

from ..assignment import solve_assignment
from .descent import State, begin, descend
from .problem import Problem
from .scores import ScoreTable

STRENGTH = 0.35  # of the standard deviation of a group's scores: 0.6 destroys what the start has found
SWEEPS = 48
LEFT = 0.2  # share of the noise in the last sweep


def anneal(
    problem: Problem, table: ScoreTable, state: State, seed: int, max_sweeps: int, sweeps: int = SWEEPS
) -> tuple[State, int, bool]:
    """The better one of ``state`` and of where annealing from it leads, sweeps of its descent, whether that converged.

    ``state`` is left as it is.
    """
    noise = _Noise(seed)
    alignment = state.alignment.copy()
    prices = dict(state.prices)
    for sweep in range(sweeps):
        strength = STRENGTH * LEFT ** (sweep / max(1, sweeps - 1))
        for group in problem.groups[::-1] if sweep % 2 else problem.groups:
            scores = table.scores(group, alignment)
            state.clock.lap("products")
            noisy = torch.add(scores, noise.like(scores), alpha=strength * float(scores.std()))
            solved = solve_assignment(noisy, prices=prices.get(group))
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


class _Noise:
    """Standard normal matrices. Those of one size are one that is drawn once, its rows and columns turned round by
    random amounts: a new draw would take as long as a third of a sweep."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.drawn: dict[torch.Size, torch.Tensor] = {}

    def like(self, scores: torch.Tensor) -> torch.Tensor:
        if scores.shape not in self.drawn:
            self.drawn[scores.shape] = torch.randn(scores.shape, generator=self.generator, dtype=scores.dtype)
        drawn = self.drawn[scores.shape]
        turns = [int(torch.randint(size, (), generator=self.generator)) for size in drawn.shape]
        return drawn.to(scores.dtype).roll(turns, (0, 1))
