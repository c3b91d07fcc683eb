"""A safetensors file written front to back: the header first, then the tensors in pieces, then flushed and renamed.

What is written goes to the disk while the next piece is made: a thread flushes behind the writer.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError
from .atomic import reason
from .shards import DTYPES

if TYPE_CHECKING:
    import torch

FLUSH_EVERY = 1 << 26  # bytes


def header_bytes(
    tensors: Sequence[tuple[str, str, tuple[int, ...]]],
    metadata: Mapping[str, str],
    order: Sequence[str] | None = None,
) -> bytes:
    """Length and header of a file. ``tensors``: (key, dtype code, shape) in the order of their bytes.

    ``order``: the keys as the header lists them, which readers show; default as their bytes.
    """
    places, at = {}, 0
    for key, code, shape in tensors:
        size = DTYPES[code][1]
        for length in shape:
            size *= length
        places[key] = {"dtype": code, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    header |= {key: places[key] for key in (order or places)}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


class ShardWriter:
    """Writes one file to ``path`` under a temporary name beside it; :meth:`finish` puts it in place, whole.

    To be used with ``with``: an error removes what was written. ``write`` takes the tensors' content in the order of
    ``tensors``, in pieces of any length. Raises ``CheckpointError`` naming the file (disk full).
    """

    def __init__(
        self,
        path: Path,
        tensors: Sequence[tuple[str, str, tuple[int, ...]]],
        metadata: Mapping[str, str],
        order: Sequence[str] | None = None,
    ) -> None:
        self.path = path
        self._temporary = path.with_name(f".lmcfast-{path.name}.part")
        header = header_bytes(tensors, metadata, order)
        last = json.loads(header[8:])[tensors[-1][0]]["data_offsets"][1] if tensors else 0
        self._expected = len(header) + int(last)
        self._written = self._flushed = 0
        self._thread: threading.Thread | None = None
        try:
            self._descriptor = os.open(self._temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o666)
        except OSError as error:
            raise self._failed(error) from error
        try:
            self._write(memoryview(header))
        except BaseException:
            self._drop()
            raise

    def write(self, piece: torch.Tensor) -> None:
        """Append a contiguous CPU tensor's bytes."""
        import torch

        if piece.numel():
            self._write(memoryview(piece.reshape(-1).view(torch.uint8).numpy().data))

    def _write(self, data: memoryview) -> None:
        try:
            done = 0
            while done < len(data):
                done += os.write(self._descriptor, data[done : done + (1 << 24)])
        except OSError as error:
            raise self._failed(error) from error
        self._written += len(data)
        if self._written - self._flushed >= FLUSH_EVERY and (self._thread is None or not self._thread.is_alive()):
            self._flushed = self._written
            self._thread = threading.Thread(target=self._flush, daemon=True)
            self._thread.start()

    def _flush(self) -> None:
        with suppress(OSError):  # finish() flushes again, and reports
            os.fdatasync(self._descriptor)

    def finish(self) -> None:
        """Flush the file to the disk and give it its name."""
        if self._written != self._expected:
            raise RuntimeError(f"{self.path}: {self._written} bytes written, {self._expected} expected")
        try:
            self._wait()
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
            os.replace(self._temporary, self.path)
        except OSError as error:
            raise self._failed(error) from error
        flush_folder(self.path.parent)

    def _failed(self, error: OSError) -> CheckpointError:
        return CheckpointError(f"{self.path}: cannot write: {reason(error)}", str(self.path))

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _drop(self) -> None:
        if self._descriptor >= 0:
            self._wait()
            os.close(self._descriptor)
            self._descriptor = -1
            with suppress(OSError):
                self._temporary.unlink()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()


def flush_folder(folder: Path) -> None:
    """Force the names in a folder to the disk, where the file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
