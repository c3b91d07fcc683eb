"""Exact, certified linear assignment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .result import Assignment, AssignmentStats
from .solve import solve_assignment
from .sparse import solve_sparse_assignment

if TYPE_CHECKING:
    from .device import DeferredAssignment as DeferredAssignment
    from .device import solve_assignment_deferred as solve_assignment_deferred

__all__ = [
    "Assignment",
    "AssignmentStats",
    "DeferredAssignment",
    "solve_assignment",
    "solve_assignment_deferred",
    "solve_sparse_assignment",
]


def __getattr__(name: str) -> Any:
    if name not in ("DeferredAssignment", "solve_assignment_deferred"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import device  # imports torch

    return getattr(device, name)
