"""Cutting a dimension into segments and joining tensors along one: labels side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import fx

from ..aliases import operator_name
from ..terms import ONE, Label
from .registry import Unsupported, rule

if TYPE_CHECKING:
    from ..derivation import Derivation


def join(d: Derivation, tensors: Sequence[Sequence[Label]], dim: int) -> list[Label]:
    """Labels of tensors joined along ``dim``; another dimension has the label of the tensor that an entry is from.

    Where none of the tensors can move along such a dimension, one label stands for all: terms stay small.
    """
    if len(tensors) == 1:
        return list(tensors[0])
    selector = d.new_selector()
    out: list[Label] = []
    for k, arms in enumerate(zip(*tensors, strict=True)):
        if k == dim:
            out.append(d.concat(*arms, selector=selector))
        elif all(d.labels.is_fixed(arm) for arm in arms):
            out.append(arms[0])
        else:
            out.append(d.case(selector, *arms))
    return out


@rule("cat", "concat", "concatenate")
def cat(d: Derivation, node: fx.Node, tensors: Sequence[fx.Node], dim: int = 0) -> list[Label]:
    """Segments of one dimension; empty tensors add nothing."""
    labels = [d.of(x) for x in tensors if x.meta["val"].numel()]
    return join(d, labels, dim % len(labels[0]))


@rule("stack")
def stack(d: Derivation, node: fx.Node, tensors: Sequence[fx.Node], dim: int = 0) -> list[Label]:
    """A new dimension, each index of which is one of the tensors."""
    dim %= len(d.shape(tensors[0])) + 1
    labels = [d.of(x) for x in tensors]
    return join(d, [[*x[:dim], ONE, *x[dim:]] for x in labels], dim)


@rule("split split_with_sizes chunk unsafe_split unsafe_split_with_sizes unsafe_chunk tensor_split hsplit vsplit")
def split(d: Derivation, node: fx.Node, x: fx.Node, parts: Any, dim: int | None = None) -> list[list[Label]]:
    """Segments one after the other; their lengths are read off the outputs."""
    rank = len(d.shape(x))
    if dim is None:
        dim = {"hsplit": min(1, rank - 1)}.get(operator_name(node), 0)
    dim %= rank
    return d.take(d.of(x), dim, [value.shape[dim] for value in node.meta["val"]])


@rule("unbind")
def unbind(d: Derivation, node: fx.Node, x: fx.Node, dim: int = 0) -> list[list[Label]]:
    """One tensor for each index."""
    labels = d.of(x)
    dim %= len(labels)
    parts = d.take(labels, dim, [1] * d.size(labels[dim]))
    return [part[:dim] + part[dim + 1 :] for part in parts]


@rule("select", index_args=[0])
def select(d: Derivation, node: fx.Node, x: fx.Node, dim: int, index: int) -> list[Label]:
    """One index of a dimension."""
    _pass_rearranged(d, x, node)
    return _select(d, d.of(x), dim, index)


def _select(d: Derivation, labels: list[Label], dim: int, index: Any) -> list[Label]:
    if not isinstance(index, int):
        raise Unsupported("an index that depends on data")
    dim %= len(labels)
    part = segment(d, labels, dim, index % d.size(labels[dim]), 1)
    return part[:dim] + part[dim + 1 :]


def segment(d: Derivation, labels: Sequence[Label], dim: int, start: int, length: int) -> list[Label]:
    """The labels after keeping ``length`` positions of a dimension."""
    rest = d.size(labels[dim]) - start - length
    return d.take(labels, dim, [start, length, rest])[1]


@rule("slice", "narrow", index_args=[0])
def slice_(
    d: Derivation, node: fx.Node, x: fx.Node, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> list[Label]:
    """``start:end:step``; ``narrow`` has a length instead of an end."""
    if operator_name(node) == "narrow":
        end = start + end
    _pass_rearranged(d, x, node)
    return _slice(d, d.of(x), dim, start, end, step)


def _slice(d: Derivation, labels: list[Label], dim: int, start: Any, end: Any, step: int) -> list[Label]:
    if not all(place is None or isinstance(place, int) for place in (start, end)):
        raise Unsupported("bounds that depend on data")
    dim %= len(labels)
    size = d.size(labels[dim])
    start, end, step = slice(start, end, step).indices(size)
    count = len(range(start, end, step))
    if step == 1 or count <= 1:
        return segment(d, labels, dim, min(start, size), count)
    if size % step == 0 and count == size // step:  # the same place in every block of `step`
        block, place = d.split(labels[dim], count)
        part = segment(d, [*labels[:dim], block, place, *labels[dim + 1 :]], dim + 1, start, 1)
        return part[: dim + 1] + part[dim + 2 :]
    pieces = [segment(d, labels, dim, start + k * step, 1) for k in range(count)] if count <= _FEW else []
    if not pieces:
        raise Unsupported(f"every {step}th of {size} positions")
    return join(d, pieces, dim)


_FEW = 16


def _pass_rearranged(d: Derivation, x: fx.Node, node: fx.Node) -> None:
    """Some of the indices in ``x``: a source of its own, since other slots of ``x`` hold other indices."""
    values = d.index_values(x)
    if values is not None:
        d.set_index_values(node, values.label)


@rule("slice_scatter")
def slice_scatter(
    d: Derivation,
    node: fx.Node,
    x: fx.Node,
    source: fx.Node,
    dim: int = 0,
    start: Any = None,
    end: Any = None,
    step: int = 1,
) -> list[Label]:
    """A copy with a slice overwritten."""
    labels = d.of(x)
    return _overwritten(d, labels, _slice(d, labels, dim, start, end, step), source)


@rule("select_scatter")
def select_scatter(d: Derivation, node: fx.Node, x: fx.Node, source: fx.Node, dim: int, index: Any) -> list[Label]:
    """A copy with one index of a dimension overwritten."""
    labels = d.of(x)
    return _overwritten(d, labels, _select(d, labels, dim, index), source)


def _overwritten(d: Derivation, labels: list[Label], part: list[Label], source: fx.Node) -> list[Label]:
    for place, label in zip(part, d.of(source), strict=True):
        d.unify(place, label)
    return labels


@rule("pad", "constant_pad_nd")
def pad(
    d: Derivation, node: fx.Node, x: fx.Node, pads: Sequence[int], mode: Any = "constant", value: Any = None
) -> list[Label]:
    """Constant entries before and after, in any order; other modes copy entries that then keep their places."""
    labels, shape = d.of(x), d.shape(node)
    constant = operator_name(node) == "constant_pad_nd" or mode == "constant"
    for k in range(len(pads) // 2):
        dim, before, after = len(labels) - 1 - k, pads[2 * k], pads[2 * k + 1]
        if before == after == 0:
            continue
        if not constant:
            d.fix(labels[dim])
            out = [*labels[:dim], d.fixed(shape[dim]), *labels[dim + 1 :]]
            d.contract(labels[dim], [], out)
            labels = out
            continue
        start, cut = max(0, -before), max(0, -after)
        labels = segment(d, labels, dim, start, d.size(labels[dim]) - start - cut)
        others = labels[:dim] + labels[dim + 1 :]
        arms = [d.free(max(0, before), others), labels[dim], d.free(max(0, after), others)]
        labels[dim] = d.concat(*(arm for arm in arms if d.size(arm) > 0))
    return labels


@rule("glu")
def glu(d: Derivation, node: fx.Node, x: fx.Node, dim: int = -1) -> list[Label]:
    """The first half times the sigmoid of the second."""
    labels = d.of(x)
    dim %= len(labels)
    half = d.size(labels[dim]) // 2
    first, second = d.take(labels, dim, [half, half])
    return d.broadcast(first, second)
