"""Is a merge worth it: an answer by criteria that stand beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..summary import mean_deviation
from .behaviour import Behaviour
from .weights import GAMMAS, Weights

Answer = Literal["yes", "perhaps", "no"]

MARGIN = 0.1
"""Measured: by what share the loss of a good merge may exceed that of the worse network."""
REMNANT = 0.2
"""Measured: share of the barrier that may be left for a merge to be a start for further training."""
LIKELY, UNLIKELY = 3.0, 1.5
"""From weights alone: R over the level of chance. Between the two the weights do not tell."""

MEASURED = (
    f"Yes: the loss of the merge at 1/2 is at most {100 * MARGIN:.0f} % above that of the worse network. "
    f"Perhaps: at most {100 * REMNANT:.0f} % of the barrier without permutation is left. No: more is left."
)
FROM_WEIGHTS = (
    f"R for the singular values of at least {GAMMAS[-1]:g} of the largest, against the R that matching "
    f"reaches by chance. Likely: at least {LIKELY:g} times as much, or halfway from it to 1. Unlikely: less than "
    f"{UNLIKELY:g} times. This is a rule of thumb: only the loss on data decides, which a model and data would show."
)


@dataclass(frozen=True)
class Verdict:
    """``measured``: whether it rests on data. ``permute``: whether B should be permuted for the merge.

    ``reason``: what it rests on, in a sentence. ``criteria``: what decides.
    """

    answer: Answer
    measured: bool
    permute: bool
    reason: str
    criteria: str


def judge(weights: Weights, behaviour: Behaviour | None = None) -> Verdict:
    """The verdict on the better of merging B as it is and merging the permuted B; means over the settings."""
    return _by_weights(weights) if behaviour is None else _by_data(behaviour)


def _by_data(behaviour: Behaviour) -> Verdict:
    lines = behaviour.aligned
    plain = behaviour.without
    aligned = mean_deviation(line.at(0.5)["loss"] for line in lines).mean
    unaligned = plain.at(0.5)["loss"]
    permute = aligned < unaligned
    merged = min(aligned, unaligned)
    worse = max(plain.losses[0], plain.losses[-1])
    bump = plain.midpoint
    left = mean_deviation(line.midpoint for line in lines).mean if permute else bump
    answer: Answer
    if merged <= worse + MARGIN * abs(worse):
        answer = "yes"
    elif permute and left <= REMNANT * bump:
        answer = "perhaps"
    else:
        answer = "no"
    how = "permuted" if permute else "as it is (the permutation does not help)"
    reason = (
        f"With B {how}, the merge has a loss of {merged:.4g}; A has {plain.losses[0]:.4g}, B {plain.losses[-1]:.4g}. "
        f"The barrier at the midpoint is {left:+.3g}"
    )
    reason += f", and {bump:+.3g} without permutation." if permute else "."
    return Verdict(answer, True, permute, reason, MEASURED)


def _by_weights(weights: Weights) -> Verdict:
    gamma = GAMMAS[-1]
    aligned = mean_deviation(one.pooled for one in weights.aligned[gamma]).mean
    plain = weights.without[gamma].pooled
    chance = max(weights.chance.alignment[gamma].pooled, 1e-12)
    permute = aligned > plain
    reached = max(aligned, plain)
    ratio = reached / chance
    answer: Answer = "yes" if ratio >= LIKELY or 2 * reached >= 1 + chance else "perhaps" if ratio >= UNLIKELY else "no"
    how = "with B permuted" if permute else "with B as it is"
    reason = (
        f"R({gamma:g}) is {reached:.3f} {how}; matching reaches {chance:.3f} by chance, so {ratio:.1f} times as much."
    )
    return Verdict(answer, False, permute, reason, FROM_WEIGHTS)
