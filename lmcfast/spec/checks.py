"""Checks of what callers hand in: state dicts against a spec, and settings of its groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..errors import InvalidParamsError, InvalidPermutationError, SpecError
from .binding import and_more
from .spec import PermutationSpec
from .stacks import members

Params = Mapping[str, torch.Tensor]


def check_params(
    spec: PermutationSpec, params: Params, argument: str = "params", strict: bool = True
) -> PermutationSpec:
    """Check that ``params`` is a state dict of the spec's network; returns the spec bound to its shapes.

    A tensor without an entry in the spec is an error unless it is 0-d, of an integer or bool dtype (a counter, a
    mask), or ``strict`` is false. ``InvalidParamsError`` and ``SpecError`` begin with ``argument`` and name the tensor.
    """
    check_mapping(params, argument)
    for name, tensor in params.items():
        if not isinstance(tensor, torch.Tensor):
            raise InvalidParamsError(f"{argument}: {name!r} is not a tensor but {type(tensor).__name__}", name)
    apart = next((name for name, k in spec.stacks.items() if all(part in params for part in members(name, k))), None)
    if apart is not None:
        raise InvalidParamsError(
            f"{argument}: the spec's tensor {apart!r} is a stack of tensors that stand one by one here, which this "
            "function does not take; lmcfast.spec.stacked(spec, params) puts them together",
            apart,
        )
    try:
        bound = spec.bind(params)
    except InvalidParamsError as error:
        raise InvalidParamsError(f"{argument}: {error}", error.tensor) from None
    except SpecError as error:
        raise SpecError(f"{argument}: {error}", error.tensor, error.group) from None
    if strict:
        extra = [name for name, tensor in params.items() if name not in spec.axes and not may_lack_entry(tensor)]
        if extra:
            raise InvalidParamsError(
                f"{argument}: tensor {extra[0]!r} has no entry in the spec{and_more(extra)}", extra[0]
            )
    return bound


def check_mapping(params: Any, argument: str = "params") -> None:
    """``InvalidParamsError`` for what is no state dict; to who hands in the module it says how to get it."""
    if not isinstance(params, Mapping):
        advice = "; pass module.state_dict()" if isinstance(params, torch.nn.Module) else ""
        raise InvalidParamsError(f"{argument}: a state dict is needed, not {type(params).__name__}{advice}")


def may_lack_entry(tensor: torch.Tensor) -> bool:
    """Whether a tensor needs no entry in a spec: 0-d, or a counter or mask (integer, bool)."""
    return tensor.ndim == 0 or not (tensor.dtype.is_floating_point or tensor.dtype.is_complex)


def check_finite(params: Params, argument: str = "params") -> None:
    """``InvalidParamsError`` naming the first tensor that holds NaN or an infinity, and how many more do."""
    bad = [name for name, tensor in params.items() if not _is_finite(tensor)]
    if bad:
        raise InvalidParamsError(f"{argument}: tensor {bad[0]!r} holds NaN or infinity{and_more(bad)}", bad[0])


def _is_finite(tensor: torch.Tensor) -> bool:
    if not (tensor.dtype.is_floating_point or tensor.dtype.is_complex):
        return True
    wide = tensor.float() if tensor.element_size() == 1 else tensor
    return bool(torch.isfinite(wide).all())


def check_permutations(
    spec: PermutationSpec, permutations: Mapping[str, torch.Tensor], argument: str = "permutations"
) -> dict[str, torch.Tensor]:
    """A setting of the bound spec as int64 CPU tensors, one for every group.

    Accepts anything that ``torch.as_tensor`` takes (numpy arrays, lists). A fixed group may be missing.
    ``InvalidPermutationError`` names a group that is missing, not in the spec, of the wrong shape or dtype, not a
    permutation, or fixed and yet moved.
    """
    for name in permutations:
        if name not in spec.groups:
            raise InvalidPermutationError(f"{argument}: the spec has no group {name!r}", name)
    checked = {}
    for name, group in spec.groups.items():
        shape = spec.shape_of(name)
        identity = torch.arange(shape[-1]).expand(shape)
        if name not in permutations:
            if not group.fixed:
                raise InvalidPermutationError(f"{argument}: group {name!r} has no permutation", name)
            checked[name] = identity.clone()
            continue
        index = torch.as_tensor(permutations[name])
        if index.dtype.is_floating_point or index.dtype.is_complex or index.dtype == torch.bool:
            raise InvalidPermutationError(f"{argument}: group {name!r} has dtype {index.dtype}, not integers", name)
        if tuple(index.shape) != shape:
            raise InvalidPermutationError(
                f"{argument}: group {name!r} has shape {tuple(index.shape)}, not {shape}", name
            )
        index = index.to("cpu", torch.int64)
        wrong = (index.sort(dim=-1).values != identity).any(dim=-1)
        if bool(wrong.any()):
            at = "" if index.ndim == 1 else f" at outer index {tuple(wrong.nonzero()[0].tolist())}"
            raise InvalidPermutationError(
                f"{argument}: group {name!r} is not a permutation of 0..{shape[-1] - 1}{at}", name
            )
        if group.fixed and not torch.equal(index, identity):
            raise InvalidPermutationError(f"{argument}: group {name!r} is fixed but its permutation moves it", name)
        checked[name] = index
    return checked
