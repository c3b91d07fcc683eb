"""Which nodes of a graph compute the same, in other words: the same operator on the same."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from .aliases import Memory, written_by


def equal_nodes(graph: fx.Graph, memory: Memory) -> dict[fx.Node, fx.Node]:
    """Node -> the first one that surely has the same value: nothing random, and no memory that is ever written to."""
    first: dict[fx.Node, fx.Node] = {}
    seen: dict[Any, fx.Node] = {}
    for node in graph.nodes:
        first[node] = node
        if _is_pure(node) and not any(map(memory.is_written, (node, *node.all_input_nodes))):
            first[node] = seen.setdefault((node.target, *meaning(node, first)), node)
    return first


def meaning(node: fx.Node, stands_for: dict[fx.Node, Any]) -> tuple[Any, ...]:
    """The arguments of a node as a key, each node in them replaced by what stands for it."""
    leaves, structure = pytree.tree_flatten((node.args, dict(node.kwargs)))
    named = (("node", id(stands_for.get(x, x))) if isinstance(x, fx.Node) else repr(x) for x in leaves)
    return str(structure), *named


def _is_pure(node: fx.Node) -> bool:
    if node.op != "call_function":
        return False
    if node.target is operator.getitem:
        return True
    tags = getattr(node.target, "tags", None)
    return tags is not None and torch.Tag.nondeterministic_seeded not in tags and not any(written_by(node))
