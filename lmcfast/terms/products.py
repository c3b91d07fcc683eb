"""Score matrices on the CPU and the front door for those on a device."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .._native import add_small_products, on_device
from .device import add_on_device
from .plan import plan_chunks
from .precision import full_precision
from .term import PRECISIONS, Arrays, Precision, ScoreSum, Term, working_dtype

MOST_SMALL = 64  # units of a group whose products the library's own kernel forms, ...
SMALL_STEP = 16  # ... and a multiple of this: kMostSmall and kSmallStep of csrc/include/lmcfast/units.h


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
    if on_device(terms[0].a):
        return add_on_device([ScoreSum(terms, n, precision, out)])[0]
    keep = 1  # addmm's beta: 0 overwrites what is there, which saves filling a new matrix with zeros
    if out is None:
        out = torch.empty((n, n), dtype=working_dtype(terms, precision), device=terms[0].a.device)
        keep = 0
    arrays = _small_arrays(terms, n, out)
    if arrays is not None:
        add_small_products(out.numpy(), arrays, bool(keep))
        return out
    for term in terms:
        a, b = (term.a, term.b) if term.is_plain else term.matrices()
        if not a.dtype == b.dtype == out.dtype:
            a, b = a.to(out.dtype), b.to(out.dtype)
        out.addmm_(a, b.T, beta=keep, alpha=term.weight)
        keep = 1
    return out


def _small_arrays(terms: Sequence[Term], n: int, out: torch.Tensor) -> list[Arrays] | None:
    """The operands as the kernel for small groups (csrc/cpu/small_products.h) takes them; None where it does not."""
    if n > MOST_SMALL or n % SMALL_STEP or out.dtype != torch.float32 or not out.is_contiguous() or out.requires_grad:
        return None
    if not out.is_cpu or out.is_neg():
        return None
    found = []
    for term in terms:
        arrays = term.arrays
        if arrays is None:
            return None
        found.append(arrays)
    return found


def accumulate_all(sums: Sequence[ScoreSum]) -> list[torch.Tensor]:
    """:func:`accumulate` for several score matrices; on a device they share launches.

    All terms must lie on one device, and no ``out`` may overlap another or an operand.
    """
    if any(on_device(term.a) for entry in sums for term in entry.terms):
        return add_on_device(sums)
    with full_precision():
        return [add_products(entry.terms, entry.n, entry.precision, entry.out) for entry in sums]


def accumulate_within(
    terms: Sequence[Term],
    n: int,
    device: torch.device,
    budget: int,
    precision: Precision = "float32",
) -> torch.Tensor:
    """:func:`accumulate` on ``device`` with at most ``budget`` bytes there beside what lies there already.

    The terms may lie anywhere; what does not lie on the device, or has to be copied to be multiplied, passes through
    it in chunks along the depth (:func:`plan_chunks`). ``ValueError`` where the budget does not hold the score matrix
    and the narrowest chunk.
    """
    chunks = plan_chunks(terms, n, device, budget, precision)
    scores = torch.zeros((n, n), dtype=working_dtype(terms, precision), device=device)
    with full_precision():
        for chunk in chunks:
            part = terms[chunk.term].part(chunk.axis, chunk.start, chunk.stop)
            add_products([part.to(device)], n, precision, out=scores)
    return scores


def accumulate_ref(terms: Sequence[Term], n: int) -> torch.Tensor:
    """The readable twin of :func:`accumulate`, in float64 on the CPU: tests compare against it."""
    scores = torch.zeros((n, n), dtype=torch.float64)
    for term in terms:
        a, b = term.matrices()
        scores += term.weight * torch.einsum("id,jd->ij", a.double().cpu(), b.double().cpu())
    return scores
