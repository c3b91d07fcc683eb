"""Reading and writing at positions that a tensor of indices gives.

What is indexed is fixed, unless the values are known to be indices into the same dimension (of the experts that a
router has chosen): then both move together.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from ..terms import Label
from .cut import join, segment
from .registry import Unsupported, rule

if TYPE_CHECKING:
    from ..derivation import Derivation

_MANY_RUNS = 16  # a constant list of more runs than this is data, not a handful of slices


def _pass_rearranged(d: Derivation, x: fx.Node, node: fx.Node) -> None:
    """The entries of an index tensor at other places: indices still, from a source of their own."""
    values = d.index_values(x)
    if values is not None:
        d.set_index_values(node, values.label)


@rule("embedding", index_args=[1])
def embedding(d: Derivation, node: fx.Node, weight: fx.Node, index: fx.Node, *args: Any) -> list[Label]:
    """Rows of a table."""
    labels = d.of(weight)
    return [*d.lookup(labels, 0, index), *labels[1:]]


@rule("index_select", index_args=[0, 2])
def index_select(d: Derivation, node: fx.Node, x: fx.Node, dim: int, index: fx.Node) -> list[Label]:
    """Positions along one dimension."""
    indices: list[fx.Node | None] = [None] * (dim % len(d.shape(x)))
    return _index(d, node, x, [*indices, index])


@rule("index", "_unsafe_index", index_args=[0, 1])
def index_(d: Derivation, node: fx.Node, x: fx.Node, indices: Sequence[fx.Node | None]) -> list[Label]:
    """``x[indices]``: the dimensions of the index tensors stand for the indexed ones."""
    return _index(d, node, x, indices)


def _index(d: Derivation, node: fx.Node, x: fx.Node, indices: Sequence[fx.Node | None]) -> list[Label]:
    _pass_rearranged(d, x, node)
    labels = d.of(x)
    used = _indexed_dims(indices)
    if len(used) == 1:
        [(dim, index)] = used.items()
        runs = _runs(d.known(index), d.size(labels[dim]))
        if runs:
            return join(d, [segment(d, labels, dim, *run) for run in runs], dim)
    positions = d.broadcast(*(d.lookup(labels, dim, index) for dim, index in used.items()))
    return _advanced(labels, positions, list(used))


def _indexed_dims(indices: Sequence[fx.Node | None]) -> dict[int, fx.Node]:
    used = {dim: index for dim, index in enumerate(indices) if index is not None}
    for index in used.values():
        if index.meta["val"].dtype in (torch.bool, torch.uint8):
            raise Unsupported("a mask as an index")
    return used


def _advanced(labels: Sequence[Label], positions: Sequence[Label], used: Sequence[int]) -> list[Label]:
    """Index dimensions stand where the indexed ones stood, or first if those are not next to each other."""
    kept = [label for dim, label in enumerate(labels) if dim not in used]
    at = used[0] if list(used) == list(range(used[0], used[-1] + 1)) else 0
    return [*kept[:at], *positions, *kept[at:]]


def _runs(values: torch.Tensor | None, size: int) -> list[tuple[int, int]]:
    """A constant list of positions as runs (start, length); empty if it isn't known or not a handful of slices."""
    if values is None or values.ndim != 1 or not 0 < len(values) <= 4096 or values.dtype == torch.bool:
        return []
    places = [int(value) % size for value in values]
    starts = [k for k in range(len(places)) if k == 0 or places[k] != places[k - 1] + 1]
    if len(starts) > _MANY_RUNS:
        return []
    return [(places[k], after - k) for k, after in itertools.pairwise([*starts, len(places)])]


@rule("gather", index_args=[0, 2])
def gather(d: Derivation, node: fx.Node, x: fx.Node, dim: int, index: fx.Node, **kwargs: Any) -> list[Label]:
    """``out[.., k, ..] = x[.., index[.., k, ..], ..]``."""
    return _gather(d, node, x, dim, index)


def _gather(d: Derivation, node: fx.Node, x: fx.Node, dim: int, index: fx.Node) -> list[Label]:
    _pass_rearranged(d, x, node)
    labels = d.of(x)
    return _match_index(d, labels, dim % len(labels), index)


@rule("take_along_dim", index_args=[0, 1])
def take_along_dim(d: Derivation, node: fx.Node, x: fx.Node, index: fx.Node, dim: int | None = None) -> list[Label]:
    """A gather in which the other dimensions are broadcast."""
    if dim is None or d.shape(x)[:dim] != d.shape(index)[:dim] or len(d.shape(x)) != len(d.shape(index)):
        raise Unsupported("broadcast indices")
    return _gather(d, node, x, dim, index)


