"""Batches of data on their way into a module."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import nn


def device_of(module: nn.Module) -> torch.device:
    """The device of the module's first parameter or buffer; the CPU for a module without any."""
    tensors: Iterator[torch.Tensor] = chain(module.parameters(), module.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def to_device(value: Any, device: torch.device) -> Any:
    """``value`` with its tensors on ``device``: a tensor, or tuples, lists and dicts of them; others as they are."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, list):
        return [to_device(item, device) for item in value]
    if isinstance(value, tuple):
        moved = [to_device(item, device) for item in value]
        return type(value)(*moved) if hasattr(value, "_fields") else tuple(moved)
    return value


def check_batches(batches: Any) -> None:
    """``TypeError`` for what is not several batches but, it seems, one: a tensor would be taken apart row by row."""
    if isinstance(batches, torch.Tensor):
        raise TypeError(
            f"batches: a list or another iterable of batches is needed, not a tensor of shape {tuple(batches.shape)}; "
            "for one batch give [batch]"
        )
    if not isinstance(batches, Iterable) and not hasattr(batches, "__getitem__"):
        raise TypeError(f"batches: a list or another iterable of batches is needed, not {type(batches).__name__}")


def repeatable(batches: Any) -> None:
    """``TypeError`` for batches that can be gone through only once, or that are no batches."""
    check_batches(batches)
    if iter(batches) is batches:
        raise TypeError(
            f"batches: a {type(batches).__name__} can be gone through only once, and several passes are needed; "
            "give a list or a DataLoader"
        )


def inputs_of(batch: Any) -> Any:
    """The inputs of a batch that is either the inputs or a tuple or list that begins with them."""
    if isinstance(batch, tuple | list):
        if not batch:
            raise ValueError("batches: a batch is an empty tuple or list")
        return batch[0]
    return batch
