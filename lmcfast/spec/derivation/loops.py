"""Loops over modules of one kind, unrolled in the graph: experts in a ``ModuleList`` and what gathers their outputs.

The tracer writes a loop over ``n`` modules out. Here its turns are laid beside each other: a *column* holds the ``n``
nodes that do the same thing, one in each turn, to the members of other columns and to nodes that all turns share. It
begins at the modules' parameters and at the indices 0 to n - 1 of a shared tensor (the router's scores), and must end
where the order of the turns is known or does not matter: in a ``stack`` or ``cat`` in order, or in a sum over all. Then
the loop is one computation with a new dimension, the turns, which may be permuted like any other (:mod:`.rolling`).

Whatever does not fit (a turn that differs, an output that leaves in another way, memory that is written meanwhile)
leaves the loop as it is: its modules keep their places.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from .aliases import Memory, operator_name, wrapped_graph, written_by
from .members import lists_of_modules
from .numbering import equal_nodes, meaning
from .tracing import Trace

_ADD = frozenset({"add", "add_"})
_PIECES = frozenset({"unbind", "split", "split_with_sizes", "chunk"})


@dataclass(eq=False)
class Column:
    """The nodes of all turns that do the same. ``kind``: parameter, operator, or how the turn's number comes in.

    ``kind``: ``"parameter"`` (``name``: that of the stack of all); ``"select"``, ``"slice"``, ``"piece"`` (index
    ``turn`` of dimension ``dim`` of ``source``); ``"equal"`` (entries of ``source`` that are ``turn``); ``"operator"``.
    """

    kind: str
    nodes: dict[int, fx.Node] = field(default_factory=dict)
    name: str = ""
    source: fx.Node | None = None
    dim: int = 0


@dataclass(eq=False)
class Gathering:
    """A node in which the turns of a column come together: ``stack``, ``cat``, or the last ``add`` of a sum.

    ``base``: what a sum begins with. ``owner``: in whose memory a sum in place is written. ``partial``: its nodes
    before the last.
    """

    node: fx.Node
    column: Column
    base: fx.Node | None = None
    owner: fx.Node | None = None
    partial: list[fx.Node] = field(default_factory=list)
    turns: set[int] = field(default_factory=set)


@dataclass(eq=False)
class Loop:
    """``turns``: how many; ``cut``: nodes that hold the pieces of a source, which have no use outside of the loop."""

    turns: int
    columns: list[Column]
    gatherings: list[Gathering]
    cut: set[fx.Node]

    def stacks(self) -> dict[str, int]:
        """The stacks of parameters, as a spec names them."""
        return {column.name: self.turns for column in self.columns if column.kind == "parameter"}


def find_loops(trace: Trace) -> list[Loop]:
    """All loops in a traced module, of which no two share a node."""
    found: list[Loop] = []
    taken: set[fx.Node] = set()
    graph = trace.program.graph
    memory: Memory | None = None
    for turns, stacks in lists_of_modules(trace):
        memory = memory or Memory(graph)
        for loop in _Search(graph, memory, turns, stacks).run():
            nodes = {node for column in loop.columns for node in column.nodes.values()}
            if not taken & nodes:
                taken |= nodes
                found.append(loop)
    return found


class _Search:
    """One walk along the graph that lays turns beside each other, for lists of one length."""

    def __init__(self, graph: fx.Graph, memory: Memory, turns: int, stacks: Mapping[str, list[fx.Node]]) -> None:
        self.graph, self.memory, self.turns = graph, memory, turns
        self.order = {node: k for k, node in enumerate(graph.nodes)}
        self.at = 0
        self.place: dict[fx.Node, tuple[Column, int]] = {}
        self.columns: list[Column] = []
        self.by_meaning: dict[Any, list[Column]] = defaultdict(list)
        self.sums: dict[fx.Node, Gathering] = {}
        self.gatherings: list[Gathering] = []
        self.parent: dict[Column, Column] = {}
        self.bad: set[Column] = set()
        self.first = equal_nodes(graph, memory)
        self.entries = dict(_entries(graph, self.first, turns))
        for name, nodes in stacks.items():
            column = self._column(Column("parameter", dict(enumerate(nodes)), name))
            self.place |= {node: (column, k) for k, node in enumerate(nodes)}

    def run(self) -> Iterator[Loop]:
        """The loops that can be rolled up."""
        for node in self.graph.nodes:
            self.at = self.order[node]
            if node.op == "call_function":
                self._visit(node)
            else:
                self._spoil(node)
        self._spoil_incomplete()
        parts: dict[Column, list[Column]] = defaultdict(list)
        for column in self.columns:
            parts[self._root(column)].append(column)
        for columns in parts.values():
            if self.bad.isdisjoint(columns) and any(column.kind == "parameter" for column in columns):
                members = set(columns)
                gatherings = [gathering for gathering in self.gatherings if gathering.column in members]
                loop = Loop(self.turns, columns, gatherings, _cut(columns))
                if gatherings and self._is_alone(loop):
                    yield loop

    # ---- columns

    def _column(self, column: Column) -> Column:
        self.columns.append(column)
        self.parent[column] = column
        return column

    def _root(self, column: Column) -> Column:
        while self.parent[column] is not column:
            self.parent[column] = column = self.parent[self.parent[column]]
        return column

    def _connect(self, columns: Iterable[Column]) -> None:
        first, *others = map(self._root, columns)
        for other in others:
            self.parent[other] = first

    def _spoil(self, node: fx.Node) -> None:
        """What the node takes from a turn leaves the loop in a way that is not understood."""
        for source in node.all_input_nodes:
            if source in self.place:
                self.bad.add(self.place[source][0])
            if source in self.sums:
                self.bad.add(self.sums[source].column)

    def _spoil_incomplete(self) -> None:
        done = {id(gathering) for gathering in self.gatherings}
        self.bad |= {column for column in self.columns if len(column.nodes) < self.turns}
        self.bad |= {found.column for found in self.sums.values() if id(found) not in done}
        self.bad = {self._root(column) for column in self.bad}

    # ---- the walk

    def _visit(self, node: fx.Node) -> None:
        inputs = node.all_input_nodes
        sources = [source for source in inputs if source in self.place]
        if not sources and not any(source in self.sums for source in inputs):
            if node in self.entries:
                self._enter(node)
            return
        if self._add(node) or self._gather(node):
            return
        turns = {self.place[source][1] for source in sources}
        foreign = any(source in self.sums for source in inputs)
        if len(turns) != 1 or foreign or wrapped_graph(node) is not None or self._writes_outside(node):
            self._spoil(node)
            return
        named = {source: self.place[source][0] if source in self.place else self.first[source] for source in inputs}
        column = self._put(Column("operator"), (node.target, *meaning(node, named)), node, turns.pop())
        self._connect([column, *(self.place[source][0] for source in sources)])

    def _put(self, new: Column, does: Any, node: fx.Node, turn: int) -> Column:
        """The first column that does this and has no node for this turn yet."""
        known = self.by_meaning[does]
        column = next((column for column in known if turn not in column.nodes), None)
        if column is None:
            column = self._column(new)
            known.append(column)
        column.nodes[turn] = node
        self.place[node] = column, turn
        return column

    def _enter(self, node: fx.Node) -> None:
        kind, source, dim, turn = self.entries[node]
        self._put(Column(kind, source=source, dim=dim), (kind, node.target, source, dim), node, turn)

    def _writes_outside(self, node: fx.Node) -> bool:
        """Whether the operator writes to memory that its turn does not own."""
        for written in written_by(node):
            base = self.memory.base(written)
            if base not in self.place or self.place[base][0].kind != "operator":
                return True
        return False

    # ---- where turns come together

    def _gather(self, node: fx.Node) -> bool:
        """``stack`` or ``cat`` of all turns, in order."""
        if operator_name(node) not in ("stack", "cat", "concat", "concatenate") or not node.args:
            return False
        tensors: Any = node.args[0]
        if not isinstance(tensors, list | tuple) or len(tensors) != self.turns:
            return False
        places = [self.place.get(x) for x in tensors if isinstance(x, fx.Node)]
        if len({place[0] for place in places if place}) != 1 or None in places:
            return False
        if [place[1] for place in places if place] != list(range(self.turns)):
            return False
        column = self.place[tensors[0]][0]
        self.gatherings.append(Gathering(node, column, turns=set(range(self.turns))))
        return True

    def _add(self, node: fx.Node) -> bool:
        """A step of a sum over all turns: the first one, or one that goes on."""
        if operator_name(node) not in _ADD or len(node.args) != 2 or node.kwargs:
            return False
        first, second = node.args
        in_place = operator_name(node) == "add_"
        for found, term in [(first, second)] if in_place else [(first, second), (second, first)]:
            if isinstance(term, fx.Node) and term in self.place and self._extend(node, found, term, in_place):
                return True
        return False

    def _extend(self, node: fx.Node, found: Any, term: fx.Node, in_place: bool) -> bool:
        column, turn = self.place[term]
        if found in self.sums:
            total = self.sums[found]
            if total.column is not column or turn in total.turns or len(found.users) > 1:
                return False
            if total.owner is not None and not in_place:  # its memory would keep a sum of some turns
                return False
            if in_place and total.owner is None:
                total.owner = found
            total.partial.append(found)
        elif isinstance(found, fx.Node) and found in self.place:
            if in_place or self.place[found][0] is not column or self.place[found][1] == turn:
                return False
            total = Gathering(node, column, turns={self.place[found][1]})
        elif (isinstance(found, fx.Node) or found == 0) and self._goes_on(node, turn):
            base = found if isinstance(found, fx.Node) else None
            total = Gathering(node, column, base, base if in_place else None)
        else:
            return False
        total.node = node
        total.turns.add(turn)
        if len(total.turns) == self.turns:
            self.gatherings.append(total)
        else:
            self.sums[node] = total
        return True

    def _goes_on(self, node: fx.Node, turn: int) -> bool:
        """Whether the only use of a sum is to add something from another turn to it."""
        users = list(node.users)
        if len(users) != 1 or operator_name(users[0]) not in _ADD or len(users[0].args) != 2:
            return False
        others = [x for x in users[0].args if x is not node]
        return len(others) == 1 and isinstance(others[0], fx.Node) and self._turns_of(others[0]) not in (set(), {turn})

    def _turns_of(self, node: fx.Node) -> set[int]:
        """The turns that a node further on will belong to."""
        pending, seen = [node], {node}
        found: set[int] = set()
        while pending:
            at = pending.pop()
            if at in self.place:
                found.add(self.place[at][1])
            elif at in self.entries:
                found.add(self.entries[at][3])
            elif self.order[at] > self.at:
                new = [source for source in at.all_input_nodes if source not in seen]
                seen.update(new)
                pending += new
        return found

    # ---- memory

    def _is_alone(self, loop: Loop) -> bool:
        """Whether nothing that all turns share is written to while they run, and no sum is read before it is whole."""
        inside = {node for column in loop.columns for node in column.nodes.values() if node.op == "call_function"}
        for gathering in loop.gatherings:
            inside |= {gathering.node, *gathering.partial}
        span = range(min(map(self.order.__getitem__, inside)), max(map(self.order.__getitem__, inside)) + 1)
        shared = {source for node in inside | loop.cut for source in node.all_input_nodes} - inside - loop.cut
        if any(user not in inside for cut in loop.cut for user in cut.users):
            return False
        summed = {gathering.owner for gathering in loop.gatherings}
        bases = {self.memory.base(node) for node in shared - summed}
        for node in self.graph.nodes:
            if self.order[node] in span and node not in inside and bases & self._written(node):
                return False
        return all(self._is_whole(found, found.owner) for found in loop.gatherings if found.owner is not None)

    def _written(self, node: fx.Node) -> set[fx.Node]:
        wrapped = wrapped_graph(node)
        given = written_by(node) if wrapped is None else (x for x in wrapped[1] if isinstance(x, fx.Node))
        return {self.memory.base(x) for x in given}

    def _is_whole(self, gathering: Gathering, base: fx.Node) -> bool:
        """A sum in place: its memory is its own, and is not looked at before the last turn."""
        own = {base, gathering.node, *gathering.partial}
        if base.op != "call_function" or self.memory.base(base) is not base:
            return False
        last = self.order[gathering.node]
        for node in self.graph.nodes:
            if self.order[node] < last and node not in own:
                reads = any(self.memory.base(source) is base for source in node.all_input_nodes)
                if reads or self.memory.base(node) is base:
                    return False
        return True


def _entries(
    graph: fx.Graph, first: Mapping[fx.Node, fx.Node], turns: int
) -> Iterator[tuple[fx.Node, tuple[str, fx.Node, int, int]]]:
    """Nodes that take one index of a shared dimension, or ask for one number: (kind, source, dimension, number)."""
    found: dict[Any, dict[fx.Node, tuple[str, fx.Node, int, int]]] = defaultdict(dict)
    for node in graph.nodes:
        entry = _entry(node, turns) if node.op == "call_function" else None
        if entry is not None:
            kind, source, dim, turn = entry
            source = source if kind == "piece" else first[source]
            found[node.target, kind, source, dim][node] = kind, source, dim, turn
    for nodes in found.values():
        counts = [sum(entry[3] == turn for entry in nodes.values()) for turn in range(turns)]
        if min(counts) == max(counts) and sum(counts) == len(nodes):
            yield from nodes.items()


def _entry(node: fx.Node, turns: int) -> tuple[str, fx.Node, int, int] | None:
    name = "getitem" if node.target is operator.getitem else operator_name(node)
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or node.kwargs:
        return None
    rest: tuple[Any, ...] = node.args[1:]
    if not all(isinstance(x, int) and not isinstance(x, bool) for x in rest):
        return None
    if name == "eq" and len(rest) == 1:
        return "equal", source, 0, rest[0]
    if name == "getitem":
        return _piece(source, rest[0], turns)
    rank = len(source.meta["val"].shape) if hasattr(source.meta.get("val"), "shape") else 0
    if name == "select" and len(rest) == 2:
        dim, turn, kind = rest[0] % rank, rest[1], "select"
    elif name == "slice" and len(rest) in (3, 4) and rest[2] == rest[1] + 1 and rest[3:] in ((), (1,)):
        dim, turn, kind = rest[0] % rank, rest[1], "slice"
    else:
        return None
    return (kind, source, dim, turn) if source.meta["val"].shape[dim] == turns and 0 <= turn < turns else None


def _piece(cut: fx.Node, turn: int, turns: int) -> tuple[str, fx.Node, int, int] | None:
    """One of ``turns`` pieces of length 1, all of which are taken one by one."""
    if cut.op != "call_function" or operator_name(cut) not in _PIECES or not isinstance(cut.args[0], fx.Node):
        return None
    dim: Any = cut.kwargs.get("dim", next(iter(cut.args[1 if operator_name(cut) == "unbind" else 2 :]), 0))
    shape = cut.args[0].meta["val"].shape
    single = len(cut.meta["val"]) == turns == shape[dim]
    taken = all(user.target is operator.getitem for user in cut.users)
    return ("piece", cut, dim % len(shape), turn) if single and taken and turn >= 0 else None


def _cut(columns: Iterable[Column]) -> set[fx.Node]:
    return {column.source for column in columns if column.kind == "piece" and column.source is not None}
