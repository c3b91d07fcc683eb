"""The sums of ``sums.py`` for tensors on a device: one kernel and one wait, whatever the size.

The bound of ``sums.rounding`` holds for them: it is above the kernels' own (``terms.inner.ADDITIONS``) for tensors of
more than a few numbers, and a sum of fewer products is off by no more than it says, in whatever order it is formed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..terms import Inner, View, inner_products

PIECE = 1 << 24  # numbers that are widened to float64 at once


def view(tensor: torch.Tensor) -> View:
    """A tensor as the kernels take it, on at most three axes."""
    return View(tensor if tensor.dim() <= 3 else tensor.reshape(tensor.shape[0], -1, tensor.shape[-1]))


def inner_values(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[float]:
    """<a, b> of each pair, in float64."""
    values: list[float] = inner_products([Inner(view(a), view(b)) for a, b in pairs]).tolist()
    return values


def difference_value(a: torch.Tensor, new: torch.Tensor, old: torch.Tensor) -> float:
    """<a, new - old>, in float64."""
    return float(inner_products([Inner(view(a), view(new), view(old))]))


def squared_distance_value(a: torch.Tensor, b: torch.Tensor) -> float:
    """|a - b|^2, in float64."""
    x, y = a.reshape(-1), b.reshape(-1)
    total = torch.zeros((), dtype=torch.float64, device=a.device)
    for start in range(0, x.shape[0], PIECE):
        piece = slice(start, start + PIECE)
        total += (x[piece].double() - y[piece].double()).square().sum()
    return float(total)
