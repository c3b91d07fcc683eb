"""Operators that work entry by entry: dimensions that meet are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx

from ..terms import Label
from .registry import Unsupported, rule

if TYPE_CHECKING:
    from ..derivation import Derivation

_BINARY = """add sub subtract rsub mul multiply div divide true_divide floor_divide remainder fmod pow float_power
    maximum minimum fmax fmin where masked_fill __and__ __or__ __xor__ __lshift__ __rshift__ logical_and logical_or
    logical_xor bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift eq ne lt le gt ge not_equal
    less less_equal greater greater_equal isclose xlogy special_xlogy atan2 arctan2 hypot copysign ldexp logaddexp
    logaddexp2 addcmul addcdiv lerp threshold complex polar heaviside"""
_UNARY = """relu relu6 leaky_relu elu selu celu gelu silu mish sigmoid log_sigmoid hardtanh hardswish hardsigmoid
    hardshrink softshrink tanhshrink softplus softsign logit tanh exp exp2 expm1 log log1p log2 log10 sqrt rsqrt
    square reciprocal sin cos tan asin acos atan arcsin arccos arctan sinh cosh asinh acosh atanh sinc erf erfc erfinv
    special_erf special_expit special_log1p special_expm1 special_erfc lgamma digamma sgn i0 neg negative abs absolute
    sign signbit floor ceil round trunc fix frac clamp clip clamp_min clamp_max positive deg2rad rad2deg logical_not
    bitwise_not isnan isinf isfinite isneginf isposinf nan_to_num dropout alpha_dropout zero fill copy float double
    half bfloat16 conj _conj conj_physical resolve_conj resolve_neg real imag angle rrelu"""
_COPIES = "contiguous clone detach alias to _to_copy lift lift_fresh lift_fresh_copy requires_grad type_as"


@rule(_BINARY, _UNARY)
def pointwise(d: Derivation, node: fx.Node, *args: Any, **kwargs: Any) -> list[Label]:
    """Broadcasting; a dimension along which all arguments are constant stays so."""
    if isinstance(node.meta["val"], list | tuple):
        raise Unsupported("several outputs")
    tensors = [arg for arg in (*args, *kwargs.values()) if isinstance(arg, fx.Node)]
    labels = [d.of(tensor) for tensor in tensors]
    out = d.broadcast(*labels) if labels else []
    if any(d.even_dims(tensor) for tensor in tensors):
        _set_even(d, node, tensors, len(out))
    return out


def _set_even(d: Derivation, node: fx.Node, tensors: list[fx.Node], rank: int) -> None:
    even = []
    for dim in range(rank):
        places = [(tensor, dim - rank + len(d.shape(tensor))) for tensor in tensors]
        if all(k < 0 or d.shape(tensor)[k] == 1 or k in d.even_dims(tensor) for tensor, k in places):
            even.append(dim)
    d.set_even(node, even)


@rule("feature_dropout", "feature_alpha_dropout")
def feature_dropout(d: Derivation, node: fx.Node, x: fx.Node, p: float, train: bool) -> list[Label]:
    """Random features are dropped while training; else nothing happens."""
    if train:
        raise Unsupported("training mode")
    return d.of(x)


@rule(_COPIES, index_args=[0])
def copied(d: Derivation, node: fx.Node, x: fx.Node, *args: Any, **kwargs: Any) -> list[Label]:
    """The same values: what is known of them stays known."""
    d.pass_values(x, node)
    return d.of(x)


@rule("native_dropout")
def native_dropout(d: Derivation, node: fx.Node, x: fx.Node, *args: Any) -> list[list[Label]]:
    """The result and its mask."""
    return [d.of(x), d.of(x)]


@rule("prelu")
def prelu(d: Derivation, node: fx.Node, x: fx.Node, weight: fx.Node) -> list[Label]:
    """One slope for all, or one for each channel: the second dimension."""
    labels, slopes = d.of(x), d.of(weight)
    if slopes and d.size(slopes[0]) > 1:
        d.unify(labels[1 if len(labels) > 1 else 0], slopes[0])
    return labels
