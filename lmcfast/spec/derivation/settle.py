"""The fixed point after the walk: what may vary with what, in every tensor and every sum.

A dependency says that an atom has one permutation for each index of another one. It is meaningful only where that
index is known, so these hold at the end (each step only takes freedom away, hence there is an end):

1. in every tensor that shows an atom, each atom that it depends on occurs exactly once beside it (in the same
   dimension first), or stands behind index values whose dimensions all do (and not both); else the dependency goes;
2. a dimension that is summed over depends on batch dimensions only, and nothing that stays depends on it: not as an
   atom, not as a case over a concatenation in it;
3. a case whose selector isn't beside it has one arm for all;
4. dependencies make no cycle, and an atom depends on whatever its outer atoms depend on: else the permutations would
   not be closed under composition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .terms import Atom, Case, Concat, Label, Product, children

if TYPE_CHECKING:
    from .statements import Contraction, Statements

_MAX_ROUNDS = 200
_SEVERAL = 2

Shape = tuple[Label, ...]


def settle(derivation: Statements) -> None:
    """Shrink dependencies and cases until all four conditions hold."""
    _Settling(derivation).run()


class _Settling:
    def __init__(self, derivation: Statements) -> None:
        self.derivation = derivation
        self.labels = derivation.labels
        self.changed = False

    def run(self) -> None:
        """Sweep over all tensors and sums until a sweep changes nothing."""
        tensors = list(dict.fromkeys(_shapes(self.derivation)))
        for _ in range(_MAX_ROUNDS):
            self.changed = False
            tensors = list(dict.fromkeys(tuple(map(self.labels.normal, tensor)) for tensor in tensors))
            for tensor in tensors:
                self._check_tensor(tensor)
            for contraction in self.derivation.contractions:
                self._check_contraction(contraction)
            self._break_cycles()
            self._close()
            if not self.changed:
                return
        # Not reached in practice; whatever is still open must not move.
        for tensor in tensors:
            for label in tensor:
                self.labels.fix(label, "constraints did not settle")

    # ---- 1 and 3: in every tensor

    def _check_tensor(self, tensor: Shape) -> None:
        for k, label in enumerate(tensor):
            self._check_term(label, (), (*tensor[:k], *tensor[k + 1 :]))

    def _check_term(self, label: Label, own: Shape, others: Shape) -> None:
        """``own``: factors beside the term in its dimension; ``others``: the other dimensions."""
        if isinstance(label, Atom):
            self._check_atom(label.index, own, others)
        elif isinstance(label, Product):
            for k, part in enumerate(label.parts):
                self._check_term(part, (*own, *label.parts[:k], *label.parts[k + 1 :]), others)
        elif isinstance(label, Concat):
            for arm in label.arms:
                self._check_term(arm, own, others)
        else:
            self._check_case(label, own, others)

    def _check_atom(self, index: int, own: Shape, others: Shape) -> None:
        if not self.labels.is_live(index):  # refined meanwhile: seen in the next round
            return
        dependencies = self.labels.dependencies(index)
        if dependencies:
            near, far = visible(own), visible(others)
            self._drop(index, {other for other in dependencies if not self._shown(other, near, far)})

    def _check_case(self, label: Case, own: Shape, others: Shape) -> None:
        key = _selector_key(label.selector)
        near, far = visible(own)[key], visible(others)[key]
        if near == 1 or (near == 0 and far == 1):
            for j, arm in enumerate(label.arms):
                inside = tuple(self.labels.enter(x, label.selector, j) for x in own)
                around = tuple(self.labels.enter(x, label.selector, j) for x in others)
                self._check_term(self.labels.normal(arm), inside, around)
        else:
            self._join_arms(label, "a choice that is not visible")

    def _shown(self, index: int, near: Counter[int], far: Counter[int]) -> bool:
        """Whether an outer atom has one index where a term stands, and only one way to know it."""
        tags = self._tags_into(index)
        indexed = [needed for needed in tags if all(near[i] + far[i] == 1 for i in needed)]
        if near[index] or far[index]:
            return not indexed and (near[index] == 1 or (near[index] == 0 and far[index] == 1))
        return len(tags) == 1 == len(indexed) and index not in tags[0]

    def _tags_into(self, index: int) -> list[set[int]]:
        """For each source of index values into a group with this atom: the atoms of the index tensor's dimensions."""
        labels = self.labels
        return [
            {i for dim in dims for i in labels.atoms(dim)}
            for label, dims in self.derivation.index_tags.values()
            if index in labels.atoms(label)
        ]

    # ---- 2: in every sum

    def _check_contraction(self, contraction: Contraction) -> None:
        labels = self.labels
        over = labels.normal(contraction.over)
        summed = set(labels.atoms(over))
        batch = tuple(map(labels.normal, contraction.batch))
        self._check_term(over, (), batch)
        self._check_summed_cases(over, contraction.others)
        hidden: set[int] = set()  # known only through index values along a dimension that is summed over
        for label, dims in self.derivation.index_tags.values():
            if summed.intersection(i for dim in dims for i in labels.atoms(dim)):
                hidden.update(labels.atoms(label))
        shown = visible(map(labels.normal, contraction.others))
        gone = summed | {index for index in hidden if shown[index] != 1}
        for label in contraction.others:
            mine = set(labels.atoms(label))
            for index in mine:
                self._drop(index, (labels.dependencies(index) & gone) - mine)

    def _check_summed_cases(self, over: Label, others: Sequence[Label]) -> None:
        summed = set(_selectors(over))
        for label in others:
            for case in outer_cases(self.labels.normal(label)):
                if case.selector in summed:
                    self._join_arms(case, "a choice along a dimension that is summed over")

    # ---- 4

    def _break_cycles(self) -> None:
        """Depth-first search over the dependencies; an edge back into the path is dropped."""
        edges = {i: sorted(self.labels.dependencies(i)) for i in sorted(self.labels.dependent_atoms())}
        done: set[int] = set()
        for start in edges:
            if start in done:
                continue
            path = {start: iter(edges[start])}
            while path:
                index, pending = next(reversed(path.items()))
                target = next(pending, None)
                if target is None:
                    done.add(index)
                    del path[index]
                elif target in path:
                    self._drop(index, {target})
                elif target in edges and target not in done:
                    path[target] = iter(edges[target])

    def _close(self) -> None:
        """An atom that doesn't follow what its outer atom follows does not follow that one either."""
        for index in sorted(self.labels.dependent_atoms()):
            mine = self.labels.dependencies(index)
            free = {outer for outer in mine if self.labels.reason(outer) is None}
            self._drop(index, {outer for outer in free if self.labels.dependencies(outer) - mine})

    # ---- changes

    def _drop(self, index: int, bad: set[int]) -> None:
        self.changed |= self.labels.drop_dependencies(index, bad)

    def _join_arms(self, case: Case, why: str) -> None:
        for arm in case.arms[1:]:
            if not (self.labels.is_fixed(arm) and self.labels.is_fixed(case.arms[0])):
                self.labels.unify(case.arms[0], arm, why)
        self.changed |= self.labels.normal(case) != case


