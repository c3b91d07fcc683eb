"""Putting the tensors of two networks into the order in which a matching holds them (``storage.py``)."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import torch

from .. import _native
from ..spec import PermutationSpec
from .storage import Params, Storage
from .sums import Figures, stored_figures
from .units import ALIGNED, empty

Held = tuple[torch.Tensor, torch.Tensor, Figures]


class Holding:
    """How the tensors of a plan get where they are held: worked out once, carried out for each pair of networks.

    On the CPU one call of a kernel copies all of them into one block of memory and sums their figures in the same
    pass (csrc/bindings/units.cpp says what a row of ``_table`` means); a tensor whose order stays is held where it is.
    :meth:`Storage.hold` is the readable twin, and serves other devices and what the table does not reach: tensors
    without two or three axes as held, and those of float64 among others.
    """

    def __init__(self, storages: Sequence[Storage], spec: PermutationSpec) -> None:
        self._storages = tuple(storages)
        self._names: list[str] = []
        self._places: dict[int, int] = {}  # where a tensor begins in the block; -1: where it is
        self._size = 0
        rows: list[list[int]] = []
        for index, storage in enumerate(storages):
            entries = _rows(storage, spec, index)
            if entries is None:
                continue
            self._names += [member.name for member in storage.members]
            self._places[index] = -1
            if len(entries) > 1 or not _stays(entries[0]):
                self._places[index] = self._size
                for row in entries:
                    row[6] += self._size
                self._size += -(-math.prod(storage.shape) // ALIGNED) * ALIGNED
            else:
                entries[0][6] = -1
            rows += entries
        self._table = np.array(rows, dtype=np.int64).reshape(-1, 9)

    def hold(
        self, params_a: Params, params_b: Params, device: torch.device, doubles: Collection[str]
    ) -> list[tuple[Storage, Held]]:
        """Each storage, and A's tensor, B's, their figures.

        ``doubles``: names of the tensors that are float64 in either network; what is held together with one is held
        in float64, the rest in float32.
        """
        found: dict[int, Held] = {}
        if device.type == "cpu" and self._places and not doubles:
            found = self._in_one_block(params_a, params_b)
        for index, storage in enumerate(self._storages):
            if index not in found:
                wide = any(member.name in doubles for member in storage.members)
                dtype = torch.float64 if wide else torch.float32
                a, b = storage.hold(params_a, device, dtype), storage.hold(params_b, device, dtype)
                found[index] = a, b, stored_figures(a, b)
        return [(storage, found[index]) for index, storage in enumerate(self._storages)]

    def _in_one_block(self, params_a: Params, params_b: Params) -> dict[int, Held]:
        sources_a = [_dense(params_a[name]) for name in self._names]
        sources_b = [_dense(params_b[name]) for name in self._names]
        block_a, block_b = empty(2 * self._size, torch.float32, torch.device("cpu")).view(2, self._size)
        sums = _native.hold_pairs(
            [tensor.numpy() for tensor in sources_a],
            [tensor.numpy() for tensor in sources_b],
            block_a.numpy(),
            block_b.numpy(),
            self._table,
            len(self._storages),
        )
        found: dict[int, Held] = {}
        position = 0
        for index, place in self._places.items():
            storage = self._storages[index]
            if place < 0:
                a, b = sources_a[position].view(storage.shape), sources_b[position].view(storage.shape)
            else:
                a = block_a.as_strided(storage.shape, storage.strides, block_a.storage_offset() + place)
                b = block_b.as_strided(storage.shape, storage.strides, block_b.storage_offset() + place)
            found[index] = a, b, Figures(*sums[index])
            position += len(storage.members)
        return found


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as float32 on the CPU, its axes in their own order in memory; itself where it is so."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.dtype != torch.float32 or not tensor.is_cpu:
        tensor = tensor.to("cpu", torch.float32)
    return tensor.contiguous()


def _rows(storage: Storage, spec: PermutationSpec, index: int) -> list[list[int]] | None:
    """The table's rows for a storage, offsets counted from its beginning; None if it has to be held by its twin."""
    if storage.axis_of is None or len(storage.shape) not in (2, 3) or math.prod(storage.shape) == 0:
        return None
    plane = math.prod(storage.shape[1:])
    last = storage.shape[2] if len(storage.shape) == 3 else 1
    rows = []
    start = 0
    for member in storage.members:
        stored = member.view(torch.empty(math.prod(member.split), device="meta"))
        shape = (storage.shape[0], member.depth, last)
        if len(storage.members) == 1:
            shape = (storage.shape[0], storage.shape[1], last)
        try:
            strides = stored.view(shape).stride()
        except RuntimeError:  # fixed axes that do not lie side by side: no strides say where they are
            return None
        rows.append([*shape, *strides, start * last, plane, index])
        start += member.depth
    return rows


def _stays(row: list[int]) -> bool:
    """Whether the order held is the order stored."""
    expected = 1
    for size, stride in zip(row[2::-1], row[5:2:-1], strict=True):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True
