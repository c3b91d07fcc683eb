"""Sums of products: the dimension that is summed over is one on both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import fx

from ..terms import Label
from .registry import rule

if TYPE_CHECKING:
    from ..derivation import Derivation


@rule("linear")
def linear(d: Derivation, node: fx.Node, x: fx.Node, weight: fx.Node, bias: fx.Node | None = None) -> list[Label]:
    """``x @ weight.T + bias``."""
    out = d.matmul(d.of(x), list(reversed(d.of(weight))))
    return out if bias is None else d.broadcast(out, d.of(bias))
