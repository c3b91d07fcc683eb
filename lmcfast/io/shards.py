"""Checkpoints read piece by piece: safetensors files whose headers are checked here and whose tensors stay on disk.

The library's own reader maps whole files; here a tensor, or some of its rows, is read when it is needed, into memory
that is counted. A header is believed only as far as the file's size bears it out: every tensor must lie in the file,
without gaps (https://huggingface.co/docs/safetensors, "Format").
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from ..errors import CheckpointError
from .atomic import StrPath, reason
from .folder import indexed_files, weight_files

if TYPE_CHECKING:
    import torch

DTYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
"""Code in the file -> torch's name, bytes."""

_MOST_HEADER = 100_000_000  # bytes; what the library allows
_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Entry:
    """A tensor in a file: ``offset`` and ``size`` in bytes from the file's start, ``code`` its dtype there."""

    key: str
    code: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    size: int

    @property
    def dtype(self) -> torch.dtype:
        return torch_dtype(self.code)

    @property
    def is_floating(self) -> bool:
        return self.code.startswith(("F", "BF"))

    @property
    def row_size(self) -> int:
        """Bytes of one index of the first axis."""
        return self.size // self.shape[0] if self.shape and self.shape[0] else self.size

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Shard:
    """A safetensors file: its entries in the order of their bytes, the keys in the order of the header."""

    path: Path
    entries: tuple[Entry, ...]
    keys: tuple[str, ...]
    metadata: dict[str, str]

    @property
    def size(self) -> int:
        """Bytes of the tensors."""
        return sum(entry.size for entry in self.entries)


def torch_dtype(code: str) -> torch.dtype:
    """torch's dtype of a safetensors code."""
    import torch

    found: torch.dtype = getattr(torch, DTYPES[code][0])
    return found


def dtype_code(name: str) -> str | None:
    """The code of torch's name of a dtype; None for one that has none."""
    return next((code for code, (known, _) in DTYPES.items() if known == name), None)


class LazyCheckpoint:
    """The tensors of a safetensors file, or of a folder of them, by key; read on demand, files kept open.

    ``path`` as given, ``shards`` in the order of their names, ``index`` the index file of a folder that has one.
    To be closed, or used with ``with``.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)
        self.shards = tuple(read_header(file) for file in safetensors_files(path))
        self.entries: dict[str, Entry] = {}
        for shard in self.shards:
            for entry in shard.entries:
                if entry.key in self.entries:
                    other = self.entries[entry.key].path.name
                    raise CheckpointError(f"{shard.path}: tensor {entry.key!r} stands in {other} too", str(shard.path))
                self.entries[entry.key] = entry
        self.index = _index_of(self.path, self.entries)
        self._open: dict[Path, int] = {}

    @property
    def folder(self) -> Path | None:
        """The folder, None for a single file."""
        return self.path if self.path.is_dir() else None

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(shard.size for shard in self.shards)

    def read(self, entry: Entry, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """The tensor, or its rows (indices of the first axis) from ``start`` to ``stop``, in memory of its own."""
        import torch

        if not entry.shape:
            start, stop = 0, None
        rows = (entry.shape[0] if entry.shape else 1) if stop is None else stop
        offset, size = entry.offset + start * entry.row_size, (rows - start) * entry.row_size
        size = entry.size if not entry.shape else size
        raw = torch.empty(size, dtype=torch.uint8)
        if size:
            self._fill(entry, memoryview(raw.numpy().data), offset)
        shape = (rows - start, *entry.shape[1:]) if entry.shape else ()
        return raw.view(entry.dtype).view(shape) if size else torch.empty(shape, dtype=entry.dtype)

    def want(self, entry: Entry) -> None:
        """Let the system begin to read a tensor that will be needed soon."""
        if entry.size and hasattr(os, "posix_fadvise"):
            with suppress(OSError):
                os.posix_fadvise(self._descriptor(entry.path), entry.offset, entry.size, os.POSIX_FADV_WILLNEED)

    def _fill(self, entry: Entry, into: memoryview, offset: int) -> None:
        done = 0
        try:
            descriptor = self._descriptor(entry.path)
            while done < len(into):
                count = os.preadv(descriptor, [into[done : done + (1 << 24)]], offset + done)
                if not count:
                    raise CheckpointError(f"{entry.path}: truncated in tensor {entry.key!r}", str(entry.path))
                done += count
        except OSError as error:
            message = f"{entry.path}: cannot read tensor {entry.key!r}: {reason(error)}"
            raise CheckpointError(message, str(entry.path)) from error

    def _descriptor(self, path: Path) -> int:
        if path not in self._open:
            self._open[path] = os.open(path, os.O_RDONLY)
        return self._open[path]

    def close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def __enter__(self) -> LazyCheckpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def safetensors_files(path: StrPath) -> tuple[Path, ...]:
    """The safetensors files of a checkpoint. ``CheckpointError`` for pickles, which can hold code."""
    files = weight_files(path)
    for file in files:
        if file.suffix.lower() != _SUFFIX:
            raise CheckpointError(
                f"{file}: not a safetensors file; a pickle can run code and cannot be read piece by piece: save the "
                "model with safetensors first",
                str(file),
            )
        if not file.is_file():
            what = "is no file" if file.exists() else "is missing"
            named = f", which the index of {Path(path)} names" if Path(path).is_dir() else ""
            raise CheckpointError(f"{file}: {what}{named}", str(file))
    return files


def read_header(path: Path) -> Shard:
    """Read and check the header of a safetensors file. ``CheckpointError`` names the file and the tensor."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _MOST_HEADER):
                what = "truncated or damaged" if size < 10 or length <= _MOST_HEADER else "not a safetensors file"
                raise CheckpointError(f"{path}: {what}", str(path))
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {reason(error)}", str(path)) from error
    try:
        header = json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise CheckpointError(f"{path}: not a safetensors file (its header is no JSON)", str(path)) from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: not a safetensors file (its header is no object)", str(path))
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path}: damaged header: its metadata is no text", str(path))
    entries = [_entry(path, key, value, 8 + length) for key, value in header.items()]
    entries.sort(key=lambda entry: (entry.offset, entry.size))
    _check_places(path, entries, 8 + length, size)
    return Shard(path, tuple(entries), tuple(header), metadata)


