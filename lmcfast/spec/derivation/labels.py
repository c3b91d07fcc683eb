"""The algebra of labels: unify, split, cut.

Every operation only shrinks the group of permutations that the labels allow; where two labels can't be brought
together, both are fixed (a *misfit*). So an operator's rule may demand too much, and freedom is lost, but whatever it
demands holds from then on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from .store import AtomStore, Limit
from .terms import ONE, Atom, Case, Chain, Concat, Label, Product, Step

_MAX_DEPTH = 60

Segment = tuple[Label, Chain]


class Labels(AtomStore):
    """Labels over atoms in a union-find. ``misfits``: what could not be brought together, for the report."""

    def __init__(self) -> None:
        super().__init__()
        self.misfits: list[str] = []
        self._depth = 0

    # ---- construction

    def product(self, *parts: Label) -> Label:
        """Row-major product in normal form."""
        return self.normal(Product(tuple(parts)))

    def concat(self, arms: Sequence[Label], selector: int | None = None) -> Label:
        """The arms side by side in normal form, under a new selector unless one is given."""
        arms = tuple(arms)
        if len(arms) == 1:
            return self.normal(arms[0])
        return self.normal(Concat(self.selector() if selector is None else selector, arms))

    def case(self, selector: int, arms: Sequence[Label]) -> Label:
        """``arms[j]`` where ``selector`` is in its arm ``j``, in normal form. All arms must have one size."""
        return self.normal(Case(selector, tuple(arms)))

    # ---- unification

    def unify(self, first: Label, second: Label, why: str) -> None:
        """Make two labels of one size the same. ``why`` names the operator, for the report."""
        first, second = self.normal(first), self.normal(second)
        if first == second:
            return
        if self.size(first) != self.size(second):
            raise ValueError(f"{why}: dimensions of length {self.size(first)} and {self.size(second)}")
        if isinstance(second, Atom) and not isinstance(first, Atom):
            first, second = second, first
        if isinstance(first, Atom) and isinstance(second, Atom):
            self._merge(first.index, second.index)
            return
        if self.is_fixed(first) and self.is_fixed(second):
            return
        if self._depth > _MAX_DEPTH:
            self._misfit(f"{why}: views nested too deep", first, second)
            return
        self._depth += 1
        try:
            self._unify_composite(first, second, why)
        finally:
            self._depth -= 1

    def _unify_composite(self, first: Label, second: Label, why: str) -> None:
        if isinstance(first, Case) or isinstance(second, Case):
            case, other = (first, second) if isinstance(first, Case) else (second, first)
            assert isinstance(case, Case)
            for j, arm in enumerate(case.arms):
                self.unify(arm, self.restrict(self.normal(other), case.selector, j), why)
        elif isinstance(first, Atom):
            if first.index in self.atoms(second):
                self._misfit(f"{why}: a dimension would be part of itself", first, second)
            else:
                self._bind(first.index, second)
        elif isinstance(first, Concat) or isinstance(second, Concat):
            self._unify_concat(first, second, why)
        else:
            assert isinstance(first, Product)
            assert isinstance(second, Product)
            self._unify_product(first, second, why)

    def _unify_concat(self, first: Label, second: Label, why: str) -> None:
        sizes = [
            [self.size(arm) for arm in x.arms] if isinstance(x, Concat) else [self.size(x)] for x in (first, second)
        ]
        if isinstance(first, Concat) and isinstance(second, Concat) and sizes[0] == sizes[1]:
            for a, b in zip(first.arms, second.arms, strict=True):
                self.unify(a, b, why)
            self._normal_forms.clear()
            self._selector_parent[self.selector_root(second.selector)] = self.selector_root(first.selector)
            return
        ends = sorted({0, *itertools.accumulate(sizes[0]), *itertools.accumulate(sizes[1])})
        lengths = [end - start for start, end in itertools.pairwise(ends)]
        for (a, _), (b, _) in zip(self.cut(first, lengths, why), self.cut(second, lengths, why), strict=True):
            self.unify(a, b, why)

    def _unify_product(self, first: Product, second: Product, why: str) -> None:
        sizes = self.size(first.parts[0]), self.size(second.parts[0])
        small, large = min(sizes), max(sizes)
        if small == large:
            self.unify(first.parts[0], second.parts[0], why)
            self.unify(Product(first.parts[1:]), Product(second.parts[1:]), why)
        elif large % small == 0:
            self.split((first if sizes[0] == large else second).parts[0], small, why)
            self.unify(first, second, why)
        else:
            self._misfit(f"{why}: factors of {sizes[0]} and {sizes[1]}", first, second)

    def _misfit(self, why: str, *labels: Label) -> None:
        self.misfits.append(why)
        for label in labels:
            self.fix(label, why)

    def _merge(self, kept: int, gone: int) -> None:
        """Two atoms become one; both limits hold."""
        self._normal_forms.clear()
        self._parent[gone] = kept
        self._reason[kept] = self._reason[kept] or self._reason[gone]
        self._hand_down(gone, [kept])
        self._limit(kept, self._limits[gone])

    def _bind(self, index: int, label: Label) -> None:
        """Refine an atom to a composite label, whose atoms get the atom's limits (and may vary with each other)."""
        reason = self._reason[index]
        if reason is not None:
            self.fix(label, reason)
        inside = set(self.atoms(label))
        limits = [limit | inside for limit in self._limits[index]]
        self._hand_down(index, inside)
        for other in inside:
            self._limit(other, limits)
        if isinstance(label, Concat):
            self._bind_concat(index, label)
        else:
            self._normal_forms.clear()
            self._bound[index] = label

    def _bind_concat(self, index: int, label: Concat) -> None:
        """Whatever varied with the atom now has one version for each arm: a case over the new concatenation."""
        varying = [d for d in self.dependents([index]) if d != index]
        versions: list[dict[int, Label]] = []
        for arm in label.arms:
            copies = {d: self.atom(self._size[d], fixed=self._reason[d]) for d in varying}
            arm_atoms = set(self.atoms(arm))
            for d, copy in copies.items():
                assert isinstance(copy, Atom)
                self._limits[copy.index] = []
                self._limit(copy.index, [self._moved_limit(raw, index, copies, arm_atoms) for raw in self._limits[d]])
                self._hand_down(d, [copy.index])
            versions.append(copies)
        self._normal_forms.clear()
        self._bound[index] = label
        for d in varying:
            self._bound[d] = Case(label.selector, tuple(copies[d] for copies in versions))

    def _moved_limit(self, limit: Limit, index: int, copies: dict[int, Label], arm_atoms: set[int]) -> Limit:
        moved = set(arm_atoms)
        for raw in limit:
            for x in self.atoms(Atom(raw)):
                copy = copies.get(x)
                if isinstance(copy, Atom):
                    moved.add(copy.index)
                elif x != index:
                    moved.add(x)
        return frozenset(moved)

    # ---- splitting into factors

    def split(self, label: Label, outer: int, why: str) -> tuple[Label, Label]:
        """Write the label as a product of ``outer`` times the rest; returns both factors."""
        label = self.normal(label)
        size = self.size(label)
        if size % outer:
            raise ValueError(f"{why}: a dimension of length {size} in blocks, {outer} of them")
        inner = size // outer
        if outer == 1 or inner == 1:
            return (ONE, label) if outer == 1 else (label, ONE)
        if isinstance(label, Atom):
            return self._split_atom(label.index, outer, inner)
        if isinstance(label, Product):
            found = self._split_product(label, outer, why)
            if found is not None:
                return found
        elif isinstance(label, Case):
            pairs = [self.split(arm, outer, why) for arm in label.arms]
            return (
                self.case(label.selector, [pair[0] for pair in pairs]),
                self.case(label.selector, [pair[1] for pair in pairs]),
            )
        elif all(self.size(arm) % inner == 0 for arm in label.arms):
            pairs = [self.split(arm, self.size(arm) // inner, why) for arm in label.arms]
            return (
                self.concat([pair[0] for pair in pairs], label.selector),
                self.case(label.selector, [pair[1] for pair in pairs]),
            )
        self._misfit(f"{why}: {size} positions in {outer} blocks across a boundary", label)
        return self.atom(outer, fixed=why), self.atom(inner, fixed=why)

    def _split_atom(self, index: int, outer: int, inner: int) -> tuple[Label, Label]:
        """Blocks that move whole, and within each block a permutation of its own."""
        reason = self._reason[index]
        high, low = self.atom(outer, fixed=reason), self.atom(inner, fixed=reason)
        assert isinstance(high, Atom)
        assert isinstance(low, Atom)
        self._limits[high.index], self._limits[low.index] = [], []
        self._limit(high.index, self._limits[index])
        self._limit(low.index, [limit | {high.index} for limit in self._limits[index]])
        self._hand_down(index, (high.index, low.index))
        self._normal_forms.clear()
        self._bound[index] = Product((high, low))
        return high, low

    def _split_product(self, label: Product, outer: int, why: str) -> tuple[Label, Label] | None:
        done = 1
        for k, factor in enumerate(label.parts):
            if done == outer:
                return self.product(*label.parts[:k]), self.product(*label.parts[k:])
            size = self.size(factor)
            if done * size > outer:
                if outer % done or size % (outer // done):
                    return None
                high, low = self.split(factor, outer // done, why)
                return self.product(*label.parts[:k], high), self.product(low, *label.parts[k + 1 :])
            done *= size
        return None

    # ---- cutting into segments

    def cut(self, label: Label, sizes: Sequence[int], why: str) -> list[Segment]:
        """Write the label as segments of the given sizes (no zeros); each with its chain for :meth:`reselect`."""
        label = self.normal(label)
        if len(sizes) == 1:
            return [(label, ())]
        if sum(sizes) != self.size(label):
            raise ValueError(f"{why}: a dimension of length {self.size(label)} in parts of {list(sizes)}")
        held = self.atoms(label)
        still = held and self.is_fixed(label) and not self.dependents(held)
        if still and not (isinstance(label, Concat) and self._ends_with_arms(label, sizes)):
            # Nothing can move and nothing varies with it: fresh labels keep terms small where windows are cut often.
            # Between arms the concatenation is cut all the same, since other dimensions may have a case for each.
            return [(self.atom(size, fixed=self._reason[held[0]]), ()) for size in sizes]
        if isinstance(label, Atom):
            return self._cut_atom(label.index, sizes)
        if isinstance(label, Product):
            return self._cut_product(label, sizes, why)
        if isinstance(label, Case):
            parts = [self.cut(arm, sizes, why) for arm in label.arms]
            return [(self.case(label.selector, [part[q][0] for part in parts]), ()) for q in range(len(sizes))]
        return self._cut_concat(label, sizes, why)

    def _ends_with_arms(self, label: Concat, sizes: Sequence[int]) -> bool:
        """Whether every segment ends where an arm ends."""
        return set(itertools.accumulate(sizes)) <= set(itertools.accumulate(map(self.size, label.arms)))

    def _cut_atom(self, index: int, sizes: Sequence[int]) -> list[Segment]:
        arms: list[Label] = []
        for size in sizes:
            arm = self.atom(size, fixed=self._reason[index])
            if isinstance(arm, Atom):
                self._limits[arm.index] = []
                self._limit(arm.index, self._limits[index])
            arms.append(arm)
        selector = self.selector()
        self._bind(index, Concat(selector, tuple(arms)))
        return [(arm, (Step(selector, ((j, ()),), None),)) for j, arm in enumerate(arms)]

    def _cut_product(self, label: Product, sizes: Sequence[int], why: str) -> list[Segment]:
        """Cut the first factor where the segments begin and end, then the concatenation that this makes."""
        if not label.parts:
            return self._uncut(label, sizes, why)
        block = math.prod(map(self.size, label.parts[1:]))
        ends = {0, self.size(label.parts[0])}
        for end in itertools.accumulate(sizes):
            ends |= {end // block, -(-end // block)}
        lengths = [end - start for start, end in itertools.pairwise(sorted(ends))]
        segments = self.cut(label.parts[0], lengths, why)
        found = self.normal(label)
        if isinstance(found, Product):  # the first factor was a case: its selector says nothing about these segments
            found = self.concat([self.product(segment, *label.parts[1:]) for segment, _ in segments])
        if isinstance(found, Concat) and len(found.arms) > 1:
            return self.cut(found, sizes, why)
        return self._uncut(found, sizes, why)

    def _cut_concat(self, label: Concat, sizes: Sequence[int], why: str) -> list[Segment]:
        left: list[tuple[int, Label, Chain]] = [(j, arm, ()) for j, arm in enumerate(label.arms)]
        found: list[Segment] = []
        for size in sizes:
            pieces: list[Label] = []
            kept: list[tuple[int, Chain]] = []
            while size:
                j, arm, chain = left.pop(0)
                length = self.size(arm)
                if length > size:
                    (arm, inner), (rest, inner_rest) = self.cut(arm, [size, length - size], why)
                    left.insert(0, (j, rest, chain + inner_rest))
                    chain, length = chain + inner, size
                size -= length
                pieces.append(arm)
                kept.append((j, chain))
            selector = self.selector() if len(pieces) > 1 else None
            segment = self.normal(pieces[0]) if selector is None else self.concat(pieces, selector)
            found.append((segment, (Step(label.selector, tuple(kept), selector),)))
        return found

    def _uncut(self, label: Label, sizes: Sequence[int], why: str) -> list[Segment]:
        self._misfit(f"{why}: segments across a boundary", label)
        return [(self.atom(size, fixed=why), ()) for size in sizes]

    def reselect(self, label: Label, chain: Chain) -> Label:
        """The label of another dimension after a cut: its cases over the concatenation that was cut, kept arms only."""
        label = self.normal(label)
        for step in chain:
            label = self.normal(self._reselect(label, step))
            if len(step.kept) == 1:
                label = self.reselect(label, step.kept[0][1])
        return label

    def _reselect(self, label: Label, step: Step) -> Label:
        if isinstance(label, Atom):
            return label
        if isinstance(label, Product):
            return Product(tuple(self._reselect(part, step) for part in label.parts))
        if isinstance(label, Case) and label.selector == self.selector_root(step.selector):
            arms = tuple(self.reselect(label.arms[j], inner) for j, inner in step.kept)
            return arms[0] if step.selector_after is None else Case(step.selector_after, arms)
        return type(label)(label.selector, tuple(self._reselect(part, step) for part in label.arms))
