"""What is multiplied where, and in which pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .term import Precision, Term, working_dtype

# Multiply-adds of one term from which torch.matmul takes it over from the grouped kernel, by the storage of its
# operands. A large product pays for the gathered copy (and, of 16-bit storage, the widened one) that torch needs.
# These bounds are not measured yet: they are where a model of the copies and of launches of 10 microseconds puts them
# (2048^2 numbers copied in 10 microseconds against 300 of float32 product). `benchmarks/gpu.py` is to replace them.
LARGE: dict[torch.dtype, int] = {
    torch.float32: 1 << 30,
    torch.bfloat16: 1 << 36,  # torch would widen both operands to float32 first
    torch.float16: 1 << 36,
    torch.float64: 1 << 27,  # the kernel's float64 does without tensor cores
}
NARROW = 256  # units or depth below which a product stays with the grouped kernel, however large

STEP = 64  # chunks are multiples of it, where they can be


def is_large(term: Term, n: int, products: torch.dtype) -> bool:
    """Whether a term on a device goes to torch.matmul. ``products``: the storage that the kernel would multiply."""
    return is_large_product(n, term.depth, products)


def is_large_product(n: int, depth: int, products: torch.dtype) -> bool:
    return min(n, depth) >= NARROW and n * n * depth >= LARGE[products]


@dataclass(frozen=True)
class Chunk:
    """A share of a term: its blocks (axis 0) or positions (axis 1) from ``start`` to ``stop``."""

    term: int
    axis: int
    start: int
    stop: int


def plan_chunks(
    terms: Sequence[Term], n: int, device: torch.device, budget: int, precision: Precision = "float32"
) -> list[Chunk]:
    """The chunks in which terms are multiplied so that scores and copies fit ``budget`` bytes of ``device``.

    Every term is covered once, in order. A chunk runs over all positions of some blocks or all blocks of some
    positions, whichever the term has more of. ``ValueError`` where the budget is too small.
    """
    dtype = working_dtype(terms, precision)
    scores = n * n * dtype.itemsize
    chunks: list[Chunk] = []
    for k, term in enumerate(terms):
        blocks, positions = term.inner_shape()
        if not blocks * positions:
            continue
        axis, length, across = (0, blocks, positions) if blocks > positions else (1, positions, blocks)
        column = across * sum(
            n * _bytes_of_number(operand, index, dtype, device)
            for operand, index in ((term.a, term.index_a), (term.b, term.index_b))
        )
        width = length if column == 0 else (budget - scores) // column
        if budget < scores or width < 1:
            raise ValueError(
                f"budget is {budget} bytes; the scores of {n} units take {scores}, and the narrowest chunk of term {k} "
                f"{column} more"
            )
        if STEP <= width < length:
            width -= width % STEP
        chunks += [Chunk(k, axis, start, min(start + width, length)) for start in range(0, length, width)]
    return chunks


def _bytes_of_number(
    operand: torch.Tensor, index: torch.Tensor | None, dtype: torch.dtype, device: torch.device
) -> int:
    """Bytes on the device for one number of an operand: as it arrives there, gathered, and widened for the product."""
    arrives = operand.itemsize if operand.device != device else 0
    gathered = operand.itemsize if index is not None and not arrives else 0
    widened = dtype.itemsize if operand.dtype != dtype else 0
    return arrives + gathered + widened
