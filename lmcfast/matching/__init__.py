"""Finding the permutations that line up two networks."""

from .clock import Counts
from .result import MatchResult, Step, load_permutations
from .trace import Sweep
from .weight_matching import weight_matching

__all__ = ["Counts", "MatchResult", "Step", "Sweep", "load_permutations", "weight_matching"]
