"""``torch_linear_assignment``: batches of assignment problems for torch."""

from __future__ import annotations

import torch

from .. import _native
from ..assignment import solve_assignment
from ..errors import CertificateError
from .scipy import SCIPY_TIES

__all__ = ["assignment_to_indices", "batch_linear_assignment"]


def batch_linear_assignment(cost: torch.Tensor) -> torch.Tensor:
    """Solves a batch of problems, each for the smallest sum.

    Args:
        cost: (B, W, T), workers by tasks; any device. ``inf`` forbids a pair.

    Returns:
        (B, W) int64 on the device of ``cost``: the task of each worker, -1 for none. Where several assignments are
        optimal, on the CPU scipy's choice while the smaller of W and T is at most ``compat.scipy.SCIPY_TIES``.

    Raises:
        ValueError: a cost that is not 3-dimensional, not finite or ``inf``, or that leaves no assignment.
    """
    if cost.ndim != 3:
        raise ValueError("Need 3-dimensional tensor with shape (B, W, T).")
    if not _native.on_device(cost) and min(cost.shape[1:]) <= SCIPY_TIES:
        try:
            return _columns(cost, "scipy")
        except CertificateError:  # rounding in scipy's order of sums has cost an optimum
            pass
    return _columns(cost, "any")


def _columns(cost: torch.Tensor, ties: str) -> torch.Tensor:
    columns: torch.Tensor = solve_assignment(cost.detach(), maximize=False, ties=ties).columns
    return columns


def assignment_to_indices(assignment: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Brings a (B, W) result of :func:`batch_linear_assignment` into scipy's form.

    Returns:
        ``(row_ind, col_ind)``, each (B, K): K matched workers of each problem, in rising order, and their tasks.

    Raises:
        ValueError: the problems have different numbers of matched workers.
    """
    if not len(assignment):
        none = torch.zeros(0, 0, dtype=torch.int64, device=assignment.device)
        return none, none
    matched = assignment >= 0
    counts = matched.sum(dim=1)
    if (counts != counts[0]).any():
        raise ValueError("Inconsistent matching sizes.")
    shape = (len(assignment), int(counts[0]))
    return matched.nonzero()[:, 1].reshape(shape), assignment[matched].reshape(shape)