def _shapes(derivation: Statements) -> Iterator[Shape]:
    """The labels of all tensors; those of one turn of a loop have the turns beside them."""
    for node, entry in derivation.tensors.items():
        beside = (derivation.beside[node],) if node in derivation.beside else ()
        for shape in _tensors([entry]):
            yield (*beside, *shape)


def _tensors(entries: Iterable[Any]) -> Iterator[Shape]:
    """The label tuples in the entries of nodes."""
    for entry in entries:
        if isinstance(entry, list) and entry:
            if all(item is None or isinstance(item, list) for item in entry):
                yield from _tensors(entry)
            else:
                yield tuple(entry)


def _selector_key(selector: int) -> int:
    """Selectors are counted beside atoms, below zero."""
    return -1 - selector


def visible(labels: Iterable[Label]) -> Counter[int]:
    """How often each atom and selector has an index at every position; one only in places counts as several."""
    found: Counter[int] = Counter()
    for label in labels:
        if isinstance(label, Atom):
            found[label.index] += 1
        elif isinstance(label, Product):
            found += visible(label.parts)
        else:
            if isinstance(label, Concat):
                found[_selector_key(label.selector)] += 1
            for name in visible(label.arms):
                found[name] += _SEVERAL
    return found


def _selectors(label: Label) -> Iterator[int]:
    if isinstance(label, Concat):
        yield label.selector
    for part in children(label):
        yield from _selectors(part)


def outer_cases(label: Label, own: frozenset[int] = frozenset()) -> Iterator[Case]:
    """The cases whose selector isn't in the same dimension."""
    if isinstance(label, Product):
        own = own | {part.selector for part in label.parts if isinstance(part, Concat)}
    elif isinstance(label, Case) and label.selector not in own:
        yield label
    for part in children(label):
        yield from outer_cases(part, own)
