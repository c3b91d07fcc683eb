"""Labels of every tensor in an exported graph.

:class:`Derivation` walks the graph once and asks the operators' rules (:mod:`.rules`) for labels; its public methods
are what rules are made of. Constraints on what may vary with what (contractions) are kept for :mod:`.settle`.

Soundness: an operator without a rule, or whose rule fails, fixes everything that it touches, with the reason recorded.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from .aliases import aliased_bases, mutated_bases, operator_name
from .buffers import moves_with_units
from .labels import Labels
from .rules import RULES, Rule
from .settle import settle
from .terms import ONE, Label
from .tracing import Trace


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


class Derivation:
    """The labels of a traced module: run, then settled.

    ``parameters``: tensor name -> labels of its axes. ``unsupported``: operators that were not understood on labels
    that could have moved, with how often. ``index_tags``: source of index values -> (the label that they index, the
    labels of the index tensor that was used).
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.labels = Labels()
        self.tensors: dict[fx.Node, Any] = {}
        self.parameters: dict[str, list[Label]] = {}
        self.contractions: list[Contraction] = []
        self.index_tags: dict[str, tuple[Label, list[Label]]] = {}
        self.unsupported: Counter[str] = Counter()
        self._even: dict[fx.Node, frozenset[int]] = {}
        self._constants: dict[fx.Node, torch.Tensor] = {}
        self._index_values: dict[fx.Node | tuple[fx.Node, int], IndexValues] = {}
        self._bases = aliased_bases(trace.program.graph)
        self._mutated = mutated_bases(trace.program.graph, self._bases)
        self.node: fx.Node = next(iter(trace.program.graph.nodes))
        self.why = "?"
        for self.node in trace.program.graph.nodes:
            self._visit(self.node)
        settle(self)

    # ---- the walk

    def _visit(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self._place(node)
        elif node.op == "get_attr":
            self.tensors[node] = self._all_fixed(node.meta.get("val"), "a constant")
        elif node.op == "call_function":
            self._call(node)
        elif node.op == "output":
            for leaf in pytree.tree_leaves(node.args):
                if isinstance(leaf, fx.Node):
                    self.fix_index_values(leaf, "an output")
                    for label in _flat(self.tensors.get(leaf)):
                        self.fix(label, "an output of the network")

    def _place(self, node: fx.Node) -> None:
        value = node.meta.get("val")
        name = self.trace.names.get(node.name)
        if name is None or not isinstance(value, torch.Tensor):
            constant = self.trace.constants.get(node.name)
            if isinstance(constant, torch.Tensor):
                self._constants[node] = constant
            self.tensors[node] = self._all_fixed(value, "an input" if constant is None else "a constant")
            return
        name = self.trace.canonical[name]
        if name not in self.parameters:
            why = self._why_not(name)
            labels: list[Label] = []
            for size in value.shape:
                # The general case: a later axis may be permuted differently for each index of the earlier ones.
                labels.append(self.atom(size, labels, why))
            self.parameters[name] = labels
        self.tensors[node] = self.parameters[name]

    def _why_not(self, name: str) -> str | None:
        """Why a parameter or buffer can't move at all."""
        uses = [user for node in self.trace.placeholders_of(name) for user in node.users]
        if name in self.trace.buffers and not moves_with_units(name, self.trace.tensors[name], uses):
            return "a buffer that is not learned"
        return None if uses else "not used"

    def _call(self, node: fx.Node) -> None:
        if node.target is operator.getitem:
            source, k = node.args
            assert isinstance(source, fx.Node)
            assert isinstance(k, int)
            self.tensors[node] = self.tensors[source][k]
            if (source, k) in self._index_values:
                self._index_values[node] = self._index_values[source, k]
            return
        name = operator_name(node)
        in_place = name.endswith("_") and not name.endswith("__")
        rule = RULES.get(name[:-1] if in_place else name)
        self.why = name
        self._fix_unhandled_index_values(node, rule)
        out = None if rule is None else self._apply(rule, node)
        if out is None:
            out = self._give_up(node, name)
        if in_place:
            self._even.pop(node, None)
            self._unify_all(out, self.tensors[_node(node.args[0])])
        self.tensors[node] = out

    def _apply(self, rule: Rule, node: fx.Node) -> Any:
        """What the rule says, or None where it doesn't cover this call."""
        try:
            out = rule.function(self, node, *node.args, **node.kwargs)
            self._check_sizes(out, node.meta.get("val"))
        except RecursionError:
            raise
        except Exception as error:  # whatever a rule runs into: the call counts as an unsupported operator
            self.why = f"{self.why} ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
            self._forget(node)
            return None
        return out

    def _forget(self, node: fx.Node) -> None:
        """Drop what a failed rule said about the values of its output."""
        self._even.pop(node, None)
        self._constants.pop(node, None)
        for key in list(self._index_values):
            if (key[0] if isinstance(key, tuple) else key) is node:
                del self._index_values[key]

    def _check_sizes(self, out: Any, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found = [self.size(label) for label in out]
            if found != list(value.shape):
                raise ValueError(f"labels of shape {found} for a tensor of shape {list(value.shape)}")
        elif isinstance(value, list | tuple):
            for labels, entry in zip(out, value, strict=True):
                self._check_sizes(labels, entry)

    def _give_up(self, node: fx.Node, name: str) -> Any:
        inputs = [label for x in node.all_input_nodes for label in _flat(self.tensors.get(x))]
        if not all(self.labels.is_fixed(label) for label in inputs):
            self.unsupported[self.why] += 1
        for label in inputs:
            self.fix(label, f"unsupported operator {name}")
        return self._all_fixed(node.meta.get("val"), f"unsupported operator {name}")

    def _all_fixed(self, value: Any, why: str) -> Any:
        if isinstance(value, torch.Tensor):
            return [self.fixed(size, why) for size in value.shape]
        if isinstance(value, list | tuple):
            return [self._all_fixed(entry, why) for entry in value]
        return None

    def _unify_all(self, out: Any, target: Any) -> None:
        for a, b in zip(_flat(out), _flat(target), strict=True):
            self.unify(a, b)

    def _fix_unhandled_index_values(self, node: fx.Node, rule: Rule | None) -> None:
        handled = frozenset[int | str]() if rule is None else rule.index_args
        for place, arg in [*enumerate(node.args), *node.kwargs.items()]:
            if place not in handled:
                for leaf in pytree.tree_leaves(arg):
                    if isinstance(leaf, fx.Node):
                        self.fix_index_values(leaf, operator_name(node))

    # ---- what rules ask

    def of(self, x: Any) -> list[Label]:
        """The labels of a tensor. A dimension along which it is constant gets a free label at every use."""
        labels: list[Label] = self.tensors[_node(x)]
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
        node = _node(x)
        return frozenset() if self._bases[node] in self._mutated else self._even.get(node, frozenset())

    def known(self, x: Any) -> torch.Tensor | None:
        """The values of a tensor that is known while tracing (an index list in the code), else None."""
        if not isinstance(x, fx.Node) or self._bases[x] in self._mutated:
            return None
        return self._constants.get(x)

    def index_values(self, x: Any) -> IndexValues | None:
        """Which dimension the values of an integer tensor index, where that is known."""
        return self._index_values.get(x) if isinstance(x, fx.Node) else None

    # ---- what rules state

    def atom(self, size: int, others: Iterable[Label] = (), why: str | None = None) -> Label:
        """A new label that may vary with the labels in ``others``; fixed where a reason is given."""
        return self.labels.atom(size, [i for label in others for i in self.labels.atoms(label)], why)

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

    def pass_values(self, x: fx.Node, node: fx.Node) -> None:
        """The output has the values of ``x``, perhaps in another order or shape: index values stay index values."""
        values = self.index_values(x)
        if values is not None:
            self._index_values[node] = values
        if self.shape(node) == self.shape(x):
            constant = self.known(x)
            if constant is not None:
                self._constants[node] = constant
            if self.even_dims(x):
                self._even[node] = self.even_dims(x)

    def fix_index_values(self, x: fx.Node, why: str) -> None:
        """Someone looks at the values of ``x``: if they are indices, what they index can't move."""
        values = self.index_values(x)
        if values is not None:
            self.fix(values.label, f"its indices are used by {why}")

    def contract(self, over: Label, batch: Sequence[Label], others: Sequence[Label]) -> None:
        """A sum over a dimension: it may vary with ``batch`` only, and nothing in ``others`` may vary with it."""
        self.contractions.append(Contraction(over, tuple(batch), tuple(others)))

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

    def lookup(self, labels: Sequence[Label], dim: int, index: fx.Node) -> None:
        """Read dimension ``dim`` at the positions in ``index``: it is fixed, unless the values index the same group."""
        values = self.index_values(index)
        if values is None:
            self.fix(labels[dim], "indexed by data")
            self.contract(labels[dim], [], [label for k, label in enumerate(labels) if k != dim])
            return
        self.unify(labels[dim], values.label)
        self.index_tags[values.source] = (values.label, self.of(index))
        mine = set(self.labels.atoms(values.label))
        for source, (label, _) in self.index_tags.items():
            if source != values.source and mine & set(self.labels.atoms(label)):
                self.fix(values.label, "two index tensors into one group")


def _node(x: Any) -> fx.Node:
    if not isinstance(x, fx.Node):
        raise TypeError(f"a tensor was expected, not {x!r}")
    return x


def _flat(entry: Any) -> Iterator[Label]:
    """The labels in the entry of a node: of one tensor, or of several."""
    if entry is None:
        return
    for item in entry:
        if item is None or isinstance(item, list):
            yield from _flat(item)
        else:
            yield item


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
