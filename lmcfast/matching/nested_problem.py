"""A matching problem with nested groups, checked once: the pieces that count, the groups that may move, their plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..errors import SpecError
from ..spec import PermutationSpec, check_finite, check_params, check_permutations
from .nested_plan import Plan, make_plan
from .order import by_depth
from .pieces import Piece, pieces_of
from .problem import Params, Patterns, Permutations, TensorWeights, chosen_groups, scored_weights
from .sums import CHUNK, Figures, rounding, stored_figures


@dataclass(frozen=True)
class HeldPiece:
    """A piece that counts in the objective: A's and B's, their figures; ``doubt`` as of ``problem.Scored``."""

    piece: Piece
    a: torch.Tensor
    b: torch.Tensor
    figures: Figures
    doubt: float
    weight: float


@dataclass(frozen=True)
class NestedProblem:
    """Everything that stays the same during a matching.

    ``groups``: those that may move, by depth, outer ones before those nested in them. ``tops``: those of them that are
    nested in none of them. ``start``: the setting of ``init``, identity elsewhere.
    """

    spec: PermutationSpec
    groups: tuple[str, ...]
    tops: tuple[str, ...]
    plans: Mapping[str, Plan]
    pieces: Sequence[HeldPiece]
    device: torch.device
    start: Permutations


def is_nested(spec: PermutationSpec) -> bool:
    """Whether the spec has nested groups at all."""
    return any(group.within for group in spec.groups.values())


def make_nested_problem(
    spec: PermutationSpec,
    params_a: Params,
    params_b: Params,
    init: Mapping[str, torch.Tensor] | None = None,
    fix: Patterns = (),
    only: Patterns | None = None,
    tensor_weights: TensorWeights | None = None,
    device: str | torch.device | None = None,
) -> NestedProblem | None:
    """Check the arguments of a matching (see :func:`~lmcfast.matching.weight_matching`) and prepare what it reads.

    None where no nested group may move and none has been moved: the matching of plain groups then does.
    """
    bound = check_params(spec, params_a, "params_a")
    check_params(bound, params_b, "params_b")
    identity = bound.identity()
    start = check_permutations(bound, {**identity, **(init or {})}, "init")
    free = chosen_groups(bound, fix, only)
    nested = [name for name, entry in bound.groups.items() if entry.within]
    if all(name not in free and torch.equal(start[name], identity[name]) for name in nested):
        return None
    _check_held(bound, free, start)
    weights = scored_weights(bound, params_a, params_b, tensor_weights)
    place = torch.device(device or "cpu")
    pieces = _held_pieces(bound, params_a, params_b, weights, place)
    for params, argument in ((params_a, "params_a"), (params_b, "params_b")):
        check_finite(params, argument)
    plain = [held.piece for held in pieces]
    scored = {name for piece in plain for name in piece.groups}
    moving = [name for name in free if name in scored]
    groups = _families(bound, by_depth(bound, moving))
    return NestedProblem(
        spec=bound,
        groups=groups,
        tops=tuple(name for name in moving if not set(bound.groups[name].within) & set(moving)),
        plans={name: make_plan(bound, plain, frozenset(moving), name) for name in groups},
        pieces=pieces,
        device=place,
        start=start,
    )


def _check_held(spec: PermutationSpec, free: Sequence[str], start: Permutations) -> None:
    """A nested group that is held while a group around it moves must be the same in all units that may trade places."""
    for name, entry in spec.groups.items():
        moving = [axis for axis, outer in enumerate(entry.within) if outer in free]
        if name in free or not moving:
            continue
        for axis in moving:
            first = start[name].narrow(axis, 0, 1)
            if not bool((start[name] == first).all()):
                outer = entry.within[axis]
                raise SpecError(
                    f"init: group {name!r} is held, but differs between the units of {outer!r}, which may move; hold "
                    f"{outer!r} too, or let {name!r} move",
                    group=name,
                )


def _held_pieces(
    spec: PermutationSpec, params_a: Params, params_b: Params, weights: Mapping[str, float], device: torch.device
) -> list[HeldPiece]:
    held = []
    for name, weight in weights.items():
        wide = torch.float64 in (params_a[name].dtype, params_b[name].dtype)
        dtype = torch.float64 if wide else torch.float32
        for piece in pieces_of(spec, name):
            a, b = (piece.hold(params[name], device, dtype) for params in (params_a, params_b))
            if a.numel() == 0:
                continue
            figures = stored_figures(a, b)
            magnitude = (figures.square_a * figures.square_b) ** 0.5
            # The kernels cut pieces at the ends of rows too, so there may be twice as many.
            doubt = rounding(min(CHUNK, a.numel()), 2 + 2 * (a.numel() // CHUNK)) * magnitude
            held.append(HeldPiece(piece, a, b, figures, doubt, weight))
    return held


def _families(spec: PermutationSpec, groups: Sequence[str]) -> tuple[str, ...]:
    """The groups in their order, but each one after those that it is nested in."""
    ordered: list[str] = []

    def add(name: str) -> None:
        for outer in spec.groups[name].within:
            if outer in groups:
                add(outer)
        if name not in ordered:
            ordered.append(name)

    for name in groups:
        add(name)
    return tuple(ordered)
