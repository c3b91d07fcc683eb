"""State dicts under a spec: moved, joined, compared."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import replace

import torch

from .errors import InvalidParamsError
from .spec.binding import and_more
from .spec.checks import check_finite, check_mapping, check_params, check_permutations
from .spec.gather import permute_tensor
from .spec.spec import STATISTICS, PermutationSpec
from .spec.stacks import stacked, unstacked

__all__ = [
    "apply_permutations",
    "check_finite",
    "check_params",
    "check_permutations",
    "compose_permutations",
    "distance",
    "inner_product",
    "interpolate",
    "invert_permutations",
]

Params = Mapping[str, torch.Tensor]
Setting = Mapping[str, torch.Tensor]


def apply_permutations(
    spec: PermutationSpec, permutations: Setting, params: Params, strict: bool = True
) -> dict[str, torch.Tensor]:
    """The state dict with every group moved: ``new[i] = old[p[i]]`` along each of its axes.

    Every key of ``params`` is copied, in its order, dtype and device; names that shared their storage share the new
    tensor. A tensor without an entry in the spec is an error unless it is 0-d, an integer or bool buffer, or ``strict``
    is false; it is then copied as it is. Raises ``InvalidParamsError`` or ``SpecError`` (the tensor's name) and
    ``InvalidPermutationError`` (the group's name).
    """
    if spec.stacks:
        whole = stacked(spec, params)
        single = unstacked(spec, apply_permutations(replace(spec, stacks={}), permutations, whole, strict))
        return {name: single[name].clone() for name in params}  # of their own: parts of one tensor share its memory
    bound = check_params(spec, params, strict=strict)
    setting = check_permutations(bound, permutations)
    result: dict[str, torch.Tensor] = {}
    made: dict[Hashable, torch.Tensor] = {}
    for name, tensor in params.items():
        key = (_place(tensor), bound.axes.get(name)) if _place(tensor) else name
        if key not in made:
            moved = permute_tensor(bound, name, tensor, setting) if name in bound.axes else tensor
            made[key] = tensor.clone() if moved is tensor else moved
        result[name] = made[key]
    return result


def _place(tensor: torch.Tensor) -> Hashable:
    """What two tensors have in common that are one in memory; None for a tensor without memory."""
    if tensor.numel() == 0 or tensor.device.type == "meta":
        return None
    return tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def invert_permutations(spec: PermutationSpec, permutations: Setting) -> dict[str, torch.Tensor]:
    """The setting that undoes ``permutations``. The spec must be bound.

    Nested groups: with ``q`` the inverse of the outer ``p``, ``inner'[p[k]] = argsort(inner[k])``: the inner inverse is
    filed under the outer index where its units come to lie.
    """
    setting = check_permutations(spec, permutations)
    inverse = {}
    for name, index in setting.items():
        outer = [part.unsqueeze(-1) for part in outer_sources(spec, name, setting)]
        identity = torch.arange(index.shape[-1]).expand_as(index)
        result = torch.empty_like(index)
        result[(*outer, index)] = identity
        inverse[name] = result
    return inverse


def compose_permutations(spec: PermutationSpec, first: Setting, second: Setting) -> dict[str, torch.Tensor]:
    """The setting that does ``first`` and then ``second``. The spec must be bound.

    ``apply(compose(first, second), x) == apply(second, apply(first, x))``: ``first[second[i]]`` for a plain group; for
    a nested one the row of ``first`` is that of the outer index from which ``second`` takes the units.
    """
    one = check_permutations(spec, first, "first")
    two = check_permutations(spec, second, "second")
    composed = {}
    for name, index in two.items():
        outer = [part.unsqueeze(-1) for part in outer_sources(spec, name, two)]
        composed[name] = one[name][(*outer, index)]
    return composed


def outer_sources(spec: PermutationSpec, name: str, setting: Setting) -> list[torch.Tensor]:
    """For each new outer index of a nested group, the old index of each outer group: shapes ``(sizes of within)``."""
    within = spec.groups[name].within
    shape = spec.shape_of(name)[:-1]
    new = dict(zip(within, torch.meshgrid(*map(torch.arange, shape), indexing="ij"), strict=True)) if within else {}
    sources = []
    for outer in within:
        around = [new[further] for further in spec.groups[outer].within]
        sources.append(setting[outer][(*around, new[outer])])
    return sources


def interpolate(params_a: Params, params_b: Params, weight: float = 0.5) -> dict[str, torch.Tensor]:
    """``(1 - weight) a + weight b`` for every tensor, rounded once to its dtype.

    Computed in float32 for dtypes narrower than that, else in float64 (complex128); a weight of 0 or 1 gives copies. A
    weight outside [0, 1] extrapolates. Integer and bool tensors are taken from ``params_a``; where they differ, a
    warning names them (BatchNorm's num_batches_tracked may differ silently). Keys, shapes and dtypes must agree:
    ``InvalidParamsError`` names the tensor. Names that share their storage in both share the result.
    """
    if not isinstance(weight, int | float) or not math.isfinite(weight):
        raise ValueError(f"weight: a finite number is needed, not {weight!r}")
    _check_alike(params_a, params_b)
    result: dict[str, torch.Tensor] = {}
    made: dict[Hashable, torch.Tensor] = {}
    differing = []
    for name, a in params_a.items():
        b = params_b[name]
        places = (_place(a), _place(b))
        key: Hashable = places if all(places) else name
        if key not in made:
            if a.dtype.is_floating_point or a.dtype.is_complex:
                made[key] = _mix(a, b, weight)
            else:
                made[key] = a.clone()
                if not name.endswith("num_batches_tracked") and not torch.equal(a, b.to(a.device)):
                    differing.append(name)
        result[name] = made[key]
    if differing:
        warnings.warn(
            f"integer or bool tensors differ and were taken from params_a: {', '.join(differing)}", stacklevel=2
        )
    return result


def _mix(a: torch.Tensor, b: torch.Tensor, weight: float) -> torch.Tensor:
    if weight == 0:
        return a.clone()
    if weight == 1:
        return b.to(a.device, copy=True)
    if a.dtype.is_complex:
        wide = torch.complex128
    else:
        wide = torch.float32 if a.element_size() < 4 else torch.float64
    mixed = a.to(wide) * (1.0 - weight)
    mixed = torch.add(mixed, b.to(a.device, wide), alpha=weight)
    return mixed.to(a.dtype)


def _check_alike(params_a: Params, params_b: Params) -> None:
    check_mapping(params_a, "params_a")
    check_mapping(params_b, "params_b")
    for here, there, side, other in ((params_a, params_b, "a", "b"), (params_b, params_a, "b", "a")):
        missing = [name for name in here if name not in there]
        if missing:
            raise InvalidParamsError(
                f"tensor {missing[0]!r} is in params_{side} but not in params_{other}{and_more(missing)}", missing[0]
            )
    for name, a in params_a.items():
        b = params_b[name]
        if a.shape != b.shape:
            raise InvalidParamsError(
                f"tensor {name!r} has shape {tuple(a.shape)} in params_a and {tuple(b.shape)} in params_b", name
            )
        if a.dtype != b.dtype:
            raise InvalidParamsError(f"tensor {name!r} is {a.dtype} in params_a and {b.dtype} in params_b", name)


def distance(spec: PermutationSpec | None, params_a: Params, params_b: Params | None = None) -> float:
    """L2 distance of two state dicts, in float64: ``distance(spec, a, b)``, or ``distance(None, a, b)`` without a spec.

    With a spec: over its tensors, without buffers (BatchNorm statistics), tied tensors once. Without: over all floating
    tensors except those named running_mean or running_var, tensors that are one in memory once.
    ``TypeError`` where the spec is left out.
    """
    if params_b is None or not (spec is None or isinstance(spec, PermutationSpec)):
        raise TypeError(
            "distance takes a spec, then two state dicts: distance(spec, params_a, params_b); without a spec, "
            "distance(None, params_a, params_b)"
        )
    return math.sqrt(math.fsum(float((a - b).abs().square().sum()) for a, b in _counted(spec, params_a, params_b)))


def inner_product(spec: PermutationSpec | None, params_a: Params, params_b: Params) -> float:
    """<A, B> over the tensors that :func:`distance` counts, in float64; of complex tensors the real part."""
    return math.fsum(float((a * b.conj()).real.sum()) for a, b in _counted(spec, params_a, params_b))


def _counted(
    spec: PermutationSpec | None, params_a: Params, params_b: Params
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The pairs of tensors that count, wide."""
    if spec is not None:
        params_a, params_b = stacked(spec, params_a), stacked(spec, params_b)
        check_params(spec, params_a, "params_a", strict=False)
        check_params(spec, params_b, "params_b", strict=False)
        names = [name for name in spec.axes if name not in spec.buffers and name not in spec.tied]
        params_a, params_b = ({name: params[name] for name in names} for params in (params_a, params_b))
    _check_alike(params_a, params_b)
    seen: set[Hashable] = set()
    for name, a in params_a.items():
        counted = a.dtype.is_floating_point or a.dtype.is_complex
        places = (_place(a), _place(params_b[name]))
        if not counted or (spec is None and name.rpartition(".")[2] in STATISTICS) or places in seen:
            continue
        if all(places):
            seen.add(places)
        wide = torch.complex128 if a.dtype.is_complex else torch.float64
        yield a.detach().to(wide), params_b[name].detach().to(a.device, wide)
