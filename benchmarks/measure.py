"""Checks every solver's answer on a problem, then times them all in turn, in one process and one thread."""

from __future__ import annotations

import gc
import math
import multiprocessing
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peers import Array, Call, Peer, call_for

import lmcfast
from lmcfast import _native

BLOCK = 200e-6  # seconds: shorter calls are repeated within one reading of the clock
CERTIFY_NONE = 0
FLOAT32_ROUNDING = 2.0**-24
FLOAT64_ROUNDING = 2.0**-53
CORRECT = ("exact", "float32")
BETTER = "better than lmcfast's certified optimum"  # never true unless lmcfast has a bug; the report shows it first
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}

Columns = NDArray[np.int64]


@dataclass(frozen=True)
class Settings:
    """How to measure. Times are minima over ``repeats`` interleaved rounds.

    A peer is called once only where that call took more than ``once_seconds`` or ``once_ratio`` times the fastest
    peer's. It is dropped for larger n of a family once it needs more than ``drop_from`` seconds and ``drop_ratio``
    times the fastest peer's time (scipy never), or would, growing as n^3, need more than ``limit`` seconds. With
    ``isolate`` each peer's check is a process of its own, so that a crash or an endless loop is a result.
    """

    repeats: int = 7
    once_seconds: float = 1.0
    once_ratio: float = 3.0
    drop_ratio: float = 10.0
    drop_from: float = 1e-3
    limit: float = 20.0
    clock: str = "wall"
    isolate: bool = True


@dataclass
class Reading:
    """A peer on a problem: ``status`` is "exact", "float32" (optimal up to float32 rounding), "wrong", or a reason."""

    status: str
    seconds: float = math.inf
    form: str = ""
    once: bool = False

    @property
    def correct(self) -> bool:
        return self.status in CORRECT


@dataclass(frozen=True)
class Problem:
    """Scores to maximise as ours takes them, and the same problem as costs with n <= m for the peers."""

    scores: Array
    costs: dict[str, Array]
    objective: float
    magnitude: float

    @classmethod
    def of(cls, scores: Array) -> tuple[Problem, lmcfast.Assignment]:
        """With our own fully certified solution as the reference; raises ``CertificateError`` where it is not one."""
        solved = lmcfast.solve_assignment(scores, certify="full", threads=1)
        wide = scores if scores.shape[-2] <= scores.shape[-1] else scores.swapaxes(-1, -2)
        costs = {form: np.negative(wide, dtype=form, order="C") for form in ("float32", "float64")}
        if scores.dtype == np.float64:
            del costs["float32"]
        magnitude = max(np.abs(solved.prices).max(initial=0), _largest_assigned(scores, solved.columns))
        return cls(scores, costs, float(np.sum(solved.objective)), float(magnitude)), solved

    def status(self, columns: Any) -> str:
        """What an answer is worth: a permutation whose sum, in float64, is the reference's up to rounding."""
        cost = self.costs["float64"]
        found = np.asarray(columns)
        if found.shape != cost.shape[:-1] or found.dtype.kind not in "iu":
            return "wrong"
        if found.size and (found.min() < 0 or found.max() >= cost.shape[-1]):
            return "wrong"
        in_order = np.sort(found, axis=-1)
        if (in_order[..., 1:] == in_order[..., :-1]).any():
            return "wrong"
        error = math.fsum(np.take_along_axis(cost, found[..., None].astype(np.int64), -1).flat) + self.objective
        unit = max(found.size, 1) * self.magnitude
        if abs(error) <= 32 * FLOAT64_ROUNDING * unit:
            return "exact"
        if error < 0:
            return BETTER
        return "float32" if error <= 4 * FLOAT32_ROUNDING * unit else "wrong"


def _largest_assigned(scores: Array, columns: Columns) -> float:
    taken = np.take_along_axis(scores, np.maximum(columns, 0)[..., None], -1)[..., 0]
    return float(np.abs(np.where(columns >= 0, taken, 0)).max(initial=0))


def our_calls() -> dict[str, Call]:
    """The two columns of the tables: the extension alone, and the public function with its defaults."""
    return {
        "kernel": Call(_native.solve_assignment, (None, True, CERTIFY_NONE, 1)),
        "public": Call(lmcfast.solve_assignment),
    }


def seconds_per_call(call: Call, matrix: Array, count: int, clock: Callable[[], float]) -> float:
    function, arguments = call.function, call.arguments
    start = clock()
    for _ in repeat(None, count):
        function(matrix, *arguments)
    return (clock() - start) / count


def first_try(call: Call, problem: Problem, clock: Callable[[], float]) -> list[Reading]:
    """Answer and rough time for each form of the costs; a few warm calls where they are short."""
    readings = []
    for form, cost in problem.costs.items():
        start = clock()
        try:
            result = call.function(cost, *call.arguments)
            seconds = clock() - start
            status = problem.status(call.columns(result))
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            readings.append(Reading(f"raised {type(error).__name__}: {str(error)[:80]}"))
            continue
        if seconds < 0.05:
            count = max(1, round(BLOCK / max(seconds, 1e-6)))
            seconds = min(seconds_per_call(call, cost, count, clock) for _ in range(3))
        readings.append(Reading(status, seconds, form))
    return readings


