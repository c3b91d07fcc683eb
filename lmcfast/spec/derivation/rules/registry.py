"""The registry of operator rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..terms import Label

Labeled: TypeAlias = list[Label] | list[list[Label]]
"""Labels of one tensor, or of several."""

RuleFunction: TypeAlias = Callable[..., Any]


class Unsupported(Exception):
    """A rule doesn't cover this call of its operator: everything that the call touches is fixed."""


@dataclass(frozen=True)
class Rule:
    """``function(derivation, node, *args, **kwargs)`` gives the labels of the operator's output.

    ``index_args``: positions (or keyword names) of the arguments whose *values*, as indices into a labeled dimension,
    the rule takes care of. Index values that reach any other argument are fixed before the rule is called.
    """

    function: RuleFunction
    index_args: frozenset[int | str] = frozenset()


RULES: dict[str, Rule] = {}
"""Rules by the operator's name in the graph: ``aten.add.Tensor`` is ``add``, and ``add_`` uses the rule of ``add``."""


def rule(*names: str, index_args: Sequence[int | str] = ()) -> Callable[[RuleFunction], RuleFunction]:
    """Register the rule of the named operators (see :class:`Rule`); a string may hold several names."""

    def register(function: RuleFunction) -> RuleFunction:
        for name in " ".join(names).split():
            if name in RULES:
                raise ValueError(f"operator {name!r} has two rules")
            RULES[name] = Rule(function, frozenset(index_args))
        return function

    return register
