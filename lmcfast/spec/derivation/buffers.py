"""Which buffers move with the units that they belong to."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor

from .aliases import operator_name

LEARNED_BUFFERS = ("*.e_score_correction_bias",)
"""Buffers that training writes to although they aren't parameters: one entry for each expert."""

_LARGEST = 1 << 20  # entries of a table that are looked at
_STATISTICS = frozenset({"batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm", "instance_norm"})


def moves_with_units(name: str, tensor: torch.Tensor, uses: Sequence[fx.Node]) -> bool:
    """Running statistics and learned buffers move; tables (masks, frequencies) are the same in every network."""
    if not tensor.is_floating_point():
        return False
    if any(fnmatch.fnmatch(name, pattern) for pattern in LEARNED_BUFFERS):
        return True
    return bool(uses) and all(use.op == "call_function" and operator_name(use) in _STATISTICS for use in uses)


def even_dims(tensor: torch.Tensor) -> list[int]:
    """The dimensions along which a tensor is constant; none where its values aren't there (meta, fake)."""
    if tensor.is_meta or isinstance(tensor, FakeTensor) or not 0 < tensor.numel() <= _LARGEST:
        return []
    return [dim for dim in range(tensor.ndim) if bool((tensor == tensor.narrow(dim, 0, 1)).all())]
