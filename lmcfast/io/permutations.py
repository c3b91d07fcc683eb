"""Permutation files: the result of a match, with all that is needed to use it safely later.

A safetensors file with one int64 tensor per group (its name is the group's) and this text metadata:

====================  ======================================================================================
``format``            ``lmcfast-permutations``
``version``           version of this format, ``1``
``direction``         ``new[i] = old[p[i]]``: entry i is the unit of B that is put at place i
``groups``            JSON list of the groups in the spec's order (safetensors sorts its tensors)
``spec``              the permutation spec as JSON text
``spec_sha256``       SHA-256 of that text in UTF-8
``objective``         the match's objective, a float64 in decimal
``gap``               proven bound on the loss of the last assignments, a float64 in decimal
``sources``           JSON object: role ("a", "b") to the its SHA-256 (``weights_sha256``), as far as known
``lmcfast_version``   what wrote the file
====================  ======================================================================================
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..errors import CheckpointError, InvalidPermutationError
from .atomic import StrPath
from .checkpoint import read_checkpoint, save_checkpoint
from .folder import weights_sha256

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "lmcfast-permutations"
VERSION = "1"
DIRECTION = "new[i] = old[p[i]]"
_RESERVED = "__metadata__"  # the one name that safetensors keeps for itself


@dataclass(frozen=True)
class PermutationFile:
    """What a permutation file says, checked.

    ``permutations``: int64 CPU tensors of shape (*sizes of within, size), each last axis a permutation of
    0 .. size - 1, in the spec's order of groups. ``sources``: role ("a", "b") to SHA-256 of the checkpoint file.
    """

    path: Path
    permutations: dict[str, Tensor]
    spec_text: str
    objective: float
    gap: float
    sources: dict[str, str]
    lmcfast_version: str


def write_permutations(
    path: StrPath,
    permutations: Mapping[str, Tensor],
    spec_text: str,
    objective: float,
    gap: float,
    sources: Mapping[str, str] | None = None,
    overwrite: bool = True,
) -> None:
    """Write a permutation file (ending ``.safetensors``) atomically.

    ``permutations``: {group: int64 tensor (*sizes of within, size)}; a group's name may hold any text except
    ``__metadata__``. ``sources``: role to SHA-256 in hexadecimal (see ``weights_sha256``). Raises
    ``CheckpointError`` naming the file, ``InvalidPermutationError`` naming the group.
    """
    _check_name(path)
    for group, permutation in permutations.items():
        if group == _RESERVED:
            raise InvalidPermutationError(f"{path}: a group cannot be named {_RESERVED!r}", group)
        problem = _problem(permutation)
        if problem:
            raise InvalidPermutationError(f"{path}: group {group!r} {problem}", group)
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "direction": DIRECTION,
        "groups": json.dumps(list(permutations)),
        "spec": spec_text,
        "spec_sha256": _text_sha256(spec_text),
        "objective": repr(float(objective)),
        "gap": repr(float(gap)),
        "sources": json.dumps(dict(sources or {}), sort_keys=True),
        "lmcfast_version": __version__,
    }
    save_checkpoint(path, permutations, metadata, overwrite)


def read_permutations(path: StrPath) -> PermutationFile:
    """Read and check a permutation file.

    Raises ``CheckpointError`` naming the file: not readable, not a permutation file, a version or direction
    that is not known, a spec text that does not match its hash, a missing or extra group, a tensor that is no
    permutation.
    """
    _check_name(path)
    content = read_checkpoint(path)
    metadata = content.metadata
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a permutation file (its metadata lacks format {FORMAT!r})", str(path))
    _expect(path, metadata, "version", VERSION)
    _expect(path, metadata, "direction", DIRECTION)
    spec_text = _entry(path, metadata, "spec")
    _expect(path, metadata, "spec_sha256", _text_sha256(spec_text))
    groups = _names(path, metadata, "groups")
    sources = _hashes(path, metadata, "sources")
    if sorted(groups) != sorted(content.tensors):
        odd = sorted(set(groups) ^ set(content.tensors))
        raise CheckpointError(f"{path}: groups and tensors differ: {', '.join(map(repr, odd[:5]))}", str(path))
    for group in groups:
        problem = _problem(content.tensors[group])
        if problem:
            raise CheckpointError(f"{path}: group {group!r} {problem}", str(path))
    return PermutationFile(
        Path(path),
        {group: content.tensors[group] for group in groups},
        spec_text,
        _number(path, metadata, "objective"),
        _number(path, metadata, "gap"),
        sources,
        _entry(path, metadata, "lmcfast_version"),
    )


def check_sources(file: PermutationFile, checkpoints: Mapping[str, StrPath]) -> dict[str, str]:
    """Check that checkpoint files are those that the permutations were computed for, by SHA-256.

    ``checkpoints``: role ("a", "b") to path. A role whose hash the file does not record is not checked. Returns the
    hashes of all that were hashed, by role. Raises ``CheckpointError`` naming the checkpoint.
    """
    hashes = {}
    for role, checkpoint in checkpoints.items():
        recorded = file.sources.get(role)
        if recorded is None:
            continue
        hashes[role] = weights_sha256(checkpoint)
        if hashes[role] != recorded:
            message = (
                f"{checkpoint}: not the checkpoint that {file.path} was made for as model {role.upper()} "
                f"(sha256 {hashes[role][:12]}..., recorded {recorded[:12]}...)"
            )
            raise CheckpointError(message, str(checkpoint))
    return hashes


def _check_name(path: StrPath) -> None:
    if Path(path).suffix.lower() != ".safetensors":
        raise CheckpointError(f"{path}: a permutation file must end in .safetensors", str(path))


def _problem(permutation: Tensor) -> str | None:
    """What keeps a tensor from being permutations of its last axis; None where nothing does."""
    import torch

    if permutation.dtype != torch.int64:
        return f"is {permutation.dtype}, not torch.int64"
    if permutation.ndim == 0:
        return "is a single number, not a permutation"
    size = permutation.shape[-1]
    if not bool((permutation.sort(-1).values == torch.arange(size, device=permutation.device)).all()):
        return f"is no permutation of 0 .. {size - 1}"
    return None


def _text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _entry(path: StrPath, metadata: Mapping[str, str], key: str) -> str:
    if key not in metadata:
        raise CheckpointError(f"{path}: damaged permutation file: metadata {key!r} is missing", str(path))
    return metadata[key]


def _expect(path: StrPath, metadata: Mapping[str, str], key: str, wanted: str) -> None:
    got = _entry(path, metadata, key)
    if got != wanted:
        raise CheckpointError(f"{path}: metadata {key!r} is {got!r}, this lmcfast expects {wanted!r}", str(path))


def _names(path: StrPath, metadata: Mapping[str, str], key: str) -> list[str]:
    value = _parse(path, metadata, key)
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _damaged(path, metadata, key)
    return value


def _hashes(path: StrPath, metadata: Mapping[str, str], key: str) -> dict[str, str]:
    value = _parse(path, metadata, key)
    if not isinstance(value, dict) or not all(isinstance(digest, str) for digest in value.values()):
        raise _damaged(path, metadata, key)
    return value


def _parse(path: StrPath, metadata: Mapping[str, str], key: str) -> object:
    text = _entry(path, metadata, key)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _damaged(path, metadata, key) from error


def _number(path: StrPath, metadata: Mapping[str, str], key: str) -> float:
    text = _entry(path, metadata, key)
    try:
        return float(text)
    except ValueError as error:
        raise _damaged(path, metadata, key) from error


def _damaged(path: StrPath, metadata: Mapping[str, str], key: str) -> CheckpointError:
    text = metadata[key][:80]
    return CheckpointError(f"{path}: damaged permutation file: metadata {key!r} is {text!r}", str(path))
