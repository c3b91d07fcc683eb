"""Derivation of specs from traced modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ...errors import SpecError
from ..spec import PermutationSpec
from .derived import derived
from .tracing import trace


def derive_spec(
    module: nn.Module,
    example_inputs: Any,
    kwargs: Mapping[str, Any] | None = None,
    outputs: Callable[[Any], Any] | None = None,
    strict: bool = False,
) -> PermutationSpec:
    """The spec of any module: which axes of its tensors may be permuted together without changing the output.

    The forward pass is traced with ``torch.export`` in eval mode; no weights are needed (a module on the meta device
    is enough) and no values are computed.

    ``example_inputs``: a tensor, or a tuple of the positional arguments; ``kwargs``: the keyword arguments.
    ``outputs``: takes from the module's output what must not change (default: ``.logits`` if there is one, else all).
    ``strict``: operators that aren't understood are an error; without it they fix all axes that meet in them, which is
    always right but may lose freedom. ``spec.report()`` tells what moves, what stays fixed and why.

    The spec holds for the branches that the example inputs run through. ``verify_spec`` proves it on values.

    ``InvalidInputsError``: the module can't take the example inputs. ``SpecError``: it can't be exported, since its
    operators depend on values; or, with ``strict``, the operators that aren't understood.
    """
    derivation, spec = derived(trace(module, example_inputs, kwargs, outputs))
    if strict and derivation.unsupported:
        listed = [f"{name} ({count}x)" for name, count in derivation.unsupported.most_common()]
        more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
        raise SpecError(f"operators that the derivation does not understand: {', '.join(listed[:5])}{more}")
    return spec


__all__ = ["derive_spec"]
