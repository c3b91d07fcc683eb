"""How well the singular vectors of two networks point the same way: R of Ito et al. (arXiv:2402.04051, section 4).

R_l = sum_ij (u_i^a . P_l u_j^b)(v_i^a . P_{l-1} v_j^b) / n_l. No pairing of vectors and no choice of signs is needed,
since with the polar factors U V^T of the two layers, R_l = <U_a V_a^T, P_l (U_b V_b^T) P_{l-1}^T> / n_l: the factor
moves as the weight does, so that B's singular vectors are computed once for any number of permutations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import torch

from ..params import apply_permutations, interpolate
from ..spec import PermutationSpec
from ..spec.checks import check_params
from .evaluation import Params
from .layers import KeptVectors, Setting, Settings, check_gamma, moved_matrix, settings_of, weight_names


@dataclass(frozen=True)
class LayerAlignment:
    """One layer's figures.

    ``r``: R_l in [-1, 1]. ``left``, ``right``: overlap of the spaces that the kept left and right vectors span,
    ||U_a^T P U_b||_F^2 / sqrt(k_a k_b), in [0, 1]; 1 where a side is kept whole. ``kept_a``, ``kept_b``: how many
    singular values are kept. ``gap_a``, ``gap_b``: (s_k - s_{k+1}) / s_1 at the cut, 1 where nothing is cut off: a gap
    near 0 makes the cut, and R with it, arbitrary.
    """

    r: float
    left: float
    right: float
    kept_a: int
    kept_b: int
    gap_a: float
    gap_b: float

    @property
    def kept(self) -> float:
        """n_l = sqrt(kept_a kept_b), by which R_l is divided: |R_l| <= 1 also where the counts differ."""
        return math.sqrt(self.kept_a * self.kept_b)


@dataclass(frozen=True)
class SingularAlignment:
    """``per_layer``: {tensor: :class:`LayerAlignment`}; ``gamma`` as given."""

    per_layer: dict[str, LayerAlignment]
    gamma: float

    @property
    def pooled(self) -> float:
        """sum_l n_l R_l / sum_l n_l, the paper's R; 0 where nothing is kept."""
        total = sum(layer.kept for layer in self.per_layer.values())
        return sum(layer.kept * layer.r for layer in self.per_layer.values()) / total if total else 0.0


@overload
def singular_alignment(
    spec: PermutationSpec,
    params_a: Params,
    params_b: Params,
    permutations: Setting | None = None,
    gamma: float = 0.0,
    layers: Sequence[str] | None = None,
) -> SingularAlignment: ...
@overload
def singular_alignment(
    spec: PermutationSpec,
    params_a: Params,
    params_b: Params,
    permutations: Sequence[Setting],
    gamma: float = 0.0,
    layers: Sequence[str] | None = None,
) -> list[SingularAlignment]: ...
def singular_alignment(
    spec: PermutationSpec,
    params_a: Params,
    params_b: Params,
    permutations: Settings = None,
    gamma: float = 0.0,
    layers: Sequence[str] | None = None,
) -> SingularAlignment | list[SingularAlignment]:
    """R between A and the permuted B, per layer and pooled.

    Args:
        permutations: a setting of ``spec``; None for B as it is; or several settings, for one result each.
        gamma: in [0, 1]; only singular values of at least ``gamma`` times the layer's largest are kept. Those that are
            rounding (below max(m, n) eps of the stored dtype times the largest) are left out always, since their
            vectors are arbitrary.
        layers: names or wildcards of tensors; default all of two axes and more. Convolutions are (out, in x kernel).

    Float64 on the tensors' device. Raises ``InvalidParamsError`` and ``InvalidPermutationError`` naming the tensor or
    group, ``ValueError`` naming the argument.
    """
    check_gamma(gamma)
    bound = check_params(spec, params_a, "params_a", strict=False)
    check_params(spec, params_b, "params_b", strict=False)
    settings, several = settings_of(bound, permutations)
    found: list[dict[str, LayerAlignment]] = [{} for _ in settings]
    for name in weight_names(bound, layers):
        device = params_a[name].device
        one = KeptVectors.of(name, params_a, "params_a", gamma, device)
        two = KeptVectors.of(name, params_b, "params_b", gamma, device)
        shape = params_b[name].shape
        for result, setting in zip(found, settings, strict=True):
            result[name] = _aligned(one, two, moved_matrix(bound, name, two.polar, shape, setting))
    results = [SingularAlignment(layers_of, gamma) for layers_of in found]
    return results if several else results[0]


def _aligned(one: KeptVectors, two: KeptVectors, polar_b: torch.Tensor) -> LayerAlignment:
    """``polar_b``: the moved polar factor of B."""
    count = math.sqrt(one.kept * two.kept)
    if not count:
        return LayerAlignment(0.0, 0.0, 0.0, one.kept, two.kept, one.gap, two.gap)
    # Projections on the spanned spaces: <U_a U_a^T, P U_b U_b^T P^T> is the overlap of the left spaces. The moved
    # projection comes from the moved factor, M M^T, so that axes which move jointly need no index of their own.
    left = _overlap(one.left, polar_b @ polar_b.T)
    right = _overlap(one.right, polar_b.T @ polar_b)
    r = float((one.polar * polar_b).sum()) / count
    return LayerAlignment(r, left / count, right / count, one.kept, two.kept, one.gap, two.gap)


def _overlap(vectors: torch.Tensor, projection: torch.Tensor) -> float:
    return float((vectors * (projection @ vectors)).sum())


@dataclass(frozen=True)
class MergedAlignment:
    """R of the merged network with each of its parents, A and the permuted B."""

    with_a: SingularAlignment
    with_b: SingularAlignment


@overload
def merged_alignment(
    spec: PermutationSpec,
    params_a: Params,
    params_b: Params,
    permutations: Setting | None = None,
    gamma: float = 0.0,
    layers: Sequence[str] | None = None,
    weight: float = 0.5,
) -> MergedAlignment: ...
@overload
def merged_alignment(
    spec: PermutationSpec,
    params_a: Params,
    params_b: Params,
    permutations: Sequence[Setting],
    gamma: float = 0.0,
    layers: Sequence[str] | None = None,
    weight: float = 0.5,
) -> list[MergedAlignment]: ...
def merged_alignment(
    spec: PermutationSpec,
    params_a: Params,
    params_b: Params,
    permutations: Settings = None,
    gamma: float = 0.0,
    layers: Sequence[str] | None = None,
    weight: float = 0.5,
) -> MergedAlignment | list[MergedAlignment]:
    """R between (1 - weight) A + weight pi(B) and its parents (Ito et al., figures 3 and 16).

    Arguments and errors as of :func:`singular_alignment`; one result for each setting where several are given.
    """
    bound = check_params(spec, params_a, "params_a", strict=False)
    check_params(spec, params_b, "params_b", strict=False)
    settings, several = settings_of(bound, permutations)
    names = weight_names(bound, layers)
    results = []
    for setting in settings:
        aligned = dict(params_b) if setting is None else apply_permutations(bound, setting, params_b, strict=False)
        one, two = ({name: params[name] for name in names} for params in (params_a, aligned))
        merged = {**params_a, **interpolate(one, two, weight)}
        with_parents = (singular_alignment(bound, merged, end, None, gamma, names) for end in (params_a, aligned))
        results.append(MergedAlignment(*with_parents))
    return results if several else results[0]
