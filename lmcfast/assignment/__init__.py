"""Exact, certified linear assignment."""

from .result import Assignment, AssignmentStats
from .solve import solve_assignment

__all__ = ["Assignment", "AssignmentStats", "solve_assignment"]
