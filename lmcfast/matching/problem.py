"""A matching problem, checked once: which tensors count, which groups may move, what their scores are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Literal, TypeVar

import torch

from ..errors import InvalidParamsError, SpecError
from ..spec import PermutationSpec, check_finite, check_params, check_permutations
from ..spec.places import Place, group_places, unfold
from ..terms import Precision
from .holding import Holding
from .order import by_depth
from .storage import Storage, storages
from .sums import CHUNK, Figures, rounding

Params = Mapping[str, torch.Tensor]
Permutations = dict[str, torch.Tensor]
Patterns = str | Sequence[str]
TensorWeights = Mapping[str, float] | Literal["normalized"]
Made = TypeVar("Made")

REMEMBERED = 8  # shapes and choices of tensors for which a spec remembers what was worked out


@dataclass(frozen=True)
class Scored:
    """A tensor that counts in the objective: A's and B's as held, on the device of the products; their figures.

    ``doubt``: how far rounding can put <A, pi(B)> off, whatever pi (``sums.py``).
    """

    storage: Storage
    a: torch.Tensor
    b: torch.Tensor
    figures: Figures
    doubt: float

    @property
    def name(self) -> str:
        return self.storage.name

    @property
    def weight(self) -> float:
        return self.storage.weight


@dataclass(frozen=True)
class Part:
    """One summand of a group's scores: a place, and the tensor that it cuts.

    ``dependencies``: the groups whose permutation this summand depends on; the group itself where the place is
    quadratic. ``axis``: the group's axis in a tensor that is held regular, else None. ``is_matrix``: whether a unit
    owns more than one number of some tensor here (a bias or a norm parameter is a vector).
    """

    place: Place
    tensor: Scored
    dependencies: tuple[str, ...]
    axis: int | None

    @classmethod
    def make(cls, place: Place, tensor: Scored) -> Part:
        axis_of = tensor.storage.axis_of
        return cls(place, tensor, _dependencies(place), axis_of[place.group] if axis_of is not None else None)

    @property
    def is_matrix(self) -> bool:
        return self.tensor.storage.is_matrix

    @cached_property
    def rows_a(self) -> torch.Tensor:
        """A's units; a view where the tensor is regular."""
        return self.rows(self.tensor.a)

    def rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor (as held, or some positions of its other axes) as (size, depth); a view where it is regular."""
        if self.axis is None:
            return unfold(tensor, self.place)
        if self.axis == 0:
            return tensor.reshape(tensor.shape[0], -1)
        if self.axis == tensor.ndim - 1:
            return tensor.reshape(-1, tensor.shape[-1]).T
        return tensor.movedim(self.axis, 0).reshape(tensor.shape[self.axis], -1)


@dataclass(frozen=True)
class Problem:
    """Everything that stays the same during a matching.

    ``groups``: those that may move and that own a tensor that counts, ordered by depth. ``parts``: for each of them
    the summands of its scores. ``tensors``: all that count in the objective, by name; ``tensors_of``: those that a
    group moves. ``neighbours``: for each group, the groups whose
    moves change its scores. ``quadratic``: groups whose own moves do. ``start``: the permutations of ``init``, identity
    elsewhere.
    """

    spec: PermutationSpec
    groups: tuple[str, ...]
    parts: dict[str, tuple[Part, ...]]
    tensors: dict[str, Scored]
    tensors_of: dict[str, tuple[Scored, ...]]
    neighbours: dict[str, tuple[str, ...]]
    quadratic: frozenset[str]
    precision: dict[str, Precision]
    start: Permutations
    start_moves: bool

    def size(self, group: str) -> int:
        return self.start[group].shape[0]


def make_problem(
    spec: PermutationSpec,
    params_a: Params,
    params_b: Params,
    init: Mapping[str, torch.Tensor] | None = None,
    fix: Patterns = (),
    only: Patterns | None = None,
    tensor_weights: TensorWeights | None = None,
    device: str | torch.device | None = None,
) -> Problem:
    """Check the arguments of a matching (see :func:`~lmcfast.matching.weight_matching`) and prepare what it reads."""
    signature = _signature(params_a)
    bound = _remembered(spec, ("bound", signature), lambda: check_params(spec, params_a, "params_a"))
    if signature is None or _signature(params_b) != signature:
        check_params(bound, params_b, "params_b")
    start = bound.identity()
    if init:
        given = check_permutations(bound, {**start, **init}, "init")
        start = {group: permutation.clone() for group, permutation in given.items()}
    free = free_groups(bound, fix, only, start if init else None)
    weights = scored_weights(bound, params_a, params_b, tensor_weights)
    key = ("plan", free, tuple(weights.items()))
    plan = _remembered(bound, key, lambda: _Plan.make(bound, free, weights))
    tensors = _held(plan, params_a, params_b, torch.device(device or "cpu"))
    return plan.problem(bound, tensors, start, bool(init))


def _signature(params: Params) -> Hashable:
    """All that the checks of a state dict look at; None for what is none."""
    if not isinstance(params, Mapping) or not all(isinstance(tensor, torch.Tensor) for tensor in params.values()):
        return None
    return tuple((name, tensor.shape, tensor.dtype) for name, tensor in params.items())


def _remembered(spec: PermutationSpec, key: Hashable, make: Callable[[], Made]) -> Made:
    """What ``make`` gives, kept beside the spec's cached properties: a spec never changes."""
    memory: dict[Hashable, Any] = spec.__dict__.setdefault("_matching", {})
    if key not in memory:
        made = make()
        while len(memory) >= REMEMBERED:
            memory.pop(next(iter(memory)))
        memory[key] = made
    found: Made = memory[key]
    return found


