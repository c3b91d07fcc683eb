"""Turns what callers pass into what the extension takes: a 3-D float32 or float64 view, copied only if it must be."""

from __future__ import annotations

import sys
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidScoresError, ScoresShapeError, UnavailableError

LARGEST_EXACT = 2**53  # integers up to here are float64 numbers


def is_tensor(x: object) -> bool:
    """Whether x is a torch tensor, without importing torch: a tensor can only exist once torch has been imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def as_array(x: Any, argument: str) -> NDArray[Any]:
    """A numpy view of a tensor's memory, the array itself, or an array made of a sequence."""
    if not is_tensor(x):
        if isinstance(x, np.ma.MaskedArray):
            raise TypeError(f"{argument}: masked arrays are not supported; fill the masked places, e.g. with -inf")
        try:
            return np.asarray(x)
        except ValueError as error:
            raise ScoresShapeError(f"{argument}: not an array of numbers ({error})") from error
    torch = sys.modules["torch"]
    if x.layout != torch.strided:
        raise TypeError(f"{argument}: expected a dense tensor, got layout {x.layout}; call .to_dense() first")
    if x.device.type != "cpu":
        raise UnavailableError(
            f"{argument}: expected a CPU tensor, or scores on a CUDA device, got {x.device}; pass {argument}.cpu()"
        )
    x = x.detach().resolve_conj().resolve_neg()
    if x.dtype == torch.bfloat16 or (x.dtype.is_floating_point and x.dtype.itemsize == 1):  # numpy has none of these
        x = x.float()
    return cast("NDArray[Any]", x.numpy())


def as_scores(scores: Any) -> NDArray[Any]:
    """(n, m) or (batch, n, m), float32 or float64.

    Rule for other types: float16, bfloat16, bool and integers of up to 16 bits become float32, which holds them
    exactly; larger integers become float64 and must be exact in it; longer floats are rounded to float64.
    """
    a = as_array(scores, "scores")
    if a.ndim not in (2, 3):
        raise ScoresShapeError(f"scores: expected 2 dimensions (n, m) or 3 (batch, n, m), got shape {tuple(a.shape)}")
    if a.shape[-1] >= 2**31 or a.shape[-2] >= 2**31:
        raise ScoresShapeError(f"scores: at most 2**31 - 1 rows and columns, got shape {tuple(a.shape)}")
    a = _as_float(a, "scores")
    if not a.flags.c_contiguous and any(s % a.itemsize for s in a.strides):
        a = np.ascontiguousarray(a)
    if not a.flags.aligned or not a.dtype.isnative:
        a = np.ascontiguousarray(a, dtype=a.dtype.newbyteorder("="))
    return a


def _as_float(a: NDArray[Any], argument: str) -> NDArray[Any]:
    if a.dtype.type in (np.float32, np.float64):
        return a
    if a.dtype.kind == "f":
        return a.astype(np.float32 if a.itemsize < 4 else np.float64)
    if a.dtype.kind == "b" or (a.dtype.kind in "iu" and a.itemsize <= 2):
        return a.astype(np.float32)
    if a.dtype.kind in "iu":
        out = a.astype(np.float64)
        inexact = (a > LARGEST_EXACT) | (a < -LARGEST_EXACT) if a.itemsize == 8 else np.zeros(0, bool)
        if inexact.any():
            place = tuple(int(k) for k in np.argwhere(inexact)[0])
            raise InvalidScoresError(
                f"{argument}{list(place)} is {a[place]}: integers above 2**53 are not exact in float64",
                row=place[-2] if a.ndim > 1 else None,
                column=place[-1] if a.ndim > 1 else None,
                problem=place[0] if a.ndim == 3 else None,
            )
        return out
    raise TypeError(f"{argument}: expected real numbers, got dtype {a.dtype}")


def as_listed_values(values: Any) -> NDArray[np.float64]:
    """(entries,) float64, by the rule of :func:`as_scores`."""
    a = as_array(values, "values")
    if a.ndim != 1:
        raise ScoresShapeError(f"values: expected 1 dimension, got shape {tuple(a.shape)}")
    return np.ascontiguousarray(_as_float(a, "values"), dtype=np.float64)


def as_start_prices(prices: Any, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    """(m,) or (batch, m) float64 and finite, to fit scores of this shape; None when no prices are given."""
    if prices is None:
        return None
    p = as_array(prices, "prices")
    if p.dtype.kind not in "fiub":
        raise TypeError(f"prices: expected real numbers, got dtype {p.dtype}")
    expected = (*shape[:-2], shape[-1])
    if p.shape != expected:
        raise ScoresShapeError(f"prices: expected shape {expected} to fit the scores, got {tuple(p.shape)}")
    p = np.ascontiguousarray(p, dtype=np.float64)
    finite = np.isfinite(p)
    if not finite.all():
        place = tuple(int(k) for k in np.argwhere(~finite)[0])
        raise InvalidScoresError(
            f"prices{list(place)} is {p[place]}: start prices must be finite",
            column=place[-1],
            problem=place[0] if len(place) == 2 else None,
        )
    return p
