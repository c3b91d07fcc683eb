"""Random assignment problems of all families, shapes, dtypes, layouts and options, each from (seed, index) alone."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import families as benchmarks
import numpy as np

import lmcfast

from .problems import FAMILIES, LAYOUTS, Generator, forbid, whole_numbers, with_layout

TRAINED = tuple(name for name, family in benchmarks.FAMILIES.items() if family.trained)
TRAINED_UNITS = 400  # training takes some six seconds
LISTS = (385, 1101)  # sides of problems that the list method takes
SMALL_INTEGERS = (np.bool_, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64)


@dataclass(frozen=True)
class RandomProblem:
    """``scores`` as the solver gets them; ``values``: the same numbers, float64, (batch, n, m).

    ``exact``: all sums of scores are exact in float64, so that two optima are equal or one of them is wrong.
    ``traits``: what is special about the problem, for the summary.
    """

    family: str
    scores: Any
    values: np.ndarray
    exact: bool
    options: dict[str, Any]
    traits: set[str] = field(default_factory=set)


@cache
def _trained(name: str) -> np.ndarray:
    from trained import trained_scores

    with tempfile.TemporaryDirectory() as folder:
        return trained_scores(name, TRAINED_UNITS, 5, Path(folder)).astype(np.float64)


def _scores(rng: Generator, family: str, n: int, m: int) -> np.ndarray:
    if family not in TRAINED:
        return FAMILIES[family](rng, n, m)
    rows, columns = (rng.permutation(TRAINED_UNITS)[:k] for k in (n, m))
    return _trained(family)[np.ix_(rows, columns)]


def _shape(rng: Generator, family: str) -> tuple[int, int, int]:
    """(batch, n, m), batch 0 for a single problem: mostly small, sometimes medium, seldom large enough for lists."""
    kind = rng.random()
    low, high = (1, 61) if kind < 0.95 else (60, 201) if kind < 0.996 else LISTS
    if low == LISTS[0]:
        n = int(LISTS[0] * (LISTS[1] / LISTS[0]) ** rng.random() ** 2)  # scipy takes up to a second for the largest
        m = n if rng.random() < 0.7 else n + int(rng.integers(1, n // 2))
    else:
        n, m = (int(np.exp(rng.uniform(*np.log((low, high))))) for _ in range(2))
        m = n if rng.random() < 0.5 else m
    if family in TRAINED:
        n, m = min(n, TRAINED_UNITS), min(m, TRAINED_UNITS)
    if rng.random() < 0.5:
        n, m = m, n
    batch = int(rng.integers(1, 9)) if high == 61 and rng.random() < 0.05 else 0
    return batch, n, m


def _as_float(rng: Generator, values: np.ndarray) -> tuple[np.ndarray, bool]:
    """float32 or float64 of random scale, half of the time with exact sums."""
    dtype = np.float32 if rng.random() < 0.5 else np.float64
    exact = bool(rng.random() < 0.5)
    if exact:
        values = whole_numbers(values, int(rng.integers(1, 21)))
        smallest, largest = (-149, 100) if dtype == np.float32 else (-1074, 970)
        power = rng.integers(smallest, largest) if rng.random() < 0.1 else rng.integers(-30, 30)
        return np.ldexp(values, power).astype(dtype), True
    return (values * 10.0 ** rng.integers(-12, 7)).astype(dtype), False


def _as_other(rng: Generator, values: np.ndarray) -> tuple[Any, np.ndarray, bool]:
    """Scores of another dtype, as an array or a tensor; the values that they have; whether all sums are exact."""
    kind = rng.integers(4)
    if kind >= 2:
        dtype = SMALL_INTEGERS[rng.integers(len(SMALL_INTEGERS))]
        scores = whole_numbers(values, 1 if dtype == np.bool_ else 7)
        if not np.issubdtype(dtype, np.signedinteger):
            scores = np.abs(scores)
        scores = scores.astype(dtype)
        return scores, scores.astype(np.float64), True
    numbers = whole_numbers(values, int(rng.integers(1, 9))) * 2.0 ** -int(rng.integers(0, 6))
    if kind == 0:
        scores = numbers.astype(np.float16)
        return scores, scores.astype(np.float64), True
    import torch

    tensor = torch.from_numpy(numbers).to((torch.bfloat16, torch.float32, torch.float64)[rng.integers(3)])
    if rng.random() < 0.5:  # the same values with the columns contiguous
        tensor = tensor.transpose(-1, -2).contiguous().transpose(-1, -2)
    return tensor, tensor.double().numpy(), True


def _forbidden(rng: Generator, batch: np.ndarray, maximize: bool) -> np.ndarray:
    value = -np.inf if maximize else np.inf
    share, feasible = rng.uniform(0, 1), bool(rng.random() < 0.7)
    return np.stack([forbid(rng, a, share, value, feasible) for a in batch])


def _start_prices(rng: Generator, values: np.ndarray, maximize: bool) -> np.ndarray:
    """Random prices, or those of a solve of nearly the same or the very same scores; one row for each problem."""
    finite = np.where(np.isfinite(values), values, 0)
    scale = np.abs(finite).max(initial=0)
    kind = rng.integers(3)
    if kind == 0:
        return rng.normal(0, min(scale, 1e300), (len(values), values.shape[2]))
    near = finite + (kind - 1) * 1e-2 * min(scale, 1e290) * rng.standard_normal(values.shape)
    return lmcfast.solve_assignment(near, maximize=maximize, certify="full").prices


def draw(seed: int, index: int, families: tuple[str, ...]) -> RandomProblem:
    """The problem of this seed and index, of the families in turn."""
    rng = np.random.default_rng([seed, index])
    family = families[index % len(families)]
    batch, n, m = _shape(rng, family)
    maximize = bool(rng.random() < 0.5)
    values = np.stack([_scores(rng, family, n, m) for _ in range(max(batch, 1))]).astype(np.float64)
    traits = {"batch"} if batch else {"lists"} if min(n, m) >= LISTS[0] else set()
    if rng.random() < 0.2:
        scores, values, exact = _as_other(rng, values)
        traits.add("dtype")
    else:
        scores, exact = _as_float(rng, values)
        if rng.random() < 0.2:
            scores = _forbidden(rng, scores, maximize)
            traits.add("forbidden")
    if isinstance(scores, np.ndarray):
        scores = with_layout(scores, LAYOUTS[rng.integers(len(LAYOUTS))])
        values = np.ascontiguousarray(scores, dtype=np.float64)
    certify = ("full", "full", "full", "lists", "none")[rng.integers(5)]
    options = {"maximize": maximize, "certify": certify, "threads": int(rng.integers(1, 3))}
    if rng.random() < 0.2:
        traits.add("prices")
        prices = _start_prices(rng, values, maximize)
        options["prices"] = prices if batch else prices[0]
    return RandomProblem(family, scores if batch else scores[0], values, exact, options, traits)
