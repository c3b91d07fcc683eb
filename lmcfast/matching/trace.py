"""The steps of a match, and what they add up to in each sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from ..errors import UnavailableError

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True)
class Step:
    """One visit of a group.

    Attributes:
        sweep: 0 for the start, then 1, 2, ...
        group: the group; "" in the first record of a trace, which states where the start began.
        kind: "start": part of the forward start, taken whatever it did; "step": part of the descent.
        gain: what the objective gained, float64; 0 for a step that was not taken.
        objective: the objective after it.
        gap: certificate of its assignment: no assignment of the same scores is worth more than this above it.
        changed: how many units got another source; 0 for a step that was not taken.
        seconds: wall time.
    """

    sweep: int
    group: str
    kind: Literal["start", "step"]
    gain: float
    objective: float
    gap: float
    changed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Sweep:
    """The steps of one sweep together.

    Attributes:
        sweep: its number; 0 for the start.
        visits: groups that were visited.
        taken: visits that changed something.
        changed: units that got another source, over all visits.
        gain: sum of the steps' gains, float64.
        objective: after the last of them.
        gap: the largest of their certificates' gaps.
        seconds: sum of their wall times.
    """

    sweep: int
    visits: int
    taken: int
    changed: int
    gain: float
    objective: float
    gap: float
    seconds: float


def sweeps_of(trace: Sequence[Step]) -> tuple[Sweep, ...]:
    """One record for each sweep, in the order of the trace."""
    return tuple(_sum(number, list(steps)) for number, steps in groupby(trace, lambda step: step.sweep))


def _sum(number: int, steps: Sequence[Step]) -> Sweep:
    return Sweep(
        sweep=number,
        visits=sum(1 for step in steps if step.group),
        taken=sum(1 for step in steps if step.changed),
        changed=sum(step.changed for step in steps),
        gain=math.fsum(step.gain for step in steps),
        objective=steps[-1].objective,
        gap=max(step.gap for step in steps),
        seconds=math.fsum(step.seconds for step in steps),
    )


def frame_of(records: Sequence[Step] | Sequence[Sweep]) -> DataFrame:
    """A pandas DataFrame with a row for each record and a column for each of its attributes.

    Raises ``UnavailableError`` where pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise UnavailableError("pandas is needed for data frames: pip install pandas") from error
    return pandas.DataFrame([asdict(record) for record in records])
