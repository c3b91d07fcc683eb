"""Networks of one architecture and different widths: the units of the narrower one find places among the wider one's.

A unit whose weights are all zero, what it reads and what reads it, changes nothing. So both networks can be written at
the larger width of each group, with zero units behind their own, and still compute what they did. In this common frame
weight matching is the rectangular assignment: a zero unit is worth nothing to any other, so a step places each unit of
the narrower network on a unit of the wider one for the largest sum, and the units left over meet zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..errors import SpecError
from ..params import apply_permutations, interpolate
from ..spec import PermutationSpec, check_params
from ..spec.layout import Atom, Concat, Fixed, Layout, Product, atoms
from ..spec.places import group_places, unfold
from .problem import Params
from .result import MatchResult
from .weight_matching import weight_matching

SCALES = ("weight", "gamma", "scale")  # last parts of names of a norm's vector


@dataclass(frozen=True, eq=False)
class PartialResult:
    """Two networks of different widths in one frame.

    ``match``: of the frame, whose groups have the larger size of both (``match.spec``). ``params_a``, ``params_b``: the
    networks written in it; they compute what they did. ``partners``: for each plain group and each unit of A the unit
    of B that stands on it, int64, -1 for none. ``left_over_a``, ``left_over_b``: for each group, the share of the
    squared norm of that network's units that meet no unit of the other; a merge scales these down by its weight, which
    is what is lost.
    """

    match: MatchResult
    params_a: dict[str, torch.Tensor]
    params_b: dict[str, torch.Tensor]
    partners: dict[str, torch.Tensor]
    left_over_a: dict[str, float]
    left_over_b: dict[str, float]

    def apply(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """A and the aligned B, both in the frame."""
        return self.params_a, apply_permutations(self.match.spec, self.match.permutations, self.params_b)

    def merge(self, weight: float = 0.5) -> dict[str, torch.Tensor]:
        """(1 - weight) A + weight (aligned B), of the frame's size."""
        return interpolate(*self.apply(), weight)

    def __str__(self) -> str:
        worst = max([*self.left_over_a.values(), *self.left_over_b.values()], default=0.0)
        parts = [
            f"{len(self.partners)} groups",
            f"objective {self.match.objective:.8g}",
            f"at most {worst:.1%} left over",
        ]
        return f"PartialResult({', '.join(parts)})"

    __repr__ = __str__


def partial_matching(spec: PermutationSpec, params_a: Params, params_b: Params, **options: Any) -> PartialResult:
    """Match two networks of one architecture whose groups have different sizes.

    Either may be the wider one, group by group; of equal sizes it is :func:`~lmcfast.weight_matching`.

    Args:
        spec: of the architecture; the sizes of each network are read from its tensors.
        params_a, params_b: state dicts; they may differ in the sizes of plain groups alone. Not changed.
        options: passed to :func:`~lmcfast.weight_matching` (``method``, ``restarts``, ``fix``, ...). An ``init`` is
            of the frame.

    Raises as :func:`expand` and ``weight_matching`` do.
    """
    sizes = [group_sizes(spec, params, name) for params, name in ((params_a, "params_a"), (params_b, "params_b"))]
    frame = {group: max(size, sizes[1][group]) for group, size in sizes[0].items()}
    wide_a, wide_b = expand(spec, params_a, frame), expand(spec, params_b, frame)
    match = weight_matching(_unsized(spec), wide_a, wide_b, **options)
    aligned = match.apply(wide_b)
    partners, left_a, left_b = {}, {}, {}
    for group in match.spec.movable_groups:
        if match.spec.groups[group].within:
            continue
        count_a, count_b = sizes[0][group], sizes[1][group]
        source = match.permutations[group]
        placed = source < count_b
        partners[group] = torch.where(placed, source, -1)[:count_a]
        own = torch.arange(len(source)) < count_a
        left_a[group] = _share(match.spec, group, wide_a, own & ~placed)
        left_b[group] = _share(match.spec, group, aligned, placed & ~own)
    return PartialResult(match, wide_a, wide_b, partners, left_a, left_b)


