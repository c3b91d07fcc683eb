"""Which nodes of a graph share memory, and which memory is written in place."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

from torch import fx
from torch.utils import _pytree as pytree

# These return their input itself in some cases without saying so in their schema.
_SILENT = frozenset(
    {"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout", "type_as"}
)
_WRAPPERS = frozenset({"wrap_with_set_grad_enabled", "wrap_with_autocast"})


def operator_name(node: fx.Node) -> str:
    """``aten.add.Tensor`` is ``add``; a callable that is no operator keeps its full name."""
    name = getattr(node.target, "_opname", None)
    return name if isinstance(name, str) else str(node.target)


def wrapped_graph(node: fx.Node) -> tuple[fx.Graph, list[Any]] | None:
    """The inner graph, and the arguments for its placeholders, of a block under a context (no_grad, autocast)."""
    if node.op != "call_function" or operator_name(node) not in _WRAPPERS:
        return None
    for k, arg in enumerate(node.args):
        if isinstance(arg, fx.Node) and arg.op == "get_attr":
            inner = getattr(node.graph.owning_module, str(arg.target))
            return inner.graph, list(node.args[k + 1 :])
    return None


class Memory:
    """For every node the first node whose memory it may share (itself for a new tensor), and which are written to."""

    def __init__(self, graph: fx.Graph) -> None:
        self._bases: dict[fx.Node, fx.Node] = {}
        self._written: set[fx.Node] = set()
        self._read(graph)

    def is_written(self, node: fx.Node) -> bool:
        """Whether some operator writes to the node's memory, before or after."""
        return self._bases[node] in self._written

    def base(self, node: fx.Node) -> fx.Node:
        """The first node whose memory the node may share; itself for a new tensor."""
        return self._bases[node]

    def _read(self, graph: fx.Graph) -> None:
        for node in graph.nodes:
            wrapped = wrapped_graph(node)
            if wrapped is not None:
                # What a block returns may share memory with what it was given: nothing is known of either.
                inner, operands = wrapped
                self._written.update(self._bases[x] for x in operands if isinstance(x, fx.Node))
                self._written.add(node)
                for place, operand in zip(placeholders(inner), operands, strict=True):
                    self._bases[place] = self._bases[operand] if isinstance(operand, fx.Node) else place
                self._read(inner)
            first = node.args[0] if node.args else None
            shares = node.op == "call_function" and isinstance(first, fx.Node) and _shares_memory(node)
            base = self._bases[first] if shares and isinstance(first, fx.Node) and wrapped is None else node
            self._bases.setdefault(node, base)
        self._written.update(self._bases[x] for node in graph.nodes for x in written_by(node))


def placeholders(graph: fx.Graph) -> list[fx.Node]:
    """The inputs of a graph."""
    return [node for node in graph.nodes if node.op == "placeholder"]


def _shares_memory(node: fx.Node) -> bool:
    if node.target is operator.getitem or operator_name(node) in _SILENT:
        return True
    schema = getattr(node.target, "_schema", None)
    return schema is None or any(result.alias_info is not None for result in schema.returns)


def written_by(node: fx.Node) -> Iterator[fx.Node]:
    """The arguments that an operator writes to."""
    schema = getattr(node.target, "_schema", None) if node.op == "call_function" else None
    if schema is None:
        return
    named = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False)) | dict(node.kwargs)
    for argument in schema.arguments:
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from (x for x in pytree.tree_leaves(named.get(argument.name)) if isinstance(x, fx.Node))
