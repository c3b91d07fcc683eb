"""What a second thread brings: batches of small problems, and one problem that is mostly a read of its matrix.

    python benchmarks/bench_threads.py --repeats 50

Wall time, minimum over interleaved rounds. Each row has a yardstick, the same machine's gain from a second thread on
work without any coordination: for a batch two Python threads that solve half of it each, for the large matrix two that
read half of its bytes each. On a machine that is not idle the yardstick says how much of the second core was there.
"""

# ruff: noqa: E402 (the thread counts must be set before numpy is imported)

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
from families import Array, weights

import lmcfast

Work = Callable[[], object]
THREADS = 2
BATCHES = ((64, 64), (16, 256))  # number and side of the problems; both fit a second-level cache


@dataclass(frozen=True)
class Row:
    """The same work on one thread and on two, and a yardstick likewise."""

    name: str
    one: Work
    two: Work
    yardstick: str
    yardstick_one: Work
    yardstick_two: Work


def both(first: Work, second: Work) -> Work:
    """Runs the two at the same time, the first on a thread of its own."""

    def run() -> None:
        thread = threading.Thread(target=first)
        thread.start()
        second()
        thread.join()

    return run


def solve(scores: Array, threads: int = 1) -> Work:
    return lambda: lmcfast.solve_assignment(scores, threads=threads)


def read(scores: Array) -> Work:
    """Adds up the bytes as integers, which is limited by memory and not by arithmetic."""
    words = scores.reshape(-1).view(np.int64)
    return lambda: words.sum()


def batch_row(count: int, side: int) -> Row:
    rng = np.random.default_rng([count, side])
    a, b = rng.standard_normal((2, count, side, side), dtype=np.float32)
    scores = np.matmul(a.transpose(0, 2, 1), b)
    first, second = scores[: count // 2], scores[count // 2 :]
    name = f"{count} problems of {side} x {side}"
    return Row(
        name, solve(scores), solve(scores, THREADS), "half each", solve(scores), both(solve(first), solve(second))
    )


def planted_row(n: int) -> Row:
    scores = weights(np.random.default_rng(n), n, 1 / 16, 0.1)
    first, second = scores[: n // 2], scores[n // 2 :]
    name = f"planted, {n} x {n}"
    return Row(name, solve(scores), solve(scores, THREADS), "plain read", read(scores), both(read(first), read(second)))


def measure(row: Row, repeats: int) -> list[float]:
    """Seconds of: one, two, yardstick on one, yardstick on two."""
    calls = (row.one, row.two, row.yardstick_one, row.yardstick_two)
    best = [float("inf")] * len(calls)
    for _ in range(repeats):
        for k, call in enumerate(calls):
            start = time.perf_counter()
            call()
            best[k] = min(best[k], time.perf_counter() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--side", type=int, default=8192, help="of the large matrix; 0: leave it out")
    arguments = parser.parse_args()
    print("| what | one thread, ms | two, ms | gain | yardstick | one, ms | two, ms | gain | gain / yardstick's gain |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    rows = [batch_row(count, side) for count, side in BATCHES]
    if arguments.side:
        rows.append(planted_row(arguments.side))
    for row in rows:
        one, two, yard_one, yard_two = (1e3 * seconds for seconds in measure(row, arguments.repeats))
        gain, yard_gain = one / two, yard_one / yard_two
        print(
            f"| {row.name} | {one:.2f} | {two:.2f} | {gain:.2f} | {row.yardstick} | {yard_one:.2f} | {yard_two:.2f} "
            f"| {yard_gain:.2f} | {gain / yard_gain:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
