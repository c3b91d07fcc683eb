"""How far two networks are apart, before and after matching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import overload

from ..params import apply_permutations, distance
from ..spec import PermutationSpec
from .evaluation import Params
from .layers import Setting


@dataclass(frozen=True)
class DistanceReduction:
    """``before``: ||a - b||, ``after``: ||a - pi(b)||, both L2 in float64."""

    before: float
    after: float

    @property
    def rate(self) -> float:
        """(before - after) / before, a fraction; 0 where the networks were equal before."""
        return (self.before - self.after) / self.before if self.before > 0 else 0.0


@overload
def distance_reduction(
    spec: PermutationSpec, params_a: Params, params_b: Params, permutations: Setting
) -> DistanceReduction: ...
@overload
def distance_reduction(
    spec: PermutationSpec, params_a: Params, params_b: Params, permutations: Sequence[Setting]
) -> list[DistanceReduction]: ...
def distance_reduction(
    spec: PermutationSpec, params_a: Params, params_b: Params, permutations: Setting | Sequence[Setting]
) -> DistanceReduction | list[DistanceReduction]:
    """By how much ``permutations`` bring B closer to A: the reduction rate of Ito et al. (arXiv:2402.04051, table 1).

    ``permutations``: a setting of ``spec``, or several for one result each. Buffers (BatchNorm's running statistics)
    are left out, tied tensors count once. Raises ``InvalidParamsError`` naming a tensor that does not fit the spec,
    ``InvalidPermutationError`` naming a group.
    """
    before = distance(spec, params_a, params_b)
    several = not isinstance(permutations, Mapping)
    settings = [permutations] if isinstance(permutations, Mapping) else permutations
    results = [
        DistanceReduction(before, distance(spec, params_a, apply_permutations(spec, setting, params_b)))
        for setting in settings
    ]
    return results if several else results[0]
