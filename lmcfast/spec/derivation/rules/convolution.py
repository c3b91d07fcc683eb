"""Convolutions: channels are a matrix product within each block of ``groups``, positions keep their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import fx

from ..terms import Label
from .arguments import per_dim
from .registry import rule

if TYPE_CHECKING:
    from ..derivation import Derivation


@rule("conv1d", "conv2d", "conv3d")
def convolution(
    d: Derivation,
    node: fx.Node,
    x: fx.Node,
    weight: fx.Node,
    bias: fx.Node | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> list[Label]:
    """Weight ``(groups * out, in, *kernel)``; ``padding`` may be a word."""
    return _convolve(d, node, (x, weight, bias), False, groups, [stride, padding])


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(
    d: Derivation,
    node: fx.Node,
    x: fx.Node,
    weight: fx.Node,
    bias: fx.Node | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> list[Label]:
    """Weight ``(groups * in, out, *kernel)``."""
    return _convolve(d, node, (x, weight, bias), True, groups, [stride, padding, output_padding])


@rule("convolution", "_convolution")
def general_convolution(
    d: Derivation,
    node: fx.Node,
    x: fx.Node,
    weight: fx.Node,
    bias: fx.Node | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    *flags: bool,
) -> list[Label]:
    """The operator behind all convolutions."""
    return _convolve(d, node, (x, weight, bias), transposed, groups, [stride, padding, output_padding])


def _convolve(
    d: Derivation,
    node: fx.Node,
    tensors: tuple[fx.Node, fx.Node, fx.Node | None],
    transposed: bool,
    groups: int,
    moves: list[Any],
) -> list[Label]:
    x, weight, bias = tensors
    labels, kernel = d.of(x), d.of(weight)
    spatial = len(kernel) - 2
    batch, channels, places = labels[: -spatial - 1], labels[-spatial - 1], labels[-spatial:]
    block, inner = d.split(channels, groups)
    kernel_block, high = d.split(kernel[0], groups)
    d.unify(block, kernel_block)
    d.unify(inner, high if transposed else kernel[1])
    low = kernel[1] if transposed else high
    # groups * out channels: the weight's own axis, or the block of its first axis with its second
    out = d.product(kernel_block, kernel[1]) if transposed else kernel[0]
    if bias is not None:
        d.unify(out, d.of(bias)[0])
    passing = _passing(d.shape(weight)[2:], moves)
    for k in range(spatial):
        if not passing[k]:
            d.fix(places[k], "positions of a convolution")
            d.fix(kernel[k + 2], "positions of a convolution")
    kept = [
        place if passing[k] else d.fixed(d.shape(node)[len(batch) + 1 + k], "positions of a convolution")
        for k, place in enumerate(places)
    ]
    stays = [*batch, block, low, *kept]
    d.contract(d.product(inner, *kernel[2:]), [*batch, block], stays)
    for k, place in enumerate(places):
        if not passing[k]:
            d.contract(place, [*batch, block], stays)
    return [*batch, out, *kept]


def _passing(kernel: Sequence[int], moves: list[Any]) -> list[bool]:
    """Dimensions along which every position is computed from itself alone."""
    stride, padding, *output_padding = (per_dim(0 if isinstance(move, str) else move, len(kernel)) for move in moves)
    return [
        size == 1 and stride[k] == 1 and padding[k] == 0 and all(extra[k] == 0 for extra in output_padding)
        for k, size in enumerate(kernel)
    ]
