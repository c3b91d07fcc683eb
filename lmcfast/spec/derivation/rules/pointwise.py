"""Operators that work entry by entry: dimensions that meet are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx

from ..terms import Label
from .registry import rule

if TYPE_CHECKING:
    from ..derivation import Derivation

_BINARY = """add sub rsub mul div true_divide floor_divide remainder fmod pow maximum minimum where masked_fill __and__
    __or__ __xor__ logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor eq ne lt le gt ge xlogy atan2
    addcmul addcdiv lerp threshold""".split()
_UNARY = """relu relu6 leaky_relu elu selu celu gelu silu mish sigmoid log_sigmoid hardtanh hardswish hardsigmoid
    hardshrink softshrink tanhshrink softplus softsign logit tanh exp expm1 log log1p log2 log10 sqrt rsqrt square
    reciprocal sin cos tan asin acos atan sinh cosh erf erfc erfinv neg abs sign floor ceil round trunc frac clamp
    clamp_min clamp_max positive logical_not bitwise_not isnan isinf isfinite nan_to_num dropout feature_dropout
    alpha_dropout zero fill copy float double half""".split()
_COPIES = "contiguous clone detach alias to _to_copy lift_fresh lift_fresh_copy".split()


@rule(*_BINARY, *_UNARY)
def pointwise(d: Derivation, node: fx.Node, *args: Any, **kwargs: Any) -> list[Label]:
    """Broadcasting; a dimension along which all arguments are constant stays so."""
    tensors = [arg for arg in (*args, *kwargs.values()) if isinstance(arg, fx.Node)]
    out = d.broadcast(*(d.of(tensor) for tensor in tensors))
    even = []
    for dim in range(len(out)):
        places = [(tensor, dim - len(out) + len(d.of(tensor))) for tensor in tensors]
        if all(k < 0 or d.size(d.of(tensor)[k]) == 1 or k in d.even_dims(tensor) for tensor, k in places):
            even.append(dim)
    d.set_even(node, even)
    return out


@rule(*_COPIES, index_args=[0])
def copied(d: Derivation, node: fx.Node, x: fx.Node, *args: Any, **kwargs: Any) -> list[Label]:
    """The same values: what is known of them stays known."""
    d.pass_values(x, node)
    return list(d.of(x))
