"""Float64 inner products of permuted tensors, and magnitudes, on a device (`csrc/include/lmcfast/cuda_similarity.h`).

The additions are in an order that depends on the sizes alone, so every value repeats to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .._native import device_module, dtype_code, upload

# No exact inner product is further from the one computed than ADDITIONS u / (1 - ADDITIONS u) times the sum of the
# products' magnitudes, u = 2^-53: 32 products in each thread, a tree over 256 of them, differences rounded once, and
# sums of chunks in twice the precision.
ADDITIONS = 44

MOST_AXES = 3


@dataclass(frozen=True)
class View:
    """A tensor of up to three axes, some of which are gathered: ``tensor[index[0]][:, index[1]][:, :, index[2]]``.

    ``indices``: for each axis int64 valid positions, or None for all of them in order; () stands for no gather.
    """

    tensor: torch.Tensor
    indices: tuple[torch.Tensor | None, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        indices = self.indices or (None,) * self.tensor.dim()
        sizes = zip(self.tensor.shape, indices, strict=True)
        return tuple(size if index is None else index.shape[0] for size, index in sizes)

    def gathered(self) -> torch.Tensor:
        tensor = self.tensor
        for axis, index in enumerate(self.indices):
            tensor = tensor if index is None else tensor.index_select(axis, index)
        return tensor


@dataclass(frozen=True)
class Inner:
    """The inner product of ``a`` and ``b - less``, all of one shape; ``less`` None stands for zero."""

    a: View
    b: View
    less: View | None = None


def inner_products(products: Sequence[Inner]) -> torch.Tensor:
    """The inner products in float64, on the device of their tensors, shape (len(products),).

    Nothing waits for the device. Raises ``ValueError`` for tensors that do not fit together or are not on one device.
    """
    if not products:
        return torch.zeros(0, dtype=torch.float64)
    device = products[0].a.tensor.device
    rows = []
    kept: list[torch.Tensor] = []
    for product in products:
        views = [product.a, product.b] if product.less is None else [product.a, product.b, product.less]
        words = [word for view in views for word in _words(view, product.a.shape, device, kept)]
        words += [0] * (24 - len(words))
        rows.append(words + _sizes(product.a.shape))
    return _chunked(device, rows, lambda module: module.inner_product_words, "inner_products", 1)[:, 0].view(
        torch.float64
    )


def magnitudes(tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each tensor the largest finite magnitude, float64, and where its first NaN or infinity is, int64, -1: nowhere.

    Places are in row-major order of the tensor's shape. Both results lie on the device of the tensors, shape
    (len(tensors),). Nothing waits for the device.
    """
    if not tensors:
        return torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
    device = tensors[0].device
    kept: list[torch.Tensor] = []
    rows = []
    for tensor in tensors:
        if tensor.dim() > MOST_AXES:
            tensor = _few_axes(tensor)
            kept.append(tensor)
        rows.append(_words(View(tensor), tuple(tensor.shape), device, kept) + _sizes(tuple(tensor.shape)))
    found = _chunked(device, rows, lambda module: module.magnitude_entry_words, "magnitudes", 2)
    return found[:, 0].view(torch.float64), found[:, 1]


def inner_products_ref(products: Sequence[Inner]) -> torch.Tensor:
    """The readable twin of :func:`inner_products`, on the CPU: sums that are rounded once."""
    values = []
    for product in products:
        b = product.b.gathered().double()
        if product.less is not None:
            b = b - product.less.gathered().double()
        a = product.a.gathered().double()
        values.append(math.fsum((a * b).reshape(-1).tolist()))
    return torch.tensor(values, dtype=torch.float64)


def _few_axes(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers in the same order on three axes; a view where the strides allow it."""
    return tensor.reshape(tensor.shape[0], -1, tensor.shape[-1])


def _words(view: View, shape: tuple[int, ...], device: torch.device, kept: list[torch.Tensor]) -> list[int]:
    """An ``InnerOperand``. ``kept``: what must live until the launch."""
    tensor = view.tensor
    code = dtype_code(tensor.dtype)
    if tensor.device != device or code is None or view.shape != shape or tensor.dim() > MOST_AXES:
        raise ValueError(
            f"expected real floating numbers of shape {shape} (at most {MOST_AXES} axes) on {device}, not "
            f"{view.shape} {tensor.dtype} on {tensor.device}"
        )
    missing = MOST_AXES - tensor.dim()
    gathers = [0] * missing
    for index in view.indices or (None,) * tensor.dim():
        if index is not None and (index.dtype != torch.int64 or index.device != device or index.dim() != 1):
            raise ValueError(f"expected an int64 index (k,) on {device}, not {index.dtype} on {index.device}")
        if index is not None and not index.is_contiguous():
            index = index.contiguous()
            kept.append(index)
        gathers.append(0 if index is None else index.data_ptr())
    return [tensor.data_ptr(), *gathers, *[0] * missing, *tensor.stride(), code]


def _sizes(shape: tuple[int, ...]) -> list[int]:
    return [1] * (MOST_AXES - len(shape)) + list(shape)


def _chunked(
    device: torch.device, rows: list[list[int]], words: Callable[[Any], int], function: str, width: int
) -> torch.Tensor:
    """Run one of the module's chunked functions on a table; its values as (len(rows), width) int64."""
    with device_module(device) as (module, stream):
        table = np.zeros((len(rows), words(module)), dtype=np.int64)
        chunks = 0
        for line, row in zip(table, rows, strict=True):
            line[:-1] = row
            line[-1] = chunks
            chunks += -(-math.prod(row[-MOST_AXES:]) // module.inner_chunk)
        on_device, _ = upload(table, device)
        partial = torch.empty((max(chunks, 1), width), dtype=torch.int64, device=device)
        values = torch.empty((len(rows), width), dtype=torch.int64, device=device)
        run = getattr(module, function)
        run(on_device.data_ptr(), len(rows), chunks, partial.data_ptr(), values.data_ptr(), stream)
    return values
