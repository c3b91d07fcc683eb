"""Coordinate descent with everything on a device: scores, assignments, permutations, gains.

The groups are coloured so that no two of one colour share a tensor. The groups of a colour are visited together: their
scores in one call, their assignments in one ragged batch, their gains in one call, and one read tells the host what
came of it. Groups of one colour do not enter each other's scores, so a visit is what visits one by one would have been,
and the objective never falls.

Scores, and the assignments that solve them, place the units of B as they are aligned at the time: ``source[i]`` is the
aligned unit that comes to place i, and ``p[source]`` the new permutation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from .. import _native
from ..assignment.device import solve_ragged
from ..errors import InfeasibleError, InvalidParamsError, InvalidScoresError
from ..terms import Inner, ScoreSum, Term, View, accumulate_all, inner_products
from .clock import Clock, Counts
from .device_sums import inner_values
from .problem import Permutations, Problem
from .result import Step

MOST_AXES = 3  # of a tensor whose gains the kernels form


def fits_device(problem: Problem) -> bool:
    """Whether a problem's tensors lie on a device and are such that the descent can run there whole.

    Groups with a quadratic step, and tensors with concatenated axes, are left to the general descent.
    """
    tensors = problem.tensors.values()
    regular = all(scored.storage.axis_of is not None and scored.a.dim() <= MOST_AXES for scored in tensors)
    return bool(problem.groups) and regular and not problem.quadratic and all(_native.on_device(s.a) for s in tensors)


def colours(problem: Problem) -> list[tuple[str, ...]]:
    """The groups in sets that share no tensor, each by the first colour that is free; by their mean place in depth."""
    found: list[list[str]] = []
    for group in problem.groups:
        near = set(problem.neighbours[group])
        free = next((colour for colour in found if near.isdisjoint(colour)), None)
        if free is None:
            found.append([group])
        else:
            free.append(group)
    place = {group: k for k, group in enumerate(problem.groups)}
    return sorted((tuple(colour) for colour in found), key=lambda c: sum(place[g] for g in c) / len(c))


@dataclass
class DeviceState:
    """Where a descent stands; tensors and permutations lie on the device and are replaced, never changed.

    ``placed``: B's tensors as the permutations place them. ``versions``: how often each group has moved; a group whose
    neighbours have the versions of ``optimal_at`` is optimal and is skipped. ``prices``: of a group's last assignment,
    by units of B as stored.
    """

    problem: Problem
    permutations: Permutations
    placed: dict[str, torch.Tensor]
    objective: float
    clock: Clock
    counts: Counts
    deterministic: bool = False
    versions: dict[str, int] = field(default_factory=dict)
    optimal_at: dict[str, tuple[int, ...]] = field(default_factory=dict)
    prices: dict[str, torch.Tensor] = field(default_factory=dict)
    gaps: dict[str, float] = field(default_factory=dict)
    trace: list[Step] = field(default_factory=list)

    @classmethod
    def at(
        cls, problem: Problem, permutations: Permutations, clock: Clock, counts: Counts, deterministic: bool = False
    ) -> DeviceState:
        started = time.perf_counter()
        device = next(iter(problem.tensors.values())).a.device
        placed = {}
        for name, scored in problem.tensors.items():
            tensor = scored.b
            for group, axis in (scored.storage.axis_of or {}).items():
                p = permutations[group]
                if not torch.equal(p, torch.arange(p.shape[-1])):
                    tensor = tensor.index_select(axis, p.to(device))
                    counts.gathered += tensor.numel() * tensor.element_size()
            placed[name] = tensor
        moved = {group: permutations[group].to(device) for group in problem.groups}
        state = cls(problem, {**permutations, **moved}, placed, 0.0, clock, counts, deterministic)
        state.objective = state.whole_objective()
        clock.lap("objective")
        state.trace.append(Step(0, "", "start", 0.0, state.objective, 0.0, 0, time.perf_counter() - started))
        return state

    def copy(self) -> DeviceState:
        """Another state at the same point, with a trace of its own."""
        first = Step(0, "", "start", 0.0, self.objective, 0.0, 0, 0.0)
        return DeviceState(
            self.problem,
            dict(self.permutations),
            dict(self.placed),
            self.objective,
            self.clock,
            self.counts,
            self.deterministic,
            trace=[first],
        )

    def whole_objective(self) -> float:
        """Sum over the tensors of ``weight * <A, pi(B)>``, in float64, from the tensors as they lie."""
        tensors = self.problem.tensors
        values = inner_values([(scored.a, self.placed[name]) for name, scored in tensors.items()])
        return math.fsum(scored.weight * value for scored, value in zip(tensors.values(), values, strict=True))

    def is_optimal(self, group: str) -> bool:
        return self.optimal_at.get(group) == self._stamp(group)

    def _stamp(self, group: str) -> tuple[int, ...]:
        return tuple(self.versions.get(name, 0) for name in self.problem.neighbours[group])

    def visit(self, groups: Sequence[str], sweep: int, settled: frozenset[str] | None = None) -> list[Step]:
        """Solve the assignments of groups of one colour and take the steps that count.

        ``settled``: as for ``descent.visit``; steps are then taken whatever they do to the objective.
        """
        started = time.perf_counter()
        self.clock.lap("other")
        scores = accumulate_all([self._score_sum(group, settled) for group in groups])
        self.clock.lap("products")
        proposals = propose(self, groups, scores)
        self.clock.lap("assignment")
        seconds = (time.perf_counter() - started) / len(groups)
        steps = [
            self._judge(group, proposal, sweep, settled, seconds)
            for group, proposal in zip(groups, proposals, strict=True)
        ]
        self.clock.lap("steps")
        self.counts.visits += len(groups)
        self.trace += steps
        return steps

    def _judge(
        self, group: str, proposal: Proposal, sweep: int, settled: frozenset[str] | None, seconds: float
    ) -> Step:
        """Take the step if it counts."""
        tensors = self.problem.tensors_of[group]
        gain = math.fsum(scored.weight * rise for scored, rise in zip(tensors, proposal.rises, strict=True))
        bound = math.fsum(2.0 * scored.weight * scored.doubt for scored in tensors)  # 2 |A| |B|, as in objective.py
        changed = proposal.changed
        if changed and (settled is not None or gain > bound):
            self._accept(group, proposal.source)
            self.counts.moves += 1
        else:
            changed, gain = 0, 0.0
        self.objective += gain
        if settled is None or settled.issuperset(self.problem.neighbours[group]):
            self.optimal_at[group] = self._stamp(group)
        kind: Literal["step", "start"] = "step" if settled is None else "start"
        return Step(sweep, group, kind, gain, self.objective, self.gaps[group], changed, seconds)

    def _score_sum(self, group: str, settled: frozenset[str] | None) -> ScoreSum:
        """Rows are units of A, columns units of B as aligned."""
        n = self.problem.size(group)
        terms = [
            Term(part.rows_a, part.rows(self.placed[part.tensor.name]), part.tensor.weight)
            for part in self.problem.parts[group]
            if settled is None or settled.issuperset(part.dependencies)
        ]
        self.counts.computed += len(terms)
        self.counts.multiplied += n * n * sum(term.depth for term in terms)
        return ScoreSum(terms, n, self.problem.precision[group])

    def _accept(self, group: str, source: torch.Tensor) -> None:
        self.permutations[group] = self.permutations[group][source]
        self.versions[group] = self.versions.get(group, 0) + 1
        for scored in self.problem.tensors_of[group]:
            axis = (scored.storage.axis_of or {})[group]
            tensor = self.placed[scored.name].index_select(axis, source)
            self.counts.gathered += tensor.numel() * tensor.element_size()
            self.placed[scored.name] = tensor


@dataclass(frozen=True)
class Proposal:
    """What a group's assignment would do: the aligned unit that comes to each place, how many units that moves, and by
    how much the inner product of each of the group's tensors rises.
    """

    source: torch.Tensor
    changed: int
    rises: Sequence[float]


def propose(state: DeviceState, groups: Sequence[str], scores: Sequence[torch.Tensor]) -> list[Proposal]:
    """Solve the assignments of groups of one colour and judge them, with one wait for the device."""
    if any(matrix.dtype == torch.float64 for matrix in scores):
        scores = [matrix.double() for matrix in scores]
    starts = [state.prices[g][state.permutations[g]] if g in state.prices else None for g in groups]
    solves = solve_ragged(scores, prices=starts, deterministic=state.deterministic)
    # The columns of a solve that failed may be anything; they must not lead a gather astray before that is known.
    sources = [solve.columns.clamp(0, len(solve.columns) - 1) for solve in solves]
    figures = _figures(state, groups, sources)
    reports = solves[0].reports
    host = torch.cat([figures.view(torch.uint8), reports.rows.view(-1)]).cpu()
    values, read = host[: 8 * len(figures)], reports.decode(host[8 * len(figures) :])
    refilled = False
    for group, solve, matrix in zip(groups, solves, scores, strict=True):
        try:
            solved = solve.judge(read)
        except (InvalidScoresError, InfeasibleError) as error:
            raise InvalidParamsError(
                f"the scores of group {group!r} overflow {str(matrix.dtype).removeprefix('torch.')}: "
                "the weights are too large to be matched as they are"
            ) from error
        refilled = refilled or solved.stats.fallbacks > 0
        state.counts.reads += round(solved.stats.reads * matrix.numel())
        state.gaps[group] = float(solved.gap)
        state.prices[group] = torch.empty_like(solved.prices).scatter_(0, state.permutations[group], solved.prices)
    if refilled:
        sources = [solve.columns for solve in solves]
        values = _figures(state, groups, sources).cpu().view(torch.uint8)
    numbers = values.clone().view(torch.float64).tolist()
    proposals, first = [], len(groups)
    for group, source, changed in zip(groups, sources, numbers, strict=False):
        end = first + len(state.problem.tensors_of[group])
        proposals.append(Proposal(source, int(changed), numbers[first:end]))
        first = end
    return proposals


def _figures(state: DeviceState, groups: Sequence[str], sources: Sequence[torch.Tensor]) -> torch.Tensor:
    """float64, on the device: how many units of each group move, then what each tensor of each group gains."""
    changed = [(source != torch.arange(len(source), device=source.device)).sum() for source in sources]
    inners = []
    for group, source in zip(groups, sources, strict=True):
        for scored in state.problem.tensors_of[group]:
            placed, axis = state.placed[scored.name], (scored.storage.axis_of or {})[group]
            indices = tuple(source if k == axis else None for k in range(placed.dim()))
            inners.append(Inner(View(scored.a), View(placed, indices), View(placed)))
    return torch.cat([torch.stack(changed).double(), inner_products(inners)])
