"""What every operator demands of the permutations: one file for each family of operators."""

from __future__ import annotations

from . import contraction, pointwise
from .registry import RULES, Rule, Unsupported, rule

__all__ = ["RULES", "Rule", "Unsupported", "contraction", "pointwise", "rule"]
