"""Operators for which the order along a dimension matters: it is fixed, and new positions come out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import fx

from ..aliases import operator_name
from ..terms import Label
from .arguments import dims_of, has_several_outputs
from .reduction import ranked
from .registry import rule

if TYPE_CHECKING:
    from ..derivation import Derivation

_WHY = "positions in order"


@rule("cumsum cumprod logcumsumexp cummax cummin _cummax_helper flip fliplr flipud")
def cumulative(d: Derivation, node: fx.Node, x: fx.Node, dim: Any = None, **kwargs: Any) -> Any:
    """Running sums and reversals."""
    name = operator_name(node)
    if dim is None:
        dim = {"fliplr": 1, "flipud": 0}[name]
    return _in_order(d, node, x, dim)


@rule("diff")
def diff(d: Derivation, node: fx.Node, x: fx.Node, n: int = 1, dim: int = -1, *args: Any) -> Any:
    """Differences of neighbours."""
    return _in_order(d, node, x, dim)


@rule("roll")
def roll(d: Derivation, node: fx.Node, x: fx.Node, shifts: Any, dims: Any = ()) -> Any:
    """Rotated along dimensions (none: along the flattened tensor)."""
    return _in_order(d, node, x, dims)


@rule("tril", "triu")
def triangle(d: Derivation, node: fx.Node, x: fx.Node, diagonal: int = 0) -> Any:
    """Entries of a matrix on one side of a diagonal."""
    return _in_order(d, node, x, (-2, -1))


_FFT = "fft_fft fft_ifft fft_rfft fft_irfft fft_hfft fft_ihfft"
_FFT_MANY = "fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn fft_rfftn fft_irfftn"


@rule(_FFT)
def fourier(d: Derivation, node: fx.Node, x: fx.Node, n: int | None = None, dim: int = -1, norm: Any = None) -> Any:
    """Frequencies instead of positions."""
    return _in_order(d, node, x, dim)


@rule(_FFT_MANY)
def fourier_of_many(d: Derivation, node: fx.Node, x: fx.Node, s: Any = None, dim: Any = None, norm: Any = None) -> Any:
    """Frequencies along several dimensions: the last two in the two-dimensional forms, else all, if none are named."""
    if dim is None and (operator_name(node).endswith("2") or s is not None):
        dim = range(-2 if s is None else -len(s), 0)
    return _in_order(d, node, x, dim)


@rule("fft_fftshift", "fft_ifftshift")
def fourier_shift(d: Derivation, node: fx.Node, x: fx.Node, dim: Any = None) -> Any:
    """Frequencies rotated."""
    return _in_order(d, node, x, dim)


def _in_order(d: Derivation, node: fx.Node, x: fx.Node, dims: int | Sequence[int] | None) -> Any:
    labels = d.of(x)
    out = list(labels)
    value = node.meta["val"]
    shape = (value[0] if has_several_outputs(node) else value).shape
    changed = dims_of(list(dims) if isinstance(dims, range) else dims, len(labels))
    for dim in changed:
        d.fix(labels[dim], _WHY)
        out[dim] = d.fixed(shape[dim], _WHY)
    for dim in changed:
        d.contract(labels[dim], [], out)
    return [list(out) for _ in value] if has_several_outputs(node) else out


@rule("sort", "msort")
def sort(d: Derivation, node: fx.Node, x: fx.Node, *args: Any, **kwargs: Any) -> Any:
    """Entries by rank, and where they were; ``sort.stable`` takes its arguments by name."""
    dim = kwargs.get("dim", next((arg for arg in args if not isinstance(arg, bool)), -1))
    labels = d.of(x)
    dim = 0 if operator_name(node) == "msort" else dim % len(labels)
    if not has_several_outputs(node):
        return _by_rank(d, labels, dim)
    return ranked(d, node, labels, dim, d.size(labels[dim]))


@rule("argsort")
def argsort(d: Derivation, node: fx.Node, x: fx.Node, *args: Any, **kwargs: Any) -> list[Label]:
    """Where the entries of each rank are."""
    dim = kwargs.get("dim", next((arg for arg in args if not isinstance(arg, bool)), -1))
    labels = d.of(x)
    dim %= len(labels)
    d.set_index_values(node, labels[dim])
    return _by_rank(d, labels, dim)


def _by_rank(d: Derivation, labels: list[Label], dim: int) -> list[Label]:
    out = d.reduce(labels, [dim], keep=True)
    out[dim] = d.fixed(d.size(labels[dim]), "ranks")
    return out


@rule("bucketize", "searchsorted")
def bucketize(d: Derivation, node: fx.Node, *args: Any, **kwargs: Any) -> list[Label]:
    """Numbers of intervals: the boundaries are in order, the entries stay where they are."""
    first, second = args[:2]
    x, boundaries = (first, second) if operator_name(node) == "bucketize" else (second, first)
    bounds = d.of(boundaries)
    out = d.of(x) if isinstance(x, fx.Node) else []
    d.fix(bounds[-1], _WHY)
    if len(bounds) > 1:
        for a, b in zip(bounds[:-1], out[:-1], strict=True):
            d.unify(a, b)
    d.contract(bounds[-1], [], out)
    return out
