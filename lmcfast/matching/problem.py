"""A matching problem, checked once: which tensors count, which groups may move, what their scores are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch

from ..errors import InvalidParamsError, SpecError
from ..spec import PermutationSpec, check_finite, check_params, check_permutations
from ..spec.layout import Atom, Fixed
from ..spec.places import Place, group_places, unfold, unfold_permuted
from ..terms import Precision, Term
from .order import by_depth

Params = Mapping[str, torch.Tensor]
Permutations = dict[str, torch.Tensor]
Patterns = str | Sequence[str]

# Places at most this deep that no other group moves (biases, norm parameters, thin input layers) are laid
# side by side into one part: a product costs one pass over the score matrix however shallow it is.
JOINED_DEPTH = 64


@dataclass(frozen=True)
class Scored:
    """A tensor that counts in the objective: A's and B's, on the device of the products, and its weight > 0."""

    name: str
    a: torch.Tensor
    b: torch.Tensor
    weight: float


@dataclass(frozen=True)
class Part:
    """One summand of a group's scores: a place, the tensors of A and B that it cuts, and their weight.

    ``is_matrix``: a unit owns more than one number of some tensor here (a bias or a norm parameter is a
    vector).
    """

    place: Place
    a: torch.Tensor
    b: torch.Tensor
    weight: float
    is_matrix: bool

    @property
    def dependencies(self) -> tuple[str, ...]:
        """Groups whose permutation this summand depends on; the group itself where the place is quadratic."""
        return (*self.place.others, self.place.group) if self.place.quadratic else self.place.others

    def term(self, permutations: Mapping[str, torch.Tensor]) -> Term:
        """The summand as a term, with B's other axes permuted."""
        return Term(unfold(self.a, self.place), unfold_permuted(self.b, self.place, permutations), self.weight)


@dataclass(frozen=True)
class Problem:
    """Everything that stays the same during a matching.

    ``groups``: those that may move and that own a tensor that counts, ordered by depth. ``parts``: for each of them
    the summands of its scores. ``tensors``: all that count in the objective, by name. ``neighbours``: for each group,
    the groups whose moves change its scores. ``quadratic``: groups whose own moves do. ``start``: the permutations of
    ``init``, identity elsewhere.
    """

    spec: PermutationSpec
    groups: tuple[str, ...]
    parts: dict[str, tuple[Part, ...]]
    tensors: dict[str, Scored]
    neighbours: dict[str, tuple[str, ...]]
    quadratic: frozenset[str]
    precision: dict[str, Precision]
    start: Permutations

    def size(self, group: str) -> int:
        return self.start[group].shape[0]

    def tensors_of(self, group: str) -> list[Scored]:
        """The scored tensors that the group moves, each once."""
        names = dict.fromkeys(self.spec.tensors_of(group))
        return [self.tensors[name] for name in names if name in self.tensors]


def make_problem(
    spec: PermutationSpec,
    params_a: Params,
    params_b: Params,
    init: Mapping[str, torch.Tensor] | None = None,
    fix: Patterns = (),
    only: Patterns | None = None,
    tensor_weights: Mapping[str, float] | None = None,
    device: str | torch.device | None = None,
) -> Problem:
    """Check the arguments of a matching (see :func:`~lmcfast.matching.weight_matching`) and prepare what it reads."""
    bound = check_params(spec, params_a, "params_a")
    check_params(bound, params_b, "params_b")
    check_finite(params_a, "params_a")
    check_finite(params_b, "params_b")
    given = check_permutations(bound, {**bound.identity(), **(init or {})}, "init")
    start = {group: permutation.clone() for group, permutation in given.items()}
    free = free_groups(bound, fix, only, start)
    tensors = scored_tensors(bound, params_a, params_b, tensor_weights, torch.device(device or "cpu"))
    parts = {group: found for group in free if (found := _parts(bound, group, tensors))}
    return Problem(
        spec=bound,
        groups=by_depth(bound, parts),
        parts=parts,
        tensors=tensors,
        neighbours={
            group: tuple(dict.fromkeys(name for part in parts[group] for name in part.dependencies)) for group in parts
        },
        quadratic=frozenset(group for group in parts if any(part.place.quadratic for part in parts[group])),
        precision={group: _precision(found) for group, found in parts.items()},
        start=start,
    )


