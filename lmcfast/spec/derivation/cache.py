"""Derived specs kept for the next time: in this process, and in the folder ``LMCFAST_CACHE`` if that is set.

A spec is filed under a digest of what it was derived from, of the versions of torch and transformers, and of the code
that derives, so that none outlives a change in these.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ...errors import CheckpointError
from ..spec import PermutationSpec

VARIABLE = "LMCFAST_CACHE"

_kept: dict[str, PermutationSpec] = {}


def cached(source: Mapping[str, Any], derive: Callable[[], PermutationSpec]) -> PermutationSpec:
    """The spec of ``source`` (JSON data that determines it), derived if it isn't kept yet.

    A file that can't be read as a spec is written anew; a folder that can't be written to is left alone.
    """
    key = digest(source)
    if key not in _kept:
        _kept[key] = _from_folder(key, derive)
    return _kept[key]


def digest(source: Mapping[str, Any]) -> str:
    """SHA-256 of the source, the versions and the code."""
    data = [source, [_version(name) for name in ("torch", "transformers")], _code()]
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()


def _from_folder(key: str, derive: Callable[[], PermutationSpec]) -> PermutationSpec:
    folder = os.environ.get(VARIABLE)
    if not folder:
        return derive()
    path = Path(folder) / f"{key}.json"
    if path.exists():
        with suppress(CheckpointError):
            return PermutationSpec.load(path)
    spec = derive()
    with suppress(CheckpointError, OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        spec.save(path)
    return spec


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


@cache
def _code() -> str:
    """Digest of the files of lmcfast.spec."""
    root = Path(__file__).parent.parent
    found = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        found.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()
