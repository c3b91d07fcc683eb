"""Activation matching: units of B are lined up with the units of A that respond alike to the same inputs.

For each group, scores are second moments of the activations of A's units with B's, summed over the examples and the
places where the group shows (Li et al., *Convergent Learning*, arXiv:1511.07543; *Git Re-Basin*, arXiv:2209.04836,
section 3.1; Ito et al., arXiv:2402.04051, section 6). Only the moments are kept, no example.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import nn

from ..assignment import solve_assignment
from ..batches import check_batches, device_of, inputs_of, to_device
from ..errors import InvalidInputsError, InvalidParamsError, SpecError
from ..params import apply_permutations, distance, inner_product
from ..spec import PermutationSpec, check_params, check_permutations
from ..terms import full_precision
from .problem import Patterns, Permutations, matching_names
from .result import MatchResult
from .sites import Site, find_sites, given_sites, observed

Kind = Literal["correlation", "inner"]
KINDS: tuple[str, ...] = get_args(Kind)
_ROWS = 4096  # rows that are multiplied in float32 before they are added in float64


@dataclass(frozen=True)
class ActivationResult(MatchResult):
    """A matching whose ``objective`` and distances are those of weight matching at these permutations.

    ``likeness``: {group: mean score of its matched units}; for "correlation" with one site the mean correlation.
    ``sites``: {group: where it was observed}.
    """

    likeness: Mapping[str, float] = field(default_factory=dict)
    sites: Mapping[str, Sequence[Site]] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        mean = sum(self.likeness.values()) / max(1, len(self.likeness))
        return (
            f"ActivationResult({len(self.likeness)} groups, mean likeness {mean:.3g}, objective {self.objective:.8g})"
        )

    __repr__ = __str__


def activation_matching(
    spec: PermutationSpec,
    model_a: nn.Module,
    model_b: nn.Module,
    batches: Iterable[Any],
    kind: Kind = "correlation",
    init: Mapping[str, torch.Tensor] | None = None,
    fix: Patterns = (),
    only: Patterns | None = None,
    sites: Mapping[str, Sequence[str]] | None = None,
) -> ActivationResult:
    """Match units by their activations on data.

    Args:
        model_a, model_b: networks of one architecture; copies run in evaluation mode on their devices.
        batches: inputs, or pairs that begin with them; a model is called with the inputs as its one argument.
        kind: "correlation" (each unit's mean taken off, divided by its deviation; a constant unit scores 0) or "inner"
            (plain inner products, each site divided by the length of its activations, so that sites count alike).
        init: permutations of the groups that ``fix`` and ``only`` hold; identity where missing.
        fix, only: groups (wildcards) that stay, that may move.
        sites: {group: paths of modules whose output holds it} in place of what ``spec`` and modules tell.

    Returns:
        An :class:`ActivationResult`. Each group is matched on its own, so the optimum is exact and needs no descent;
        of nested groups, an outer pair scores the sum of its best inner assignments.

    Raises:
        SpecError: a group shows at no linear layer or convolution; name its places or hold it.
        InvalidInputsError, InvalidParamsError: the inputs do not fit, an activation is not finite (named).
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, not {kind!r}")
    check_batches(batches)
    params_a, params_b = model_a.state_dict(), model_b.state_dict()
    bound = check_params(spec, params_a, "model_a", strict=False)
    check_params(bound, params_b, "model_b", strict=False)
    start = check_permutations(bound, {**bound.identity(), **(init or {})}, "init")
    free = _free(bound, fix, only)
    places = {**find_sites(bound, model_a, free), **given_sites(bound, sites or {}, model_a)}
    places = {group: found for group, found in places.items() if group in free}
    _check_seen(bound, places)
    with torch.no_grad(), full_precision():
        moments = _gather(model_a, model_b, batches, {site for found in places.values() for site in found})
    scores = {group: _scores(group, found, moments, kind) for group, found in places.items() if found}
    permutations, likeness = _assign(bound, scores, start, free)
    return _result(bound, params_a, params_b, permutations, likeness, places)


def _free(spec: PermutationSpec, fix: Patterns, only: Patterns | None) -> list[str]:
    kept = matching_names(spec.groups, only, "only", "group") if only is not None else set(spec.groups)
    held = matching_names(spec.groups, fix, "fix", "group")
    return [group for group in spec.movable_groups if group in kept and group not in held and spec.sizes[group] > 1]


def _check_seen(spec: PermutationSpec, places: Mapping[str, Sequence[Site]]) -> None:
    """Every group shows somewhere, itself or through groups that are nested in it."""
    for group in places:
        inner = [name for name, entry in spec.groups.items() if group in entry.within]
        if not any(places.get(name) for name in (group, *inner)):
            raise SpecError(
                f"group {group!r} shows at no linear layer or convolution of the module; name its places with sites=, "
                f"or hold it with fix={group!r}",
                group=group,
            )


class _Moments:
    """Running sums over rows of two networks' units, float64: A^T B, and of each the sum and the squares."""

    def __init__(self) -> None:
        self.rows = 0
        self.product: torch.Tensor | None = None
        self.sums: list[torch.Tensor] = []
        self.squares: list[torch.Tensor] = []

    def add(self, a: torch.Tensor, b: torch.Tensor) -> None:
        """Rows (rows, units) of both."""
        for begin in range(0, len(a), _ROWS):
            one, two = a[begin : begin + _ROWS], b[begin : begin + _ROWS]
            product = (one.T @ two).double()
            wide = (one.double(), two.double())
            sums, squares = [t.sum(0) for t in wide], [t.square().sum(0) for t in wide]
            if self.product is None:
                self.product, self.sums, self.squares = product, sums, squares
            else:
                self.product += product
                self.sums = [x + y for x, y in zip(self.sums, sums, strict=True)]
                self.squares = [x + y for x, y in zip(self.squares, squares, strict=True)]
            self.rows += len(one)

    def scores(self, kind: str) -> torch.Tensor:
        """(units of A, units of B): correlations, or inner products with the lengths of both networks divided out."""
        assert self.product is not None
        if kind == "inner":
            return self.product / math.sqrt(math.prod(float(s.sum()) for s in self.squares) or 1.0)
        means = [s / self.rows for s in self.sums]
        centred = self.product / self.rows - means[0][:, None] * means[1][None, :]
        inverse = []
        for square, mean in zip(self.squares, means, strict=True):
            variance = square / self.rows - mean.square()
            alive = variance > 1e-12 * (square / self.rows)  # what is left of a constant is its rounding
            inverse.append(torch.where(alive, variance.clamp_min(1e-300).rsqrt(), 0.0))
        return centred * inverse[0][:, None] * inverse[1][None, :]


def _gather(model_a: nn.Module, model_b: nn.Module, batches: Iterable[Any], sites: set[Site]) -> dict[Site, _Moments]:
    moments = {site: _Moments() for site in sites}
    pair = [copy.deepcopy(model).eval() for model in (model_a, model_b)]
    devices = [device_of(model) for model in pair]
    with _watched(pair[0], sites) as seen_a, _watched(pair[1], sites) as seen_b:
        for batch in batches:
            inputs = inputs_of(batch)
            for model, device, seen in zip(pair, devices, (seen_a, seen_b), strict=True):
                seen.clear()
                try:
                    model(to_device(inputs, device))
                except (RuntimeError, TypeError, ValueError) as error:
                    raise InvalidInputsError(f"batches: the model cannot take the inputs: {error}") from error
            for site, sums in moments.items():
                for a, b in zip(seen_a.get(site, ()), seen_b.get(site, ()), strict=True):
                    sums.add(a, b.to(a.device))
    for site, sums in moments.items():
        if sums.product is None:
            raise InvalidInputsError(f"batches: {site.module!r} never ran, so {site.groups[-1]!r} was not observed")
        if not bool(torch.isfinite(sums.product).all()):
            raise InvalidParamsError(f"an activation at {site.module!r} ({site.side}) is not finite")
    return moments


@contextmanager
def _watched(model: nn.Module, sites: Iterable[Site]) -> Iterator[dict[Site, list[torch.Tensor]]]:
    """{site: what it showed, (rows, units) for each call} of the last forward pass."""
    seen: dict[Site, list[torch.Tensor]] = {}
    modules = dict(model.named_modules())
    handles = []
    for site in sites:

        def hook(_: nn.Module, args: tuple[Any, ...], output: Any, *, site: Site = site) -> None:
            seen.setdefault(site, []).append(observed(site, args, output).flatten(1))

        handles.append(modules[site.module].register_forward_hook(hook))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _scores(group: str, sites: Sequence[Site], moments: Mapping[Site, _Moments], kind: str) -> torch.Tensor:
    """Scores of all pairs of units, (outer ..., size, outer ..., size), summed over the sites."""
    total: torch.Tensor | None = None
    for site in sites:
        scores = moments[site].scores(kind).cpu().reshape(*site.unit_sizes, *site.unit_sizes)
        total = scores if total is None else total + scores
    assert total is not None, group
    return total


def _assign(
    spec: PermutationSpec, scores: Mapping[str, torch.Tensor], start: Permutations, free: Collection[str]
) -> tuple[Permutations, dict[str, float]]:
    """The best permutations, and the mean score of each group's matched units.

    Inner groups are solved first, for every pair of outer units; then the outer ones, by what their pairs are worth.
    Groups without scores of their own or of inner ones, and those that may not move, stay as in ``start``.
    """
    worth: dict[str, torch.Tensor] = {}  # of an outer group's pairs, what its inner groups add
    chosen: dict[str, torch.Tensor] = {}  # (outer ..., outer ..., size): inner columns of each pair
    inward = sorted(scores.keys() | {o for g in scores for o in spec.groups[g].within}, key=lambda g: -_depth(spec, g))
    for group in inward:
        entry, size, depth = spec.groups[group], spec.sizes[group], _depth(spec, group)
        outer = [spec.sizes[name] for name in entry.within]
        table = torch.zeros(*outer, size, *outer, size, dtype=torch.float64)
        for part in (scores.get(group), worth.get(group)):
            if part is not None:
                table = table + part
        pairs = table.movedim(depth, -2).reshape(-1, size, size)
        if group in free:
            columns = solve_assignment(pairs).columns
        else:  # row for row what A's outer unit has
            rows = start[group].reshape(*outer, *(1 for _ in outer), size)
            columns = rows.expand(*outer, *outer, size).reshape(-1, size)
        value = pairs.gather(2, columns.unsqueeze(-1)).sum((1, 2)).reshape((*outer, *outer))
        if group in free:
            chosen[group] = columns.reshape(*outer, *outer, size)
        if entry.within:
            parent = max(entry.within, key=lambda name: _depth(spec, name))
            worth[parent] = worth[parent] + value if parent in worth else value
    permutations = dict(start)
    likeness = {}
    for group in sorted(chosen, key=lambda g: _depth(spec, g)):
        permutations[group] = _along(spec, group, chosen[group], permutations)
        if group in scores:
            likeness[group] = _mean_likeness(spec, group, scores[group], permutations)
    return permutations, likeness


def _depth(spec: PermutationSpec, group: str) -> int:
    return len(spec.groups[group].within)


def _sources(
    spec: PermutationSpec, group: str, permutations: Permutations, grid: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """B's outer indices that stand where A's outer indices ``grid`` are."""
    within = spec.groups[group].within
    new = dict(zip(within, grid, strict=True))
    return [permutations[name][(*(new[o] for o in spec.groups[name].within), new[name])] for name in within]


def _along(spec: PermutationSpec, group: str, chosen: torch.Tensor, permutations: Permutations) -> torch.Tensor:
    """Of all pairs' inner assignments, those of the outer pairs that were matched."""
    outer = chosen.shape[: _depth(spec, group)]
    if not outer:
        return chosen
    grid = torch.meshgrid(*(torch.arange(size) for size in outer), indexing="ij")
    return chosen[(*grid, *_sources(spec, group, permutations, grid))]


def _mean_likeness(spec: PermutationSpec, group: str, scores: torch.Tensor, permutations: Permutations) -> float:
    own = torch.meshgrid(*map(torch.arange, permutations[group].shape), indexing="ij")
    sources = _sources(spec, group, permutations, own[:-1])
    return float(scores[(*own, *sources, permutations[group])].mean())


def _result(
    spec: PermutationSpec,
    params_a: Mapping[str, torch.Tensor],
    params_b: Mapping[str, torch.Tensor],
    permutations: Permutations,
    likeness: dict[str, float],
    sites: Mapping[str, Sequence[Site]],
) -> ActivationResult:
    aligned = apply_permutations(spec, permutations, params_b, strict=False)
    return ActivationResult(
        spec=spec,
        permutations=permutations,
        objective=inner_product(spec, params_a, aligned),
        gap=0.0,
        distance_before=distance(spec, params_a, params_b),
        distance_after=distance(spec, params_a, aligned),
        likeness=likeness,
        sites=sites,
    )