def free_groups(
    spec: PermutationSpec, fix: Patterns, only: Patterns | None, start: Permutations | None
) -> tuple[str, ...]:
    """:func:`chosen_groups`; ``SpecError`` where a nested group would have to move, or ``start`` moves one."""
    free = chosen_groups(spec, fix, only)
    for group, entry in spec.groups.items():
        if not entry.within:
            continue
        if group in free:
            raise SpecError(
                f"group {group!r} is nested in {', '.join(map(repr, entry.within))}: nested groups cannot be matched "
                f"here; hold it with fix={group!r}",
                group=group,
            )
        if start is not None and not torch.equal(start[group], spec.identity()[group]):
            raise SpecError(f"init: group {group!r} is nested and must stay at the identity", group=group)
    return free


def chosen_groups(spec: PermutationSpec, fix: Patterns, only: Patterns | None) -> tuple[str, ...]:
    """The groups that may move: movable in the spec, matched by ``only`` (default all), not matched by ``fix``.

    Groups of fewer than two units have nothing to decide and are left out. ``SpecError``: a pattern matches no group.
    """
    kept = matching_names(spec.groups, only, "only", "group") if only is not None else set(spec.groups)
    held = matching_names(spec.groups, fix, "fix", "group")
    free = (group for group in spec.movable_groups if group in kept and group not in held)
    return tuple(group for group in free if spec.groups[group].size not in (0, 1))


def scored_weights(
    spec: PermutationSpec, params_a: Params, params_b: Params, tensor_weights: TensorWeights | None
) -> dict[str, float]:
    """The weights > 0 of the tensors that count: real floating tensors of the spec, no buffers, tied ones once.

    "normalized": 1 / (|A| |B|) of each tensor, so that its share of the objective is a cosine; 0 where one is zero.
    """
    counted = [name for name in spec.axes if name not in spec.buffers and name not in spec.tied]
    for name in counted:
        if params_a[name].is_complex() or params_b[name].is_complex():
            raise InvalidParamsError(f"tensor {name!r} is complex; only real tensors can be matched", name)
    names = [name for name in counted if params_a[name].is_floating_point()]
    if isinstance(tensor_weights, str):
        if tensor_weights != "normalized":
            raise ValueError(f"tensor_weights: must be a mapping or 'normalized', not {tensor_weights!r}")
        norms = {name: _norm(params_a[name]) * _norm(params_b[name]) for name in names}
        return {name: 1.0 / norm for name, norm in norms.items() if 0.0 < norm < math.inf}
    weights = dict.fromkeys(names, 1.0)
    for pattern, weight in (tensor_weights or {}).items():
        if not (0.0 <= float(weight) < float("inf")):
            raise ValueError(f"tensor_weights[{pattern!r}] must be a finite number >= 0, not {weight!r}")
        for name in matching_names(names, pattern, "tensor_weights", "scored tensor"):
            weights[name] = float(weight)
    return {name: weight for name, weight in weights.items() if weight > 0.0}


def _norm(tensor: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64))


