"""Operators on windows of positions: pooling, interpolation, unfolding. Positions keep their place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from ..aliases import operator_name
from ..terms import Label
from .arguments import has_several_outputs, per_dim
from .registry import Labeled, Unsupported, rule

if TYPE_CHECKING:
    from ..derivation import Derivation

_WHY = "positions of a window"

_POOLING = """max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices
    avg_pool1d avg_pool2d avg_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d
    upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa reflection_pad1d reflection_pad2d reflection_pad3d
    replication_pad1d replication_pad2d replication_pad3d"""
_ADAPTIVE = """adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d"""


@rule(_POOLING)
def pooling(d: Derivation, node: fx.Node, x: fx.Node, *args: Any, **kwargs: Any) -> Labeled:
    """The last one, two or three dimensions (the digit in the name) are fixed and have new positions."""
    spatial = _spatial_count(node)
    return _for_each_output(node, _windows(d, node, d.of(x), range(-spatial, 0)))


@rule(_ADAPTIVE)
def adaptive_pooling(d: Derivation, node: fx.Node, x: fx.Node, size: Any) -> Labeled:
    """A dimension pooled to one position is a mean or maximum over all of it, in any order."""
    labels, spatial = d.of(x), _spatial_count(node)
    sizes = per_dim(size, spatial)
    gone = [k - spatial for k in range(spatial) if sizes[k] == 1 and not has_several_outputs(node)]
    labels = d.reduce(labels, [len(labels) + k for k in gone], keep=True)
    rest = [k for k in range(-spatial, 0) if k not in gone]
    return _for_each_output(node, _windows(d, node, labels, rest))


def _spatial_count(node: fx.Node) -> int:
    return next(int(c) for c in operator_name(node) if c in "123")


def _windows(d: Derivation, node: fx.Node, labels: Sequence[Label], dims: Sequence[int]) -> list[Label]:
    value = node.meta["val"]
    shape = (value[0] if isinstance(value, list | tuple) else value).shape
    found = list(labels)
    for dim in dims:
        d.fix(found[dim], _WHY)
        found[dim] = d.fixed(shape[dim], _WHY)
    for dim in dims:
        d.contract(labels[dim], [], found)
    return found


def _for_each_output(node: fx.Node, labels: list[Label]) -> Labeled:
    if not has_several_outputs(node):
        return labels
    return [list(labels) for _ in node.meta["val"]]


@rule("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
def grid_sampler(d: Derivation, node: fx.Node, x: fx.Node, grid: fx.Node, *args: Any) -> list[Label]:
    """Input ``(N, C, *places)`` read at ``grid`` ``(N, *out places, coordinates)``."""
    labels, points = d.of(x), d.of(grid)
    d.unify(labels[0], points[0])
    out = [*labels[:2], *points[1:-1]]
    for label in (*labels[2:], points[-1]):
        d.fix(label, _WHY)
        d.contract(label, [], out)
    return out


@rule("unfold")
def unfold(d: Derivation, node: fx.Node, x: fx.Node, dim: int, size: int, step: int) -> list[Label]:
    """Windows along one dimension, their positions in a new last dimension; a split if they tile it."""
    labels = d.of(x)
    if not labels:
        raise Unsupported("a tensor without dimensions")
    dim %= len(labels)
    length = d.size(labels[dim])
    if size == step and length % size == 0:
        windows, places = d.split(labels[dim], length // size)
        return [*labels[:dim], windows, *labels[dim + 1 :], places]
    d.fix(labels[dim], _WHY)
    shape = d.shape(node)
    out = [*labels[:dim], d.fixed(shape[dim], _WHY), *labels[dim + 1 :], d.fixed(shape[-1], _WHY)]
    d.contract(labels[dim], [], out)
    return out


@rule("im2col")
def im2col(d: Derivation, node: fx.Node, x: fx.Node, kernel: Any, *args: Any) -> list[Label]:
    """``(*N, C, H, W)`` to ``(*N, C * kernel, windows)``."""
    labels = d.of(x)
    window = d.fixed(math.prod(per_dim(kernel, 2)), _WHY)
    out = [*labels[:-3], d.product(labels[-3], window), d.fixed(d.shape(node)[-1], _WHY)]
    for place in labels[-2:]:
        d.fix(place, _WHY)
        d.contract(place, [], out)
    return out


@rule("col2im")
def col2im(d: Derivation, node: fx.Node, x: fx.Node, size: Any, kernel: Any, *args: Any) -> list[Label]:
    """``(*N, C * kernel, windows)`` to ``(*N, C, H, W)``: overlapping windows are added."""
    labels = d.of(x)
    channels, window = d.split(labels[-2], d.size(labels[-2]) // math.prod(per_dim(kernel, 2)))
    out = [*labels[:-2], channels, *(d.fixed(n, _WHY) for n in d.shape(node)[-2:])]
    for label in (window, labels[-1]):
        d.fix(label, _WHY)
        d.contract(label, [], out)
    return out


@rule("as_strided")
def as_strided(
    d: Derivation, node: fx.Node, x: fx.Node, size: Sequence[int], stride: Sequence[int], offset: int | None = None
) -> list[Label]:
    """Strides that nest without overlap are a view, a cut and a permutation of the contiguous tensor."""
    value: torch.Tensor = x.meta["val"]
    whole = value.untyped_storage().nbytes() == value.numel() * value.element_size()
    if not (value.is_contiguous() and whole and value.storage_offset() == 0) or value.numel() == 0:
        raise Unsupported("a tensor that is itself a view")
    order = sorted((k for k, n in enumerate(size) if n > 1 and stride[k] > 0), key=lambda k: -stride[k])
    rest = d.product(*d.of(x))
    start = offset or 0
    found: dict[int, Label] = {}
    dims: list[Label] = []
    for k in order:
        length, step = d.size(rest), stride[k]
        first, start = divmod(start, step)
        if length % step or (first + size[k]) * step > length:
            raise Unsupported("strides that overlap or don't divide")
        outer, rest = d.split(rest, length // step)
        # Cut this dimension; the ones cut before and the rest follow as cases over it.
        cut = [*dims, outer, rest]
        sizes = [first, size[k], length // step - first - size[k]]
        cut = d.take(cut, len(dims), sizes)[1]
        dims, rest = cut[:-1], cut[-1]
    length = d.size(rest)
    if length > 1:
        dims = d.take([*dims, rest], len(dims), [start, 1, length - start - 1])[1][:-1]
    found = dict(zip(order, dims, strict=True))
    out: list[Label] = []
    for k, n in enumerate(size):
        out.append(found[k] if k in found else d.free(n, [*found.values(), *out]))
    d.set_even(node, [k for k in range(len(size)) if k not in found])
    return out
