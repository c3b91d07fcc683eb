"""Checkpoints: a file of named tensors, read without running code and written whole or not at all.

``.safetensors`` goes through the safetensors library; ``.pt``, ``.pth``, ``.bin`` and ``.ckpt`` through
``torch.load(weights_only=True)`` and ``torch.save``. Whatever is wrong with a file, ``CheckpointError`` says
so in one line that begins with its name.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from ..errors import CheckpointError
from .atomic import StrPath, atomic_path, check_writable, reason

if TYPE_CHECKING:
    from torch import Tensor

_SAFETENSORS = ".safetensors"
_TORCH = (".pt", ".pth", ".bin", ".ckpt")
SUFFIXES = (_SAFETENSORS, *_TORCH)
"""The file endings that are understood; the ending decides the format."""

_NESTED = ("state_dict", "model_state_dict", "model")

# What torch.load was seen to raise on several thousand damaged files, beside UnpicklingError.
_DAMAGE = (
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    AssertionError,
    TypeError,
    AttributeError,
    OverflowError,
    struct.error,
)


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file.

    ``tensors``: CPU tensors by name; names that share storage in the file share it here. ``metadata``: the
    text metadata of a safetensors file, else empty. ``nested``: the entry of a training checkpoint that the
    tensors were taken from ("state_dict"), None where they stood at the top. ``ignored``: what stood beside
    that entry.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)
    nested: str | None = None
    ignored: tuple[str, ...] = ()


def load_checkpoint(path: StrPath) -> dict[str, Tensor]:
    """The tensors of a checkpoint file by name, on the CPU.

    ``.safetensors``, or ``.pt``, ``.pth``, ``.bin``, ``.ckpt`` of torch, which may hold the state dict itself or, as
    training programs write it, under ``state_dict``, ``model_state_dict`` or ``model``. Raises ``CheckpointError``
    naming the file: missing, a folder, unreadable, truncated, another format, or Python objects, which are never loaded
    since that can run code. (:func:`lmcfast.io.read_checkpoint` gives the file's metadata too.)
    """
    return read_checkpoint(path).tensors


def read_checkpoint(path: StrPath) -> Checkpoint:
    """Read a checkpoint file: ``.safetensors``, or ``.pt``, ``.pth``, ``.bin``, ``.ckpt`` of torch.

    A torch file may hold the state dict itself or, as training programs write it, under ``state_dict``,
    ``model_state_dict`` or ``model``; ``.nested`` says which. Raises ``CheckpointError`` naming the file:
    missing, a folder, unreadable, truncated, another format, or Python objects, which are never loaded since
    that can run code.
    """
    path = Path(path)
    suffix = _check_suffix(path)
    _check_readable(path)
    return _read_safetensors(path) if suffix == _SAFETENSORS else _read_torch(path)


def check_output(path: StrPath, overwrite: bool = True) -> None:
    """Prove that a checkpoint can be written to ``path``: its ending is known and its folder writable."""
    _check_suffix(Path(path))
    check_writable(path, overwrite)


def save_checkpoint(
    path: StrPath,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = True,
) -> None:
    """Write tensors (any device, any strides) to ``path`` in the format of its ending, atomically.

    safetensors refuses names that share storage, so there every name gets bytes of its own: a tied pair is
    stored twice, with equal content, and each name is found by any reader. torch files keep the sharing.
    ``metadata`` (text to text; ``{"format": "pt"}`` is added) is kept by safetensors only. Equal
    content gives equal bytes. Raises ``CheckpointError`` naming the file and, where one tensor is to blame, the tensor.
    """
    suffix = _check_suffix(Path(path))
    for name, tensor in tensors.items():
        _check_storable(path, name, tensor)
    with atomic_path(path, overwrite) as temporary:
        try:
            if suffix == _SAFETENSORS:
                from safetensors.torch import save_file

                save_file(_separate(tensors), temporary, {"format": "pt", **(metadata or {})})
                _sort_metadata(temporary)
            else:
                import torch

                with open(temporary, "wb") as file:  # given a path, torch would write its temporary name into the file
                    torch.save({name: tensor.detach() for name, tensor in tensors.items()}, file)
        except (SafetensorError, RuntimeError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{path}: cannot write: {_one_line(error)}", str(path)) from error


def file_sha256(path: StrPath) -> str:
    """The SHA-256 of a file's bytes in hexadecimal, read in chunks. Raises ``CheckpointError`` naming the file."""
    _check_readable(Path(path))
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {reason(error)}", str(path)) from error


def _check_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        got = f"ending {path.suffix!r}" if path.suffix else "no ending"
        raise CheckpointError(f"{path}: unknown kind of checkpoint ({got}; known: {known})", str(path))
    return suffix


def _check_readable(path: Path) -> None:
    """Open the file once in Python, whose errors are more precise than those of the libraries."""
    try:
        if path.is_dir():
            raise CheckpointError(f"{path}: is a folder; give a file", str(path))
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path}: cannot read: it is not a regular file", str(path))
        with open(path, "rb"):
            pass
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {reason(error)}", str(path)) from error


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except SafetensorError as error:
        detail = _one_line(error).removeprefix("Error while deserializing header: ")
        kind = "truncated or damaged" if _begins_as_safetensors(path) else "not a safetensors file"
        raise CheckpointError(f"{path}: {kind} ({detail})", str(path)) from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {reason(error)}", str(path)) from error
    return Checkpoint(path, tensors, metadata)


