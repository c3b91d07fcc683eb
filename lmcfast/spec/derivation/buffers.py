"""Which buffers move with the units that they belong to."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import torch
from torch import fx

from .aliases import operator_name

LEARNED_BUFFERS = ("*.e_score_correction_bias",)
"""Buffers that training writes to although they aren't parameters: one entry for each expert."""

_STATISTICS = frozenset({"batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm", "instance_norm"})


def moves_with_units(name: str, tensor: torch.Tensor, uses: Sequence[fx.Node]) -> bool:
    """Running statistics and learned buffers move; tables (masks, frequencies) are the same in every network."""
    if not tensor.is_floating_point():
        return False
    if any(fnmatch.fnmatch(name, pattern) for pattern in LEARNED_BUFFERS):
        return True
    return bool(uses) and all(use.op == "call_function" and operator_name(use) in _STATISTICS for use in uses)
