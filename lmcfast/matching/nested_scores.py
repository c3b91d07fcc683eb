"""The best setting of a group and of all that is nested in it, the rest held: scores from the inside outwards.

For a member c (``nested_plan.py``) whose path is P, the scores are a matrix of P by P for each index of the groups that
are held around it: what it is worth if the unit of B at an index comes to the place at another. The block of a pair of
places of the members around c is a linear assignment problem; its optimum is what c adds to the score of that pair. All
blocks are solved as one batch, and the outermost scores are then those of a plain group.

Members that are coupled have no scores of their own. They are solved for each pair together (``coupled.py``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..assignment import solve_assignment
from ..errors import InfeasibleError, InvalidParamsError, InvalidScoresError
from ..spec import PermutationSpec
from .clock import Clock
from .coupled import Pairs, solve_coupled
from .factored import Factored
from .nested_alignment import NestedAlignment
from .nested_plan import Coupling, Entry, Plan, path_size
from .problem import Permutations

CHUNK_BYTES = 1 << 28  # of scores that are formed at a time
TABLE_BYTES = 1 << 26  # of a coupling: a larger table is not formed


@dataclass(frozen=True)
class Best:
    """What a step proposes: relative permutations of the members (``nested_alignment.py``); ``gap``: no setting of
    them is worth more than this above it, by the scores; NaN where nothing bounds them."""

    relative: Permutations
    gap: float


class NestedScores:
    """Builds and solves the scores of steps. To be used inside ``terms.full_precision``.

    ``settled``: use only products all of whose other groups are in it.
    """

    def __init__(
        self, alignment: NestedAlignment, plan: Plan, clock: Clock, settled: frozenset[str] | None = None
    ) -> None:
        self._alignment, self._plan, self._clock = alignment, plan, clock
        self._spec: PermutationSpec = alignment.problem.spec
        self._settled = settled
        # Of each member the best rows for every pair of places around it, (*held, pairs, pairs, size).
        self._found: dict[str, torch.Tensor] = {}

    def best(self) -> Best:
        """The members' best setting by the scores."""
        group = self._plan.group
        n = self._spec.sizes[group]
        inside, above = self._inside(group)
        held = tuple(self._spec.sizes[name] for name in self._plan.held[group])
        columns = torch.empty((math.prod(held), n), dtype=torch.int64)
        gap = 0.0
        step = max(1, CHUNK_BYTES // (4 * n * n))
        for start in range(0, columns.shape[0], step):
            part = slice(start, start + step)
            scores = self._scores(group, outer=part)
            whole = scores if inside is None else scores.double() + inside[part]
            columns[part], value, slack = self._solve(group, whole)
            gap += slack
            if above is not None:
                gap += self._missed(group, scores.double() + above[part], whole, value)
        relative = {group: columns.reshape(*held, n)}
        for name in self._plan.members[1:]:
            relative[name] = self._chosen(name, relative)
        return Best(relative, gap)

    def _missed(self, group: str, most: torch.Tensor, scores: torch.Tensor, value: torch.Tensor) -> float:
        """How far the optimum of the scores can be below that of ``most``, which bounds them; NaN where that does."""
        if bool(most.isnan().any()):
            return math.nan
        if torch.equal(most, scores):
            return 0.0
        _, bound, _ = self._solve(group, most)
        return float((bound - value).clamp_min(0.0).sum())

    def _chosen(self, name: str, relative: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The rows of a member for the units that the members around it take."""
        found, around = self._found[name], self._plan.path[name][:-1]
        held = self._plan.held[name]
        sizes = [self._spec.sizes[outer] for outer in (*held, *around)]
        grid = dict(zip((*held, *around), torch.meshgrid(*map(torch.arange, sizes), indexing="ij"), strict=True))
        place = taken = torch.zeros((), dtype=torch.int64)
        for outer in around:
            index = (*(grid[o] for o in self._spec.groups[outer].within), grid[outer])
            place = place * self._spec.sizes[outer] + grid[outer]
            taken = taken * self._spec.sizes[outer] + relative[outer][index]
        rows = found[(*(grid[outer] for outer in held), place, taken)].long()
        order = (*held, *around)
        return rows.permute(*(order.index(o) for o in self._spec.groups[name].within), len(order))

    # ---- values, from the inside outwards

    def _inside(self, group: str) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """What the members in ``group`` add to its scores, (held, path, path) float64, and a bound above it."""
        total: torch.Tensor | None = None
        bound: torch.Tensor | None = None
        for names in self._plan.inside[group]:
            if len(names) == 1:
                value, above = self._single(names[0])
            else:
                value, above = self._coupled(names)
            value, above = (self._without(t, self._plan.held[names[0]], self._plan.held[group]) for t in (value, above))
            total = value if total is None or bound is None else total + value
            bound = above if bound is None else bound + above
        return total, bound

    def _without(self, values: torch.Tensor, have: tuple[str, ...], keep: tuple[str, ...]) -> torch.Tensor:
        """Summed over the held groups that are not around the outer member."""
        sizes = [self._spec.sizes[name] for name in have]
        values = values.reshape(*sizes, *values.shape[1:])
        more = [axis for axis, name in enumerate(have) if name not in keep]
        values = values.sum(dim=more) if more else values
        left = [name for name in have if name in keep]
        values = values.permute(*(left.index(name) for name in keep), len(left), len(left) + 1)
        return values.reshape(-1, *values.shape[-2:])

    def _single(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        n = self._spec.sizes[name]
        held = path_size(self._spec, self._plan.held[name])
        pairs = path_size(self._spec, self._plan.path[name][:-1])
        inside, above = self._inside(name)
        values = torch.empty((held, pairs, pairs), dtype=torch.float64)
        bounds = values if above is None else torch.empty_like(values)
        columns = torch.empty((held, pairs, pairs, n), dtype=torch.int32)
        step = max(1, CHUNK_BYTES // (4 * held * n * pairs * n))
        for start in range(0, pairs, step):
            rows = slice(start, min(pairs, start + step))
            flat = slice(rows.start * n, rows.stop * n)
            scores = self._scores(name, flat)
            if inside is None or above is None:
                values[:, rows], columns[:, rows] = self._blocks(name, scores, n)
            else:
                values[:, rows], columns[:, rows] = self._blocks(name, scores.double() + inside[:, flat], n)
                bounds[:, rows], _ = self._blocks(name, scores.double() + above[:, flat], n)
        self._keep(name, columns)
        return values, bounds

    def _blocks(self, name: str, scores: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Optimum and columns of each block of n by n of (held, rows n, pairs n)."""
        held, rows, pairs = scores.shape[0], scores.shape[1] // n, scores.shape[2] // n
        batch = scores.view(held, rows, n, pairs, n).transpose(2, 3).reshape(-1, n, n)
        columns, values, _ = self._solve(name, batch)
        return values.view(held, rows, pairs), columns.view(held, rows, pairs, n)

    def _coupled(self, names: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """As :meth:`_single` for coupled members, which are leaves with the same members around them."""
        spec, plan = self._spec, self._plan
        held = path_size(spec, plan.held[names[0]])
        pairs = path_size(spec, plan.path[names[0]][:-1])
        sizes = {name: spec.sizes[name] for name in names}
        values = torch.empty((held, pairs, pairs), dtype=torch.float64)
        bounds = torch.empty_like(values)
        columns = {name: torch.empty((held, pairs, pairs, n), dtype=torch.int32) for name, n in sizes.items()}
        usable = [c for c in plan.couplings[names] if self._usable(c)]
        widest = max(math.prod(sizes[name] for name in c.groups) for c in plan.couplings[names])
        factored = 4 * held * (pairs * widest) ** 2 > TABLE_BYTES
        most = max(sizes.values()) if factored else widest
        step = max(1, CHUNK_BYTES // (4 * held * pairs * most * most))

        def solve(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            self._clock.lap("products")
            return self._solve(names[0], batch)[:2]

        for start in range(0, pairs, step):
            rows = slice(start, min(pairs, start + step))
            linear = {}
            for name, n in sizes.items():
                scores = self._scores(name, slice(rows.start * n, rows.stop * n))
                linear[name] = scores.view(held, -1, n, pairs, n).transpose(2, 3).reshape(-1, n, n)
            tables = [(c.groups, self._table(c, rows, factored)) for c in usable]
            solved = solve_coupled(Pairs(linear, tables), solve)
            shape = (held, rows.stop - rows.start, pairs)
            values[:, rows], bounds[:, rows] = solved.value.view(shape), solved.bound.view(shape)
            for name, rows_of in solved.columns.items():
                columns[name][:, rows] = rows_of.view(*shape, sizes[name]).int()
        for name in names:
            self._keep(name, columns[name])
        return values, bounds

    def _keep(self, name: str, columns: torch.Tensor) -> None:
        sizes = tuple(self._spec.sizes[outer] for outer in self._plan.held[name])
        self._found[name] = columns.view(*sizes, *columns.shape[1:])

    # ---- products and assignments

    def _usable(self, part: Entry | Coupling) -> bool:
        return self._settled is None or self._settled.issuperset(part.others)

    def _scores(self, name: str, rows: slice = slice(None), outer: slice = slice(None)) -> torch.Tensor:
        """The products of a member, (held, rows, path) on the CPU; ``outer``: of these indices of the held groups."""
        n = path_size(self._spec, self._plan.path[name])
        held = path_size(self._spec, self._plan.held[name])
        scores: torch.Tensor | None = None
        for entry in self._plan.entries[name]:
            if not self._usable(entry):
                continue
            a, b = self._matrices(entry, held, n)
            a, b = a[outer, rows], b[outer]
            weight = self._alignment.problem.pieces[entry.piece].weight
            if scores is not None and scores.dtype != a.dtype:
                scores, a, b = scores.double(), a.double(), b.double()
            scores = torch.bmm(a, b.transpose(1, 2)).mul_(weight) if scores is None else _add(scores, a, b, weight)
            self._alignment.counts.computed += 1
            self._alignment.counts.multiplied += a.numel() * n
        if scores is None:
            lengths = [len(range(*part.indices(size))) for part, size in ((outer, held), (rows, n))]
            scores = torch.zeros((*lengths, n))
        self._clock.lap("products")
        return scores.cpu()

    def _matrices(self, part: Entry | Coupling, held: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A's piece and B's as placed, both (held, n, depth)."""
        piece = self._alignment.problem.pieces[part.piece]
        shape = piece.piece.split_shape
        a, b = (t.view(shape).permute(part.order) for t in (piece.a, self._alignment.tensor(part.piece)))
        return a.reshape(held, n, -1), b.reshape(held, n, -1)

    def _table(self, coupling: Coupling, rows: slice, factored: bool) -> torch.Tensor | Factored:
        """What each choice of units of both coupled members adds, (problems, one, two, one', two')."""
        spec, plan = self._spec, self._plan
        one, two = (spec.sizes[name] for name in coupling.groups)
        held = path_size(spec, plan.held[coupling.groups[0]])
        pairs = path_size(spec, plan.path[coupling.groups[0]][:-1])
        weight, counts = self._alignment.problem.pieces[coupling.piece].weight, self._alignment.counts
        a, b = self._matrices(coupling, held, pairs * one * two)
        a = a[:, rows.start * one * two : rows.stop * one * two]
        if factored:
            a, b = (t.reshape(held, -1, one, two, t.shape[-1]) for t in (a, b))
            return Factored(a, b, weight, counts)
        products = torch.bmm(a, b.transpose(1, 2)).mul_(weight)
        counts.computed += 1
        counts.multiplied += a.numel() * b.shape[1]
        products = products.cpu().view(held, -1, one, two, pairs, one, two)
        return products.permute(0, 1, 4, 2, 3, 5, 6).reshape(-1, one, two, one, two)

    def _solve(self, name: str, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
        """Columns, optima (float64) and the sum of the certificates' gaps of a batch of assignments."""
        if batch.shape[0] == 0 or batch.shape[-1] == 1:
            return torch.zeros(batch.shape[:2], dtype=torch.int64), batch.double().sum(dim=(1, 2)), 0.0
        self._clock.lap("other")
        try:
            solved = solve_assignment(batch)
        except (InvalidScoresError, InfeasibleError) as error:
            raise InvalidParamsError(
                f"the scores of group {name!r} overflow {str(batch.dtype).removeprefix('torch.')}: "
                "the weights are too large to be matched as they are"
            ) from error
        self._alignment.counts.reads += round(float(solved.stats.reads) * batch.numel())
        self._clock.lap("assignment")
        return solved.columns, solved.objective, float(solved.gap.sum())


def _add(scores: torch.Tensor, a: torch.Tensor, b: torch.Tensor, weight: float) -> torch.Tensor:
    return scores.baddbmm_(a, b.transpose(1, 2), alpha=weight)
