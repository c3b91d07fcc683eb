"""In which order a sweep visits the groups."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import TypeVar

from ..spec import PermutationSpec

Visited = TypeVar("Visited")  # a group, or groups that are visited together


def by_depth(spec: PermutationSpec, groups: Iterable[str]) -> tuple[str, ...]:
    """The groups from the inputs to the outputs: by the mean position of their tensors in the spec.

    A spec lists the tensors as the module does, so the position stands for the depth. The mean puts a
    residual stream into the middle of the layers that it runs through.
    """
    position = {name: k for k, name in enumerate(spec.axes)}

    def depth(group: str) -> float:
        tensors = spec.tensors_of(group)
        return sum(position[name] for name in tensors) / len(tensors)

    return tuple(sorted(groups, key=depth))  # sorted is stable: equal depths keep the order of first use


def sweep_order(groups: Sequence[Visited], passes: int, shuffle: random.Random | None = None) -> Sequence[Visited]:
    """The order of a sweep after so many passes over the groups: forwards and backwards in turn, or with ``shuffle`` a
    random one each time.

    The forward start is a pass forwards, so the sweep after it goes backwards: what it matched last is what it matched
    with the most of the others known.
    """
    if shuffle is not None:
        return shuffle.sample(groups, len(groups))
    return groups[::-1] if passes % 2 else groups
