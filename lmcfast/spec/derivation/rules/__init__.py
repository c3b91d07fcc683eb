"""What every operator demands of the permutations: one file for each family of operators."""

from __future__ import annotations

from . import (
    constant,
    contraction,
    convolution,
    cut,
    index,
    norm,
    ordered,
    pointwise,
    recurrent,
    reduction,
    shape,
    window,
)
from .registry import RULES, Rule, Unsupported, rule

__all__ = [
    "RULES",
    "Rule",
    "Unsupported",
    "constant",
    "contraction",
    "convolution",
    "cut",
    "index",
    "norm",
    "ordered",
    "pointwise",
    "recurrent",
    "reduction",
    "rule",
    "shape",
    "window",
]
