"""What the weights of two networks say, without data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ...matching import weight_matching
from ...params import apply_permutations, inner_product, interpolate
from ...spec import PermutationSpec
from ...spec.stacks import stacked
from ..alignment import MergedAlignment, SingularAlignment, merged_alignment, singular_alignment
from ..distance import DistanceReduction, distance_reduction
from ..evaluation import Params
from ..layers import Setting
from ..objective import SingularObjective, singular_objective
from ..spectra import Spectra, spectra
from .chance import stand_in

GAMMAS = (0.0, 0.3)
"""The paper's two cuts."""

Progress = Callable[[str, int, int], object]


@dataclass(frozen=True, eq=False)
class Chance:
    """What weight matching reaches against a network with B's singular values along random singular vectors.

    ``rate``: the reduction of the distance, a fraction; ``alignment``: {gamma: R after matching}.
    """

    rate: float
    alignment: dict[float, SingularAlignment]


@dataclass(frozen=True, eq=False)
class Weights:
    """Figures of A, B and the permuted B; lists have one entry for each setting.

    ``without``, ``aligned``: {gamma: R of A and B as it is, of A and pi(B)}; ``merged``: {gamma: R of the merge with
    its parents}. ``objective``: at gamma 0.3. ``cosine_before``, ``cosine_after``: of the angle between the networks
    as vectors. ``shrinkage``: norm of the merge over the mean norm of its parents; 0.71 where they are orthogonal.
    """

    reductions: list[DistanceReduction]
    cosine_before: float
    cosine_after: list[float]
    shrinkage: list[float]
    without: dict[float, SingularAlignment]
    aligned: dict[float, list[SingularAlignment]]
    merged: dict[float, list[MergedAlignment]]
    objective: list[SingularObjective]
    spectra: Spectra
    chance: Chance


def weigh(
    spec: PermutationSpec,
    params_a: Params,
    params_b: Params,
    settings: Sequence[Setting],
    layers: Sequence[str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Weights:
    """Distances, alignment with its level of chance, and spectra of two networks and one or more settings.

    ``layers``: names or wildcards of the tensors whose singular vectors are compared, default all of two axes and more.
    ``seed``: of the stand-in. ``progress``: called as ``progress("weights", done, total)``. Errors as of
    ``singular_alignment``; ``ValueError`` where there is no setting.
    """
    if not settings:
        raise ValueError("settings: at least one is needed, there is none")
    tell = progress or (lambda *_: None)
    params_a, params_b = stacked(spec, params_a), stacked(spec, params_b)
    spec = replace(spec, stacks={}).bind(params_a)
    total = 3 + 3 * len(GAMMAS)
    tell("weights", 0, total)
    reductions = distance_reduction(spec, params_a, params_b, settings)
    found_spectra = spectra(spec, [params_a, params_b], layers)
    objective = singular_objective(spec, params_a, params_b, settings, GAMMAS[-1], layers)
    tell("weights", 1, total)
    fake = stand_in(spec, params_b, seed)
    fake_match = weight_matching(spec, params_a, fake)
    tell("weights", 2, total)
    without, aligned, merged, chance = {}, {}, {}, {}
    for index, gamma in enumerate(GAMMAS):
        done = 3 + 3 * index
        identity = spec.identity()
        without[gamma], *aligned[gamma] = singular_alignment(
            spec, params_a, params_b, [identity, *settings], gamma, layers
        )
        tell("weights", done, total)
        merged[gamma] = merged_alignment(spec, params_a, params_b, settings, gamma, layers)
        tell("weights", done + 1, total)
        chance[gamma] = singular_alignment(spec, params_a, fake, fake_match.permutations, gamma, layers)
        tell("weights", done + 2, total)
    rate = distance_reduction(spec, params_a, fake, fake_match.permutations).rate
    before, after, shrinkage = _angles(spec, params_a, params_b, settings)
    tell("weights", total, total)
    return Weights(
        reductions, before, after, shrinkage, without, aligned, merged, objective, found_spectra, Chance(rate, chance)
    )


def _angles(
    spec: PermutationSpec, params_a: Params, params_b: Params, settings: Sequence[Setting]
) -> tuple[float, list[float], list[float]]:
    """Cosine before, cosines after, and norms of the merges over their parents' mean norm."""
    one, two = ({name: params[name] for name in spec.axes} for params in (params_a, params_b))
    norm_a, norm_b = _norm(spec, one), _norm(spec, two)
    scale = norm_a * norm_b or 1.0
    cosines, shrinkage = [], []
    for setting in settings:
        aligned = apply_permutations(spec, setting, two, strict=False)
        cosines.append(inner_product(spec, one, aligned) / scale)
        shrinkage.append(2 * _norm(spec, interpolate(one, aligned)) / (norm_a + norm_b or 1.0))
    return inner_product(spec, one, two) / scale, cosines, shrinkage


def _norm(spec: PermutationSpec, params: Mapping[str, torch.Tensor]) -> float:
    return math.sqrt(inner_product(spec, params, params))
