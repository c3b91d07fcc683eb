"""How far two networks are apart, before and after matching."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..params import apply_permutations, distance
from ..spec import PermutationSpec


@dataclass(frozen=True)
class DistanceReduction:
    """``before``: ||a - b||, ``after``: ||a - pi(b)||, both L2 in float64."""

    before: float
    after: float

    @property
    def rate(self) -> float:
        """(before - after) / before, a fraction; 0 where the networks were equal before."""
        return (self.before - self.after) / self.before if self.before > 0 else 0.0


def distance_reduction(
    spec: PermutationSpec,
    params_a: Mapping[str, torch.Tensor],
    params_b: Mapping[str, torch.Tensor],
    permutations: Mapping[str, torch.Tensor],
) -> DistanceReduction:
    """By how much ``permutations`` bring B closer to A: the reduction rate of Ito et al. (arXiv:2402.04051, table 1).

    Buffers (BatchNorm's running statistics) are left out, tied tensors count once. Raises ``InvalidParamsError`` naming
    a tensor that does not fit the spec, ``InvalidPermutationError`` naming a group.
    """
    aligned = apply_permutations(spec, permutations, params_b)
    return DistanceReduction(distance(spec, params_a, params_b), distance(spec, params_a, aligned))
