"""Parameters of modules in lists, by their names: ``experts.0.up.weight`` to ``experts.7.up.weight``."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import torch
from torch import fx

from .buffers import moves_with_units
from .tracing import Trace

Stacks = dict[str, list[fx.Node]]


def lists_of_modules(trace: Trace) -> Iterator[tuple[int, Stacks]]:
    """Lists of one length, with the placeholders of their members' tensors: (length, {name of the stack: nodes}).

    A name with several numbers can stand in several lists. Those of one length are tried from the inside outwards, so
    that experts in layers come before the layers.
    """
    complete = _complete(trace)
    ranked: dict[tuple[int, int], Stacks] = defaultdict(dict)
    for name in {member: None for nodes in complete.values() for member in nodes[1]}:
        depth: Counter[int] = Counter()
        for pattern in reversed(list(_patterns(name))):
            if pattern in complete:
                placeholders = complete[pattern][0]
                depth[len(placeholders)] += 1
                ranked[len(placeholders), depth[len(placeholders)]][pattern] = placeholders
    for turns, rank in sorted(ranked, key=lambda key: (key[1], key[0])):
        yield turns, ranked[turns, rank]


def _patterns(name: str) -> Iterator[str]:
    """The name with each of its numbers replaced by ``*``, from the left."""
    parts = name.split(".")
    for k, part in enumerate(parts):
        if part.isdigit():
            yield ".".join((*parts[:k], "*", *parts[k + 1 :]))


def _complete(trace: Trace) -> dict[str, tuple[list[fx.Node], list[str]]]:
    """Stacks of two or more tensors of one shape, numbered from 0 on: their placeholders and names."""
    aliases = Counter(trace.canonical.values())
    found: dict[str, dict[int, tuple[fx.Node, str]]] = defaultdict(dict)
    for name in trace.tensors:
        nodes = trace.placeholders_of(name)
        if len(nodes) != 1 or aliases[name] > 1 or not _may_stack(trace, name, nodes[0]):
            continue
        parts = name.split(".")
        for pattern in _patterns(name):
            found[pattern][int(parts[pattern.split(".").index("*")])] = nodes[0], name
    stacks = {}
    for pattern, members in found.items():
        kinds = {_kind(trace.tensors[name]) for _, name in members.values()}
        if len(members) > 1 and sorted(members) == list(range(len(members))) and len(kinds) == 1:
            rows = [members[k] for k in range(len(members))]
            stacks[pattern] = [node for node, _ in rows], [name for _, name in rows]
    return stacks


def _may_stack(trace: Trace, name: str, node: fx.Node) -> bool:
    if not node.users:
        return False
    tensor = trace.tensors[name]
    return name not in trace.buffers or (name in trace.permanent and moves_with_units(name, tensor, list(node.users)))


def _kind(tensor: torch.Tensor) -> tuple[tuple[int, ...], torch.dtype]:
    return tuple(tensor.shape), tensor.dtype
