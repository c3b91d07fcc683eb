"""Why and how well a merge works: barrier, distances, plots."""

from .barrier import Barrier, barrier
from .distance import DistanceReduction, distance_reduction
from .plots import plot_barrier

__all__ = ["Barrier", "DistanceReduction", "barrier", "distance_reduction", "plot_barrier"]
