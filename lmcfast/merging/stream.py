"""The last pass: each tensor of the output is made from those of the aligned models, block by block, and written.

A model whose rows move is read a tensor at a time; one whose rows stay, a block at a time. Blocks are combined in
float32 (float64 where a model is stored so) and rounded once, to nearest even, to the dtype of the output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import InvalidParamsError
from ..io.shard_writer import ShardWriter
from ..io.shards import Entry, Shard, dtype_code, row_blocks, torch_dtype
from .methods import Recipe
from .seen import Model, check_tensor
from .slots import Setting

BLOCK = 1 << 22
"""Bytes of a block as stored: with its float32 copies it stays in a core's second cache and the shared one."""

_CARRIERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

Told = Callable[[int], object]


@dataclass(frozen=True)
class Aligned:
    """A model and the permutations that line it up."""

    model: Model
    setting: Setting

    def entry(self, key: str) -> Entry:
        """The entry from which a key's tensor is taken."""
        slot = self.model.slots.get(key)
        return self.model.files.entries[key if slot is None else slot.source(self.setting)]


class PlacedRows:
    """The rows of one tensor of a model as aligned; rows that come from all over are read whole, once."""

    def __init__(self, aligned: Aligned, key: str) -> None:
        self.entry = aligned.entry(key)
        self._files = aligned.model.files
        self._whole: torch.Tensor | None = None
        self._rows: torch.Tensor | None = None
        self._columns: list[tuple[int, torch.Tensor]] = []
        slot = aligned.model.slots.get(key)
        if slot is None or not slot.moves(aligned.setting):
            return
        sources = slot.axis_sources(aligned.setting)
        if sources is None:
            self._whole = slot.permute(_carried(self._files.read(self.entry)), aligned.setting)
            return
        self._rows = sources[0]
        self._columns = [(axis, index) for axis, index in enumerate(sources) if axis and index is not None]
        if self._rows is not None:
            self._whole = _carried(self._files.read(self.entry))

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Rows ``start`` to ``stop`` as stored, in memory of their own."""
        if self._whole is None:
            block = _carried(self._files.read(self.entry, start, stop))
        elif self._rows is None:
            block = self._whole[start:stop].clone()
        else:
            block = self._whole.index_select(0, self._rows[start:stop])
        for axis, index in self._columns:
            block = block.index_select(axis, index)
        return block.view(self.entry.dtype)


def _carried(tensor: torch.Tensor) -> torch.Tensor:
    """The same bits as integers, which every operation on places knows."""
    return tensor.view(_CARRIERS[tensor.element_size()])


def merge_shard(
    shard: Shard,
    target: Path,
    models: Sequence[Aligned],
    recipe: Recipe | None,
    dtype: str | None = None,
    told: Told | None = None,
) -> None:
    """Write ``target`` with the layout and metadata of ``shard``, a file of the first model.

    ``recipe`` None: the first model alone, bit for bit, moved. ``dtype``: torch's name of the dtype of floating
    tensors, default as stored. Integer and bool tensors, and those that no spec moves, are the first model's.
    """
    code = dtype_code(dtype) if dtype is not None else None
    tensors = [(e.key, code if code is not None and e.is_floating else e.code, e.shape) for e in shard.entries]
    with torch.no_grad(), ShardWriter(target, tensors, shard.metadata, shard.keys) as writer:
        for at, entry in enumerate(shard.entries):
            if at + 1 < len(shard.entries):
                following = shard.entries[at + 1].key
                for aligned in models:
                    aligned.model.files.want(aligned.entry(following))
            made = tensors[at][1]
            if recipe is None or not _is_merged(entry, models[0]):
                _copy(entry, models[0], writer, made, told)
            else:
                _combine(entry, models, recipe, writer, made, told)
        writer.finish()


def _is_merged(entry: Entry, first: Aligned) -> bool:
    return entry.is_floating and entry.key in first.model.slots


def _copy(entry: Entry, first: Aligned, writer: ShardWriter, code: str, told: Told | None) -> None:
    placed = PlacedRows(first, entry.key)
    for start, stop in row_blocks(entry, BLOCK):
        block = placed.rows(start, stop)
        if code != entry.code:
            block = _rounded(block.to(_wide([entry])), code, entry)
        writer.write(block)
        _tell(told, [placed], start, stop)


def _combine(
    entry: Entry, models: Sequence[Aligned], recipe: Recipe, writer: ShardWriter, code: str, told: Told | None
) -> None:
    placed = [PlacedRows(aligned, entry.key) for aligned in models]
    wide = _wide([part.entry for part in placed])

    def blocks() -> Iterator[list[torch.Tensor]]:
        for start, stop in row_blocks(entry, BLOCK):
            yield [part.rows(start, stop).to(wide) for part in placed]

    prepared = recipe.prepare(entry.key, blocks)
    for start, stop in row_blocks(entry, BLOCK):
        parts = [part.rows(start, stop).to(wide) for part in placed]
        block = recipe.combine(entry.key, parts, prepared)
        if not bool(block.sum().isfinite()):
            for part in placed:
                check_tensor(part.entry, part.rows(start, stop))
        writer.write(_rounded(block, code, entry))
        _tell(told, placed, start, stop)


def _wide(entries: Sequence[Entry]) -> torch.dtype:
    return torch.float64 if any(entry.code == "F64" for entry in entries) else torch.float32


def _rounded(block: torch.Tensor, code: str, entry: Entry) -> torch.Tensor:
    """To the dtype of the output, to nearest even. ``InvalidParamsError`` where it cannot hold a number."""
    dtype = torch_dtype(code)
    if dtype == block.dtype:
        return block
    if torch.finfo(dtype).max < 1e30 and block.numel() and float(block.abs().max()) > torch.finfo(dtype).max:
        name = str(dtype).removeprefix("torch.")
        raise InvalidParamsError(f"{entry.path}: tensor {entry.key!r} holds numbers too large for {name}", entry.key)
    return block.to(dtype)


def _tell(told: Told | None, placed: Sequence[PlacedRows], start: int, stop: int) -> None:
    if told is not None:
        told(sum((stop - start) * part.entry.row_size if part.entry.shape else part.entry.size for part in placed))
