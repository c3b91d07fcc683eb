"""The paper's claims (Ito et al., arXiv:2402.04051), each with the criterion by which a study reproduces it or not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..analysis import mean_deviation
from .settings import TITLES

LEAST_REDUCTION, MOST_REDUCTION = 6.0, 20.0  # per cent, the paper's range
GONE = 0.1  # of the barrier without matching: at most so much is left
FACTOR = 2.0  # by which the Taylor estimate misses the barrier
UNCHANGED = 1e-6  # relative change of a layer's spectrum
NEAR = 0.1  # distance of one network's spectrum from the mean one, as a share of its length
ABOVE = 5.0  # R(0) with matching, as a multiple of that without
LIKE = 1 / 3  # by how much activation matching may differ from weight matching
OTHER = 0.9  # share of units placed alike, below which permutations differ
ABOUT_0 = 0.1


@dataclass(frozen=True)
class Claim:
    """``reproduced`` is None where the study measured nothing that could tell; ``figures`` is what was measured."""

    number: str
    text: str
    criterion: str
    figures: str
    reproduced: bool | None

    @property
    def verdict(self) -> str:
        return {True: "reproduced", False: "not reproduced", None: "not measured"}[self.reproduced]


class Figures:
    """A study's values by name, one for each search or triple."""

    def __init__(self, study: Mapping[str, Any]) -> None:
        self.study = study

    def has(self, *methods: str) -> bool:
        return all(self.study["searches"].get(method) for method in methods)

    def of_searches(self, method: str, value: Callable[[Mapping[str, Any]], float]) -> list[float]:
        return [value(one) for one in self.study["searches"].get(method, {}).values()]

    def of_triples(self, method: str, value: Callable[[Mapping[str, Any]], float]) -> list[float]:
        return [value(one) for one in self.study["triples"].get(method, {}).values()]

    def barrier(self, method: str) -> list[float]:
        """Of the searches, at the midpoint, signed."""
        return self.of_searches(method, lambda one: float(one["barrier"]["midpoint"]))

    def taylor(self, method: str) -> list[float]:
        return self.of_searches(method, lambda one: float(one["taylor"]["midpoint"]))

    def reduction(self, method: str) -> list[float]:
        """Per cent."""
        return self.of_searches(method, lambda one: 100.0 * float(one["distance"]["rate"]))

    def r(self, method: str, gamma: str) -> list[float]:
        return self.of_searches(method, lambda one: float(one["r"][gamma]["pooled"]))

    def r_merged(self, method: str, gamma: str) -> list[float]:
        """Mean of R with both parents."""
        return self.of_searches(
            method, lambda one: sum(float(one["r_merged"][side][gamma]["pooled"]) for side in "ab") / 2
        )

    def triple_barrier(self, method: str) -> list[float]:
        return self.of_triples(method, lambda one: float(one["barrier"]["midpoint"]))

    def triple_r(self, method: str, gamma: str) -> list[float]:
        return self.of_triples(method, lambda one: float(one["r"][gamma]["pooled"]))


def spread(values: list[float], digits: int = 3) -> str:
    """Mean and sample deviation as text: "0.064 ± 0.002"."""
    mean, deviation = mean_deviation(values)
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def study_claims(study: Mapping[str, Any]) -> list[Claim]:
    """All claims on what :func:`run_study` returned; the criteria stand in each claim."""
    figures = Figures(study)
    found = [*_distance(figures), *_vectors(figures), *_activations(figures), *_straight_through(figures, "ste")]
    if figures.has("ste-random"):
        found += _straight_through(figures, "ste-random")
    return found


def _mean(values: list[float]) -> float:
    return mean_deviation(values).mean


def _distance(figures: Figures) -> Iterator[Claim]:
    known = figures.has("wm")
    reduction = figures.reduction("wm") if known else []
    yield Claim(
        "1a", "Weight matching brings the networks only 6 to 20 % closer",
        f"mean reduction of the distance between {LEAST_REDUCTION:g} and {MOST_REDUCTION:g} %",
        f"{spread(reduction, 1)} %" if known else "",
        LEAST_REDUCTION <= _mean(reduction) <= MOST_REDUCTION if known else None,
    )  # fmt: skip
    before, after = figures.barrier("none"), figures.barrier("wm") if known else []
    yield Claim(
        "1b", "yet they are linearly mode connected",
        f"mean barrier at the midpoint at most {100 * GONE:g} % of that without matching",
        f"{spread(after, 4)}, without matching {spread(before)}" if known else "",
        _mean(after) <= GONE * _mean(before) if known else None,
    )  # fmt: skip
    estimate = figures.taylor("wm") if known else []
    yield Claim(
        "1c", "and the distance that is left does not explain it: the Taylor estimate is far from the barrier",
        f"mean estimate and mean barrier differ by more than a factor {FACTOR:g}, or in sign",
        f"estimate {spread(estimate, 4)}, barrier {spread(after, 4)}" if known else "",
        _far(_mean(estimate), _mean(after)) if known else None,
    )  # fmt: skip


def _far(one: float, two: float) -> bool:
    small, large = sorted((abs(one), abs(two)))
    return large > FACTOR * small or one * two < 0