def check_peer(call: Call, problem: Problem, settings: Settings) -> Reading:
    """The peer's fastest correct form, else what went wrong."""
    clock = CLOCKS[settings.clock]
    readings = _isolated(call, problem, settings) if settings.isolate else first_try(call, problem, clock)
    correct = [reading for reading in readings if reading.correct]
    return min(correct or readings, key=lambda reading: reading.seconds)


def _isolated(call: Call, problem: Problem, settings: Settings) -> list[Reading]:
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run() -> None:
        sender.send(first_try(call, problem, CLOCKS[settings.clock]))

    process = context.Process(target=run)
    process.start()
    sender.close()
    try:
        if not receiver.poll(2 * settings.limit):
            process.kill()
            return [Reading(f"no answer in {2 * settings.limit:g} s")]
        found: list[Reading] = receiver.recv()
        return found
    except EOFError:
        process.join()
        return [Reading(f"crashed (exit status {process.exitcode})")]
    finally:
        process.join()
        receiver.close()


def measure(
    scores: Array, peers: list[Peer], settings: Settings, earlier: dict[str, Any] | None = None
) -> dict[str, Any]:
    """One row of the results. ``earlier``: the row of the family's next smaller n, by which slow peers are dropped."""
    problem, solved = Problem.of(scores)
    clock = CLOCKS[settings.clock]
    readings: dict[str, Reading] = {}
    calls: dict[str, tuple[Call, Array]] = {}
    for peer in peers:
        call = call_for(peer, problem.costs["float64"].shape)
        reason = "cannot take this shape" if call is None else _dropped(peer, scores, settings, earlier)
        if call is None or reason:
            readings[peer.name] = Reading(reason)
            continue
        reading = readings[peer.name] = check_peer(call, problem, settings)
        if reading.correct:
            calls[peer.name] = (call, problem.costs[reading.form])
    fastest = min((r.seconds for r in readings.values() if r.correct), default=math.inf)
    timed = {}
    for name, (call, cost) in calls.items():
        reading = readings[name]
        reading.once = reading.seconds > min(settings.once_seconds, settings.once_ratio * fastest)
        if not reading.once:
            timed[name] = (call, cost)
    ours = {name: (call, scores) for name, call in our_calls().items()}
    best = interleaved({**ours, **timed}, settings.repeats, clock)
    for name, (call, cost) in timed.items():
        readings[name].seconds = best[name]
        # once more: memory that was never written may by chance have held a right answer
        again = problem.status(call.columns(call.function(cost, *call.arguments)))
        if again not in CORRECT:
            readings[name].status = again
    return {
        "shape": list(scores.shape),
        "dtype": str(scores.dtype),
        "kernel": best["kernel"],
        "public": best["public"],
        "objective": problem.objective,
        "gap": float(np.max(solved.gap, initial=0)),
        "counts": solved.stats._asdict(),
        "peers": {name: _as_json(reading) for name, reading in readings.items()},
    }


def _as_json(reading: Reading) -> dict[str, Any]:
    entry = asdict(reading)
    if math.isinf(reading.seconds):
        del entry["seconds"]
    return entry


def _dropped(peer: Peer, scores: Array, settings: Settings, earlier: dict[str, Any] | None) -> str:
    """Why a peer is not tried, or an empty string."""
    n = min(scores.shape[-2:])
    if peer.largest and n > peer.largest:
        return f"not tried above {peer.largest}"
    if earlier is None or peer.name not in earlier["peers"]:
        return ""
    before = earlier["peers"][peer.name]
    if before["status"].startswith(("dropped", "no answer", "crashed")):
        return "dropped: " + str(before["status"]).removeprefix("dropped: ")
    if "seconds" not in before:
        return ""
    growth = (scores.size / math.prod(earlier["shape"])) ** (1 if scores.ndim == 3 else 1.5)
    if before["seconds"] * growth > settings.limit:
        return f"dropped: would need more than {settings.limit:g} s"
    bound = max(settings.drop_from, settings.drop_ratio * best_peer(earlier)[1])
    if peer.name != "scipy" and bound < before["seconds"]:
        return f"dropped: more than {settings.drop_ratio:g} times slower than the fastest peer"
    return ""


def interleaved(calls: dict[str, tuple[Call, Array]], repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """Least seconds per call of each solver; the order is drawn anew in every round."""
    order = random.Random(0)
    names = list(calls)
    counts = {}
    for name, (call, matrix) in calls.items():
        once = seconds_per_call(call, matrix, 1, clock)
        counts[name] = max(1, round(BLOCK / max(min(once, seconds_per_call(call, matrix, 1, clock)), 1e-7)))
    best = dict.fromkeys(names, math.inf)
    gc.collect()
    gc.disable()
    try:
        for _ in range(repeats):
            order.shuffle(names)
            for name in names:
                call, matrix = calls[name]
                best[name] = min(best[name], seconds_per_call(call, matrix, counts[name], clock))
    finally:
        gc.enable()
    return best


def best_peer(row: dict[str, Any]) -> tuple[str, float]:
    """Name and seconds of the fastest peer whose answer was right; ("", inf) if there is none."""
    right = {name: entry["seconds"] for name, entry in row["peers"].items() if entry["status"] in CORRECT}
    name = min(right, key=lambda k: right[k], default="")
    return name, right.get(name, math.inf)
