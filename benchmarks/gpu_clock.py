"""Where the GPU benchmark runs, and how it takes times there."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from lmcfast import _native


@dataclass(frozen=True)
class Site:
    """A GPU, or the emulator: the same calls on tiny sizes, without times."""

    emulated: bool
    quick: bool

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.emulated else "cuda")

    @property
    def repeats(self) -> int:
        return 1 if self.emulated else 5 if self.quick else 20

    def size(self, n: int, emulated: int) -> int:
        return emulated if self.emulated else n

    @contextlib.contextmanager
    def kernels(self) -> Iterator[None]:
        with _native.emulated_device() if self.emulated else contextlib.nullcontext():
            yield

    def wait(self) -> None:
        if not self.emulated:
            torch.cuda.synchronize()

    def milliseconds(self, enqueue: Callable[[], object], repeats: int | None = None) -> float | None:
        """Least time between two events around the work, after two runs to warm up; None where there is no clock."""
        if self.emulated:
            enqueue()
            return None
        best = math.inf
        for k in range(2 + (repeats or self.repeats)):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            enqueue()
            end.record()
            torch.cuda.synchronize()
            if k >= 2:
                best = min(best, begin.elapsed_time(end))
        return best

    def wall_milliseconds(self, run: Callable[[], object], repeats: int | None = None) -> float | None:
        """Least wall time of calls that wait for their result."""
        if self.emulated:
            run()
            return None
        best = math.inf
        for k in range(1 + (repeats or self.repeats)):
            self.wait()
            start = time.perf_counter()
            run()
            self.wait()
            if k:
                best = min(best, 1e3 * (time.perf_counter() - start))
        return best

    def kernel_microseconds(self, enqueue: Callable[[], object], names: str) -> float | None:
        """Device time of the kernels whose names match, summed over one run; None where it cannot be told."""
        if self.emulated:
            enqueue()
            return None
        from torch.profiler import ProfilerActivity, profile

        enqueue()
        self.wait()
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            enqueue()
            self.wait()
        found = [event for event in profiled.events() if re.search(names, event.name)]
        return sum(event.time_range.elapsed_us() for event in found) if found else None


def cpu_seconds(run: Callable[[], object], repeats: int) -> float:
    best = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best
