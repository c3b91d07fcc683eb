"""Views and copies that change the shape: labels are regrouped, moved, or repeated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from ..aliases import operator_name
from ..terms import ONE, Label
from .registry import Unsupported, rule

if TYPE_CHECKING:
    from ..derivation import Derivation


@rule("view reshape _unsafe_view flatten unflatten squeeze unsqueeze view_as reshape_as ravel", index_args=[0, 1])
def view(d: Derivation, node: fx.Node, x: fx.Node, *args: Any, **kwargs: Any) -> list[Label]:
    """The same entries in the same order."""
    if args and isinstance(args[0], torch.dtype):
        raise Unsupported("the memory read as another type")
    d.pass_index_values(x, node)
    if d.shape(node) == d.shape(x):
        d.pass_values(x, node)
    return d.reshape(d.of(x), d.shape(node))


@rule("permute", index_args=[0])
def permute(d: Derivation, node: fx.Node, x: fx.Node, dims: Sequence[int]) -> list[Label]:
    """Dimensions in another order."""
    return _reordered(d, node, x, [dim % len(dims) for dim in dims])


@rule("transpose", "swapaxes", "swapdims", "t", "adjoint", "mT", "mH", "matrix_H", index_args=[0])
def transpose(d: Derivation, node: fx.Node, x: fx.Node, first: int = -2, second: int = -1) -> list[Label]:
    """Two dimensions exchanged, the last ones if none are named."""
    rank = len(d.shape(x))
    order = list(range(rank))
    if rank > 1:
        order[first], order[second] = order[second], order[first]
    return _reordered(d, node, x, order)


@rule("numpy_T", index_args=[0])
def numpy_transpose(d: Derivation, node: fx.Node, x: fx.Node) -> list[Label]:
    """All dimensions in reverse."""
    return _reordered(d, node, x, list(range(len(d.shape(x))))[::-1])


@rule("movedim", "moveaxis", index_args=[0])
def movedim(d: Derivation, node: fx.Node, x: fx.Node, source: Any, destination: Any) -> list[Label]:
    """Dimensions moved; the rest keep their order."""
    rank = len(d.shape(x))
    numbered = torch.empty(tuple(range(rank)), device="meta")  # a tensor whose shape numbers its dimensions
    return _reordered(d, node, x, list(numbered.movedim(source, destination).shape))


def _reordered(d: Derivation, node: fx.Node, x: fx.Node, order: Sequence[int]) -> list[Label]:
    d.pass_index_values(x, node)
    labels, even = d.of(x), d.even_dims(x)
    d.set_even(node, [k for k, dim in enumerate(order) if dim in even])
    return [labels[dim] for dim in order]


@rule("expand", "broadcast_to", "expand_as", index_args=[0, 1])
def expand(d: Derivation, node: fx.Node, x: fx.Node, *args: Any, **kwargs: Any) -> list[Label]:
    """New dimensions along which the tensor is constant."""
    d.pass_index_values(x, node)
    shape = d.shape(node)
    lead = len(shape) - len(d.shape(x))
    labels = [ONE] * lead + d.of(x)
    new = [k for k, size in enumerate(shape) if d.size(labels[k]) != size]
    out: list[Label] = []
    for k, size in enumerate(shape):
        out.append(d.free(size, out + labels[k + 1 :]) if k in new else labels[k])
    d.set_even(node, [*new, *(k + lead for k in d.even_dims(x))])
    return out


@rule("repeat", "tile")
def repeat(d: Derivation, node: fx.Node, x: fx.Node, counts: Sequence[int]) -> list[Label]:
    """The whole tensor again and again: copies of a dimension are blocks in any order."""
    counts = [1] * (len(d.shape(x)) - len(counts)) + list(counts)
    labels = [ONE] * (len(counts) - len(d.shape(x))) + d.of(x)
    out = []
    for label, count in zip(labels, counts, strict=True):
        out.append(d.product(d.free(count, labels), label))
    return out


@rule("repeat_interleave")
def repeat_interleave(
    d: Derivation, node: fx.Node, x: fx.Node, count: Any, dim: int | None = None, **kwargs: Any
) -> list[Label]:
    """Each entry so many times in a row."""
    if not isinstance(count, int):
        raise Unsupported("repeats that differ")
    labels = d.of(x)
    if dim is None:
        labels, dim = [d.product(*labels)], 0
    dim %= len(labels)
    copies = d.product(labels[dim], d.free(count, labels))
    return [*labels[:dim], copies, *labels[dim + 1 :]]


@rule("diagonal")
def diagonal(d: Derivation, node: fx.Node, x: fx.Node, offset: int = 0, first: int = 0, second: int = 1) -> list[Label]:
    """Two dimensions that must be permuted alike become one, the last."""
    labels = d.of(x)
    first, second = first % len(labels), second % len(labels)
    if offset or d.size(labels[first]) != d.size(labels[second]):
        raise Unsupported("a diagonal beside the main one")
    d.unify(labels[first], labels[second])
    return [*(label for k, label in enumerate(labels) if k not in (first, second)), labels[first]]


@rule("diag_embed")
def diag_embed(
    d: Derivation, node: fx.Node, x: fx.Node, offset: int = 0, first: int = -2, second: int = -1
) -> list[Label]:
    """The last dimension twice, zero off the diagonal."""
    labels = d.of(x)
    if offset or (first, second) != (-2, -1):
        raise Unsupported("a diagonal beside the main one")
    return [*labels, labels[-1]]


@rule("view_as_complex")
def view_as_complex(d: Derivation, node: fx.Node, x: fx.Node) -> list[Label]:
    """Pairs of the last dimension become one number: real part first."""
    labels = d.of(x)
    d.fix(labels[-1], "real and imaginary part")
    d.contract(labels[-1], [], labels[:-1])
    return labels[:-1]


@rule("view_as_real")
def view_as_real(d: Derivation, node: fx.Node, x: fx.Node) -> list[Label]:
    """A last dimension for the real and the imaginary part."""
    return [*d.of(x), d.fixed(2, "real and imaginary part")]


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(d: Derivation, node: fx.Node, x: fx.Node, groups: int) -> list[Label]:
    """Blocks of channels read across."""
    labels = d.of(x)
    block, inner = d.split(labels[1], groups)
    return [labels[0], d.product(inner, block), *labels[2:]]


@rule("pixel_shuffle", "pixel_unshuffle")
def pixel_shuffle(d: Derivation, node: fx.Node, x: fx.Node, factor: int) -> list[Label]:
    """Channels ``c r r`` to places ``h r`` and ``w r``, and back."""
    *batch, channels, height, width = d.of(x)
    product = d.product
    if operator_name(node) == "pixel_shuffle":
        rest, column = d.split(channels, d.size(channels) // factor)
        channel, row = d.split(rest, d.size(rest) // factor)
        return [*batch, channel, product(height, row), product(width, column)]
    high, row = d.split(height, d.size(height) // factor)
    wide, column = d.split(width, d.size(width) // factor)
    return [*batch, product(channels, row, column), high, wide]
