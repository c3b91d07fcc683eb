"""Coordinate descent where groups are nested in others: heads, grouped key and value heads, experts.

A step of a group moves it together with all that is nested in it (``nested_scores.py``), and counts, as any step, only
if the float64 objective rises by more than its rounding bound. Steps of a nested group alone solve one small problem
for each outer unit, all in one batch; those of a group with others in it solve one for each pair of its units. So the
cheap steps are taken first, until none of them gains, and only then the others.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from .clock import Clock, Counts
from .descent import Callback
from .nested_alignment import NestedAlignment, distance_as_stored
from .nested_plan import Plan
from .nested_problem import NestedProblem
from .nested_scores import NestedScores
from .order import sweep_order
from .problem import Permutations
from .result import MatchResult, Step
from .spectra import match_by_spectra
from .start import best_start

Stamp = tuple[int, ...]


@dataclass
class NestedState:
    """Where a descent stands. ``optimal_at``: for each group, the versions of what its step depends on when it was last
    visited in full; while they hold, its step would find nothing and is skipped. ``gaps``: of those visits."""

    alignment: NestedAlignment
    objective: float
    clock: Clock
    optimal_at: dict[str, Stamp] = field(default_factory=dict)
    gaps: dict[str, float] = field(default_factory=dict)
    trace: list[Step] = field(default_factory=list)
    passes: int = 0

    @classmethod
    def at(cls, alignment: NestedAlignment, clock: Clock) -> NestedState:
        started = time.perf_counter()
        value = alignment.objective()
        clock.lap("objective")
        first = Step(0, "", "start", 0.0, value, 0.0, 0, time.perf_counter() - started)
        return cls(alignment, value, clock, trace=[first])

    def stamp(self, plan: Plan) -> Stamp:
        return tuple(self.alignment.versions[name] for name in plan.neighbours)

    def is_optimal(self, group: str) -> bool:
        return self.optimal_at.get(group) == self.stamp(self.alignment.problem.plans[group])

    def visit(self, group: str, sweep: int, settled: frozenset[str] | None = None) -> Step:
        """Solve a group's step and take it if it counts; ``settled``: as for ``descent.visit``."""
        started = time.perf_counter()
        self.clock.lap("other")
        plan = self.alignment.problem.plans[group]
        best = NestedScores(self.alignment, plan, self.clock, settled).best()
        self.clock.lap("products")
        step = self._take(plan, best.relative, best.gap, sweep, settled is not None, started)
        if settled is None or settled.issuperset(plan.neighbours):
            self.gaps[group] = best.gap
            self.optimal_at[group] = self.stamp(plan)
            if plan.exactness == "exact":  # then no member can gain by itself either
                for name in plan.members[1:]:
                    self.optimal_at[name] = self.stamp(self.alignment.problem.plans[name])
                    self.gaps[name] = best.gap
        return step

    def match_spectra(self, group: str) -> Step:
        """Place a group's units by their spectra; part of a start."""
        started = time.perf_counter()
        self.clock.lap("other")
        plan = self.alignment.problem.plans[group]
        return self._take(plan, match_by_spectra(self.alignment, plan), 0.0, 0, True, started)

    def _take(self, plan: Plan, relative: Permutations, gap: float, sweep: int, is_start: bool, started: float) -> Step:
        move = self.alignment.propose(plan.group, relative)
        counts = self.alignment.counts
        counts.visits += 1
        changed, gained = 0, 0.0
        if is_start or move.gain > move.bound:
            self.alignment.accept(move)
            counts.moves += move.changed > 0
            changed, gained = move.changed, move.gain
        self.objective += gained
        self.clock.lap("steps")
        seconds = time.perf_counter() - started
        step = Step(sweep, plan.group, "start" if is_start else "step", gained, self.objective, gap, changed, seconds)
        self.trace.append(step)
        return step


def descend_nested(
    state: NestedState, max_sweeps: int, shuffle: random.Random | None = None, callback: Callback | None = None
) -> tuple[int, bool]:
    """Sweep until a whole sweep accepts nothing, or ``max_sweeps`` times. Returns the sweeps done and whether it ended.

    A sweep visits the groups without others in them, and the others too if none of those gained anything.
    """
    plans = state.alignment.problem.plans
    simple = [name for name in state.alignment.problem.groups if len(plans[name].members) == 1]
    joint = [name for name in state.alignment.problem.groups if len(plans[name].members) > 1]

    def go_through(groups: Sequence[str], sweep: int) -> bool:
        accepted = False
        for group in sweep_order(groups, state.passes, shuffle):
            if state.is_optimal(group):
                state.alignment.counts.skipped += 1
                continue
            step = state.visit(group, sweep)
            accepted = accepted or step.changed > 0
            if callback is not None:
                callback(step)
        return accepted

    for sweep in range(1, max_sweeps + 1):
        accepted = go_through(simple, sweep) or go_through(joint, sweep)
        state.passes += 1
        if not accepted:
            return sweep, True
    return max_sweeps, False


