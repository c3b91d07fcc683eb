"""Large arrays of which little is used."""

from __future__ import annotations

import mmap

import torch


def lazy(numbers: int, dtype: torch.dtype) -> torch.Tensor:
    """Zeros of which only the pages that are touched take memory."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    return torch.frombuffer(mmap.mmap(-1, numbers * dtype.itemsize, flags=flags), dtype=dtype)