def _match_index(d: Derivation, labels: list[Label], dim: int, index: fx.Node) -> list[Label]:
    """State that ``index`` points into dimension ``dim`` and lies along the others; returns the index's labels."""
    positions = d.of(index)
    values = d.index_values(index)
    if values is None:
        d.fix(labels[dim], "indexed by data")
    else:
        d.unify(labels[dim], values.label)
    for k, (label, place) in enumerate(zip(labels, positions, strict=True)):
        if k == dim:
            continue
        if d.size(label) == d.size(place):
            d.unify(label, place)
        else:  # the index covers the first positions only
            d.unify(segment(d, labels, k, 0, d.size(place))[k], place)
        d.contract(labels[dim], [], [labels[k], place])
    return positions


@rule("scatter", "scatter_add", "scatter_reduce", index_args=[2])
def scatter(
    d: Derivation, node: fx.Node, x: fx.Node, dim: int, index: fx.Node, source: Any = None, *args: Any, **kwargs: Any
) -> list[Label]:
    """``x`` with entries written, or added, where ``index`` points along a dimension."""
    labels = d.of(x)
    dim %= len(labels)
    positions = _match_index(d, labels, dim, index)
    source = kwargs.get("src", source)
    if isinstance(source, fx.Node) and d.shape(source):
        given = d.of(source)
        for k, place in enumerate(positions):
            d.unify(place, segment(d, given, k, 0, d.size(place))[k])
    others = [place for k, place in enumerate(positions) if k != dim]
    d.contract(positions[dim], others, [*others, *labels])
    return labels


@rule("index_add", "index_copy", "index_reduce", index_args=[2])
def index_add(
    d: Derivation, node: fx.Node, x: fx.Node, dim: int, index: fx.Node, source: fx.Node, *args: Any, **kwargs: Any
) -> list[Label]:
    """``x`` with the slices of ``source`` added, or copied, to the positions in ``index`` along a dimension."""
    labels, given = d.of(x), d.of(source)
    dim %= len(labels)
    positions = d.lookup(labels, dim, index)
    if not positions:
        given = [*given[:dim], *given[dim + 1 :]]
        _unify_all(d, [*labels[:dim], *labels[dim + 1 :]], given)
        return labels
    _unify_all(d, [*labels[:dim], positions[0], *labels[dim + 1 :]], given)
    d.contract(positions[0], [], labels)
    return labels


@rule("index_fill", index_args=[2])
def index_fill(d: Derivation, node: fx.Node, x: fx.Node, dim: int, index: fx.Node, value: Any) -> list[Label]:
    """``x`` with one number at the positions in ``index`` along a dimension."""
    labels = d.of(x)
    for place in d.lookup(labels, dim % len(labels), index):
        d.contract(place, [], labels)
    return labels


@rule("index_put", "_unsafe_index_put", index_args=[1])
def index_put(
    d: Derivation,
    node: fx.Node,
    x: fx.Node,
    indices: Sequence[fx.Node | None],
    values: fx.Node,
    accumulate: bool = False,
) -> list[Label]:
    """``x[indices] = values`` or ``+=``; a mask with one value is a choice entry by entry."""
    labels = d.of(x)
    masks = [dim for dim, index in enumerate(indices) if index is not None and index.meta["val"].dtype == torch.bool]
    if masks:
        return _masked_put(d, labels, indices, values, masks)
    used = _indexed_dims(indices)
    positions = d.broadcast(*(d.lookup(labels, dim, index) for dim, index in used.items()))
    d.broadcast(_advanced(labels, positions, list(used)), d.of(values))
    for k, place in enumerate(positions):
        others = positions[:k] + positions[k + 1 :]
        d.contract(place, others, [*others, *labels])
    return labels


def _masked_put(
    d: Derivation, labels: list[Label], indices: Sequence[fx.Node | None], values: fx.Node, masks: Sequence[int]
) -> list[Label]:
    mask = indices[masks[0]]
    assert mask is not None
    if len(masks) > 1 or values.meta["val"].numel() != 1 or any(i is not None for i in indices if i is not mask):
        raise Unsupported("values at the places of a mask")
    for place, label in zip(labels[masks[0] :], d.of(mask), strict=False):
        d.unify(place, label)
    return labels


def _unify_all(d: Derivation, first: Sequence[Label], second: Sequence[Label]) -> None:
    for a, b in zip(first, second, strict=True):
        d.unify(a, b)


@rule("one_hot", index_args=[0])
def one_hot(d: Derivation, node: fx.Node, index: fx.Node, count: int = -1) -> list[Label]:
    """A new last dimension: of what is indexed, if that is as long."""
    values = d.index_values(index)
    if values is not None and d.size(values.label) == count:
        return [*d.of(index), values.label]
    d.fix_index_values(index, "one_hot")
    return [*d.of(index), d.fixed(d.shape(node)[-1], "classes")]
