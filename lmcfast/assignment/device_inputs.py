"""What callers pass for a solve on a device, as what the kernels take; nothing here waits but for wide integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .. import _native
from ..errors import InvalidScoresError, ScoresShapeError
from .inputs import LARGEST_EXACT

MOST_SHORTER, MOST_LONGER = 131070, 2**30  # sides of a problem

_EXACT_IN_FLOAT32 = (torch.bool, torch.uint8, torch.int8, torch.int16)


def as_device_scores(scores: torch.Tensor) -> torch.Tensor:
    """(n, m) or (batch, n, m) on a device, in a dtype that the kernels read; others as ``inputs.as_scores`` says."""
    if not _native.on_device(scores):
        raise TypeError(f"scores: expected a CUDA tensor, got one on {scores.device}")
    if scores.layout != torch.strided:
        raise TypeError(f"scores: expected a dense tensor, got layout {scores.layout}; call .to_dense() first")
    if scores.dim() not in (2, 3):
        raise ScoresShapeError(
            f"scores: expected 2 dimensions (n, m) or 3 (batch, n, m), got shape {tuple(scores.shape)}"
        )
    shorter, longer = sorted(scores.shape[-2:])
    if shorter > MOST_SHORTER or longer > MOST_LONGER:
        raise ScoresShapeError(
            f"scores: on a device the shorter side is at most {MOST_SHORTER} and the longer {MOST_LONGER}, got shape "
            f"{tuple(scores.shape)}"
        )
    return _as_float(scores.detach().resolve_neg())


def _as_float(scores: torch.Tensor) -> torch.Tensor:
    dtype = scores.dtype
    if _native.dtype_code(dtype) is not None:
        return scores
    if dtype.is_complex:
        raise TypeError(f"scores: expected real numbers, got dtype {dtype}")
    if dtype in _EXACT_IN_FLOAT32 or dtype.is_floating_point:  # the other floats have 8 bits or fewer
        return scores.float()
    wide = scores.double()
    if dtype.itemsize < 8:
        return wide
    # 2^53 + 1 is rounded to 2^53; beyond it no integer is.
    inexact = (wide.abs() > LARGEST_EXACT) | ((wide.abs() == LARGEST_EXACT) & (scores.long().abs() != LARGEST_EXACT))
    if bool(inexact.any()):
        place = inexact.nonzero()[0].tolist()
        raise InvalidScoresError(
            f"scores{place} is {scores[tuple(place)].item()}: integers above 2**53 are not exact in float64",
            row=place[-2],
            column=place[-1],
            problem=place[0] if scores.dim() == 3 else None,
        )
    return wide


def as_device_prices(prices: Any, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(m,) or (batch, m) float64 beside the scores, contiguous; not yet known to be finite.

    Of prices in host memory also the copy that the device reads (``_native.upload``).
    """
    given = torch.as_tensor(prices)
    if given.is_complex():
        raise TypeError(f"prices: expected real numbers, got dtype {given.dtype}")
    expected = (*scores.shape[:-2], scores.shape[-1])
    if tuple(given.shape) != expected:
        raise ScoresShapeError(f"prices: expected shape {expected} to fit the scores, got {tuple(given.shape)}")
    given = given.detach().double().contiguous()
    if given.device.type == "cpu":
        return _native.upload(given.resolve_neg().numpy(), scores.device)
    return given.to(scores.device), None


@dataclass(frozen=True)
class StartPrices:
    """Start prices as the kernels take them, zero where they are not finite, and as they were given.

    ``host``: what a CUDA graph reads again on every replay, if they were given in host memory.
    """

    prices: torch.Tensor
    given: torch.Tensor
    host: torch.Tensor | None

    @classmethod
    def of(cls, prices: Any, scores: torch.Tensor) -> StartPrices | None:
        if prices is None:
            return None
        given, host = as_device_prices(prices, scores)
        return cls(torch.nan_to_num(given, 0.0, 0.0, 0.0), given, host)

    def raise_fault(self) -> None:
        """Names the first fault; returns where there is none: it is in another problem of the same call."""
        faults = (self.prices != self.given).nonzero()
        if not len(faults):
            return
        place = faults[0].tolist()
        raise InvalidScoresError(
            f"prices{place} is {float(self.given[tuple(place)])}: start prices must be finite",
            column=place[-1],
            problem=place[0] if len(place) == 2 else None,
        )
