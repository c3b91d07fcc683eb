"""What a solve returns."""

from __future__ import annotations

from typing import Any, NamedTuple


class AssignmentStats(NamedTuple):
    """Work done, summed over a batch. Counts do not depend on the machine's speed or load.

    Attributes:
        problems: problems solved.
        reads: entries of the scores read, as a multiple of the scores' size (checks and certificate included).
        bids: rows that took the better of their two best columns.
        paths: shortest augmenting paths.
        path_steps: rows relaxed in them.
        rescans: candidate lists that were built again.
        phases: phases of the auction.
        fallbacks: problems that a spent budget sent from the lists to the dense method, or from a device to the CPU.
        warm: whether every problem started from the prices given.
    """

    problems: int
    reads: float
    bids: int
    paths: int
    path_steps: int
    rescans: int
    phases: int
    fallbacks: int
    warm: bool


class Assignment(NamedTuple):
    """An optimal assignment and its proof. Arrays are of the library (numpy or torch) of the scores.

    Attributes:
        columns: int64, (n,) or (batch, n): the column of each row; -1 for a row left over when n > m.
        prices: float64, (m,) or (batch, m): dual price of each column. With u[i] = max_j (scores[i, j] - prices[j])
            no assignment is worth more than sum(u) + sum(prices) (minimising: u[i] + prices[j] <= scores[i, j]).
            For n < m the prices have the lowest at 0 and unassigned columns are there; for n > m count u[i] only where
            it is positive (minimising: the other way round).
        objective: sum of the assigned scores, float64: a float, or an array (batch,).
        gap: proven bound on what another assignment could gain over this one, up to rounding: a float, or (batch,).
            NaN with ``certify="none"``.
        stats: counts.
    """

    columns: Any
    prices: Any
    objective: Any
    gap: Any
    stats: AssignmentStats