def _entry(path: Path, key: str, value: Any, start: int) -> Entry:
    damaged = CheckpointError(f"{path}: damaged header: entry of tensor {key!r}", str(path))
    if not isinstance(value, dict):
        raise damaged
    code, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(code, str) or not _whole_numbers(shape) or not _whole_numbers(offsets) or len(offsets) != 2:
        raise damaged
    if code not in DTYPES:
        raise CheckpointError(f"{path}: tensor {key!r} has dtype {code}, which is not supported", str(path))
    size = math.prod(shape) * DTYPES[code][1]
    if offsets[1] - offsets[0] != size:
        found = offsets[1] - offsets[0]
        raise CheckpointError(
            f"{path}: damaged header: tensor {key!r} of shape {tuple(shape)} and dtype {code} needs {size} bytes and "
            f"has {found}",
            str(path),
        )
    return Entry(key, code, tuple(shape), path, start + offsets[0], size)


def _whole_numbers(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)


def _check_places(path: Path, entries: list[Entry], start: int, size: int) -> None:
    """The tensors lie one after the other, from the header's end to the file's end."""
    at = start
    for entry in entries:
        if entry.offset != at:
            raise CheckpointError(f"{path}: damaged header: tensor {entry.key!r} is out of place", str(path))
        at += entry.size
        if at > size:
            raise CheckpointError(
                f"{path}: truncated: tensor {entry.key!r} ends at byte {at} and the file at {size}", str(path)
            )
    if at != size:
        raise CheckpointError(f"{path}: damaged: {size - at} bytes belong to no tensor", str(path))


def _index_of(path: Path, entries: Mapping[str, Entry]) -> Path | None:
    """The index of a folder, checked: each tensor in the file that it names and no others."""
    index = path / f"model{_SUFFIX}.index.json"
    if not path.is_dir() or (path / f"model{_SUFFIX}").exists() or not index.exists():
        return None
    for key, file in indexed_files(index).items():
        if key not in entries:
            raise CheckpointError(f"{index.parent / file}: tensor {key!r} of the index is missing", str(index))
        if entries[key].path.name != file:
            found = entries[key].path.name
            raise CheckpointError(f"{index}: tensor {key!r} is in {found}, not in {file}", str(index))
    return index


def row_blocks(entry: Entry, block: int) -> Iterator[tuple[int, int]]:
    """The rows of a tensor in runs of about ``block`` bytes of the file, at least one row each."""
    rows = entry.shape[0] if entry.shape else 1
    step = max(1, block // max(1, entry.row_size))
    for start in range(0, rows, step):
        yield start, min(rows, start + step)
