"""Mean and deviation over several searches or trainings."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple


class Summary(NamedTuple):
    """``deviation`` is the sample standard deviation (n - 1); 0 for a single value."""

    mean: float
    deviation: float


def mean_deviation(values: Iterable[float]) -> Summary:
    """Mean and sample standard deviation, summed without rounding; ``ValueError`` where there are no values."""
    found = [float(value) for value in values]
    if not found:
        raise ValueError("values: at least one is needed, there is none")
    mean = math.fsum(found) / len(found)
    squares = math.fsum((value - mean) ** 2 for value in found)
    return Summary(mean, math.sqrt(squares / (len(found) - 1)) if len(found) > 1 else 0.0)
