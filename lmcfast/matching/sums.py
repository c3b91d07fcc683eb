"""Sums of products in float64, with bounds on their rounding.

The objective of permutations pi is the sum over the scored tensors of ``weight * <A, pi(B)>``. A step of the
descent counts only if its *true* gain, the difference of two objectives, exceeds what rounding can have made
of it. The float32 scores that proposed the step are never asked.

Rounding. A dot product of d float64 numbers, added in whatever order, is off by at most gamma(d) * |x| |y|,
with gamma(d) = d u / (1 - d u), u = 2^-53 and |.| the Euclidean norm (Higham, *Accuracy and Stability of
Numerical Algorithms*, 2nd ed., section 3.1, and Cauchy-Schwarz). A sum of k chunks of at most c products
each, whose factors were rounded twice at most (a difference b_new - b_old of exact numbers, a weight), is off by

    |computed - exact| <= gamma(c + k + 3) * sum over chunks of |x| |y|,

x and y the two factors of a chunk; for the inner product of a tensor the sum over its chunks is at most |A| |B|,
however B is permuted. The gain of a step is a difference of two such inner products, or the sum over a * (b_new -
b_old) for the units that move, at most 2 |A| |B|. A gain beyond the bound is positive in exact arithmetic on
the stored values, so every accepted step raises the exact objective and the descent cannot cycle.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from .. import _native
from .device_sums import difference_value, inner_values, squared_distance_value

CHUNK = 1 << 15  # products of one dot: small enough to stay in cache, and the rounding bound grows with it
UNIT_ROUNDOFF = 2.0**-53


def rounding(longest: int, chunks: int) -> float:
    """The factor of the module's bound, for ``chunks`` dots of at most ``longest`` products.

    Doubled, which covers the rounding of the norms and of the bound itself many times over.
    """
    terms = (longest + chunks + 3) * UNIT_ROUNDOFF
    return 2.0 * terms / (1.0 - terms)


class Sum64:
    """A float64 sum of dot products with its rounding bound (module docstring)."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self._magnitude = 0.0
        self._longest = 0

    def add(self, x: torch.Tensor, y: torch.Tensor, weight: float = 1.0) -> None:
        """Add ``weight * <x, y>``; x and y are 1-D float64."""
        self._values.append(weight * float(torch.dot(x, y)))
        self._magnitude += weight * math.sqrt(float(torch.dot(x, x)) * float(torch.dot(y, y)))
        self._longest = max(self._longest, x.shape[0])

    @property
    def value(self) -> float:
        return math.fsum(self._values)

    @property
    def bound(self) -> float:
        """No exact sum is further than this from ``value``."""
        return rounding(self._longest, len(self._values)) * self._magnitude


def chunks(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Tensors of one shape as aligned flat float64 pieces of at most ``CHUNK`` numbers."""
    flat = [tensor.reshape(-1) for tensor in tensors]
    for start in range(0, flat[0].shape[0], CHUNK):
        yield tuple(piece[start : start + CHUNK].double() for piece in flat)


def inner_products(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[float]:
    """<a, b> of each pair of tensors of one shape, in float64."""
    if all(_plain(a) and _plain(b) and a.dtype == b.dtype for a, b in pairs):
        return _native.inner_products([(a.numpy(), b.numpy()) for a, b in pairs])
    return [math.fsum(float(torch.dot(x, y)) for x, y in chunks(a, b)) for a, b in pairs]


def inner_product(a: torch.Tensor, b: torch.Tensor) -> float:
    """<a, b> of two tensors of one shape, in float64."""
    if _native.on_device(a):
        return inner_values([(a, b)])[0]
    return inner_products([(a, b)])[0]


def _plain(tensor: torch.Tensor) -> bool:
    return tensor.is_cpu and tensor.is_contiguous() and tensor.dtype in (torch.float32, torch.float64)


def difference(a: torch.Tensor, new: torch.Tensor, old: torch.Tensor) -> float:
    """<a, new - old> of tensors of one shape, in float64."""
    if _native.on_device(a):
        return difference_value(a, new, old)
    # A piece of a float64 tensor may be the tensor's own memory, so it is never changed.
    owned = new.dtype != torch.float64
    return math.fsum(float(torch.dot(x, y.sub_(z) if owned else y - z)) for x, y, z in chunks(a, new, old))


def squared_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """|a - b|^2 of two tensors of one shape, in float64."""
    if _native.on_device(a):
        return squared_distance_value(a, b)
    gaps = (x - y for x, y in chunks(a, b))
    return math.fsum(float(torch.dot(gap, gap)) for gap in gaps)


@dataclass(frozen=True)
class Figures:
    """|A|^2, |B|^2 and <A, B> of one tensor as stored, float64."""

    square_a: float
    square_b: float
    inner: float


def stored_figures(a: torch.Tensor, b: torch.Tensor) -> Figures:
    """The figures of a pair of tensors of one shape."""
    if _native.on_device(a):
        return Figures(*inner_values([(a, a), (b, b), (a, b)]))
    if a.numel() <= CHUNK:
        x, y = a.reshape(-1).double(), b.reshape(-1).double()
        return Figures(float(torch.dot(x, x)), float(torch.dot(y, y)), float(torch.dot(x, y)))
    sums = [(float(torch.dot(x, x)), float(torch.dot(y, y)), float(torch.dot(x, y))) for x, y in chunks(a, b)]
    return Figures(*(math.fsum(column) for column in zip(*sums, strict=True)))
