"""What a matching did and where its time went."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class Counts:
    """Work of a matching. None of it depends on the machine or its load.

    Attributes:
        visits: assignments solved and judged, those of the forward starts included.
        skipped: visits that a sweep left out because the group was optimal already.
        moves: visits that moved their group.
        computed: products of whole terms.
        updated: terms brought up to date by a product over the columns that had moved.
        kept: terms taken as they were.
        multiplied: multiply-adds of the products, whole and partial.
        gathered: bytes of weights and products copied into a new order.
        reads: entries of score matrices that the assignments read.
        rechecked: updated terms that were probed against drift before the end.
        launches: kernels of the library's and products of torch's that were enqueued on a device.
        waits: how often the host waited for a device to read a result.
    """

    visits: int = 0
    skipped: int = 0
    moves: int = 0
    computed: int = 0
    updated: int = 0
    kept: int = 0
    multiplied: int = 0
    gathered: int = 0
    reads: int = 0
    rechecked: int = 0
    launches: int = 0
    waits: int = 0


class Clock:
    """Splits wall time into phases: :meth:`lap` gives the time since the last lap to the phase that it names."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now