def _read_torch(path: Path) -> Checkpoint:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice about pickles to programmers; a file is judged below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: {_refusal(path, error)}", str(path)) from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {reason(error)}", str(path)) from error
    except _DAMAGE as error:
        raise CheckpointError(f"{path}: {_not_torch(path)}", str(path)) from error
    return _state_dict(path, content)


def _state_dict(path: Path, content: Any) -> Checkpoint:
    """Find the mapping of names to tensors in what torch.load returned."""
    nested: str | None = None
    ignored: tuple[str, ...] = ()
    if isinstance(content, Mapping):
        nested = next((key for key in _NESTED if isinstance(content.get(key), Mapping)), None)
        if nested is not None:
            ignored = tuple(str(key) for key in content if key != nested)
            content = content[nested]
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise CheckpointError(f"{path}: holds a {kind}, not a state dict (names to tensors)", str(path))
    tensors = {}
    for name, tensor in content.items():
        if not isinstance(name, str):
            raise CheckpointError(f"{path}: key {name!r} is no text; not a state dict", str(path))
        _check_storable(path, name, tensor)
        tensors[name] = tensor.detach()
    return Checkpoint(path, tensors, {}, nested, ignored)


def _check_storable(path: StrPath, name: str, tensor: Any) -> None:
    import torch

    if not isinstance(tensor, torch.Tensor):
        kind = type(tensor).__name__
        raise CheckpointError(f"{path}: entry {name!r} is a {kind}, not a tensor", str(path))
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        what = "meta (no data)" if tensor.is_meta else "quantized" if tensor.is_quantized else "sparse"
        raise CheckpointError(f"{path}: tensor {name!r} is {what}; only dense tensors are handled", str(path))


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors, no two of which share storage."""
    separate: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        if plain.untyped_storage().data_ptr() in taken:
            plain = plain.clone()
        taken.add(plain.untyped_storage().data_ptr())
        separate[name] = plain
    return separate


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file in order: the library's own order is random, so no two files were equal.

    The header (its length in 8 bytes, then JSON padded with blanks) keeps its length: only whole entries move.
    """
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= length:  # else the library writes its JSON in another way than today: leave it as it is
            file.seek(8)
            file.write(text.ljust(length))


def _begins_as_safetensors(path: Path) -> bool:
    """Whether a file is empty or begins as the format does: a length in 8 bytes, then JSON."""
    head = _head(path)
    return len(head) < 9 or head[8:9] == b"{"


def _not_torch(path: Path) -> str:
    """A torch file is a zip archive or, in the old format, a pickle; what begins so and cannot be read is damaged."""
    head = _head(path)
    if not head:
        return "truncated or damaged: the file is empty"
    if head[:4] != b"PK\x03\x04":
        return "truncated or damaged" if head[0] == 0x80 else "not a torch checkpoint"
    # The archive's index ends in this mark, at most 64 KiB before the file's end.
    return "not a torch checkpoint, or a damaged one" if b"PK\x05\x06" in _tail(path) else "truncated or damaged"


def _head(path: Path) -> bytes:
    return _piece(path, 0, 16)


def _tail(path: Path) -> bytes:
    return _piece(path, max(0, path.stat().st_size - 2**16 - 64), 2**16 + 64)


def _piece(path: Path, start: int, length: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {reason(error)}", str(path)) from error


def _refusal(path: Path, error: pickle.UnpicklingError) -> str:
    """Tell a pickle with objects in it from a file that is no pickle at all."""
    found = re.search(r"GLOBAL ([\w.]+)|[Uu]nsupported (?:global|class) ([\w.]+)", str(error))
    if found is None:
        return _not_torch(path)
    name = found.group(1) or found.group(2)
    return f"holds Python objects ({name}), which are not loaded since that can run code; save its state dict alone"


def _one_line(error: Exception) -> str:
    """The first line of an error's text without the C++ stack that torch appends, or its type where it has none."""
    text = (str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)).strip()
    line = text.splitlines()[0] if text else type(error).__name__
    return line if len(line) <= 200 else line[:197] + "..."
