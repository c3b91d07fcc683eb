"""The families of assignment problems that the benchmarks measure: one table, scores to be maximised.

A problem is made from (family, n, seed) alone; n is the smaller side of the matrix, or the number of problems of a
batch. ``make_scores("uniform", 512, 7)`` gives the same array on every machine with the same numpy.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Generator = np.random.Generator
Array = NDArray[np.floating]

REPORT_SEED = 23  # nobody tunes on it
BATCH_SIDE = 64


@dataclass(frozen=True)
class Family:
    """A kind of problem. ``make(rng, n)`` gives scores (n, m) or (batch, n, m), float64 or float32, to be maximised.

    ``group``: "weights" (similarities of units), "structure" or "shape". ``goals``: the least wanted ratio of the
    fastest peer's time to the kernel's, from this n on. ``trained``: made by ``trained.py`` from trained networks.
    """

    name: str
    group: str
    make: Callable[[Generator, int], Array] | None
    goals: dict[int, float] = field(default_factory=dict)
    trained: bool = False


def weights(rng: Generator, n: int, depth: float, noise: float | None = None, columns: int = 0) -> Array:
    """A^T B for normal A, B with round(depth * n) rows; with ``noise``, B is A, columns permuted, plus noise."""
    d, m = max(1, round(depth * n)), columns or n
    a = rng.standard_normal((d, n), dtype=np.float32)
    b = rng.standard_normal((d, m), dtype=np.float32)
    if noise is not None:
        b *= np.float32(noise)
        b += a[:, rng.permutation(n)]
    return a.T @ b


def critical_noise(n: int) -> float:
    """The noise up to which the planted permutation stays the best one, at depth n."""
    return math.sqrt(n / (2 * math.log(max(n, 2))))


def plane_distances(rng: Generator, n: int) -> Array:
    """(n, n) distances between two sets of uniform points of the unit square."""
    p, q = rng.random((n, 2)), rng.random((n, 2))
    return np.hypot(p[:, :1] - q[:, 0], p[:, 1:] - q[:, 1])


def line_distances(rng: Generator, n: int) -> Array:
    return np.abs(rng.random((n, 1)) - rng.random((1, n)))


def row_distances(n: int) -> Array:
    k = np.arange(n, dtype=np.float64)
    return np.abs(k[:, None] - k)


def products(n: int) -> Array:
    k = np.arange(1, n + 1, dtype=np.float64)
    return np.outer(k, k)


def zero_ones(rng: Generator, n: int, density: float) -> Array:
    return (rng.random((n, n), dtype=np.float32) < density).astype(np.float32)


def half_zero(rng: Generator, n: int) -> Array:
    scores = weights(rng, n, 1)
    scores[rng.permutation(n)[: n // 2]] = 0
    return scores


def blocks(rng: Generator, n: int) -> Array:
    """Eight unequal classes of rows and of columns; a pair of one class scores 1, plus a little noise."""
    same = rng.integers(0, 8, (n, 1)) == rng.integers(0, 8, (1, n))
    return same + 0.01 * rng.random((n, n))


def duplicate_rows(rng: Generator, n: int, noise: float) -> Array:
    """n rows drawn from n / 8 different ones, each entry then changed by a relative ``noise``."""
    distinct = max(1, n // 8)
    scores = weights(rng, n, 1)[rng.integers(0, distinct, n)]
    return scores * (1 + noise * rng.standard_normal((n, n))) if noise else scores


def dead_units(rng: Generator, n: int) -> Array:
    """Three tenths of the units on either side have weights of about 1e-12."""
    a, b = rng.standard_normal((2, n, n))
    for side in (a, b):
        side[:, rng.permutation(n)[: int(0.3 * n)]] *= 1e-12
    return a.T @ b


def toeplitz(rng: Generator, n: int) -> Array:
    k = np.arange(n)
    return rng.standard_normal(2 * n)[k[:, None] - k + n]


def low_rank(rng: Generator, n: int, rank: int, noise: float = 0.0) -> Array:
    scores = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, n))
    return scores + noise * rng.standard_normal((n, n)) if noise else scores


def batch(rng: Generator, n: int) -> Array:
    a, b = rng.standard_normal((2, n, BATCH_SIDE, BATCH_SIDE), dtype=np.float32)
    return np.matmul(a.transpose(0, 2, 1), b)


_INDEPENDENT = {1024: 4.0, 2048: 10.0, 4096: 12.0}
_PLANTED = {1024: 2.0}

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("weights_shallow", "weights", lambda r, n: weights(r, n, 0.25), _INDEPENDENT),
        Family("weights", "weights", lambda r, n: weights(r, n, 1), _INDEPENDENT),
        Family("weights_deep", "weights", lambda r, n: weights(r, n, 4), _INDEPENDENT),
        Family("weights_hard", "weights", lambda r, n: weights(r, n, 1, 2 * critical_noise(n)), _INDEPENDENT),
        Family("weights_critical", "weights", lambda r, n: weights(r, n, 1, critical_noise(n)), _PLANTED),
        Family("planted", "weights", lambda r, n: weights(r, n, 1, 0.1), _PLANTED),
        Family("planted_noisy", "weights", lambda r, n: weights(r, n, 1, 1.0), _PLANTED),
        Family("weights_rectified", "weights", lambda r, n: np.maximum(weights(r, n, 1), 0)),
        Family("trained_start", "weights", None, trained=True),
        Family("trained_end", "weights", None, trained=True),
        Family("uniform", "structure", lambda r, n: -r.random((n, n), dtype=np.float32), {4096: 12.0}),
        Family("integers_10", "structure", lambda r, n: -r.integers(0, 10, (n, n)).astype(np.float64)),
        Family("integers_100", "structure", lambda r, n: -r.integers(0, 100, (n, n)).astype(np.float64)),
        Family("integers_1000", "structure", lambda r, n: -r.integers(0, 1000, (n, n)).astype(np.float64)),
        Family("constant", "structure", lambda r, n: np.full((n, n), 3.7)),
        Family("zeros", "structure", lambda r, n: np.zeros((n, n))),
        Family("row_distance", "structure", lambda r, n: -row_distances(n)),
        Family("row_distance_far", "structure", lambda r, n: row_distances(n)),
        Family("line", "structure", lambda r, n: -line_distances(r, n)),
        Family("line_far", "structure", lambda r, n: line_distances(r, n)),
        Family("products", "structure", lambda r, n: -products(n)),
        Family("products_far", "structure", lambda r, n: products(n)),
        Family("products_noisy", "structure", lambda r, n: -products(n) * (1 + 1e-3 * r.standard_normal((n, n)))),
        Family("plane", "structure", lambda r, n: -plane_distances(r, n)),
        Family("plane_squared", "structure", lambda r, n: -(plane_distances(r, n) ** 2)),
        Family("sparse_01", "structure", lambda r, n: zero_ones(r, n, 0.01)),
        Family("sparse_1", "structure", lambda r, n: zero_ones(r, n, 0.1)),
        Family("half_zero", "structure", half_zero),
        Family("blocks", "structure", blocks),
        Family("duplicate_rows", "structure", lambda r, n: duplicate_rows(r, n, 0.0)),
        Family("near_duplicate_rows", "structure", lambda r, n: duplicate_rows(r, n, 1e-6)),
        Family("dead_units", "structure", dead_units),
        Family("rank_1", "structure", lambda r, n: low_rank(r, n, 1)),
        Family("rank_2", "structure", lambda r, n: low_rank(r, n, 2)),
        Family("rank_16_noisy", "structure", lambda r, n: low_rank(r, n, 16, 0.05)),
        Family("heavy_tails", "structure", lambda r, n: -np.exp(3 * r.standard_normal((n, n)))),
        Family(
            "row_scales", "structure", lambda r, n: np.exp(4 * r.standard_normal((n, 1))) * r.standard_normal((n, n))
        ),
        Family("hub", "structure", lambda r, n: 10 * r.random((1, n)) + r.random((n, n))),
        Family("toeplitz", "structure", toeplitz),
        Family("triangular", "structure", lambda r, n: np.tril(r.random((n, n)))),
        Family("wide_2", "shape", lambda r, n: weights(r, n, 1, columns=2 * n)),
        Family("wide_few", "shape", lambda r, n: weights(r, n, 1, columns=n + max(1, n // 64))),
        Family("wide_uniform", "shape", lambda r, n: -r.random((n, n + max(1, n // 64)))),
        Family("tall_2", "shape", lambda r, n: weights(r, n, 1, columns=2 * n).T),
        Family("batch_64", "shape", batch),
    )
}


def make_scores(name: str, n: int, seed: int, dtype: str = "float32") -> Array:
    """The problem of a family that needs no training: contiguous scores of this dtype."""
    make = FAMILIES[name].make
    if make is None:
        raise ValueError(f"name: {name!r} is made from trained networks, by trained.trained_scores")
    rng = np.random.default_rng([zlib.crc32(name.encode()), n, seed])
    return np.ascontiguousarray(make(rng, n), dtype=dtype)