def _vectors(figures: Figures) -> Iterator[Claim]:
    known = figures.has("wm")
    change = max(figures.of_searches("wm", lambda one: float(one["spectrum_change"]))) if known else 0.0
    yield Claim(
        "2a", "Permutations change no singular value", f"relative change of each layer's spectrum below {UNCHANGED:g}",
        f"at most {change:.1g}" if known else "", change < UNCHANGED if known else None,
    )  # fmt: skip
    apart = max(figures.study["alone"]["spread"].values())
    yield Claim(
        "2b", "and independently trained networks have nearly the same ones",
        f"no network's spectrum further from the mean one than {100 * NEAR:g} % of its length, in any layer",
        f"at most {100 * apart:.1f} %", apart < NEAR,
    )  # fmt: skip
    low, high, bare = (figures.r("wm", "0"), figures.r("wm", "0.3"), figures.r("none", "0")) if known else ([], [], [])
    yield Claim(
        "2c", "Weight matching aligns the vectors of the large singular values: R(0.3) > R(0)",
        "in the mean of the searches", f"R(0.3) {spread(high)}, R(0) {spread(low)}" if known else "",
        _mean(high) > _mean(low) if known else None,
    )  # fmt: skip
    yield Claim(
        "2d", "R(0) is far above R without permutation",
        f"mean R(0) more than {ABOVE:g} times the mean |R(0)| without permutation",
        f"{spread(low)}, without {spread(bare, 4)}" if known else "",
        _mean(low) > ABOVE * _mean([abs(value) for value in bare]) if known else None,
    )  # fmt: skip
    merged = figures.r_merged("wm", "0.3") if known else []
    yield Claim(
        "2e", "The merged network's vectors stay close to those of its parents",
        "mean R(0.3) of the merged network with its parents above that of the parents with each other",
        f"{spread(merged)}, parents {spread(high)}" if known else "", _mean(merged) > _mean(high) if known else None,
    )  # fmt: skip


def _activations(figures: Figures) -> Iterator[Claim]:
    known = figures.has("wm", "am")

    def both(values: Callable[[str], list[float]], digits: int, unit: str = "") -> str:
        return f"AM {spread(values('am'), digits)}{unit}, WM {spread(values('wm'), digits)}{unit}" if known else ""

    def near(values: Callable[[str], list[float]]) -> bool | None:
        return abs(_mean(values("am")) - _mean(values("wm"))) <= LIKE * abs(_mean(values("wm"))) if known else None

    scale = GONE * abs(_mean(figures.barrier("none")))
    yield Claim(
        "3a", "Activation matching resembles weight matching: barriers",
        f"means differ by at most {100 * GONE:g} % of the barrier without matching", both(figures.barrier, 4),
        abs(_mean(figures.barrier("am")) - _mean(figures.barrier("wm"))) <= scale if known else None,
    )  # fmt: skip
    yield Claim(
        "3b", "distances", "mean reductions differ by at most a third", both(figures.reduction, 1, " %"),
        near(figures.reduction),
    )  # fmt: skip
    yield Claim(
        "3c", "and alignment", "mean R(0.3) differ by at most a third",
        both(lambda method: figures.r(method, "0.3"), 3), near(lambda method: figures.r(method, "0.3")),
    )  # fmt: skip
    alike = figures.of_searches("am", lambda one: float(one["match"]["as_wm"])) if known else []
    yield Claim(
        "3d", "although the permutations differ", f"fewer than {100 * OTHER:g} % of the units placed alike",
        f"{spread([100 * share for share in alike], 0)} % alike" if known else "",
        _mean(alike) < OTHER if known else None,
    )  # fmt: skip


def _straight_through(figures: Figures, method: str) -> Iterator[Claim]:
    """``method``: "ste", as in the paper's recipe, or "ste-random", marked with a star."""
    known = figures.has("wm", method)
    three = known and bool(figures.study["triples"].get(method)) and bool(figures.study["triples"].get("wm"))
    mark, name = ("", "STE") if method == "ste" else ("*", f"{TITLES[method]}: STE")
    ours, theirs = (figures.triple_barrier("wm"), figures.triple_barrier(method)) if three else ([], [])
    yield Claim(
        f"4a{mark}", f"Of three models, two that are matched to the third: the barrier between them is lower with WM "
        f"than with {name}",
        "lower in the mean by more than the standard error of the differences",
        f"WM {spread(ours, 4)}, STE {spread(theirs, 4)}" if three else "", _below(ours, theirs) if three else None,
    )  # fmt: skip
    aligned = figures.r(method, "0.3") if known else []
    yield Claim(
        f"4b{mark}", f"R of {name} is about 0", f"mean R(0.3) at most {ABOUT_0:g}",
        f"{spread(aligned)}, WM {spread(figures.r('wm', '0.3'))}" if known else "",
        _mean(aligned) <= ABOUT_0 if known else None,
    )  # fmt: skip
    one, two = (figures.triple_r("wm", "0.3"), figures.triple_r(method, "0.3")) if three else ([], [])
    yield Claim(
        f"4c{mark}", f"Between the two, R is higher with WM than with {name}",
        "mean R(0.3) higher by more than the standard error of the differences",
        f"WM {spread(one)}, STE {spread(two)}" if three else "", _below(two, one) if three else None,
    )  # fmt: skip


def _below(small: list[float], large: list[float]) -> bool:
    """Whether the mean of the differences is above 0 by more than its standard error (0 for one trial)."""
    mean, deviation = mean_deviation(two - one for one, two in zip(small, large, strict=True))
    return mean > deviation / math.sqrt(len(small))
