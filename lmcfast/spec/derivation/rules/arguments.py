"""Arguments of operators in the forms that the rules use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx


def dims_of(dims: int | Sequence[int] | None, rank: int) -> list[int]:
    """Dimensions as a sorted list of non-negative numbers; None or an empty list: all of them."""
    if dims is None or (not isinstance(dims, int) and len(dims) == 0):
        return list(range(rank))
    return sorted(dim % rank for dim in ([dims] if isinstance(dims, int) else dims))


def per_dim(value: Any, count: int) -> list[Any]:
    """One value for each of ``count`` spatial dimensions: torch lets a single one stand for all."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values * count if len(values) == 1 else values


def has_several_outputs(node: fx.Node) -> bool:
    """Whether the operator returns a tuple or list."""
    return isinstance(node.meta["val"], list | tuple)