# ---- starts


def choose_nested_start(
    problem: NestedProblem,
    start: str,
    seed: int,
    clock: Clock,
    counts: Counts,
    shuffle: random.Random | None = None,
    callback: Callback | None = None,
) -> tuple[NestedState, dict[str, float]]:
    """As ``start.choose_start``. "spectra" is the forward start after the units with others in them were placed by
    their spectra, and are held meanwhile."""

    identity = problem.spec.identity()
    moves = any(not torch.equal(problem.start[group], identity[group]) for group in problem.groups)

    def point(name: str) -> NestedState:
        setting = problem.start
        if name != "init":
            drawn = identity if name == "identity" else problem.spec.random_permutations(seed)
            setting = {**setting, **{group: drawn[group] for group in problem.groups}}
        return NestedState.at(NestedAlignment(problem, setting, counts), clock)

    def forward(base: NestedState, name: str) -> NestedState:
        return _forward(base, name == "spectra", shuffle, callback)

    return best_start(start, moves, point, forward)


def _forward(
    base: NestedState, by_spectra: bool, shuffle: random.Random | None, callback: Callback | None
) -> NestedState:
    """As ``start.forward_start``: each group with all that is nested in it; ``base`` is left as it is."""
    problem = base.alignment.problem
    state = NestedState.at(base.alignment.copy(), base.clock)
    free = list(problem.tops)
    if by_spectra:
        joint = [group for group in free if len(problem.plans[group].members) > 1]
        placed = [group for group in joint if not problem.plans[group].held[group]]
        for group in placed:
            _report(state.match_spectra(group), callback)
        inner = {group for group in problem.groups if set(problem.spec.groups[group].within) & set(placed)}
        inside = [g for g in problem.groups if g in inner and not set(problem.spec.groups[g].within) & inner]
        free = [group for group in free if group not in placed] + inside
    if shuffle is not None:
        shuffle.shuffle(free)
    moving = {name for group in free for name in problem.plans[group].members}
    settled = set(problem.spec.groups).difference(moving)
    while free:
        group = max(free, key=lambda name: _evidence(problem, name, settled))  # max keeps the first of equals
        free.remove(group)
        if _evidence(problem, group, settled) > 0:
            _report(state.visit(group, 0, frozenset(settled)), callback)
        settled.update(problem.plans[group].members)
    state.passes += 1
    return state


def _report(step: Step, callback: Callback | None) -> None:
    if callback is not None:
        callback(step)


def _evidence(problem: NestedProblem, group: str, settled: set[str]) -> int:
    """As ``start.evidence``: 2 for a matrix all of whose other groups are settled, 1 for vectors only."""
    plan = problem.plans[group]
    parts = [part for some in plan.entries.values() for part in some]
    usable = [part.piece for part in parts if settled.issuperset(part.others)]
    usable += [part.piece for some in plan.couplings.values() for part in some if settled.issuperset(part.others)]
    if any(problem.pieces[k].piece.is_matrix for k in usable):
        return 2
    return min(1, len(usable))


# ---- the whole matching


def match_nested(
    problem: NestedProblem,
    start: str,
    max_sweeps: int,
    restarts: int,
    seed: int,
    clock: Clock,
    counts: Counts,
    callback: Callback | None = None,
) -> MatchResult:
    """Weight matching of a problem with nested groups; arguments as of ``weight_matching``."""
    found: list[tuple[NestedState, dict[str, float], int, bool]] = []
    for k in range(restarts):
        shuffle = random.Random(f"{seed}/{k}") if k else None
        name = ("spectra", "random", "forward")[(k - 1) % 3] if k and start == "best" else start
        state, starts = choose_nested_start(problem, name, seed + k, clock, counts, shuffle, callback)
        found.append((state, starts, *descend_nested(state, max_sweeps, shuffle, callback)))
    state, starts, sweeps, converged = max(found, key=lambda attempt: attempt[0].objective)
    clock.lap("other")
    value = state.alignment.objective()
    before, after = distance_as_stored(problem), state.alignment.distance()
    clock.lap("objective")
    return MatchResult(
        spec=problem.spec,
        permutations=state.alignment.setting,
        objective=value,
        gap=max(state.gaps.values(), default=0.0),
        converged=converged,
        sweeps=sweeps,
        trace=state.trace,
        starts=starts,
        attempts=tuple(attempt[0].objective for attempt in found),
        distance_before=before,
        distance_after=after,
        exactness={name: plan.exactness for name, plan in problem.plans.items()},
        counts=counts,
        seconds=clock.seconds,
    )
