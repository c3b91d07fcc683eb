"""Reductions and other symmetric functions along dimensions: the order of the entries does not matter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import fx

from ..aliases import operator_name
from ..terms import Label
from .arguments import dims_of, has_several_outputs
from .pointwise import pointwise
from .registry import Unsupported, rule

if TYPE_CHECKING:
    from ..derivation import Derivation

Dims = int | Sequence[int] | None


@rule("sum nansum mean nanmean prod amax amin logsumexp any all count_nonzero aminmax")
def reduction(d: Derivation, node: fx.Node, x: fx.Node, dim: Dims = None, keepdim: bool = False, **kwargs: Any) -> Any:
    """All dimensions are reduced where none are named."""
    return _reduced(d, node, x, dim, keepdim)


@rule("var", "std", "var_mean", "std_mean")
def variance(d: Derivation, node: fx.Node, x: fx.Node, *args: Any, **kwargs: Any) -> Any:
    """The first argument may be ``unbiased`` instead of dimensions, the second ``unbiased`` or ``correction``."""
    dims = args[0] if args and not isinstance(args[0], bool) else kwargs.get("dim")
    keep = args[2] if len(args) > 2 else kwargs.get("keepdim", False)
    return _reduced(d, node, x, dims, keep)


@rule("norm", "linalg_vector_norm")
def vector_norm(
    d: Derivation,
    node: fx.Node,
    x: fx.Node,
    order: Any = 2,
    dim: Dims = None,
    keepdim: bool = False,
    **kwargs: Any,
) -> Any:
    """``norm`` of a tensor is the vector norm over all named dimensions."""
    return _reduced(d, node, x, dim, keepdim)


def _reduced(d: Derivation, node: fx.Node, x: fx.Node, dim: Dims, keep: bool) -> Any:
    labels = d.of(x)
    out = d.reduce(labels, dims_of(dim, len(labels)), keep)
    return [list(out) for _ in node.meta["val"]] if has_several_outputs(node) else out


@rule("max", "min")
def extremum(d: Derivation, node: fx.Node, x: fx.Node, dim: Any = None, keepdim: bool = False) -> Any:
    """Of two tensors, of all entries, or along a dimension together with where it is."""
    if isinstance(dim, fx.Node):
        return pointwise(d, node, x, dim)
    if dim is None:
        return _reduced(d, node, x, None, False)
    return _value_and_index(d, node, x, dim, keepdim)


@rule("median", "nanmedian", "mode")
def median(d: Derivation, node: fx.Node, x: fx.Node, dim: int | None = None, keepdim: bool = False) -> Any:
    """Of all entries, or along a dimension together with where it is."""
    if not has_several_outputs(node):
        return _reduced(d, node, x, None, False)
    return _value_and_index(d, node, x, -1 if dim is None else dim, keepdim)


@rule("kthvalue")
def kth_value(d: Derivation, node: fx.Node, x: fx.Node, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """The k-th smallest entry, and where it is."""
    return _value_and_index(d, node, x, dim, keepdim)


def _value_and_index(d: Derivation, node: fx.Node, x: fx.Node, dim: int, keep: bool) -> list[list[Label]]:
    labels = d.of(x)
    dim %= len(labels)
    d.set_index_values(node, labels[dim], output=1)
    out = d.reduce(labels, [dim], keep)
    return [out, list(out)]


@rule("argmax", "argmin")
def arg_extremum(
    d: Derivation, node: fx.Node, x: fx.Node, dim: int | None = None, keepdim: bool = False
) -> list[Label]:
    """Where the extremum is: an index into the dimension."""
    labels = d.of(x)
    if dim is None:
        for label in labels:
            d.fix(label)
    else:
        d.set_index_values(node, labels[dim % len(labels)])
    return d.reduce(labels, dims_of(dim, len(labels)), keepdim)


@rule("topk")
def topk(d: Derivation, node: fx.Node, x: fx.Node, k: int, dim: int = -1, *flags: bool) -> list[list[Label]]:
    """The largest entries by rank, and where they are."""
    return ranked(d, node, d.of(x), dim, k)


def ranked(d: Derivation, node: fx.Node, labels: list[Label], dim: int, count: int) -> list[list[Label]]:
    """Labels of values ordered by size and of their indices: the order of the entries no longer matters."""
    dim %= len(labels)
    d.set_index_values(node, labels[dim], output=1)
    out = d.reduce(labels, [dim], keep=True)
    out[dim] = d.fixed(count, "ranks")
    return [out, list(out)]


@rule("softmax log_softmax _softmax _log_softmax softmin")
def softmax(d: Derivation, node: fx.Node, x: fx.Node, dim: int, *args: Any, **kwargs: Any) -> list[Label]:
    """Normalized by a sum; every entry stays where it is."""
    labels = d.of(x)
    d.reduce(labels, [dim % len(labels)], keep=True)
    return labels


@rule("cosine_similarity")
def cosine_similarity(d: Derivation, node: fx.Node, a: fx.Node, b: fx.Node, dim: int = 1, *args: Any) -> list[Label]:
    """An inner product of unit vectors along a dimension."""
    labels = d.broadcast(d.of(a), d.of(b))
    return d.reduce(labels, [dim % len(labels)], keep=False)


@rule("linalg_norm")
def linalg_norm(
    d: Derivation, node: fx.Node, x: fx.Node, order: Any = None, dim: Dims = None, keepdim: bool = False, **kwargs: Any
) -> Any:
    """A vector norm; matrix norms other than Frobenius' are not covered."""
    rank = len(d.shape(x))
    vector = isinstance(dim, int) or (dim is not None and len(dim) == 1) or (dim is None and rank == 1)
    if not vector and order is not None:
        raise Unsupported(f"{operator_name(node)} of a matrix with ord={order!r}")
    return _reduced(d, node, x, dim, keepdim)