def free_groups(spec: PermutationSpec, fix: Patterns, only: Patterns | None, start: Permutations) -> tuple[str, ...]:
    """The groups that may move: movable in the spec, matched by ``only`` (default all), not matched by ``fix``.

    Groups of fewer than two units have nothing to decide and are left out. Raises ``SpecError`` for nested
    groups that would have to move, or that ``start`` moves, and for a pattern that matches no group.
    """
    kept = matching_names(spec.groups, only, "only", "group") if only is not None else set(spec.groups)
    held = matching_names(spec.groups, fix, "fix", "group")
    free = tuple(group for group in spec.movable_groups if group in kept and group not in held)
    identity = spec.identity()
    for group, entry in spec.groups.items():
        if entry.within and group in free:
            raise SpecError(
                f"group {group!r} is nested in {', '.join(map(repr, entry.within))}: nested groups cannot be matched; "
                f"hold it with fix={group!r}",
                group=group,
            )
        if entry.within and not torch.equal(start[group], identity[group]):
            raise SpecError(f"init: group {group!r} is nested and must stay at the identity", group=group)
    return tuple(group for group in free if spec.groups[group].size not in (0, 1))


def scored_tensors(
    spec: PermutationSpec,
    params_a: Params,
    params_b: Params,
    tensor_weights: Mapping[str, float] | None,
    device: torch.device,
) -> dict[str, Scored]:
    """The tensors that count: real floating tensors of the spec, no buffers, tied ones once, weight > 0."""
    counted = [name for name in spec.axes if name not in spec.buffers and name not in spec.tied]
    for name in counted:
        if params_a[name].is_complex() or params_b[name].is_complex():
            raise InvalidParamsError(f"tensor {name!r} is complex; only real tensors can be matched", name)
    names = [name for name in counted if params_a[name].is_floating_point()]
    weights = dict.fromkeys(names, 1.0)
    for pattern, weight in (tensor_weights or {}).items():
        if not (0.0 <= float(weight) < float("inf")):
            raise ValueError(f"tensor_weights[{pattern!r}] must be a finite number >= 0, not {weight!r}")
        for name in matching_names(names, pattern, "tensor_weights", "scored tensor"):
            weights[name] = float(weight)
    return {
        name: Scored(name, _on(device, params_a[name]), _on(device, params_b[name]), weights[name])
        for name in names
        if weights[name] > 0.0
    }


def _on(device: torch.device, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor where the products run; one-byte floats, which torch cannot multiply, widened exactly."""
    tensor = tensor.detach().to(device)
    return tensor.float() if tensor.element_size() == 1 else tensor


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


def _parts(spec: PermutationSpec, group: str, tensors: Mapping[str, Scored]) -> tuple[Part, ...]:
    """The summands of a group's scores; shallow ones that depend on no other group are joined, by weight."""
    parts: list[Part] = []
    shallow: dict[float, list[Part]] = {}
    for place in group_places(spec, group):
        if place.tensor in tensors:
            scored = tensors[place.tensor]
            part = Part(place, scored.a, scored.b, scored.weight, place.depth > 1)
            alone = not part.dependencies and place.depth <= JOINED_DEPTH
            (shallow.setdefault(part.weight, []) if alone else parts).append(part)
    return (*(_joined(group, same) for same in shallow.values()), *parts)


def _joined(group: str, parts: Sequence[Part]) -> Part:
    """One part whose columns are those of all the parts: their unfolded matrices side by side."""
    if len(parts) == 1:
        return parts[0]
    a = torch.cat([unfold(part.a, part.place) for part in parts], dim=1)
    b = torch.cat([unfold(part.b, part.place) for part in parts], dim=1)
    size, depth = a.shape
    place = Place(
        group=group,
        tensor=parts[0].place.tensor,
        axis=0,
        cuts=(),
        layouts=(Atom(group), Fixed(depth)),
        group_axis=0,
        moving=(),
        size=size,
        depth=depth,
        others=(),
        quadratic=False,
        sizes={group: size},
    )
    return Part(place, a, b, parts[0].weight, any(part.is_matrix for part in parts))


def _precision(parts: Sequence[Part]) -> Precision:
    """float64 for a group that owns a tensor stored as float64, float32 otherwise."""
    wide = any(torch.float64 in (part.a.dtype, part.b.dtype) for part in parts)
    return "float64" if wide else "float32"
