"""What is known of the tensors in a graph, and the statements that operators' rules are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from .aliases import Memory
from .labels import Labels
from .terms import ONE, Label


@dataclass(frozen=True)
class IndexValues:
    """The values of an integer tensor are indices into a dimension with this label; ``source``: who computed them."""

    label: Label
    source: str


@dataclass(frozen=True)
class Contraction:
    """A sum over ``over``: that may vary with the ``batch`` dimensions only, and nothing in ``others`` with it."""

    over: Label
    batch: tuple[Label, ...]
    others: tuple[Label, ...]


class Statements:
    """Labels of tensors, constraints between them, and what is known of values; rules call the public methods.

    ``tensors``: node -> the labels of its dimensions (a list of such for several outputs). ``contractions``: for
    :mod:`.settle`. ``index_tags``: source of index values -> (the label that they index, the labels of the index
    tensor). ``why``: the operator at work, for reports. ``beside``: nodes of one turn of a loop that is rolled up ->
    the label of the turns, which all its tensors have beside their own dimensions.
    """

    def __init__(self, graph: fx.Graph) -> None:
        self.labels = Labels()
        self.tensors: dict[fx.Node, Any] = {}
        self.contractions: list[Contraction] = []
        self.index_tags: dict[str, tuple[Label, list[Label]]] = {}
        self.why = "?"
        self.beside: dict[fx.Node, Label] = {}
        self._turns: tuple[Label, ...] = ()
        self._even: dict[fx.Node, frozenset[int]] = {}
        self._constants: dict[fx.Node, torch.Tensor] = {}
        self._index_values: dict[fx.Node | tuple[fx.Node, int], IndexValues] = {}
        self._memory = Memory(graph)

    # ---- what is known

    def of(self, x: Any) -> list[Label]:
        """The labels of a tensor. A dimension along which it is constant gets a free label at every use."""
        labels: list[Label] = self.tensors[as_node(x)]
        even = self.even_dims(x)
        if not even:
            return list(labels)
        found = list(labels)
        for dim in sorted(even):
            found[dim] = self.free(self.size(found[dim]), found[:dim] + found[dim + 1 :])
        return found

    def shape(self, node: fx.Node) -> list[int]:
        """The shape of a tensor in the graph."""
        return list(node.meta["val"].shape)

    def size(self, label: Label) -> int:
        """Number of positions of a label."""
        return self.labels.size(label)

    def even_dims(self, x: Any) -> frozenset[int]:
        """The dimensions along which the tensor's values are known to be constant."""
        node = as_node(x)
        return frozenset() if self._memory.is_written(node) else self._even.get(node, frozenset())

    def known(self, x: Any) -> torch.Tensor | None:
        """The values of a tensor that is known while tracing (an index list in the code), else None."""
        if not isinstance(x, fx.Node) or self._memory.is_written(x):
            return None
        return self._constants.get(x)

    def index_values(self, x: Any) -> IndexValues | None:
        """Which dimension the values of an integer tensor index, where that is known."""
        return self._index_values.get(x) if isinstance(x, fx.Node) else None

    # ---- what is stated

    def atom(self, size: int, others: Iterable[Label] = (), why: str | None = None) -> Label:
        """A new label that may vary with the labels in ``others``; fixed where a reason is given."""
        around = (*others, *self._turns)
        return self.labels.atom(size, [i for label in around for i in self.labels.atoms(label)], why)

    def free(self, size: int, others: Iterable[Label] = ()) -> Label:
        """A new label for a dimension along which the tensor is constant; ``others``: its other dimensions."""
        return self.atom(size, others)

    def fixed(self, size: int, why: str | None = None) -> Label:
        """A new label that can't move."""
        return self.labels.atom(size, (), why or self.why)

    def fix(self, label: Label, why: str | None = None) -> None:
        """The dimension can't move."""
        self.labels.fix(label, why or self.why)

    def unify(self, first: Label, second: Label) -> None:
        """Two dimensions are the same."""
        self.labels.unify(first, second, self.why)

    def product(self, *parts: Label) -> Label:
        """Row-major product of dimensions."""
        return self.labels.product(*parts)

    def concat(self, *arms: Label, selector: int | None = None) -> Label:
        """The arms side by side, under a new selector unless one is given."""
        return self.labels.concat(arms, selector)

    def case(self, selector: int, *arms: Label) -> Label:
        """A dimension that is ``arms[j]`` where the concatenation ``selector`` is in its arm ``j``."""
        return self.labels.case(selector, arms)

    def new_selector(self) -> int:
        """A selector for :meth:`concat` and the cases that go with it."""
        return self.labels.selector()

    def atoms(self, label: Label) -> list[int]:
        """The atoms of a label."""
        return self.labels.atoms(label)

    def split(self, label: Label, outer: int) -> tuple[Label, Label]:
        """The label as a product of ``outer`` and the rest."""
        return self.labels.split(label, outer, self.why)

    def set_even(self, node: fx.Node, dims: Iterable[int]) -> None:
        """The output is constant along these dimensions."""
        self._even[node] = frozenset(dim for dim in dims if self.shape(node)[dim] > 1)

    def set_constant(self, node: fx.Node, value: torch.Tensor) -> None:
        """The output's values are known."""
        self._constants[node] = value

    def set_index_values(self, node: fx.Node, label: Label, output: int | None = None) -> None:
        """The output (or number ``output`` of several) holds indices into a dimension with this label."""
        self._index_values[node if output is None else (node, output)] = IndexValues(label, node.name)

    def pass_index_values(self, x: fx.Node, node: fx.Node) -> None:
        """The output has all values of ``x``, if in other dimensions: index values stay those of their source."""
        values = self.index_values(x)
        if values is not None:
            self._index_values[node] = values

    def pass_values(self, x: fx.Node, node: fx.Node) -> None:
        """The output is ``x``: whatever is known of its values stays known."""
        self.pass_index_values(x, node)
        constant = self.known(x)
        if constant is not None:
            self._constants[node] = constant
        if self.even_dims(x):
            self._even[node] = self.even_dims(x)

    def forget(self, node: fx.Node) -> None:
        """Drop what is known of the values of a node."""
        self._even.pop(node, None)
        self._constants.pop(node, None)
        for key in list(self._index_values):
            if (key[0] if isinstance(key, tuple) else key) is node:
                del self._index_values[key]

    def fix_index_values(self, x: fx.Node, why: str) -> None:
        """Someone looks at the values of ``x``: if they are indices, what they index can't move."""
        values = self.index_values(x)
        if values is not None:
            self.fix(values.label, f"its indices are used by {why}")

    def contract(self, over: Label, batch: Sequence[Label], others: Sequence[Label]) -> None:
        """A sum over a dimension: it may vary with ``batch`` only, and nothing in ``others`` may vary with it."""
        self.contractions.append(Contraction(over, (*batch, *self._turns), (*others, *self._turns)))

    @contextmanager
    def in_a_turn(self, turns: Label) -> Iterator[None]:
        """What is stated meanwhile holds in each turn of a loop: ``turns`` is a dimension beside all others.

        An operator that works on one turn's tensors works on those of every turn alike, so its rule says what may
        happen to each of them; what it makes may vary with the turn.
        """
        before, self._turns = self._turns, (turns,)
        try:
            yield
        finally:
            self._turns = before

    # ---- common steps

    def broadcast(self, *tensors: Sequence[Label]) -> list[Label]:
        """Unify aligned dimensions, length 1 aside; returns the labels of the result."""
        rank = max(map(len, tensors))
        out: list[Label] = []
        for dim in range(rank):
            current: Label = ONE
            for labels in tensors:
                k = dim - rank + len(labels)
                if k < 0 or self.size(labels[k]) == 1:
                    continue
                if current == ONE:
                    current = labels[k]
                else:
                    self.unify(current, labels[k])
            out.append(current)
        return out

    def reduce(self, labels: Sequence[Label], dims: Iterable[int], keep: bool) -> list[Label]:
        """A sum (or any symmetric function) over some dimensions; ``keep``: they stay with length 1."""
        gone = set(dims)
        rest = [label for dim, label in enumerate(labels) if dim not in gone]
        if gone:  # one joint sum: within it the summed dimensions may vary with each other
            self.contract(self.product(*(labels[dim] for dim in sorted(gone))), rest, rest)
        return [ONE if dim in gone else label for dim, label in enumerate(labels) if keep or dim not in gone]

    def matmul(self, a: Sequence[Label], b: Sequence[Label]) -> list[Label]:
        """``a @ b`` with torch's rules for vectors and batches."""
        vector_a, vector_b = len(a) == 1, len(b) == 1
        left = [ONE, *a] if vector_a else list(a)
        right = [*b, ONE] if vector_b else list(b)
        batch = self.broadcast(left[:-2], right[:-2])
        self.unify(left[-1], right[-2])
        self.contract(left[-1], batch, [*batch, left[-2], right[-1]])
        return [*batch, *([] if vector_a else [left[-2]]), *([] if vector_b else [right[-1]])]

    def reshape(self, labels: Sequence[Label], shape: Sequence[int]) -> list[Label]:
        """The labels of a view: runs of dimensions with one product are joined and split."""
        ins = [label for label in labels if self.size(label) != 1]
        outs = [size for size in shape if size != 1]
        found: list[Label] = []
        for sources, sizes in _matched_runs([self.size(label) for label in ins], outs):
            rest = self.labels.product(*ins[sources])
            for size in sizes[:-1]:
                head, rest = self.split(rest, size)
                found.append(head)
            found.append(rest)
        results = iter(found)
        return [ONE if size == 1 else self.labels.normal(next(results)) for size in shape]

    def take(self, labels: Sequence[Label], dim: int, sizes: Sequence[int]) -> list[list[Label]]:
        """Cut one dimension into segments; for each segment the labels of all dimensions."""
        segments = iter(self.labels.cut(labels[dim], [size for size in sizes if size], self.why) if any(sizes) else [])
        found = []
        for size in sizes:
            segment, chain = next(segments) if size else (self.fixed(0), ())
            found.append([segment if k == dim else self.labels.reselect(x, chain) for k, x in enumerate(labels)])
        return found

    def lookup(self, labels: Sequence[Label], dim: int, index: fx.Node) -> list[Label]:
        """Read dimension ``dim`` at the positions in ``index``; returns the labels of ``index`` to be used from here.

        The dimension is fixed, unless the values of ``index`` are known to index the same group.
        """
        places = self.of(index)
        values = None if self._turns else self.index_values(index)
        if values is None:
            self.fix(labels[dim], "indexed by data")
            self.fix_index_values(index, "a lookup in a loop")
            self.contract(labels[dim], [], [label for k, label in enumerate(labels) if k != dim])
        else:
            self.unify(labels[dim], values.label)
            self.index_tags[values.source] = (values.label, places)
        return places


def as_node(x: Any) -> fx.Node:
    """The argument, which must be a tensor."""
    if not isinstance(x, fx.Node):
        raise TypeError(f"a tensor was expected, not {x!r}")
    return x


def _matched_runs(ins: Sequence[int], outs: Sequence[int]) -> Iterator[tuple[slice, list[int]]]:
    """Shortest runs of input and output dimensions (none of length 1) with the same number of positions."""
    i = j = 0
    while i < len(ins) or j < len(outs):
        start, sizes = i, [outs[j]]
        have, want = ins[i], outs[j]
        i, j = i + 1, j + 1
        while have != want:
            if have < want:
                have, i = have * ins[i], i + 1
            else:
                want, j = want * outs[j], j + 1
                sizes.append(outs[j - 1])
        yield slice(start, i), sizes
