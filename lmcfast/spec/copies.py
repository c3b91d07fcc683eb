"""Copies of modules that share their tensors."""

from __future__ import annotations

import copy

from torch import nn


def shared_copy(module: nn.Module) -> nn.Module:
    """The module with the same parameters and buffers, so that what a run leaves in it (tables that are made of
    weights once and kept) does not stay in the original."""
    shared = (*module.parameters(), *module.buffers())
    return copy.deepcopy(module, {id(tensor): tensor for tensor in shared})
