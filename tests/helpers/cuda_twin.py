"""Readable twins of the assignment kernels' contracts: what each must leave behind, in plain numpy.

All take the scores as they are maximised, float64 (exact for every storage), with the smaller side as rows, and the
workspace of a solve that was stopped after the kernel in question (``Solve.arrays``).
"""

from __future__ import annotations

import math

import numpy as np

OWNER_BITS = 17

Arrays = dict[str, np.ndarray]


def words(a: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Price and owner (-1: free) of every column."""
    word = a["word"].astype(np.uint64)
    owner = (word & np.uint64((1 << OWNER_BITS) - 1)).astype(np.int64) - 1
    return (word >> np.uint64(OWNER_BITS)).astype(np.float64) * a["delta"][0], owner


def lists(a: Arrays) -> list[np.ndarray]:
    """Columns on the list of every row."""
    n = len(a["list_length"])
    capacity = len(a["list_column"]) // n
    return [a["list_column"][i * capacity : i * capacity + a["list_length"][i]] for i in range(n)]


def check_lists(s: np.ndarray, prices: np.ndarray, a: Arrays, fewest: int) -> None:
    """scan: entries are allowed columns with their scores, each once, and the bound holds for all others.

    `fewest` entries or all allowed ones are listed. Prices are those of now: they may have risen since the scan.
    """
    n = len(s)
    capacity = len(a["list_column"]) // n
    for i, listed in enumerate(lists(a)):
        assert len(set(listed.tolist())) == len(listed)
        assert (a["list_score"][i * capacity : i * capacity + len(listed)] == s[i, listed]).all()
        assert np.isfinite(s[i, listed]).all()
        outside = np.setdiff1d(np.flatnonzero(np.isfinite(s[i])), listed)
        assert len(listed) >= fewest or len(outside) == 0
        assert (s[i, outside] - prices[outside] <= a["bound"][i]).all()


def check_bids(s: np.ndarray, a: Arrays, tolerance: float, left: np.ndarray) -> None:
    """Chains: every row owns one column or is left over, and owners are within the tolerance of their best value."""
    n = len(s)
    prices, owner = words(a)
    columns = np.flatnonzero(owner >= 0)
    rows = owner[columns]
    assert sorted([*rows.tolist(), *left.tolist()]) == list(range(n))
    best = (s - prices).max(axis=1)
    assert (s[rows, columns] - prices[columns] >= best[rows] - tolerance - 2 * a["delta"][0] * (tolerance > 0)).all()
    assert (a["floor_price"] <= prices).all()


def tight_matching_size(s: np.ndarray, a: Arrays) -> int:
    """How many rows a matching of tight listed pairs can hold: augmenting paths by depth-first search (Kuhn)."""
    n, m = s.shape
    u = (s - a["price"]).max(axis=1)
    edges = [[j for j in listed if s[i, j] - a["price"][j] == u[i]] for i, listed in enumerate(lists(a))]
    row_of = np.full(m, -1)

    def take(i: int, seen: set[int]) -> bool:
        for j in edges[i]:
            if j not in seen:
                seen.add(j)
                if row_of[j] < 0 or take(row_of[j], seen):
                    row_of[j] = i
                    return True
        return False

    return sum(take(i, set()) for i in range(n))


def check_state(s: np.ndarray, a: Arrays) -> np.ndarray:
    """The float64 state between paths: owners agree, assigned pairs are tight; returns the free rows."""
    columns = a["column_of"]
    rows = np.flatnonzero(columns >= 0)
    assert (a["row_of"][columns[rows]] == rows).all()
    assert (a["row_of"] >= 0).sum() == len(rows)
    best = (s - a["price"]).max(axis=1)
    held = s[rows, columns[rows]] - a["price"][columns[rows]]
    scale = max(np.abs(s[np.isfinite(s)]).max(), np.abs(a["price"]).max())
    assert (held >= best[rows] - 8 * 2.0**-53 * scale).all()
    return np.flatnonzero(columns < 0)


def shortest_distance(s: np.ndarray, prices: np.ndarray, row_of: np.ndarray, root: int) -> float:
    """Length of the shortest augmenting path from `root` (Bellman and Ford over columns), inf if there is none."""
    columns = np.flatnonzero(row_of >= 0)
    reduced = (s - prices).max(axis=1, keepdims=True) - (s - prices)
    distance = reduced[root].copy()
    for _ in range(len(s)):
        through = (distance[columns, None] + reduced[row_of[columns]]).min(axis=0) if len(columns) else distance
        if (through >= distance).all():
            break
        distance = np.minimum(distance, through)
    free = np.flatnonzero(row_of < 0)
    return float(distance[free].min()) if len(free) else math.inf


def dual_bound(s: np.ndarray, prices: np.ndarray) -> float:
    """sum(u) + sum(p): what no assignment of all rows can exceed (all columns assigned, or the others at price 0)."""
    return math.fsum((s - prices).max(axis=1)) + math.fsum(prices)
