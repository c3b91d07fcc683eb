"""The scores of one group: how alike each unit of A is to each unit of B, all other groups held."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch

from ..errors import SpecError
from ..terms import PRECISIONS, Precision, Term, accumulate
from .checks import check_params, check_permutations
from .places import Place, group_places, unfold, unfold_permuted
from .stacks import stacked

if TYPE_CHECKING:
    from .spec import PermutationSpec

Params = Mapping[str, torch.Tensor]


def similarity(
    spec: PermutationSpec,
    group: str,
    params_a: Params,
    params_b: Params,
    permutations: Mapping[str, torch.Tensor] | None = None,
    precision: Precision = "float32",
) -> torch.Tensor:
    """The score matrix of a group, (size, size): rows are units of A, columns units of B as stored.

    The sum over the group's places of unfold(A) . unfold(B with its other axes permuted)^T (Git Re-Basin,
    Algorithm 1; for an MLP S_l = W_l^a P_{l-1} (W_l^b)^T + (W_{l+1}^a)^T P_{l+1} W_{l+1}^b + b_l^a
    (b_l^b)^T). So ``solve_assignment(scores).columns`` is the permutation p of the group with which B[p] fits
    A best. Buffers are left out, tied tensors count once; integer tensors do not count.

    ``permutations``: of the other groups, identity where missing; the group's own moves nothing, unless the
    group stands on two axes of one tensor: then the scores are the linearisation at its permutation.
    ``precision``: "float32" or "float64", of products and result; float64 where the group owns a float64
    tensor. Raises ``SpecError`` for an unknown or nested group, ``InvalidParamsError`` and
    ``InvalidPermutationError`` for what does not fit the spec.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(map(repr, PRECISIONS))}, not {precision!r}")
    if group not in spec.groups:
        raise SpecError(f"the spec has no group {group!r}; it has {', '.join(map(repr, spec.groups))}", group=group)
    params_a, params_b = stacked(spec, params_a), stacked(spec, params_b)
    bound = check_params(spec, params_a, "params_a", strict=False)
    check_params(bound, params_b, "params_b", strict=False)
    setting = _setting(bound, group, permutations or {})
    n = bound.sizes[group]
    scores: torch.Tensor | None = None
    with torch.no_grad():
        for place, precision_here in _scored_places(bound, group, params_a, params_b, precision):
            a = unfold(params_a[place.tensor], place)
            b = unfold_permuted(params_b[place.tensor], place, setting)
            scores = accumulate([Term(a, b)], n, precision_here, out=scores)
    return accumulate([], n, precision) if scores is None else scores


def _scored_places(
    spec: PermutationSpec, group: str, params_a: Params, params_b: Params, precision: Precision
) -> Iterator[tuple[Place, Precision]]:
    """The places that count, each with the precision of the whole sum."""
    places = [place for place in group_places(spec, group) if params_a[place.tensor].is_floating_point()]
    stored = {params[place.tensor].dtype for place in places for params in (params_a, params_b)}
    for place in places:
        yield place, "float64" if torch.float64 in stored else precision


def _setting(spec: PermutationSpec, group: str, permutations: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All groups' permutations, checked; ``SpecError`` where a nested group would have to be scored or moved."""
    identity = spec.identity()
    setting = check_permutations(spec, {**identity, **permutations})
    for name, entry in spec.groups.items():
        if entry.within and (name == group or not torch.equal(setting[name], identity[name])):
            raise SpecError(
                f"group {name!r} is nested in {', '.join(map(repr, entry.within))}: nested groups are not scored, and "
                "must stay at the identity",
                group=name,
            )
    return setting
