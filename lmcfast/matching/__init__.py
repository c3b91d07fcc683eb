"""Finding the permutations that line up two networks."""

from .result import MatchResult, Step, load_permutations
from .weight_matching import weight_matching

__all__ = ["MatchResult", "Step", "load_permutations", "weight_matching"]
