"""One table of assignment problems: families of scores (maximised), memory layouts, forbidden pairs, few values.

The families are those that the benchmarks measure (benchmarks/families.py), cut to any shape, and a few more.
"""

from __future__ import annotations

from collections.abc import Callable

import families as benchmarks
import numpy as np

Generator = np.random.Generator
Family = Callable[[Generator, int, int], np.ndarray]
Make = Callable[[Generator, int], np.ndarray]


def cut(make: Make) -> Family:
    """The first n rows and m columns of the smallest problem that has as many (a batch: of its first problem)."""

    def scores(rng: Generator, n: int, m: int) -> np.ndarray:
        side = max(n, m, 1)
        made = make(rng, side)
        if made.ndim == 3:  # of a fixed side; repeated when that is too small
            k = -(-side // made.shape[-1])
            made = np.tile(made[0], (k, k))
        return made[:n, :m]

    return scores


def _normal_offset(rng: Generator, n: int, m: int) -> np.ndarray:
    """Small differences of large numbers."""
    return rng.standard_normal((n, m)) + 1e4


def _almost_tied(rng: Generator, n: int, m: int) -> np.ndarray:
    """Few different values, told apart by a few units in the last place."""
    return rng.integers(1, 4, (n, m)) * (1 + rng.integers(0, 4, (n, m)) * 2.0**-23)


def _far_apart(rng: Generator, n: int, m: int) -> np.ndarray:
    """Entries of all magnitudes side by side, both signs."""
    return rng.choice([-1.0, 1.0], (n, m)) * 2.0 ** rng.integers(-20, 20, (n, m))


FAMILIES: dict[str, Family] = {
    **{name: cut(family.make) for name, family in benchmarks.FAMILIES.items() if family.make is not None},
    "normal_offset": _normal_offset,
    "almost_tied": _almost_tied,
    "far_apart": _far_apart,
}

# The order in memory stays that of rows but in "columns".
LAYOUTS = ("rows", "columns", "slice", "reversed", "mirrored", "strided", "broadcast")


def with_layout(a: np.ndarray, layout: str) -> np.ndarray:
    """The same values, (..., n, m), in another memory layout (broadcast: the first row for all rows)."""
    *batch, n, m = a.shape
    if layout == "columns":
        return np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2)
    if layout == "slice":
        wide = np.zeros((*batch, n + 2, m + 5), a.dtype)
        wide[..., 1 : n + 1, 3 : m + 3] = a
        return wide[..., 1 : n + 1, 3 : m + 3]
    if layout == "reversed":
        return np.ascontiguousarray(a[..., ::-1, :])[..., ::-1, :]
    if layout == "mirrored":
        return np.ascontiguousarray(a[..., ::-1])[..., ::-1]
    if layout == "strided":
        wide = np.zeros((*batch, n, 3 * m), a.dtype)
        wide[..., ::3] = a
        return wide[..., ::3]
    if layout == "broadcast":
        return np.broadcast_to(a[..., :1, :], a.shape)
    return np.ascontiguousarray(a)


def forbid(rng: Generator, a: np.ndarray, share: float, value: float, feasible: bool) -> np.ndarray:
    """Forbids a share of the pairs; feasible: one assignment of the smaller side stays allowed."""
    n, m = a.shape
    keep = np.zeros((n, m), bool)
    if feasible:
        k = min(n, m)
        keep[rng.permutation(n)[:k], rng.permutation(m)[:k]] = True
    return np.where((rng.random((n, m)) < share) & ~keep, value, a).astype(a.dtype)


def whole_numbers(a: np.ndarray, bits: int) -> np.ndarray:
    """The values rounded to integers of at most this many bits: their sums are exact, so optima can be compared."""
    largest = np.abs(a).max(initial=0)
    return np.rint(a * ((2**bits - 1) / largest)) if largest > 0 else np.rint(a)
