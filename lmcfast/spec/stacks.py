"""Tensors that a spec has in one and state dicts hold one by one, as experts that are modules of their own.

``PermutationSpec.stacks`` says ``{"experts.*.w1.weight": 8}``: the spec's tensor is the stack, along a new first axis,
of ``experts.0.w1.weight`` to ``experts.7.w1.weight``, so that the order of the experts is a group like any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .spec import PermutationSpec

Params = Mapping[str, torch.Tensor]


def members(name: str, number: int) -> list[str]:
    """The names of the tensors in a stack, in order."""
    before, after = re.split(r"(?<![^.])\*(?![^.])", name)
    return [f"{before}{k}{after}" for k in range(number)]


def stacked(spec: PermutationSpec, params: Params) -> dict[str, torch.Tensor]:
    """The state dict with the members of each stack in one tensor; a stack that is whole or lacks members stays so."""
    found = dict(params)
    for name, number in spec.stacks.items():
        parts = members(name, number)
        shapes = {params[part].shape for part in parts if part in params}
        if len(shapes) == 1 and all(part in params for part in parts):
            found[name] = torch.stack([found.pop(part) for part in parts])
    return found


def unstacked(spec: PermutationSpec, params: Params) -> dict[str, torch.Tensor]:
    """The inverse of :func:`stacked`, up to the order of the names."""
    found = dict(params)
    for name, number in spec.stacks.items():
        if name in found:
            found |= dict(zip(members(name, number), found.pop(name).unbind(0), strict=True))
    return found
