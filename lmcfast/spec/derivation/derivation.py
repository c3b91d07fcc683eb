"""Labels of every tensor in an exported graph.

:class:`Derivation` walks the graph once and asks the operators' rules (:mod:`.rules`) for labels. Constraints on what
may vary with what are then brought to a fixed point (:mod:`.settle`).

Soundness: an operator without a rule, or whose rule fails, fixes everything that it touches, with the reason recorded.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from ..stacks import members
from .aliases import operator_name, placeholders, wrapped_graph
from .buffers import even_dims, moves_with_units
from .loops import Loop
from .rolling import Rolled
from .rules import RULES, Rule
from .settle import settle
from .statements import Statements, as_node
from .terms import Label
from .tracing import Trace


class Derivation(Statements):
    """The labels of a traced module: run, then settled.

    ``loops``: those over modules that are rolled up, so that the modules' order can move (:mod:`.loops`).
    ``parameters``: tensor name, or that of a stack -> labels of its axes. ``unsupported``: operators that were not
    understood on labels that could have moved, with how often.
    """

    def __init__(self, trace: Trace, loops: Sequence[Loop] = ()) -> None:
        super().__init__(trace.program.graph)
        self.trace = trace
        self.stacks = {name: number for loop in loops for name, number in loop.stacks().items()}
        self.rolled = Rolled(self, loops)
        self.parameters: dict[str, list[Label]] = {}
        self.unsupported: Counter[str] = Counter()
        for node in trace.program.graph.nodes:
            self._visit(node)
        settle(self)

    def is_buffer(self, name: str) -> bool:
        """Whether a tensor, or what a stack is of, is a buffer."""
        return (members(name, 1)[0] if name in self.stacks else name) in self.trace.buffers

    # ---- the walk

    def _visit(self, node: fx.Node) -> None:
        if self.rolled.visit(node):
            return
        if node.op == "placeholder":
            self._place(node)
        elif node.op == "get_attr":
            self.tensors[node] = self._all_fixed(node.meta.get("val"), "a constant")
        elif node.op == "call_function":
            self.call(node)
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
            self.tensors[node] = self._all_fixed(value, "an input" if constant is None else "a constant")
            if isinstance(constant, torch.Tensor):
                self.set_constant(node, constant)
            return
        name = self.trace.canonical[name]
        if name not in self.parameters:
            self.parameters[name] = self._axes(value.shape, [], self._why_not(name))
        self.tensors[node] = self.parameters[name]
        if name in self.trace.buffers and name not in self.trace.permanent:
            self.set_even(node, even_dims(self.trace.tensors[name]))  # made anew with every module, as a constant is

    def place_stack(self, name: str, node: fx.Node, turns: Label) -> None:
        """Label the parameters of all turns of a loop as one tensor; ``node``: the placeholder of one of them."""
        shape = node.meta["val"].shape
        labels = self.parameters[name] = self._axes(shape, [turns], None)
        self.tensors[node] = labels[1:]

    def _axes(self, shape: Sequence[int], first: Sequence[Label], why: str | None) -> list[Label]:
        """The general case: a later axis may be permuted differently for each index of the earlier ones."""
        labels = list(first)
        for size in shape:
            labels.append(self.atom(size, labels, why))
        return labels

    def _why_not(self, name: str) -> str | None:
        """Why a parameter or buffer can't move at all."""
        uses = [user for node in self.trace.placeholders_of(name) for user in node.users]
        if name in self.trace.buffers and not moves_with_units(name, self.trace.tensors[name], uses):
            return "a buffer that is not learned"
        return None if uses else "not used"

    def call(self, node: fx.Node) -> None:
        """Label what an operator makes."""
        if node.target is operator.getitem:
            source, k = node.args
            assert isinstance(source, fx.Node)
            assert isinstance(k, int)
            self.tensors[node] = self.tensors[source][k]
            if (source, k) in self._index_values:
                self._index_values[node] = self._index_values[source, k]
            return
        wrapped = wrapped_graph(node)
        if wrapped is not None:
            self._call_wrapped(node, *wrapped)
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
            self._unify_all(out, self.tensors[as_node(node.args[0])])
        self.tensors[node] = out

    def _call_wrapped(self, node: fx.Node, inner: fx.Graph, operands: list[Any]) -> None:
        """Walk through a block as if its operators stood in the graph themselves."""
        for place, operand in zip(placeholders(inner), operands, strict=True):
            self.tensors[place] = self.tensors[operand] if isinstance(operand, fx.Node) else None
            if operand in self._index_values:
                self._index_values[place] = self._index_values[operand]
        for step in inner.nodes:
            if step.op == "output":
                results = step.args[0]
                assert isinstance(results, list | tuple)
                self.tensors[node] = [self.tensors[x] if isinstance(x, fx.Node) else None for x in results]
                for k, x in enumerate(results):
                    if x in self._index_values:
                        self._index_values[node, k] = self._index_values[x]
            elif step.op != "placeholder":
                self._visit(step)

    def _apply(self, rule: Rule, node: fx.Node) -> Any:
        """What the rule says, or None where it doesn't cover this call."""
        try:
            out = rule.function(self, node, *node.args, **node.kwargs)
            self._check_sizes(out, node.meta.get("val"))
        except RecursionError:
            raise
        except Exception as error:  # whatever a rule runs into: the call counts as an unsupported operator
            self.why = f"{self.why} ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
            self.forget(node)
            return None
        return out

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


def _flat(entry: Any) -> Iterator[Label]:
    """The labels in the entry of a node: of one tensor, or of several."""
    if entry is None:
        return
    for item in entry:
        if item is None or isinstance(item, list):
            yield from _flat(item)
        else:
            yield item
