"""Atoms and selectors in a union-find, and the normal form of labels over them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .terms import ONE, Atom, Case, Concat, Label, Product, children

Limit = frozenset[int]


class AtomStore:
    """Tables of the atoms: size, what an atom was refined to, why it is fixed, on which other atoms it may depend.

    An atom's *dependencies* are the atoms whose index it may vary with: a nested permutation, one for each index of
    them. They are kept as a list of limits, of which the intersection holds, and only ever shrink.
    """

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._size: list[int] = []
        self._bound: list[Label | None] = []
        self._reason: list[str | None] = []
        self._limits: list[list[Limit]] = []
        self._selector_parent: list[int] = []
        self._dependent: set[int] = set()  # every atom with a dependency is in it
        self._normal_forms: dict[Label, Label] = {}  # valid until an atom or selector changes
        self._followers: list[set[int]] = []  # for every live atom a superset of the atoms that may vary with it

    def atom(self, size: int, depends_on: Iterable[int] = (), fixed: str | None = None) -> Label:
        """A new atom (length 1: the empty product). ``depends_on``: indices of atoms; ``fixed``: why it can't move."""
        if size == 1:
            return ONE
        index = len(self._parent)
        self._parent.append(index)
        self._size.append(size)
        self._bound.append(None)
        self._reason.append(fixed)
        self._limits.append([])
        self._followers.append(set())
        self._limit(index, [frozenset(depends_on)])
        return Atom(index)

    def _limit(self, index: int, limits: Iterable[Limit]) -> None:
        """Add limits to an atom's."""
        mine = self._limits[index]
        for limit in limits:
            if limit not in mine:
                mine.append(limit)
                for other in limit:
                    for atom in self.atoms(Atom(other)):
                        self._followers[atom].add(index)
                if limit:
                    self._dependent.add(index)

    def _hand_down(self, index: int, heirs: Iterable[int]) -> None:
        """What may vary with an atom may vary with the atoms that take its place."""
        for heir in heirs:
            self._followers[heir] |= self._followers[index]

    def selector(self) -> int:
        """A new selector."""
        self._selector_parent.append(len(self._selector_parent))
        return len(self._selector_parent) - 1

    def selector_root(self, selector: int) -> int:
        """The representative of a selector."""
        parent = self._selector_parent
        while parent[selector] != selector:
            parent[selector] = selector = parent[parent[selector]]
        return selector

    def root(self, index: int) -> int:
        """The representative of an atom."""
        parent = self._parent
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    def is_live(self, index: int) -> bool:
        """Whether the atom represents itself: neither merged into another one nor refined to a composite."""
        return self._parent[index] == index and self._bound[index] is None

    def size(self, label: Label) -> int:
        """Number of positions of a label."""
        if isinstance(label, Atom):
            return self._size[label.index]
        if isinstance(label, Product):
            return math.prod(map(self.size, label.parts))
        if isinstance(label, Concat):
            return sum(map(self.size, label.arms))
        return self.size(label.arms[0])

    # ---- normal form

    def normal(self, label: Label) -> Label:
        """The label over live atoms: products flat, without units and not led by a concatenation; cases resolved."""
        if isinstance(label, Atom):
            root = self.root(label.index)
            bound = self._bound[root]
            if bound is None:
                return label if label.index == root else Atom(root)
            self._bound[root] = bound = self.normal(bound)
            return bound
        found = self._normal_forms.get(label)
        if found is None:
            found = self._normal_product(label) if isinstance(label, Product) else self._normal_arms(label)
            self._normal_forms[label] = self._normal_forms[found] = found
        return found

    def _normal_arms(self, label: Concat | Case) -> Label:
        selector = self.selector_root(label.selector)
        arms = tuple(self.normal(self.restrict(self.normal(arm), selector, j)) for j, arm in enumerate(label.arms))
        if len(arms) == 1:
            return arms[0]
        if isinstance(label, Concat):
            return Concat(selector, arms)
        return self._normal_case(selector, arms)

    def _normal_product(self, label: Product) -> Label:
        flat: list[Label] = []
        for part in label.parts:
            factor = self.normal(part)
            flat.extend(factor.parts if isinstance(factor, Product) else (factor,))
        if len(flat) == 1:
            return flat[0]
        at = next((k for k, factor in enumerate(flat[:-1]) if isinstance(factor, Concat)), None)
        if at is None:
            return Product(tuple(flat))
        # (a | b) c is a c | b c: with the concatenation outside, one form stands for both.
        head = flat[at]
        assert isinstance(head, Concat)
        arms = (
            Product((arm, *(self.restrict(factor, head.selector, j) for factor in flat[at + 1 :])))
            for j, arm in enumerate(head.arms)
        )
        tail = self.normal(Concat(head.selector, tuple(arms)))
        return self.normal(Product((*flat[:at], tail))) if at else tail

    def _normal_case(self, selector: int, arms: tuple[Label, ...]) -> Label:
        if all(arm == arms[0] for arm in arms):
            return arms[0]
        if all(isinstance(arm, Product) for arm in arms):
            shapes = {tuple(map(self.size, children(arm))) for arm in arms}
            if len(shapes) == 1:  # a case of products is a product of cases, some of which may then resolve
                columns = zip(*(children(arm) for arm in arms), strict=True)
                return self.normal(Product(tuple(Case(selector, column) for column in columns)))
        return Case(selector, arms)

    def restrict(self, label: Label, selector: int, arm: int) -> Label:
        """The label where ``selector`` is in ``arm``: cases over it resolved. Concatenations stay whole."""
        if isinstance(label, Atom):
            root = self.root(label.index)
            return label if self._bound[root] is None else self.restrict(self.normal(label), selector, arm)
        if isinstance(label, Product):
            return Product(tuple(self.restrict(part, selector, arm) for part in label.parts)) if label.parts else label
        if isinstance(label, Case) and self.selector_root(label.selector) == self.selector_root(selector):
            return label.arms[arm]
        return type(label)(label.selector, tuple(self.restrict(part, selector, arm) for part in label.arms))

    def enter(self, label: Label, selector: int, arm: int) -> Label:
        """The label as seen from inside an arm of ``selector``: the concatenation itself is replaced by that arm."""
        if isinstance(label, Concat) and self.selector_root(label.selector) == self.selector_root(selector):
            return self.normal(label.arms[arm])
        if isinstance(label, Product):
            return self.normal(Product(tuple(self.enter(part, selector, arm) for part in label.parts)))
        return self.normal(self.restrict(label, selector, arm))

    # ---- atoms of a label

    def atoms(self, label: Label) -> list[int]:
        """The live atoms of a label in storage order, each as often as it occurs."""
        found: list[int] = []
        self._collect(self.normal(label), found)
        return found

    def _collect(self, label: Label, found: list[int]) -> None:
        if isinstance(label, Atom):
            found.append(label.index)
        else:
            for part in children(label):
                self._collect(part, found)

    def dependencies(self, index: int) -> set[int]:
        """The live atoms that a live atom may vary with."""
        result: set[int] | None = None
        for limit in self._limits[index]:
            now: set[int] = set()
            for other in limit:
                now.update(self.atoms(Atom(other)))
            result = now if result is None else result & now
            if not result:
                return set()
        result = result or set()
        result.discard(index)
        return result

    def dependent_atoms(self) -> set[int]:
        """The live atoms that have, or once had, dependencies."""
        self._dependent = {index for index in self._dependent if self.is_live(index)}
        return self._dependent

    def dependents(self, atoms: Iterable[int]) -> list[int]:
        """The live atoms that may vary with one of ``atoms``."""
        wanted = set(atoms)
        candidates = {index for atom in wanted for index in self._followers[atom]}
        live = sorted(index for index in candidates if self.is_live(index))
        return [index for index in live if wanted & self.dependencies(index)]

    def drop_dependencies(self, index: int, bad: set[int]) -> bool:
        """Forbid the atom to vary with the atoms in ``bad``; whether there was any."""
        if bad:
            self._limits[index] = [frozenset(self.dependencies(index) - bad)]
        return bool(bad)

    # ---- fixing

    def fix(self, label: Label, why: str) -> None:
        """Forbid all atoms of the label to move; the first reason stays."""
        for index in self.atoms(label):
            if self._reason[index] is None:
                self._reason[index] = why

    def reason(self, index: int) -> str | None:
        """Why a live atom cannot move; None if it can."""
        return self._reason[index]

    def is_fixed(self, label: Label) -> bool:
        """Whether nothing in the label can move."""
        return all(self._reason[index] is not None for index in self.atoms(label))