def matching_names(names: Iterable[str], patterns: Patterns, argument: str, what: str) -> set[str]:
    """The names that one of the patterns (``fnmatch`` wildcards) matches; ``SpecError`` for a pattern that has none."""
    known = list(names)
    found: set[str] = set()
    for pattern in (patterns,) if isinstance(patterns, str) else patterns:
        matched = [name for name in known if fnmatchcase(name, pattern)]
        if not matched:
            some = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
            raise SpecError(f"{argument}: {pattern!r} matches no {what}; there are: {some}")
        found.update(matched)
    return found


def _held(plan: _Plan, params_a: Params, params_b: Params, device: torch.device) -> dict[str, Scored]:
    """The tensors as held, and their figures. ``InvalidParamsError`` names a tensor that is not finite."""
    doubles = {name for params in (params_a, params_b) for name in plan.members if params[name].dtype == torch.float64}
    held: dict[str, Scored] = {}
    squares_a = squares_b = 0.0
    for storage, (a, b, figures) in plan.holding.hold(params_a, params_b, device, doubles):
        magnitude = math.sqrt(figures.square_a) * math.sqrt(figures.square_b)
        # The kernels cut pieces at the ends of rows and of members, so the pieces may be half as long as a chunk.
        pieces = len(storage.members) + 2 * (a.numel() // CHUNK)
        doubt = rounding(min(CHUNK, a.numel()), pieces) * magnitude
        held[storage.name] = Scored(storage, a, b, figures, doubt)
        squares_a += figures.square_a
        squares_b += figures.square_b
    for params, squares, argument in ((params_a, squares_a, "params_a"), (params_b, squares_b, "params_b")):
        others = [tensor for name, tensor in params.items() if name not in plan.members]
        # Squares are finite only if their numbers are; the exact check, which names the tensor, decides the rest.
        if not (math.isfinite(squares) and _surely_finite(others)):
            check_finite(params, argument)
    return held


def _surely_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """False where a tensor holds NaN or infinity; it may also be false by overflow."""
    sums = [
        float(torch.cat([t if t.dim() == 1 else t.reshape(-1) for t in tensors if t.dtype == dtype]).sum().detach())
        for dtype in {tensor.dtype for tensor in tensors}
        if dtype.is_floating_point or dtype.is_complex
    ]
    return all(map(math.isfinite, sums))


@dataclass(frozen=True)
class _Plan:
    """What follows from the spec and from the choice of tensors and groups alone."""

    holding: Holding
    members: frozenset[str]
    groups: tuple[str, ...]
    places: dict[str, tuple[Place, ...]]
    neighbours: dict[str, tuple[str, ...]]
    quadratic: frozenset[str]

    @classmethod
    def make(cls, spec: PermutationSpec, free: Sequence[str], weights: Mapping[str, float]) -> _Plan:
        plan = storages(spec, weights)
        axes = {storage.name: storage.layouts for storage in plan}
        places = {group: group_places(spec, group, axes) for group in free}
        places = {group: found for group, found in places.items() if found}
        return cls(
            holding=Holding(plan, spec),
            members=frozenset(weights),
            groups=by_depth(spec, places),
            places=places,
            neighbours={
                group: tuple(dict.fromkeys(name for place in found for name in _dependencies(place)))
                for group, found in places.items()
            },
            quadratic=frozenset(group for group in places if any(place.quadratic for place in places[group])),
        )

    def problem(
        self, spec: PermutationSpec, tensors: dict[str, Scored], start: Permutations, start_moves: bool
    ) -> Problem:
        parts = {
            group: tuple(Part.make(place, tensors[place.tensor]) for place in found)
            for group, found in self.places.items()
        }
        tensors_of = {
            group: tuple({part.tensor.name: part.tensor for part in found}.values()) for group, found in parts.items()
        }
        return Problem(
            spec=spec,
            groups=self.groups,
            parts=parts,
            tensors=tensors,
            tensors_of=tensors_of,
            neighbours=self.neighbours,
            quadratic=self.quadratic,
            precision={group: _precision(found) for group, found in tensors_of.items()},
            start=start,
            start_moves=start_moves,
        )


def _dependencies(place: Place) -> tuple[str, ...]:
    return (*place.others, place.group) if place.quadratic else place.others


def _precision(tensors: Sequence[Scored]) -> Precision:
    """float64 for a group that owns a tensor stored as float64, float32 otherwise."""
    return "float64" if any(scored.a.dtype == torch.float64 for scored in tensors) else "float32"