def expand(spec: PermutationSpec, params: Params, sizes: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """The network with more units in some groups, all of whose weights are zero: it computes what it did.

    The new units come after the old ones; the running variance of a new one is 1.

    Args:
        spec: of the architecture.
        params: state dict; not changed.
        sizes: {group: size}, at least that of ``params``; groups that are not named keep theirs. Sizes in ``spec``
            count for nests alone.

    Raises ``SpecError`` naming the group where that cannot be: a smaller size; groups that are nested or have others
    nested in them (an attention's scale and a router's softmax know their number); a norm over the units of one
    example (a vector of scales without running statistics: LayerNorm, RMSNorm), whose mean would count the new ones.
    That no other operation of the module counts units (a mean over channels, a softmax) cannot be seen here.
    """
    if spec.stacks:
        raise SpecError(f"the spec has stacks ({next(iter(spec.stacks))}): networks with experts cannot be expanded")
    bound = check_params(_unsized(spec), params)
    for group in sizes:
        if group not in bound.groups:
            raise SpecError(f"sizes: the spec has no group {group!r}", group=group)
    grown = {group: size for group, size in sizes.items() if size != bound.sizes[group]}
    _check_growth(bound, grown)
    wide = {**bound.sizes, **grown}
    result = {}
    for name, tensor in params.items():
        result[name] = tensor.clone()
        if any(group in grown for layout in bound.axes.get(name, ()) for group in atoms(layout)):
            places = [positions(layout, bound.sizes, wide, name) for layout in bound.axes[name]]
            filling = 1 if name.rpartition(".")[2] == "running_var" else 0
            result[name] = tensor.new_full([len(place) for place in places], filling)
            target = torch.meshgrid(*(torch.nonzero(place >= 0).flatten() for place in places), indexing="ij")
            result[name][target] = tensor  # old positions keep their order
    return result


def positions(layout: Layout, small: Mapping[str, int], large: Mapping[str, int], tensor: str) -> torch.Tensor:
    """For each position of an axis at the large sizes, the one at the small sizes, increasing; -1 for a new one."""
    if isinstance(layout, Atom):
        place = torch.arange(large[layout.name])
        return torch.where(place < small[layout.name], place, -1)
    if isinstance(layout, Fixed):
        return torch.arange(layout.size or 0)
    if isinstance(layout, Product):
        found = torch.zeros(1, dtype=torch.int64)
        for part in layout.parts:
            inner = positions(part, small, large, tensor)
            length = int((inner >= 0).sum())
            both = (found[:, None] >= 0) & (inner[None] >= 0)
            found = torch.where(both, found[:, None] * length + inner[None], -1).flatten()
        return found
    if isinstance(layout, Concat):
        pieces, start = [], 0
        for part in layout.parts:
            inner = positions(part, small, large, tensor)
            pieces.append(torch.where(inner >= 0, inner + start, -1))
            start += int((inner >= 0).sum())
        return torch.cat(pieces)
    raise SpecError(f"tensor {tensor!r}: units of several groups lie in turn; it cannot be expanded", tensor=tensor)


def group_sizes(spec: PermutationSpec, params: Params, argument: str) -> dict[str, int]:
    return check_params(_unsized(spec), params, argument).sizes


def _unsized(spec: PermutationSpec) -> PermutationSpec:
    """The spec with the sizes of plain groups left to the tensors; those of a nest may have to be stated."""
    nest = {name for group in spec.groups.values() if group.within for name in (group.name, *group.within)}
    plain = {name for name in spec.uses if name not in nest}
    groups = {name: replace(group, size=None) if name in plain else group for name, group in spec.groups.items()}
    return replace(spec, groups=groups)


def _check_growth(spec: PermutationSpec, grown: Mapping[str, int]) -> None:
    outer = {name for group in spec.groups.values() for name in group.within}
    for group, size in grown.items():
        if size < spec.sizes[group]:
            raise SpecError(
                f"sizes: group {group!r} has {spec.sizes[group]} units, and {size} are asked for", group=group
            )
        if spec.groups[group].within or group in outer:
            raise SpecError(
                f"group {group!r} belongs to a nest: networks must have the same number of them", group=group
            )
        for name in spec.tensors_of(group):
            before, _, leaf = name.rpartition(".")
            statistics = f"{before}.running_mean" if before else "running_mean"
            if len(spec.axes[name]) == 1 and leaf in SCALES and statistics not in spec.axes:
                raise SpecError(
                    f"tensor {name!r} looks like the scale of a norm over group {group!r}, which would count new "
                    "units: the networks must have the same size there",
                    tensor=name,
                    group=group,
                )


def _share(spec: PermutationSpec, group: str, params: Params, units: torch.Tensor) -> float:
    """The share of these units in the squared norm of all of the group's; 0 where it is 0."""
    axes = {name: spec.axes[name] for name in spec.tensors_of(group) if name not in spec.buffers | set(spec.tied)}
    total = torch.zeros(len(units), dtype=torch.float64)
    for place in group_places(spec, group, axes):
        total += unfold(params[place.tensor].detach(), place).double().square().sum(1).cpu()
    return float(total[units].sum() / total.sum()) if float(total.sum()) > 0.0 else 0.0
