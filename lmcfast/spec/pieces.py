"""Tensors that a checkpoint has in one and the module has in several: fused projections, experts in one tensor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from ..errors import InvalidParamsError

Params = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Piece:
    """Positions ``start`` to ``stop`` of an axis of the tensor ``key``; ``index``: first, one entry of its first axis.

    The axis is counted in what the module has: 1 for a stack of all experts, else 0.
    """

    key: str
    axis: int
    start: int
    stop: int
    index: int | None = None


def taken(pieces: Mapping[str, Piece], tensors: Params) -> dict[str, torch.Tensor]:
    """The module's tensors. ``InvalidParamsError`` names a key whose tensor is not as long as its pieces together."""
    whole = {key: _lengths(group) for key, group in _by_key(pieces)}
    found = {}
    for name, piece in pieces.items():
        tensor = tensors[piece.key]
        number, length = whole[piece.key]
        if number is not None and (not tensor.ndim or len(tensor) != number):
            raise _misfit(piece.key, tensor, f"{number} experts")
        tensor = tensor if piece.index is None else tensor[piece.index]
        if tensor.ndim <= piece.axis or tensor.shape[piece.axis] != length:
            raise _misfit(piece.key, tensors[piece.key], f"{length} rows")
        found[name] = tensor.narrow(piece.axis, piece.start, piece.stop - piece.start)
    return found


def joined(pieces: Mapping[str, Piece], params: Params) -> dict[str, torch.Tensor]:
    """The checkpoint's tensors, put together again."""
    found = {}
    for key, group in _by_key(pieces):
        rows: dict[int | None, list[tuple[int, torch.Tensor]]] = defaultdict(list)
        for name, piece in group.items():
            rows[piece.index].append((piece.start, params[name]))
        axis = next(iter(group.values())).axis
        parts = {k: torch.cat([tensor for _, tensor in sorted(row, key=_start)], axis) for k, row in rows.items()}
        numbered = [parts[k] for k in sorted(k for k in parts if k is not None)]
        found[key] = torch.stack(numbered) if numbered else parts[None]
    return found


def _start(row: tuple[int, torch.Tensor]) -> int:
    return row[0]


def _by_key(pieces: Mapping[str, Piece]) -> Iterator[tuple[str, dict[str, Piece]]]:
    found: dict[str, dict[str, Piece]] = defaultdict(dict)
    for name, piece in pieces.items():
        found[piece.key][name] = piece
    yield from found.items()


def _lengths(group: Mapping[str, Piece]) -> tuple[int | None, int]:
    """How many experts the pieces are of, if of any, and how long they are together."""
    indices = {piece.index for piece in group.values()} - {None}
    return len(indices) or None, max(piece.stop for piece in group.values())


def _misfit(key: str, tensor: torch.Tensor, wanted: str) -> InvalidParamsError:
    return InvalidParamsError(
        f"the tensor {key!r} of shape {tuple(tensor.shape)} does not hold the spec's {wanted} side by side", key
    )
