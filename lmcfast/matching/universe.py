"""Frank-Wolfe over all networks and all groups at once, through a common frame.

Each network i and plain group g holds a doubly stochastic matrix X_i^g that mixes its units into the frame; with T_i
the mixed tensors, the objective is sum_{i<j} <T_i, T_j>. A step of network i goes towards the permutations that fit the
gradient, with T = sum_{j != i} T_j as the network to match; along the line the objective is a parabola wherever a
tensor stands on at most two groups, and the best step on it is known exactly. Where a tensor stands on more, the
parabola is that of its slope and its end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ..assignment import solve_assignment
from ..spec import PermutationSpec
from ..spec.places import Place, group_places
from .problem import Params, Permutations
from .soft import soft_scores, soften

ROUNDS = 12
TOLERANCE = 1e-4  # of the largest slope seen

Tensors = dict[str, torch.Tensor]


def relax_together(
    spec: PermutationSpec,
    models: Sequence[Params],
    start: Sequence[Permutations],
    weights: Mapping[str, float],
    rounds: int = ROUNDS,
) -> list[Permutations]:
    """Settings for all networks, rounded from where the relaxation ends; groups that are nested or fixed stay."""
    networks = [_Soft(spec, params, setting, weights) for params, setting in zip(models, start, strict=True)]
    largest = 0.0
    for _ in range(rounds):
        gained = 0.0
        total = {name: torch.stack([one.mixed[name] for one in networks]).sum(0) for name in weights}
        for network in networks:
            before = network.mixed
            gained += network.step({name: total[name] - tensor for name, tensor in before.items()})
            for name, tensor in network.mixed.items():
                total[name].add_(tensor).sub_(before[name])
        largest = max(largest, gained)
        if not gained > TOLERANCE * largest:
            break
    return [network.rounded() for network in networks]


class _Soft:
    """One network: its tensors (float32), matrices, and the tensors as they mix them."""

    def __init__(
        self, spec: PermutationSpec, params: Params, setting: Permutations, weights: Mapping[str, float]
    ) -> None:
        self.setting, self.weights = setting, weights
        axes = {name: spec.axes[name] for name in weights}
        groups = [g for g in spec.movable_groups if not spec.groups[g].within and (spec.groups[g].size or 0) > 1]
        found: dict[str, list[Place]] = {name: [] for name in weights}
        for group in groups:
            for place in group_places(spec, group, axes):
                found[place.tensor].append(place)
        self.places = found
        self.groups = [group for group in groups if any(p.group == group for some in found.values() for p in some)]
        self.tensors = {name: params[name].detach().float().cpu() for name in weights}
        self.matrices = {group: torch.eye(len(setting[group]))[setting[group]] for group in self.groups}
        self.mixed = self._mix(self.matrices)

    def _mix(self, matrices: Mapping[str, torch.Tensor]) -> Tensors:
        return {name: soften(tensor, self.places[name], matrices) for name, tensor in self.tensors.items()}

    def step(self, target: Tensors) -> float:
        """One Frank-Wolfe step towards ``target``; how much the slope promised."""
        scores = {group: torch.zeros_like(matrix) for group, matrix in self.matrices.items()}
        for name, places in self.places.items():
            for place in places:
                product = soft_scores(target[name], self.tensors[name], places, self.matrices, place)
                scores[place.group].add_(product, alpha=self.weights[name])
        vertex = {group: torch.eye(len(s))[solve_assignment(s).columns] for group, s in scores.items()}
        slope = sum(float((scores[g] * (vertex[g] - x)).sum(dtype=torch.float64)) for g, x in self.matrices.items())
        if not slope > 0.0:
            return 0.0
        rise = self._value(target, self._mix(vertex)) - self._value(target, self.mixed)
        bend = rise - slope
        length = 1.0 if slope + 2.0 * bend >= 0.0 else min(1.0, -slope / (2.0 * bend))
        for group, matrix in self.matrices.items():
            matrix.lerp_(vertex[group], length)
        self.mixed = self._mix(self.matrices)
        return slope

    def _value(self, target: Tensors, tensors: Tensors) -> float:
        return sum(
            weight * float((target[name] * tensors[name]).sum(dtype=torch.float64))
            for name, weight in self.weights.items()
        )

    def rounded(self) -> Permutations:
        """The permutations nearest to the matrices."""
        return {**self.setting, **{group: solve_assignment(x).columns for group, x in self.matrices.items()}}
