"""Score matrices as sums of plain terms: two strided operands, a depth and a weight; no specs, no layouts.

A term adds ``weight * a @ b.T`` to an (n, n) score matrix. This is the one place that multiplies for the
matchers, so the rule for accuracy lives here: float32 storage gets float32-accurate products, whatever
reduced precision the caller allows torch elsewhere; bfloat16 and float16 storage is widened first, so its
products are exact and the sums are float32; float64 storage stays float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch

Precision = Literal["float32", "float64"]

PRECISIONS: dict[str, torch.dtype] = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Term:
    """One share of a score matrix: ``weight * a @ b.T``.

    ``a`` and ``b`` have shape (n, depth), any strides, any real floating dtype, and lie on one device. Row i
    of ``a`` is unit i of model A, row j of ``b`` is unit j of model B.
    """

    a: torch.Tensor
    b: torch.Tensor
    weight: float = 1.0

    @property
    def depth(self) -> int:
        return self.a.shape[1]


def working_dtype(terms: Sequence[Term], precision: Precision) -> torch.dtype:
    """The dtype of products and scores: at least ``precision``, and float64 where any operand is stored as float64."""
    wide = any(torch.float64 in (term.a.dtype, term.b.dtype) for term in terms)
    return torch.float64 if wide else PRECISIONS[precision]


@contextmanager
def full_precision() -> Iterator[None]:
    """Products of float32 tensors inside the block are float32-accurate (no TF32, no bfloat16), then as before."""
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # before torch 2.9
        legacy = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(legacy)
        return
    backends: tuple[Any, ...] = (torch.backends.mkldnn.matmul, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def accumulate(
    terms: Sequence[Term], n: int, precision: Precision = "float32", out: torch.Tensor | None = None
) -> torch.Tensor:
    """The score matrix of the terms, shape (n, n): the sum over the terms of ``weight * a @ b.T``.

    The products run in the order given, so a run repeats. With ``out`` (n, n) the terms are added to it in
    place, in its dtype; otherwise the dtype is :func:`working_dtype`. Accumulation is in that dtype.
    """
    with full_precision():
        return add_products(terms, n, precision, out)


def add_products(
    terms: Sequence[Term], n: int, precision: Precision = "float32", out: torch.Tensor | None = None
) -> torch.Tensor:
    """:func:`accumulate` for callers that are inside :func:`full_precision`, which costs as much as a small product."""
    if not terms:
        return torch.zeros((n, n), dtype=PRECISIONS[precision]) if out is None else out
    keep = 1  # addmm's beta: 0 overwrites what is there, which saves filling a new matrix with zeros
    if out is None:
        out = torch.empty((n, n), dtype=working_dtype(terms, precision), device=terms[0].a.device)
        keep = 0
    for term in terms:
        a, b = term.a, term.b
        if not a.dtype == b.dtype == out.dtype:
            a, b = a.to(out.dtype), b.to(out.dtype)
        out.addmm_(a, b.T, beta=keep, alpha=term.weight)
        keep = 1
    return out


def accumulate_ref(terms: Sequence[Term], n: int) -> torch.Tensor:
    """The readable twin of :func:`accumulate`, in float64 on the CPU: tests compare against it."""
    scores = torch.zeros((n, n), dtype=torch.float64)
    for term in terms:
        scores += term.weight * torch.einsum("id,jd->ij", term.a.double().cpu(), term.b.double().cpu())
    return scores
