"""transformers' routed experts in a form that can be traced, and that runs in float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

_SWITCH = "_experts_implementation"


@contextmanager
def one_graph_for_experts(module: nn.Module) -> Iterator[None]:
    """A loop over experts depends on the routing, grouped products know no float64; the batched form is neither."""
    changed: list[tuple[Any, Any]] = []
    seen: set[int] = set()
    for part in module.modules():
        config = getattr(part, "config", None)
        if config is not None and id(config) not in seen and hasattr(config, _SWITCH):
            seen.add(id(config))
            changed.append((config, getattr(config, _SWITCH)))
            setattr(config, _SWITCH, "batched_mm")
    try:
        yield
    finally:
        for config, before in changed:
            setattr(config, _SWITCH, before)
