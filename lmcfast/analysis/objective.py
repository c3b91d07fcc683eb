"""Which singular vectors the objective of weight matching comes from (Ito et al., arXiv:2402.04051, theorem 4.1).

With W = sum_i s_i u_i v_i^T the objective is sum_l sum_ij s_li^a s_lj^b (u_li^a . P_l u_lj^b)(v_li^a . P_{l-1} v_lj^b).
Restricted to the pairs of kept singular values it is the inner product of the two truncated layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from ..spec import PermutationSpec
from ..spec.checks import check_params
from .evaluation import Params
from .layers import KeptVectors, Setting, Settings, as_matrix, check_gamma, moved_matrix, settings_of, weight_names


@dataclass(frozen=True)
class LayerObjective:
    """One layer's part of the objective: ``whole``, <A, pi(B)>, and ``kept``, of the pairs of kept vectors only."""

    whole: float
    kept: float


@dataclass(frozen=True)
class SingularObjective:
    """``per_layer``: {tensor: :class:`LayerObjective`}; ``gamma`` as given."""

    per_layer: dict[str, LayerObjective]
    gamma: float

    @property
    def whole(self) -> float:
        """The objective over the tensors of two axes and more."""
        return math.fsum(layer.whole for layer in self.per_layer.values())

    @property
    def kept(self) -> float:
        """What of it the pairs of kept singular vectors give."""
        return math.fsum(layer.kept for layer in self.per_layer.values())


@overload
def singular_objective(
    spec: PermutationSpec,
    params_a: Params,
    params_b: Params,
    permutations: Setting | None = None,
    gamma: float = 0.0,
    layers: Sequence[str] | None = None,
) -> SingularObjective: ...
@overload
def singular_objective(
    spec: PermutationSpec,
    params_a: Params,
    params_b: Params,
    permutations: Sequence[Setting],
    gamma: float = 0.0,
    layers: Sequence[str] | None = None,
) -> list[SingularObjective]: ...
def singular_objective(
    spec: PermutationSpec,
    params_a: Params,
    params_b: Params,
    permutations: Settings = None,
    gamma: float = 0.0,
    layers: Sequence[str] | None = None,
) -> SingularObjective | list[SingularObjective]:
    """The objective of weight matching, and what of it comes from singular values of at least ``gamma`` s_1.

    Arguments and errors as of :func:`singular_alignment`; one result for each setting where several are given.
    """
    check_gamma(gamma)
    bound = check_params(spec, params_a, "params_a", strict=False)
    check_params(spec, params_b, "params_b", strict=False)
    settings, several = settings_of(bound, permutations)
    found: list[dict[str, LayerObjective]] = [{} for _ in settings]
    for name in weight_names(bound, layers):
        device = params_a[name].device
        a, b = (as_matrix(name, params).to(device) for params in (params_a, params_b))
        one = KeptVectors.of(name, params_a, "params_a", gamma, device).truncated
        two = KeptVectors.of(name, params_b, "params_b", gamma, device).truncated
        for result, setting in zip(found, settings, strict=True):
            parts = [
                float((left * moved_matrix(bound, name, right, params_b[name].shape, setting)).sum())
                for left, right in ((a, b), (one, two))
            ]
            result[name] = LayerObjective(*parts)
    results = [SingularObjective(layers_of, gamma) for layers_of in found]
    return results if several else results[0]
