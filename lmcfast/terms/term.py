"""Terms: what a score matrix is the sum of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from numpy.typing import NDArray

Precision = Literal["float32", "float64"]
Arrays = tuple[NDArray[Any], NDArray[Any], float]

PRECISIONS: dict[str, torch.dtype] = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Term:
    """One share of a score matrix: ``weight * a @ b.T``, both seen as (n, depth).

    ``a`` and ``b`` have shape (n, depth) or (n, blocks, positions), any strides, any real floating dtype, and lie on
    one device. Row i of ``a`` is unit i of model A, row j of ``b`` is unit j of model B. ``index_a``, ``index_b``:
    int64 (k,), valid positions of the operand's last axis, which are taken in their place and order; on a device this
    needs no copy. An update of rank r, S += A[:, c] (B[:, new] - B[:, old])^T, is two terms, the second of weight -1.
    """

    a: torch.Tensor
    b: torch.Tensor
    weight: float = 1.0
    index_a: torch.Tensor | None = None
    index_b: torch.Tensor | None = None

    @property
    def depth(self) -> int:
        return math.prod(_inner_shape(self.a, self.index_a))

    @property
    def is_plain(self) -> bool:
        """Whether the operands are matrices as they are."""
        return self.a.dim() == self.b.dim() == 2 and self.index_a is None and self.index_b is None

    @cached_property
    def arrays(self) -> Arrays | None:
        """The operands as numpy sees their memory, and the weight, where they are plain, dense float32 on the CPU."""
        a, b = self.a, self.b
        if not self.is_plain or not (a.dtype == b.dtype == torch.float32) or not (a.is_cpu and b.is_cpu):
            return None
        if not a.shape[1] or not b.shape[1]:
            return None  # numpy gives the strides of nothing as it likes
        if a.requires_grad or b.requires_grad or a.is_neg() or b.is_neg() or 1 not in a.stride() or 1 not in b.stride():
            return None
        return a.numpy(), b.numpy(), self.weight

    def inner_shape(self) -> tuple[int, int]:
        """(blocks, positions), the depth of both operands. ``ValueError`` where they do not fit together."""
        a, b = _inner_shape(self.a, self.index_a), _inner_shape(self.b, self.index_b)
        if a == b or (self.a.dim() == 2 and self.index_a is None and math.prod(a) == math.prod(b)):
            return b
        if self.b.dim() == 2 and self.index_b is None and math.prod(a) == math.prod(b):
            return a
        raise ValueError(f"term: a has {a[0]} blocks of {a[1]} positions and b has {b[0]} of {b[1]}")

    def operands(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Both as (n, blocks, positions) as stored, without the gather; views."""
        shape = self.inner_shape()
        return _blocked(self.a, shape, self.index_a), _blocked(self.b, shape, self.index_b)

    def matrices(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Both as (n, depth), gathered."""
        return _matrix(self.a, self.index_a), _matrix(self.b, self.index_b)

    def part(self, axis: int, start: int, stop: int) -> Term:
        """The share of the blocks (axis 0) or positions (axis 1) from ``start`` to ``stop``."""
        a, b = self.operands()
        index_a, index_b = self.index_a, self.index_b
        if axis == 0:
            return replace(self, a=a[:, start:stop], b=b[:, start:stop])
        a, index_a = (a[:, :, start:stop], None) if index_a is None else (a, index_a[start:stop])
        b, index_b = (b[:, :, start:stop], None) if index_b is None else (b, index_b[start:stop])
        return replace(self, a=a, b=b, index_a=index_a, index_b=index_b)

    def to(self, device: torch.device) -> Term:
        """The term on a device; what is gathered is gathered where it is, before it moves."""
        if self.a.device == self.b.device == device:
            return self
        a, b = self.matrices()
        return Term(a.to(device), b.to(device), self.weight)


@dataclass(frozen=True)
class ScoreSum:
    """A score matrix to be formed: the sum of terms over n units, all of them on one device.

    With ``out`` (n, n), any strides, the terms are added to it in place, in its dtype, float32 or float64; otherwise
    the dtype is :func:`working_dtype`.
    """

    terms: Sequence[Term]
    n: int
    precision: Precision = "float32"
    out: torch.Tensor | None = None


def working_dtype(terms: Sequence[Term], precision: Precision) -> torch.dtype:
    """The dtype of products and scores: at least ``precision``, and float64 where any operand is stored as float64."""
    wide = any(torch.float64 in (term.a.dtype, term.b.dtype) for term in terms)
    return torch.float64 if wide else PRECISIONS[precision]


def _inner_shape(tensor: torch.Tensor, index: torch.Tensor | None) -> tuple[int, int]:
    positions = tensor.shape[-1] if index is None else index.shape[0]
    return (tensor.shape[1] if tensor.dim() == 3 else 1), positions


def _blocked(tensor: torch.Tensor, shape: tuple[int, int], index: torch.Tensor | None) -> torch.Tensor:
    if tensor.dim() == 3:
        return tensor
    return tensor.unsqueeze(1) if index is not None else torch.unflatten(tensor, 1, shape)


def _matrix(tensor: torch.Tensor, index: torch.Tensor | None) -> torch.Tensor:
    if index is not None:
        tensor = tensor.index_select(-1, index.to(tensor.device))
    return tensor if tensor.dim() == 2 else tensor.reshape(tensor.shape[0], -1)
