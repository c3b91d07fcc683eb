"""Tensors made of numbers: constant ones may be permuted at will, sequences not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx

from ..terms import Label
from .registry import rule

if TYPE_CHECKING:
    from ..derivation import Derivation


@rule("zeros ones full new_zeros new_ones new_full zeros_like ones_like full_like scalar_tensor", index_args=[0])
def constant(d: Derivation, node: fx.Node, *args: Any, **kwargs: Any) -> list[Label]:
    """The same number everywhere."""
    shape = d.shape(node)
    out: list[Label] = []
    for size in shape:
        out.append(d.free(size, out))
    d.set_even(node, range(len(shape)))
    return out


@rule("empty", "empty_like", "new_empty", "empty_strided", index_args=[0])
def empty(d: Derivation, node: fx.Node, *args: Any, **kwargs: Any) -> list[Label]:
    """Memory to be written: whatever comes decides."""
    out: list[Label] = []
    for size in d.shape(node):
        out.append(d.free(size, out))
    return out


@rule("arange linspace logspace eye tril_indices triu_indices rand randn randint randperm")
@rule("rand_like randn_like randint_like hann_window hamming_window", index_args=[0])
def sequence(d: Derivation, node: fx.Node, *args: Any, **kwargs: Any) -> list[Label]:
    """Numbers that differ from position to position."""
    return [d.fixed(size, "a constant") for size in d.shape(node)]


@rule(
    "_assert_tensor_metadata _assert_async _assert_scalar sym_constrain_range sym_constrain_range_for_size",
    index_args=[0],
)
def assertion(d: Derivation, node: fx.Node, *args: Any, **kwargs: Any) -> list[Label]:
    """Checks of shapes, types and bounds have no output, and nothing that moves can fail them."""
    return []
