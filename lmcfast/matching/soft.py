"""Doubly stochastic matrices in the place of permutations, on any layout of a plain group."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..spec.places import Place, cut, unfold

Matrices = Mapping[str, torch.Tensor]


def mix_units(tensor: torch.Tensor, place: Place, matrix: torch.Tensor) -> torch.Tensor:
    """A new tensor whose units at ``place`` are mixed: unit i is sum_j matrix[i, j] unit j of ``tensor``."""
    mixed = tensor.contiguous().clone()
    view = cut(mixed, place).movedim(place.group_axis, 0)
    view.copy_((matrix.to(tensor.dtype) @ view.reshape(view.shape[0], -1)).reshape(view.shape))
    return mixed


def soften(tensor: torch.Tensor, places: list[Place], matrices: Matrices, skip: Place | None = None) -> torch.Tensor:
    """The tensor with the units of all its places (but ``skip``) mixed by their groups' matrices."""
    for place in places:
        if place is not skip and place.group in matrices:
            tensor = mix_units(tensor, place, matrices[place.group])
    return tensor


def soft_scores(
    a: torch.Tensor, b: torch.Tensor, places: list[Place], matrices: Matrices, place: Place
) -> torch.Tensor:
    """One place's share of the gradient of <a, soft b> by its group's matrix: (size, size), rows are units of ``a``."""
    return unfold(a, place) @ unfold(soften(b, places, matrices, skip=place), place).T
