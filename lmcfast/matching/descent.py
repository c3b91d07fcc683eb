"""Coordinate descent over the groups (Git Re-Basin's weight matching), with true gains.

One step fixes all groups but one; the best permutation of that one is a linear assignment problem. The step
counts only if the float64 objective rises by more than its rounding bound (``objective.py``), so the
objective is monotone and the descent ends by itself: when a whole sweep accepts nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ..assignment import solve_assignment
from ..errors import InfeasibleError, InvalidParamsError, InvalidScoresError
from .objective import gain, objective
from .order import sweep_order
from .problem import Permutations, Problem
from .result import Step
from .scores import ScoreTable, Stamp, same

Callback = Callable[[Step], object]


@dataclass
class State:
    """Where a descent stands.

    ``permutations`` are replaced, never changed in place. ``optimal_at``: for each group, the permutations of
    its neighbours when it was last visited with its full scores; while they hold, it is optimal and is
    skipped. ``prices``: of its last assignment, where its next one starts. ``gaps``: of its last assignment.
    """

    permutations: Permutations
    objective: float
    optimal_at: dict[str, Stamp] = field(default_factory=dict)
    prices: dict[str, torch.Tensor] = field(default_factory=dict)
    gaps: dict[str, float] = field(default_factory=dict)
    trace: list[Step] = field(default_factory=list)


def begin(problem: Problem, permutations: Permutations, value: float | None = None) -> State:
    """The state at given permutations. ``value``: their objective, where it is known."""
    started = time.perf_counter()
    if value is None:
        value = objective(problem, permutations)
    seconds = time.perf_counter() - started
    first = Step(0, "", "start", 0.0, value, 0.0, 0, seconds)
    return State(dict(permutations), value, trace=[first])


def descend(
    problem: Problem,
    table: ScoreTable,
    state: State,
    max_sweeps: int,
    shuffle: random.Random | None = None,
    callback: Callback | None = None,
) -> tuple[int, bool]:
    """Sweep until a whole sweep accepts nothing, or ``max_sweeps`` times. Returns the sweeps done and whether it ended.

    ``state`` is changed in place and is whole after every step, so an interrupt leaves nothing half-done.
    """
    for sweep in range(1, max_sweeps + 1):
        accepted = False
        for group in sweep_order(problem.groups, sweep, shuffle):
            if not is_optimal(problem, state, group):
                step = visit(problem, table, state, group, sweep)
                accepted = accepted or step.changed > 0
                if callback is not None:
                    callback(step)
        if not accepted:
            return sweep, True
    return max_sweeps, False


def is_optimal(problem: Problem, state: State, group: str) -> bool:
    """Whether the group's last assignment used the scores that it would get now."""
    before = state.optimal_at.get(group)
    return before is not None and same(before, _stamp(problem, state, group))


def visit(
    problem: Problem,
    table: ScoreTable,
    state: State,
    group: str,
    sweep: int,
    settled: frozenset[str] | None = None,
) -> Step:
    """Solve the group's assignment and take the step if it counts.

    ``settled`` marks a step of the forward start: only the parts whose other groups are in it are scored, and
    the step is taken whatever it does to the objective.
    """
    started = time.perf_counter()
    seen = _stamp(problem, state, group)
    scores = table.scores(group, state.permutations, settled)
    try:
        solved = solve_assignment(scores, prices=state.prices.get(group))
    except (InvalidScoresError, InfeasibleError) as error:
        raise InvalidParamsError(
            f"the scores of group {group!r} overflow {str(scores.dtype).removeprefix('torch.')}: "
            "the weights are too large to be matched as they are"
        ) from error
    proposed = torch.as_tensor(solved.columns)
    changed = int(torch.count_nonzero(proposed != state.permutations[group]))
    gained, bound = gain(problem, group, state.permutations, proposed) if changed else (0.0, 0.0)
    if settled is None and gained <= bound:
        changed, gained = 0, 0.0
    if changed:
        state.permutations[group] = proposed
        state.objective += gained
    if settled is None or settled.issuperset(problem.neighbours[group]):
        state.optimal_at[group] = seen
    state.prices[group] = solved.prices
    state.gaps[group] = float(solved.gap)
    step = Step(
        sweep=sweep,
        group=group,
        kind="step" if settled is None else "start",
        gain=gained,
        objective=state.objective,
        gap=state.gaps[group],
        changed=changed,
        seconds=time.perf_counter() - started,
    )
    state.trace.append(step)
    return step


def _stamp(problem: Problem, state: State, group: str) -> Stamp:
    return tuple(state.permutations[name] for name in problem.neighbours[group])
