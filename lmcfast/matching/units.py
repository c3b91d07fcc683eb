"""Tensors by the units of one axis: what a move of units is worth, and making it.

The kernels (csrc/cpu/units_level.cpp) take tensors on the CPU; the twins below, ``*_ref``, say what they compute, are
what the tests compare them with, and serve tensors on other devices. A *move* is given by two permutations: position i
of the axis holds unit ``before[i]`` and is to hold ``now[i]``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from .. import _native
from .sums import difference

ALIGNED = 16  # numbers to whose multiples a tensor is moved in a block: a cache line of float32
Moving = tuple[torch.Tensor, torch.Tensor, int]  # two tensors of one shape and dtype, and the axis of the units

LARGE_PAGE = 1 << 21  # bytes
WORTH_LARGE = 1 << 22  # bytes of a block from which on large pages pay


def empty(count: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """New memory for ``count`` numbers, in large pages where it is large.

    The system hands out memory page by page as it is first written, and for small pages that takes longer than the
    writing. So a block begins and ends with a large page; what it does not use of them is never written.
    """
    size = count * dtype.itemsize
    if device.type != "cpu" or size < WORTH_LARGE:
        return torch.empty(count, dtype=dtype, device=device)
    whole = -(-size // LARGE_PAGE) * LARGE_PAGE
    memory = torch.empty((whole + LARGE_PAGE) // dtype.itemsize, dtype=dtype)
    start = -memory.data_ptr() % LARGE_PAGE // dtype.itemsize
    block = memory[start : start + whole // dtype.itemsize]
    _native.prefer_large_pages(block.numpy())
    return block[:count]


class Block:
    """Memory for tensors whose shapes are known, taken from the system when the first of them is asked for.

    ``shapes``: {name: shape}. Each begins at a cache line.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]], dtype: torch.dtype, device: torch.device) -> None:
        self._starts: dict[str, int] = {}
        self._shapes, self._dtype, self._device = shapes, dtype, device
        self._size = 0
        self._memory: torch.Tensor | None = None
        for name, shape in shapes.items():
            self._starts[name] = self._size
            self._size += -(-math.prod(shape) // ALIGNED) * ALIGNED

    def tensor(self, name: str) -> torch.Tensor:
        if self._memory is None:
            self._memory = empty(self._size, self._dtype, self._device)
        shape, start = self._shapes[name], self._starts[name]
        return self._memory[start : start + math.prod(shape)].view(*shape)


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
