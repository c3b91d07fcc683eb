"""``scores.py`` for a device: what is kept, brought up to date and computed of several groups goes into one launch.

The same products are kept, and updated by the same rule. What differs is who knows what: permutations lie on the
device, and comparing them would make the host wait. So each kept product refers to the permutation that it holds for
(:class:`Stand`), and whenever the group moves, the read that tells so also tells in how many units it is now apart from
there. Which units these are only the device knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from .. import _native
from ..terms import GroupedProducts, ScoreSum, Term
from ..terms.plan import is_large_product
from . import scores as host
from .clock import Counts
from .device_placing import Placing, difference
from .problem import Part, Problem

Key = tuple[str, int]  # group, index of the part


@dataclass(eq=False)
class Stand:
    """A permutation of a group, and in how many units the group is apart from it now."""

    permutation: torch.Tensor
    apart: int = 0


@dataclass
class Kept:
    """The product of one part: rows are units of A, columns units of B as stored (``scores.Kept``).

    ``stamp``: of the groups that it depends on, those that may move.
    """

    stamp: dict[str, Stand]
    matrix: torch.Tensor
    columns: int = 0


@dataclass
class _Batch:
    """Sums to be formed in one launch, and the kept products that they make or change; None: the sum is the product."""

    sums: list[ScoreSum] = field(default_factory=list)
    kept: list[tuple[Key, dict[str, Stand], int, int, torch.Tensor | None]] = field(default_factory=list)

    def add(self, entry: ScoreSum) -> int:
        self.sums.append(entry)
        return len(self.sums) - 1


class DeviceTable:
    """Builds score matrices for groups that share no tensor. To be used inside ``terms.full_precision``.

    It follows one :class:`Placing` at a time, which must tell every move (:meth:`moved`).
    """

    def __init__(self, problem: Problem, counts: Counts, budget: int | None = None) -> None:
        self._problem, self._counts = problem, counts
        device = next(iter(problem.tensors.values())).a.device
        keys = host.worth_keeping(problem, kept_bytes(device) if budget is None else budget)
        self._kept: dict[Key, Kept | None] = dict.fromkeys(keys)
        self._readers: dict[str, list[Key]] = {group: [] for group in problem.groups}
        for key in keys:
            for name in self._dependencies(self._part(key)):
                self._readers[name].append(key)
        self._now: dict[str, Stand] = {}  # of groups that stand where a kept product holds
        self._placing: Placing | None = None

    def scores(self, groups: Sequence[str], placing: Placing, settled: frozenset[str] | None) -> list[torch.Tensor]:
        """The (n, n) score matrices: rows are units of A, columns units of B as stored. They are not to be changed.

        ``settled``: use only the parts all of whose other groups are in it.
        """
        self._follow(placing)
        batch = _Batch()
        standing: dict[str, list[Key]] = {}
        fresh: dict[str, int] = {}
        for group in groups:
            keys, terms = [], []
            for index, part in enumerate(self._problem.parts[group]):
                if settled is not None and not settled.issuperset(part.dependencies):
                    continue
                if (group, index) in self._kept:
                    keys.append((group, index))
                    self._bring_up_to_date((group, index), placing, batch)
                else:
                    terms.append(placing.term(part))
            standing[group] = keys
            if terms or not keys:
                fresh[group] = batch.add(self._sum(group, terms))
        formed = self._form(batch)
        return [self._total(formed[fresh[g]] if g in fresh else None, standing[g]) for g in groups]

    def _total(self, found: torch.Tensor | None, keys: Sequence[Key]) -> torch.Tensor:
        """``found``, which may be changed, and kept products, which may not, added up."""
        owned = found is not None
        for key in keys:
            kept = self._kept[key]
            assert kept is not None
            if found is None:
                found = kept.matrix
            else:
                found, owned = found.add_(kept.matrix) if owned else found + kept.matrix, True
        assert found is not None
        return found

    def _sum(self, group: str, terms: list[Term]) -> ScoreSum:
        n = self._problem.size(group)
        self._counts.computed += len(terms)
        self._counts.multiplied += n * n * sum(term.depth for term in terms)
        return ScoreSum(terms, n, self._problem.precision[group])

    def _bring_up_to_date(self, key: Key, placing: Placing, batch: _Batch) -> None:
        kept, part = self._kept[key], self._part(key)
        if kept is not None and not any(stand.apart for stand in kept.stamp.values()):
            self._counts.kept += 1
            return
        self._kept[key] = None  # an interrupt must not leave a matrix that its stamp does not fit
        stamp = {name: self._stand(name, placing) for name in self._dependencies(part)}
        if kept is not None and len(part.dependencies) == 1:
            (name,) = part.dependencies
            n, apart = self._problem.size(key[0]), kept.stamp[name].apart
            share = apart / self._problem.size(name)
            large = is_large_product(n, round(share * part.place.depth), kept.matrix.dtype)
            columns = host.columns_to_update(part, n * n, kept.columns, share, products=1 if large else 2)
            if columns:
                terms: tuple[Term, ...] = placing.columns(part, kept.stamp[name].permutation, apart)
                self._counts.updated += 1
                self._counts.multiplied += n * n * columns
                if large:
                    terms = (difference(*terms),)
                    self._counts.gathered += 3 * n * columns * kept.matrix.itemsize
                at = batch.add(ScoreSum(terms, n, self._problem.precision[key[0]], kept.matrix))
                batch.kept.append((key, stamp, kept.columns + columns, at, kept.matrix))
                return
        batch.kept.append((key, stamp, 0, batch.add(self._sum(key[0], [placing.term(part)])), None))

    def _form(self, batch: _Batch) -> list[torch.Tensor]:
        if not batch.sums:
            return []
        products = GroupedProducts(batch.sums)
        formed = products.run()
        self._counts.launches += products.launches
        self._counts.gathered += products.gathered
        for key, stamp, columns, at, matrix in batch.kept:
            self._kept[key] = Kept(stamp, formed[at] if matrix is None else matrix, columns)
        return formed

    def _part(self, key: Key) -> Part:
        return self._problem.parts[key[0]][key[1]]

    def _dependencies(self, part: Part) -> list[str]:
        return [name for name in part.dependencies if name in self._problem.parts]

    def _stand(self, group: str, placing: Placing) -> Stand:
        return self._now.setdefault(group, Stand(placing.permutations[group]))

    # ---- how far groups are from where kept products hold

    def stands(self, group: str) -> list[Stand]:
        """Where the kept products that depend on a group hold."""
        kept = (self._kept[key] for key in self._readers[group])
        return list({id(entry.stamp[group]): entry.stamp[group] for entry in kept if entry is not None}.values())

    def moved(self, group: str, stands: Sequence[Stand], apart: Sequence[int]) -> None:
        """The group has moved and is now so far from these of its stands."""
        self._now.pop(group, None)
        for stand, count in zip(stands, apart, strict=True):
            stand.apart = count
            if not count:
                self._now[group] = stand

    def _follow(self, placing: Placing) -> None:
        """Waits for the device where the kept products are of another placing."""
        if self._placing is placing:
            return
        self._placing, self._now = placing, {}
        found = [(group, stand) for group in self._readers for stand in self.stands(group)]
        if not found:
            return
        apart = [(stand.permutation != placing.permutations[group]).sum() for group, stand in found]
        self._counts.waits += 1
        for (group, stand), count in zip(found, torch.stack(apart).tolist(), strict=True):
            stand.apart = int(count)
            if not count:
                self._now[group] = stand

    def refresh_drifted(self, placing: Placing, seed: int = 0) -> set[str]:
        """``ScoreTable.refresh_drifted``, with one wait where a product was updated."""
        self._follow(placing)
        updated = {key: kept for key, kept in self._kept.items() if kept is not None and kept.columns}
        probed = {key: kept for key, kept in updated.items() if not any(s.apart for s in kept.stamp.values())}
        if not probed:
            return set()
        generator = torch.Generator().manual_seed(seed)
        found = []
        for key, kept in probed.items():
            part = self._part(key)
            drawn = host.random_signs(kept.matrix.shape[0], generator)
            signs = _native.upload(drawn.numpy(), kept.matrix.device)[0].to(kept.matrix.dtype)
            b = placing.tensor(part.tensor, but=key[0])  # the columns are units as stored
            found.append(host.drift(part, kept.matrix, b, signs, signs))
        self._counts.rechecked += len(probed)
        self._counts.waits += 1
        drifted: set[str] = set()
        for (key, kept), off in zip(probed.items(), torch.stack(found).tolist(), strict=True):
            kept.columns = 0
            if off > host.PROBE_TOLERANCE:
                self._kept[key] = None
                drifted.add(key[0])
        return drifted


def kept_bytes(device: torch.device) -> int:
    """The budget: a quarter of the device's memory, at most half of what is free."""
    if device.type != "cuda":
        return host.KEPT_BYTES
    free, total = torch.cuda.mem_get_info(device)
    return min(total // 4, free // 2)
