"""Folders of a network as Hugging Face stores them: weights in one file, or in several with an index."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError
from .atomic import StrPath, reason
from .checkpoint import Checkpoint, file_sha256, read_checkpoint

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of the weights in a folder, in order of preference; ``NAME.index.json`` beside parts of them."""


def weight_files(path: StrPath) -> tuple[Path, ...]:
    """The files of a checkpoint: a file itself, or those that hold the weights of a folder, by name.

    ``CheckpointError`` for a folder that holds none, and for an index that cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        return (path,)
    for name in WEIGHTS:
        if (path / name).exists():
            return (path / name,)
        if (path / f"{name}.index.json").exists():
            index = path / f"{name}.index.json"
            return tuple(path / part for part in sorted(set(indexed_files(index).values())))
    raise CheckpointError(f"{path}: is a folder without weights ({', '.join(WEIGHTS)}, or an index of them)", str(path))


def indexed_files(index: Path) -> dict[str, str]:
    """Tensor -> file as an index says: plain names only, so that nothing outside the folder is read."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{index}: cannot read: {reason(error)}", str(index)) from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise CheckpointError(f"{index}: is not an index of weights: no JSON", str(index)) from None
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise CheckpointError(f"{index}: is not an index of weights: it has no 'weight_map'", str(index))
    for tensor, name in names.items():
        if name != Path(name).name or name == "..":
            message = f"{index}: names {name!r} for tensor {tensor!r}, which is no file of this folder"
            raise CheckpointError(message, str(index))
    return names


def read_weights(path: StrPath) -> Checkpoint:
    """The content of a checkpoint file, or of all the files of a folder. Errors as of ``read_checkpoint``."""
    files = weight_files(path)
    parts = [read_checkpoint(file) for file in files]
    if len(parts) == 1:
        part = parts[0]
        return part if not Path(path).is_dir() else Checkpoint(Path(path), part.tensors, part.metadata, part.nested)
    tensors: dict[str, Tensor] = {}
    for part in parts:
        twice = next((name for name in part.tensors if name in tensors), None)
        if twice is not None:
            raise CheckpointError(f"{part.path}: tensor {twice!r} stands in another file of the folder too", str(path))
        tensors |= part.tensors
    return Checkpoint(Path(path), tensors, parts[0].metadata)


def weights_sha256(path: StrPath) -> str:
    """The SHA-256 of a checkpoint's file; where a folder has several, that of their names and hashes, a line each."""
    files = weight_files(path)
    if len(files) == 1:
        return file_sha256(files[0])
    lines = "".join(f"{file_sha256(file)} {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()
