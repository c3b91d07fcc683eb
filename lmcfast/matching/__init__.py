"""Finding the permutations that line up two networks."""

from .clock import Counts
from .result import MatchResult, Step, load_permutations
from .weight_matching import weight_matching

__all__ = ["Counts", "MatchResult", "Step", "load_permutations", "weight_matching"]
