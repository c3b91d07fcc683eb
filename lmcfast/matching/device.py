"""Coordinate descent with everything on a device: scores, assignments, permutations, gains.

The groups are coloured so that no two of one colour share a tensor. The groups of a colour are visited together: their
scores in one call, their assignments in one ragged batch, their gains in one call, and one read tells the host what
came of it. Groups of one colour do not enter each other's scores, so a visit is what visits one by one would have been,
and the objective never falls.

B stays as it is stored: scores have its units as columns, whatever the group's permutation, and every kernel gathers
the other axes as it loads them (``device_placing.py``). Products are kept as on the CPU (``device_scores.py``).
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
from ..terms import Inner, View, inner_products
from .clock import Clock, Counts
from .device_placing import Placing
from .device_scores import DeviceTable, Stand
from .problem import Permutations, Problem
from .result import Step

MOST_AXES = 3  # of a tensor whose gains the kernels form
INNER_LAUNCHES = 2  # kernels of a call of inner_products


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
    """Where a descent stands.

    ``table``: of kept products, shared with other states; ``versions``: how often each group has moved; a group whose
    neighbours have the versions of ``optimal_at`` is optimal and is skipped. ``prices``: of a group's last assignment.
    ``passes``: how often the groups were gone through.
    """

    placing: Placing
    table: DeviceTable
    objective: float
    clock: Clock
    counts: Counts
    deterministic: bool = False
    versions: dict[str, int] = field(default_factory=dict)
    optimal_at: dict[str, tuple[int, ...]] = field(default_factory=dict)
    prices: dict[str, torch.Tensor] = field(default_factory=dict)
    gaps: dict[str, float] = field(default_factory=dict)
    trace: list[Step] = field(default_factory=list)
    passes: int = 0

    @property
    def problem(self) -> Problem:
        return self.placing.problem

    @property
    def permutations(self) -> Permutations:
        return self.placing.permutations

    @classmethod
    def at(
        cls,
        problem: Problem,
        permutations: Permutations,
        table: DeviceTable,
        clock: Clock,
        counts: Counts,
        deterministic: bool = False,
    ) -> DeviceState:
        started = time.perf_counter()
        state = cls(Placing.at(problem, permutations), table, 0.0, clock, counts, deterministic)
        state.objective = state.whole_objective()
        clock.lap("objective")
        state.trace.append(Step(0, "", "start", 0.0, state.objective, 0.0, 0, time.perf_counter() - started))
        return state

    def copy(self) -> DeviceState:
        """Another state at the same point, with a trace of its own."""
        first = Step(0, "", "start", 0.0, self.objective, 0.0, 0, 0.0)
        return DeviceState(
            self.placing.copy(), self.table, self.objective, self.clock, self.counts, self.deterministic, trace=[first]
        )

    def whole_objective(self) -> float:
        """Sum over the tensors of ``weight * <A, pi(B)>``, in float64."""
        tensors = self.problem.tensors.values()
        values = inner_products([Inner(View(scored.a), self.placing.view(scored)) for scored in tensors]).tolist()
        self.counts.launches += INNER_LAUNCHES
        self.counts.waits += 1
        return math.fsum(scored.weight * value for scored, value in zip(tensors, values, strict=True))

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
        scores = self.table.scores(groups, self.placing, settled)
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
            self.placing.move(group, proposal.permutation)
            self.table.moved(group, proposal.stands, proposal.apart)
            self.versions[group] = self.versions.get(group, 0) + 1
            self.counts.moves += 1
        else:
            changed, gain = 0, 0.0
        self.objective += gain
        if settled is None or settled.issuperset(self.problem.neighbours[group]):
            self.optimal_at[group] = self._stamp(group)
        kind: Literal["step", "start"] = "step" if settled is None else "start"
        return Step(sweep, group, kind, gain, self.objective, self.gaps[group], changed, seconds)

    def refresh_drifted(self) -> bool:
        """Whether kept products had to be dropped; their groups are to be visited again."""
        drifted = self.table.refresh_drifted(self.placing)
        for group in drifted:
            self.optimal_at.pop(group, None)
        self.clock.lap("products")
        return bool(drifted)


@dataclass(frozen=True)
class Proposal:
    """What a group's assignment would do: its new permutation, how many units that moves, how far it is from the
    ``stands`` of kept products, and by how much the inner product of each of the group's tensors rises.
    """

    permutation: torch.Tensor
    stands: Sequence[Stand]
    changed: int
    apart: Sequence[int]
    rises: Sequence[float]


def propose(state: DeviceState, groups: Sequence[str], scores: Sequence[torch.Tensor]) -> list[Proposal]:
    """Solve the assignments of groups of one colour and judge them, with one wait for the device."""
    if any(matrix.dtype == torch.float64 for matrix in scores):
        scores = [matrix.double() for matrix in scores]
    starts = [state.prices.get(group) for group in groups]
    solves = solve_ragged(scores, prices=starts, deterministic=state.deterministic)
    # The columns of a solve that failed may be anything; they must not lead a gather astray before that is known.
    found = [solve.columns.clamp(0, len(solve.columns) - 1) for solve in solves]
    stands = [state.table.stands(group) for group in groups]
    figures = _figures(state, groups, found, stands)
    reports = solves[0].reports
    host = torch.cat([figures.view(torch.uint8), reports.rows.view(-1)]).cpu()
    state.counts.launches += reports.launches + INNER_LAUNCHES
    state.counts.waits += 1
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
        state.prices[group] = solved.prices
    if refilled:
        found = [solve.columns for solve in solves]
        values = _figures(state, groups, found, stands).cpu().view(torch.uint8)
        state.counts.launches += INNER_LAUNCHES
        state.counts.waits += 1
    numbers = iter(values.clone().view(torch.float64).tolist())
    return [
        Proposal(
            permutation=permutation,
            stands=near,
            changed=int(next(numbers)),
            apart=[int(next(numbers)) for _ in near],
            rises=[next(numbers) for _ in state.problem.tensors_of[group]],
        )
        for group, permutation, near in zip(groups, found, stands, strict=True)
    ]


def _figures(
    state: DeviceState, groups: Sequence[str], found: Sequence[torch.Tensor], stands: Sequence[Sequence[Stand]]
) -> torch.Tensor:
    """float64, on the device: of each group in turn how many units move, how far it would be from each of its stands,
    and what each of its tensors gains.
    """
    placing = state.placing
    apart, inners = [], []
    for group, permutation, near in zip(groups, found, stands, strict=True):
        before = placing.permutations[group]
        apart += [(permutation != other).sum() for other in (before, *(stand.permutation for stand in near))]
        for scored in state.problem.tensors_of[group]:
            new, old = (placing.view(scored, {group: p}) for p in (permutation, before))
            inners.append(Inner(View(scored.a), new, old))
    counted, gained = torch.stack(apart).double(), inner_products(inners)
    pieces, k, j = [], 0, 0
    for group, near in zip(groups, stands, strict=True):
        width, tensors = 1 + len(near), len(state.problem.tensors_of[group])
        pieces += [counted[k : k + width], gained[j : j + tensors]]
        k, j = k + width, j + tensors
    return torch.cat(pieces)
