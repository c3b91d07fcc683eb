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
from .clock import Clock
from .objective import Alignment
from .order import sweep_order
from .problem import Permutations, Problem
from .result import Step
from .scores import ScoreTable, Stamp, same
from .swaps import improve

Callback = Callable[[Step], object]


@dataclass
class State:
    """Where a descent stands.

    ``alignment``: the permutations and what they make of B. ``optimal_at``: for each group, the permutations of
    its neighbours when it was last visited with its full scores; while they hold, it is optimal and is
    skipped. ``prices``: of its last assignment, where its next one starts. ``gaps``: of its last assignment.
    ``passes``: how often the groups were gone through.
    """

    alignment: Alignment
    objective: float
    clock: Clock
    optimal_at: dict[str, Stamp] = field(default_factory=dict)
    prices: dict[str, torch.Tensor] = field(default_factory=dict)
    gaps: dict[str, float] = field(default_factory=dict)
    trace: list[Step] = field(default_factory=list)
    passes: int = 0

    @property
    def permutations(self) -> Permutations:
        return self.alignment.permutations


def begin(alignment: Alignment, clock: Clock, value: float | None = None) -> State:
    """The state at an alignment, which it takes over. ``value``: its objective, where it is known."""
    started = time.perf_counter()
    if value is None:
        value = alignment.objective()
    clock.lap("objective")
    first = Step(0, "", "start", 0.0, value, 0.0, 0, time.perf_counter() - started)
    return State(alignment, value, clock, trace=[first])


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
        for group in sweep_order(problem.groups, state.passes, shuffle):
            if is_optimal(problem, state, group):
                state.alignment.counts.skipped += 1
                continue
            step = visit(problem, table, state, group, sweep)
            accepted = accepted or step.changed > 0
            if callback is not None:
                callback(step)
        state.passes += 1
        if not accepted:
            drifted = table.refresh_drifted(state.alignment)
            state.clock.lap("products")
            if not drifted:
                return sweep, True
            for group in drifted:
                del state.optimal_at[group]
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
    alignment, clock, counts = state.alignment, state.clock, state.alignment.counts
    seen = _stamp(problem, state, group)
    clock.lap("other")
    scores = table.scores(group, alignment, settled)
    clock.lap("products")
    try:
        solved = solve_assignment(scores, prices=state.prices.get(group))
    except (InvalidScoresError, InfeasibleError) as error:
        raise InvalidParamsError(
            f"the scores of group {group!r} overflow {str(scores.dtype).removeprefix('torch.')}: "
            "the weights are too large to be matched as they are"
        ) from error
    counts.visits += 1
    counts.reads += round(solved.stats.reads * scores.numel())
    clock.lap("assignment")
    move = alignment.propose(group, solved.columns)
    if settled is not None or move.gain > move.bound:
        alignment.accept(move)
        counts.moves += move.changed > 0
        changed, gained = move.changed, move.gain
    else:
        changed, gained = 0, 0.0
    if settled is None and group in problem.quadratic:
        before = alignment.permutations[group]
        gained += improve(problem, table, alignment, group, solved.columns)
        changed += int(torch.count_nonzero(alignment.permutations[group] != before))
    state.objective += gained
    if settled is None or settled.issuperset(problem.neighbours[group]):
        state.optimal_at[group] = seen
    state.prices[group] = solved.prices
    state.gaps[group] = float(solved.gap)
    clock.lap("steps")
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
