"""What counts as the output of a module, for derivation and proof alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree


def default_outputs(output: Any) -> Any:
    """``.logits`` of a module's output if there is one, else all of it."""
    logits = getattr(output, "logits", None)
    return output if logits is None else logits


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in tuples, lists, mappings, dataclasses and registered pytrees, in a fixed order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for key in value:
            yield from tensors_in(value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for entry in dataclasses.fields(value):
            yield from tensors_in(getattr(value, entry.name))
    else:
        leaves = pytree.tree_leaves(value)
        if not (len(leaves) == 1 and leaves[0] is value):
            yield from tensors_in(leaves)


def first_line(error: Exception) -> str:
    """The type of an error and the first line of its text."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
