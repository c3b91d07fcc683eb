"""Tensors by the units of one axis: what a move of units is worth, and making it.

The kernels (csrc/cpu/units_level.cpp) take tensors on the CPU; the twins below, ``*_ref``, say what they compute, are
what the tests compare them with, and serve tensors on other devices. A *move* is given by two permutations: position i
of the axis holds unit ``before[i]`` and is to hold ``now[i]``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .. import _native
from .sums import difference

Moving = tuple[torch.Tensor, torch.Tensor, int]  # two tensors of one shape and dtype, and the axis of the units

LARGE_BYTES = 1 << 22  # of a tensor from which on large pages pay


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """New memory, in large pages where it is large: small ones cost as much as the numbers that go into it."""
    tensor = torch.empty(tuple(shape), dtype=dtype, device=device)
    if tensor.is_cpu and tensor.numel() * tensor.element_size() >= LARGE_BYTES:
        _native.prefer_large_pages(tensor.numpy())
    return tensor


def rises(before: torch.Tensor, now: torch.Tensor, tensors: Sequence[Moving]) -> tuple[int, list[float]]:
    """How many units get another source, and what <a, b> of each (a, b, axis) gains if b's units move, in float64."""
    if all(a.is_cpu for a, _, _ in tensors):
        return _native.unit_rises(before.numpy(), now.numpy(), [(a.numpy(), b.numpy(), k) for a, b, k in tensors])
    return rises_ref(before, now, tensors)


def rises_ref(before: torch.Tensor, now: torch.Tensor, tensors: Sequence[Moving]) -> tuple[int, list[float]]:
    units = (before != now).nonzero().squeeze(1)
    source = _source(before, now)[units]
    found = []
    for a, b, axis in tensors:
        to, at = source.to(b.device), units.to(b.device)
        found.append(difference(a.index_select(axis, at), b.index_select(axis, to), b.index_select(axis, at)))
    return units.shape[0], found


def move_units(before: torch.Tensor, now: torch.Tensor, tensors: Sequence[Moving]) -> None:
    """For each (to, from, axis): ``to`` becomes ``from`` with its units moved. ``to`` may be ``from``."""
    if all(to.is_cpu for to, _, _ in tensors):
        _native.move_units(before.numpy(), now.numpy(), [(to.numpy(), old.numpy(), k) for to, old, k in tensors])
    else:
        move_units_ref(before, now, tensors)


def move_units_ref(before: torch.Tensor, now: torch.Tensor, tensors: Sequence[Moving]) -> None:
    source = _source(before, now)
    for to, old, axis in tensors:
        to.copy_(old.index_select(axis, source.to(old.device)))


def unit_differences(
    before: torch.Tensor, now: torch.Tensor, moving: Moving, a_out: torch.Tensor, b_out: torch.Tensor
) -> None:
    """Where the permutations differ: ``a_out`` = a there, ``b_out`` = b's units ``now`` less those ``before``.

    Here b's units lie as stored: unit u at position u.
    """
    a, b, axis = moving
    if a.is_cpu:
        _native.unit_differences(
            before.numpy(), now.numpy(), (a.numpy(), b.numpy(), axis), a_out.numpy(), b_out.numpy()
        )
    else:
        unit_differences_ref(before, now, moving, a_out, b_out)


def unit_differences_ref(
    before: torch.Tensor, now: torch.Tensor, moving: Moving, a_out: torch.Tensor, b_out: torch.Tensor
) -> None:
    a, b, axis = moving
    units = (before != now).nonzero().squeeze(1)
    new, old, units = (index.to(a.device) for index in (now[units], before[units], units))
    a_out.copy_(a.index_select(axis, units))
    b_out.copy_(b.index_select(axis, new) - b.index_select(axis, old))


def _source(before: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
    """Where each unit to come lies: ``before[source] == now``."""
    place = torch.empty_like(before).scatter_(0, before, torch.arange(before.shape[0]))
    return place[now]
