"""Labels of loops over modules (:mod:`.loops`): one turn stands for all, the turns are one more dimension.

The parameters of all turns are one stack, whose first dimension are the turns. Each operator's rule is asked once,
about one turn; what it states holds in each (:meth:`.statements.Statements.in_a_turn`). Where the turns come together,
their dimension appears in the tensor (``stack``, ``cat``), or is summed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from torch import fx

from .aliases import operator_name
from .loops import Column, Gathering, Loop
from .statements import as_node
from .terms import ONE, Label

if TYPE_CHECKING:
    from .derivation import Derivation

Steps = dict[fx.Node, Callable[[], None]]


class Rolled:
    """The loops of a graph that are walked through as one turn each. ``turns``: the label of each loop's turns."""

    def __init__(self, derivation: Derivation, loops: Iterable[Loop]) -> None:
        self.d = derivation
        self.turns: dict[Loop, Label] = {}
        self._steps: Steps = {}
        self._done: set[Column] = set()
        for loop in loops:
            self.turns[loop] = derivation.labels.atom(loop.turns)
            for column in loop.columns:
                for node in column.nodes.values():
                    self._steps[node] = lambda loop=loop, column=column: self._column(loop, column)  # type: ignore[misc]
            for found in loop.gatherings:
                self._steps |= dict.fromkeys(found.partial, _nothing)
                self._steps[found.node] = lambda loop=loop, found=found: self._gathering(loop, found)  # type: ignore[misc]
            self._steps |= dict.fromkeys(loop.cut, _nothing)

    def visit(self, node: fx.Node) -> bool:
        """Label the node, if it is part of a loop."""
        step = self._steps.get(node)
        if step is None:
            return False
        step()
        return True

    def _column(self, loop: Loop, column: Column) -> None:
        if column in self._done:
            return
        self._done.add(column)
        d, turns, first = self.d, self.turns[loop], column.nodes[0]
        if column.kind == "parameter":
            d.place_stack(column.name, first, turns)
        else:
            with d.in_a_turn(turns):
                if column.kind == "operator":
                    d.call(first)
                else:
                    self._enter(column, first, turns)
        for node in column.nodes.values():
            d.tensors[node] = d.tensors[first]
            d.beside[node] = turns

    def _enter(self, column: Column, node: fx.Node, turns: Label) -> None:
        """The turn's own index of what all turns share."""
        d, source = self.d, column.source
        assert source is not None
        d.why = operator_name(node)
        if column.kind == "equal":
            values = d.index_values(source)
            if values is None or d.size(values.label) != d.size(turns):
                d.fix(turns, "its number is compared with data")
                d.fix_index_values(source, "a comparison")
            else:
                d.unify(values.label, turns)
            d.tensors[node] = d.of(source)
            return
        removed = column.kind == "select" or (column.kind == "piece" and operator_name(source) == "unbind")
        if column.kind == "piece":
            source = as_node(source.args[0])
        labels = d.of(source)
        d.unify(labels[column.dim], turns)
        d.fix_index_values(source, d.why)
        rest = [] if removed else [ONE]
        d.tensors[node] = [*labels[: column.dim], *rest, *labels[column.dim + 1 :]]

    def _gathering(self, loop: Loop, found: Gathering) -> None:
        """All turns' tensors in one."""
        d, turns, node, first = self.d, self.turns[loop], found.node, found.column.nodes[0]
        d.why = operator_name(node)
        with d.in_a_turn(turns):
            labels = d.of(first)
        d.fix_index_values(first, d.why)
        if d.why in ("add", "add_"):
            d.tensors[node] = self._sum(found, labels, turns)
            return
        rank = len(d.shape(node))
        given = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        assert isinstance(given, int)
        dim = given % rank
        if d.why == "stack":
            d.tensors[node] = [*labels[:dim], turns, *labels[dim:]]
        else:
            d.tensors[node] = [*labels[:dim], d.product(turns, labels[dim]), *labels[dim + 1 :]]

    def _sum(self, found: Gathering, labels: list[Label], turns: Label) -> list[Label]:
        d = self.d
        out = d.reduce([turns, *labels], [0], keep=False)
        if found.base is not None:
            d.fix_index_values(found.base, d.why)
            out = d.broadcast(d.of(found.base), out)
        if found.owner is not None:
            d.forget(found.owner)
            for a, b in zip(out, d.tensors[found.owner] or out, strict=True):
                d.unify(a, b)
        return out


def _nothing() -> None:
    """Partial sums and lists of pieces have no labels: nothing but the loop looks at them."""
