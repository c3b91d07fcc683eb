"""Which nodes of a graph share memory, and which memory is written in place."""

from __future__ import annotations

import operator

from torch import fx

# These return their input itself in some cases without saying so in their schema.
_SILENT = frozenset(
    {"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout", "type_as"}
)


def operator_name(node: fx.Node) -> str:
    """``aten.add.Tensor`` is ``add``; a callable that is no operator keeps its full name."""
    name = getattr(node.target, "_opname", None)
    return name if isinstance(name, str) else str(node.target)


def aliased_bases(graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    """For every node the first node whose memory it may share: itself for a new tensor."""
    bases: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        first = node.args[0] if node.args else None
        shares = node.op == "call_function" and isinstance(first, fx.Node) and _shares_memory(node)
        bases[node] = bases[first] if shares and isinstance(first, fx.Node) else node
    return bases


def _shares_memory(node: fx.Node) -> bool:
    if node.target is operator.getitem or operator_name(node) in _SILENT:
        return True
    schema = getattr(node.target, "_schema", None)
    return schema is None or any(result.alias_info is not None for result in schema.returns)


def mutated_bases(graph: fx.Graph, bases: dict[fx.Node, fx.Node]) -> set[fx.Node]:
    """The bases that some operator writes to."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        schema = getattr(node.target, "_schema", None) if node.op == "call_function" else None
        if schema is None:
            continue
        named = dict(zip((arg.name for arg in schema.arguments), node.args, strict=False)) | dict(node.kwargs)
        for argument in schema.arguments:
            written = argument.alias_info is not None and argument.alias_info.is_write
            value = named.get(argument.name)
            for item in value if isinstance(value, list | tuple) else [value]:
                if written and isinstance(item, fx.Node):
                    found.add(bases[item])
    return found
