"""One table of assignment problems: families of scores (maximised), dtypes, memory layouts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Generator = np.random.Generator
Family = Callable[[Generator, int, int], np.ndarray]


def _matched(rng: Generator, n: int, m: int, depth: int, noise: float | None) -> np.ndarray:
    """Weight-matching scores A^T B; with noise given, B is A permuted plus noise."""
    a = rng.standard_normal((depth, n))
    b = rng.standard_normal((depth, m))
    if noise is not None:
        k = min(n, m)
        b *= noise
        b[:, rng.permutation(m)[:k]] += a[:, :k]
    return a.T @ b


def _points(rng: Generator, n: int, m: int, dim: int) -> np.ndarray:
    p, q = rng.random((n, 1, dim)), rng.random((1, m, dim))
    return np.sqrt(((p - q) ** 2).sum(-1))


def _half_zero(rng: Generator, n: int, m: int) -> np.ndarray:
    s = _matched(rng, n, m, max(n, 1), None)
    s[rng.permutation(n)[: n // 2]] = 0
    return s


def _dead(rng: Generator, n: int, m: int) -> np.ndarray:
    s = _matched(rng, n, m, max(n, 1), None)
    s[rng.permutation(n)[: n // 3]] *= 1e-12
    s[:, rng.permutation(m)[: m // 3]] *= 1e-12
    return s


def _blocks(rng: Generator, n: int, m: int) -> np.ndarray:
    same = rng.integers(0, 8, (n, 1)) == rng.integers(0, 8, (1, m))
    return same + 0.01 * rng.random((n, m))


FAMILIES: dict[str, Family] = {
    "matched": lambda r, n, m: _matched(r, n, m, max(n, 1), None),
    "matched_shallow": lambda r, n, m: _matched(r, n, m, max(n // 4, 1), None),
    "matched_deep": lambda r, n, m: _matched(r, n, m, 4 * max(n, 1), None),
    "planted": lambda r, n, m: _matched(r, n, m, max(n, 1), 0.1),
    "planted_hard": lambda r, n, m: _matched(r, n, m, max(n, 1), 1.0),
    "uniform": lambda r, n, m: r.random((n, m)),
    "normal_offset": lambda r, n, m: r.standard_normal((n, m)) + 1e4,
    "integers_10": lambda r, n, m: r.integers(0, 10, (n, m)).astype(float),
    "integers_1000": lambda r, n, m: -r.integers(0, 1000, (n, m)).astype(float),
    "constant": lambda r, n, m: np.full((n, m), 3.7),
    "zeros": lambda r, n, m: np.zeros((n, m)),
    "row_distance": lambda r, n, m: np.abs(np.subtract.outer(np.arange(n), np.arange(m))).astype(float),
    "line": lambda r, n, m: -_points(r, n, m, 1),
    "line_far": lambda r, n, m: _points(r, n, m, 1),
    "plane": lambda r, n, m: -_points(r, n, m, 2),
    "products": lambda r, n, m: -np.outer(np.arange(1, n + 1), np.arange(1, m + 1)).astype(float),
    "sparse_01": lambda r, n, m: (r.random((n, m)) < 0.01).astype(float),
    "sparse_1": lambda r, n, m: (r.random((n, m)) < 0.1).astype(float),
    "half_zero": _half_zero,
    "blocks": _blocks,
    "duplicate_rows": lambda r, n, m: r.standard_normal((max(1, n // 8), m))[r.integers(0, max(1, n // 8), n)],
    "dead_units": _dead,
    "rank_1": lambda r, n, m: np.outer(r.standard_normal(n), r.standard_normal(m)),
    "rank_2": lambda r, n, m: r.standard_normal((n, 2)) @ r.standard_normal((2, m)),
    "hub": lambda r, n, m: r.random((1, m)) * 10 + r.random((n, m)),
    "heavy_tails": lambda r, n, m: -np.exp(3 * r.standard_normal((n, m))),
    "row_scales": lambda r, n, m: np.exp(4 * r.standard_normal((n, 1))) * r.standard_normal((n, m)),
}

LAYOUTS = ("rows", "columns", "slice", "reversed", "strided", "broadcast")


def with_layout(a: np.ndarray, layout: str) -> np.ndarray:
    """The same values in another memory layout (broadcast: the first row for all rows)."""
    n, m = a.shape
    if layout == "columns":
        return np.asfortranarray(a)
    if layout == "slice":
        wide = np.zeros((n + 2, m + 5), a.dtype)
        wide[1 : n + 1, 3 : m + 3] = a
        return wide[1 : n + 1, 3 : m + 3]
    if layout == "reversed":
        return np.ascontiguousarray(a[::-1])[::-1]
    if layout == "strided":
        wide = np.zeros((n, 3 * m), a.dtype)
        wide[:, ::3] = a
        return wide[:, ::3]
    if layout == "broadcast":
        return np.broadcast_to(a[:1], (n, m))
    return np.ascontiguousarray(a)


def forbid(rng: Generator, a: np.ndarray, share: float, value: float, feasible: bool) -> np.ndarray:
    """Forbids a share of the pairs; feasible: one assignment of the smaller side stays allowed."""
    n, m = a.shape
    keep = np.zeros((n, m), bool)
    if feasible:
        k = min(n, m)
        keep[rng.permutation(n)[:k], rng.permutation(m)[:k]] = True
    return np.where((rng.random((n, m)) < share) & ~keep, value, a).astype(a.dtype)
