"""What is written beside merged weights: the files that make them a model, and a record of where they come from."""

from __future__ import annotations

import hashlib
import json
import queue
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import CheckpointError
from ..io import file_sha256
from ..io.atomic import atomic_path, reason
from ..io.shards import LazyCheckpoint, Shard
from ..spec.configuration import CONFIG

PROVENANCE = "lmcfast_merge.json"
PERMUTATIONS = "lmcfast_permutations_{}.safetensors"

_COPIED = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".spm", ".py")
_DTYPE_FIELDS = ("dtype", "torch_dtype")


def companions(source: LazyCheckpoint) -> list[Path]:
    """Configuration, tokenizer and generation files of a folder, by name."""
    if source.folder is None:
        return []
    left_out = {PROVENANCE, *(path.name for path in source.folder.glob("*.index.json"))}
    return sorted(
        path
        for path in source.folder.iterdir()
        if path.suffix in _COPIED and path.name not in left_out and path.is_file()
    )


def copy_companions(source: LazyCheckpoint, target: Path, dtype: str | None) -> None:
    """Copy what makes the weights a model; the configuration says the new dtype."""
    for path in companions(source):
        try:
            if path.name == CONFIG and dtype is not None:
                config = json.loads(path.read_text(encoding="utf-8"))
                config |= {name: dtype for name in _DTYPE_FIELDS if name in config}
                (target / path.name).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            else:
                shutil.copyfile(path, target / path.name)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot copy: {reason(error)}", str(path)) from error


def write_index(source: LazyCheckpoint, target: Path, size: int) -> None:
    """The index of the output: the first model's, with the new size."""
    if source.index is None:
        return
    content = json.loads(source.index.read_text(encoding="utf-8"))
    if isinstance(content.get("metadata"), dict):
        content["metadata"] = {**content["metadata"], "total_size": size}
    write_text(target / source.index.name, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def run_identity(options: Mapping[str, Any], sources: Sequence[LazyCheckpoint]) -> str:
    """A hash of what a run does, as far as options, file names, sizes and headers tell."""
    digest = hashlib.sha256(json.dumps([__version__, dict(options)], sort_keys=True).encode())
    for source in sources:
        for shard in source.shards:
            digest.update(f"{shard.path.name} {shard.path.stat().st_size}\n".encode())
            with open(shard.path, "rb") as file:
                digest.update(file.read(8 + int.from_bytes(file.read(8), "little")))
    return digest.hexdigest()


def is_finished(out: Path, identity: str, sources: Sequence[LazyCheckpoint]) -> bool:
    """Whether a folder is the result of this very run, made after its inputs were last changed."""
    record = out / PROVENANCE
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        made = record.stat().st_mtime_ns
    except (OSError, ValueError):
        return False
    newest = max(shard.path.stat().st_mtime_ns for source in sources for shard in source.shards)
    return isinstance(found, dict) and found.get("run") == identity and made >= newest


class Hashes:
    """SHA-256 of the inputs, made in a thread behind the pass that reads them.

    ``known``: those of earlier runs, by path. :meth:`done` gives what is new since the last call.
    """

    def __init__(self, shards: Sequence[Shard], known: Mapping[str, str]) -> None:
        self.found: dict[str, str] = dict(known)
        self._new: queue.Queue[tuple[str, str]] = queue.Queue()
        self._left = [shard.path for shard in shards if str(shard.path) not in known]
        self._error: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for path in self._left:
            if self._stop.is_set():
                return
            try:
                self._new.put((str(path), file_sha256(path)))
            except CheckpointError as error:
                self._error = error
                return

    def done(self, wait: bool = False) -> list[tuple[str, str]]:
        """New hashes; with ``wait`` all that are left."""
        if wait:
            self._thread.join()
            if self._error is not None:
                raise self._error
        fresh = []
        while not self._new.empty():
            fresh.append(self._new.get())
        self.found |= dict(fresh)
        return fresh

    def stop(self) -> None:
        self._stop.set()
