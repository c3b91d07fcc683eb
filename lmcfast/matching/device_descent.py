"""A whole matching on a device: starts, sweeps over colours, restarts (``device.py`` has the visits)."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from .clock import Clock, Counts
from .descent import Callback
from .device import DeviceState, colours
from .device_placing import PlacedTensors
from .device_scores import DeviceTable
from .objective import distance_as_stored, distance_of
from .order import sweep_order
from .problem import Problem
from .result import MatchResult
from .start import best_start, most_evident, moves_free, starting_point


@dataclass(frozen=True)
class _Attempt:
    state: DeviceState
    starts: Mapping[str, float]
    sweeps: int
    converged: bool


def match_on_device(
    problem: Problem,
    start: str,
    max_sweeps: int,
    restarts: int,
    seed: int,
    clock: Clock,
    counts: Counts,
    deterministic: bool = False,
    callback: Callback | None = None,
) -> MatchResult:
    """``weight_matching`` for a problem that ``fits_device``; its arguments are checked."""
    found = []
    table = DeviceTable(problem, counts)
    for k in range(restarts):
        shuffle = random.Random(f"{seed}/{k}") if k else None
        kind = start if k == 0 or start != "best" else ("forward" if k % 2 else "random")
        begin = _Start(problem, table, clock, counts, deterministic, shuffle, callback)
        state, starts = begin.choose(kind, seed + k)
        found.append(_Attempt(state, starts, *_descend(state, max_sweeps, shuffle, callback)))
    best = max(found, key=lambda attempt: attempt.state.objective)  # max keeps the first of equals
    clock.lap("other")
    state = best.state
    value = state.whole_objective()
    before, after = distance_as_stored(problem), distance_of(problem, value, PlacedTensors(state.placing))
    clock.lap("objective")
    return MatchResult(
        spec=problem.spec,
        permutations={group: p.cpu() for group, p in state.permutations.items()},
        objective=value,
        gap=max(state.gaps.values(), default=0.0),
        converged=best.converged,
        sweeps=best.sweeps,
        trace=state.trace,
        starts=best.starts,
        attempts=tuple(attempt.state.objective for attempt in found),
        distance_before=before,
        distance_after=after,
        exactness=dict.fromkeys(problem.groups, "exact"),
        counts=counts,
        seconds=clock.seconds,
    )


def _descend(
    state: DeviceState, max_sweeps: int, shuffle: random.Random | None, callback: Callback | None
) -> tuple[int, bool]:
    """Sweep over the colours until a whole sweep accepts nothing, on products that hold."""
    order = colours(state.problem)
    for sweep in range(1, max_sweeps + 1):
        accepted = False
        for colour in sweep_order(order, state.passes, shuffle):
            groups = [group for group in colour if not state.is_optimal(group)]
            state.counts.skipped += len(colour) - len(groups)
            if not groups:
                continue
            for step in state.visit(groups, sweep):
                accepted = accepted or step.changed > 0
                if callback is not None:
                    callback(step)
        state.passes += 1
        if not accepted and not state.refresh_drifted():
            return sweep, True
    return max_sweeps, False


@dataclass(frozen=True)
class _Start:
    """Where a descent begins; the rules are those of ``start.py``."""

    problem: Problem
    table: DeviceTable
    clock: Clock
    counts: Counts
    deterministic: bool
    shuffle: random.Random | None
    callback: Callback | None

    def choose(self, start: str, seed: int) -> tuple[DeviceState, dict[str, float]]:
        """The state to descend from, and the objective of every start that was tried, the chosen one first."""
        plain = "forward" if start == "spectra" else start
        moves = moves_free(self.problem)
        return best_start(plain, moves, partial(self._at, seed), lambda base, _: self._forward(base))

    def _at(self, seed: int, name: str) -> DeviceState:
        permutations = starting_point(self.problem, name, seed)
        return DeviceState.at(self.problem, permutations, self.table, self.clock, self.counts, self.deterministic)

    def _forward(self, base: DeviceState) -> DeviceState:
        """Match every group once, level by level from the inputs on."""
        problem = self.problem
        state = base.copy()
        free = [group for group in problem.spec.movable_groups if group in problem.parts]
        if self.shuffle is not None:
            self.shuffle.shuffle(free)
        settled = set(problem.spec.groups).difference(free)
        while free:
            group, found = most_evident(problem, free, settled)
            free.remove(group)
            if found > 0:
                for step in state.visit([group], 0, frozenset(settled)):
                    if self.callback is not None:
                        self.callback(step)
            settled.add(group)
        state.passes += 1
        return state
