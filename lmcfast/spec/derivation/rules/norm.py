"""Normalizations: statistics are sums over some dimensions, scale and shift lie along labeled ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import fx

from ..aliases import operator_name
from ..terms import ONE, Label
from .registry import rule

if TYPE_CHECKING:
    from ..derivation import Derivation


@rule("layer_norm", "rms_norm")
def layer_norm(
    d: Derivation,
    node: fx.Node,
    x: fx.Node,
    shape: Sequence[int],
    weight: fx.Node | None = None,
    bias: Any = None,
    *args: Any,
    **kwargs: Any,
) -> list[Label]:
    """Statistics over the last dimensions, on which weight and bias lie. ``rms_norm`` has a number for the bias."""
    labels = d.of(x)
    d.reduce(labels, range(len(labels) - len(shape), len(labels)), keep=True)
    return d.broadcast(labels, *(d.of(p) for p in (weight, bias) if isinstance(p, fx.Node)))


@rule("native_layer_norm", "_fused_rms_norm")
def native_layer_norm(
    d: Derivation, node: fx.Node, x: fx.Node, shape: Sequence[int], *args: Any, **kwargs: Any
) -> list[list[Label]]:
    """Beside the result, mean and deviation (or the deviation alone)."""
    out = layer_norm(d, node, x, shape, *args, **kwargs)
    statistics = [ONE if dim >= len(out) - len(shape) else label for dim, label in enumerate(out)]
    return [out, *(list(statistics) for _ in node.meta["val"][1:])]


@rule("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training")
def batch_norm(
    d: Derivation,
    node: fx.Node,
    x: fx.Node,
    weight: fx.Node | None,
    bias: fx.Node | None,
    mean: fx.Node | None = None,
    variance: fx.Node | None = None,
    training: Any = False,
    *args: Any,
) -> Any:
    """Statistics for each channel: running ones, or over everything else."""
    labels = _on_channels(d, x, (weight, bias, mean, variance))
    native = "native" in operator_name(node)
    if mean is None or (training is True and not operator_name(node).endswith("no_training")):
        d.reduce(labels, [k for k in range(len(labels)) if k != 1], keep=True)
    if not native:
        return labels
    # The saved statistics are empty where running ones are used.
    saved = [value.shape for value in node.meta["val"][1:]]
    return [labels, *([labels[1]] if shape[0] == d.size(labels[1]) else [d.fixed(shape[0])] for shape in saved)]


@rule("instance_norm")
def instance_norm(
    d: Derivation,
    node: fx.Node,
    x: fx.Node,
    weight: fx.Node | None,
    bias: fx.Node | None,
    mean: fx.Node | None,
    variance: fx.Node | None,
    use_input_statistics: bool,
    *args: Any,
) -> list[Label]:
    """Statistics over the positions of each channel, or running ones."""
    labels = _on_channels(d, x, (weight, bias, mean, variance))
    if use_input_statistics:
        d.reduce(labels, range(2, len(labels)), keep=True)
    return labels


def _on_channels(d: Derivation, x: fx.Node, tensors: Sequence[fx.Node | None]) -> list[Label]:
    labels = d.of(x)
    for tensor in tensors:
        if tensor is not None:
            d.unify(labels[1], d.of(tensor)[0])
    return labels


@rule("group_norm")
def group_norm(
    d: Derivation,
    node: fx.Node,
    x: fx.Node,
    groups: int,
    weight: fx.Node | None = None,
    bias: fx.Node | None = None,
    *args: Any,
) -> list[Label]:
    """Statistics over the channels and positions of each block of channels."""
    labels = _on_channels(d, x, (weight, bias))
    block, inner = d.split(labels[1], groups)
    d.reduce([labels[0], block, inner, *labels[2:]], range(2, len(labels) + 1), keep=True)
    return labels


@rule("native_group_norm")
def native_group_norm(
    d: Derivation,
    node: fx.Node,
    x: fx.Node,
    weight: fx.Node | None,
    bias: fx.Node | None,
    batch: int,
    channels: int,
    positions: int,
    groups: int,
    *args: Any,
) -> list[list[Label]]:
    """Beside the result, mean and deviation of each block."""
    labels = group_norm(d, node, x, groups, weight, bias)
    block = d.split(labels[1], groups)[0]
    return [labels, [labels[0], block], [labels[0], block]]


@rule("_weight_norm", "_weight_norm_interface")
def weight_norm(d: Derivation, node: fx.Node, v: fx.Node, g: fx.Node, dim: int = 0) -> Any:
    """``g v / |v|``, the length taken over all dimensions but ``dim`` (-1: over all)."""
    labels, lengths = d.of(v), d.of(g)
    kept = [] if dim == -1 else [dim]
    d.reduce(labels, [k for k in range(len(labels)) if k not in kept], keep=True)
    out = d.broadcast(labels, lengths)
    return out if operator_name(node) == "_weight_norm" else [out, lengths]
