"""The folder of a study: trained networks, permutations and results, each with what it was made from.

A result is used again only where all that it depends on is the same, so a changed recipe, data set or setting is
noticed, and a study that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from ..io import atomic_path, check_writable_folder, read_checkpoint, save_checkpoint
from ..matching.result import MatchResult, load_permutations
from .data import Dataset

_KEY = "study"  # of a checkpoint's metadata
FORMAT = 1  # of results; a change in what is measured raises it


class Store:
    """``folder`` with ``networks/``, ``matches/`` and ``results/``."""

    def __init__(self, folder: Path) -> None:
        self.folder = check_writable_folder(folder)
        for part in ("networks", "matches", "results"):
            (folder / part).mkdir(parents=True, exist_ok=True)

    def result(self, name: str, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """A kept result; None where there is none of this key (a broken file counts as none)."""
        try:
            content = json.loads(self._result_path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(content, dict) or content.get("key") != _plain(key):
            return None
        found = content.get("result")
        return found if isinstance(found, dict) else None

    def keep_result(self, name: str, key: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        with atomic_path(self._result_path(name)) as temporary:
            temporary.write_text(json.dumps({"key": _plain(key), "result": result}) + "\n", encoding="utf-8")

    def drop_results(self, *patterns: str) -> None:
        """Delete the results of these names (wildcards)."""
        for pattern in patterns:
            for path in (self.folder / "results").glob(f"{pattern}.json"):
                path.unlink(missing_ok=True)

    def network_path(self, label: str, seed: int) -> Path:
        return self.folder / "networks" / f"{label}-{seed}.safetensors"

    def network(self, path: Path, key: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], bool] | None:
        """Tensors of a kept network, and whether it was put there by hand (a file that says nothing of its training).

        None where there is no file, or one of another training.
        """
        if not path.exists():
            return None
        try:
            checkpoint = read_checkpoint(path)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; delete it to train the network anew", str(path)) from error
        text = checkpoint.metadata.get(_KEY)
        if text is not None and text != _text(key):
            return None
        return checkpoint.tensors, text is None

    def keep_network(self, path: Path, key: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        save_checkpoint(path, dict(tensors), {_KEY: _text(key)})

    def state_path(self, path: Path, key: Mapping[str, Any]) -> Path:
        """Where the training of this key keeps its state; another recipe's state has another name."""
        return path.with_name(f"{path.stem}-{hashlib.sha256(_text(key).encode()).hexdigest()[:8]}.pt")

    def drop_states(self, path: Path) -> None:
        """Delete the states of a network that is trained, those of other recipes too."""
        for state in path.parent.glob(f"{path.stem}-????????.pt"):
            state.unlink(missing_ok=True)

    def permutations(self, name: str, fingerprint: str) -> dict[str, torch.Tensor] | None:
        """Kept permutations with this hash; None where there are no such."""
        try:
            kept = dict(load_permutations(self._match_path(name)).permutations)
        except CheckpointError:
            return None
        return kept if params_fingerprint(kept) == fingerprint else None

    def keep_match(self, name: str, result: MatchResult) -> str:
        """Write the permutations; their hash."""
        result.save(self._match_path(name))
        return params_fingerprint(result.permutations)

    def _match_path(self, name: str) -> Path:
        return self.folder / "matches" / f"{name}.safetensors"

    def _result_path(self, name: str) -> Path:
        return self.folder / "results" / f"{name}.json"


def _plain(value: Any) -> Any:
    """As JSON gives it back: tuples are lists."""
    return json.loads(json.dumps(value))


def _text(key: Mapping[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)


def data_fingerprint(data: Dataset) -> str:
    """Hash of all images and labels, and of their shapes."""
    digest = hashlib.sha256()
    for tensor in (data.train_inputs, data.train_targets, data.test_inputs, data.test_targets):
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def params_fingerprint(params: Mapping[str, torch.Tensor]) -> str:
    """Hash of all tensors by their names."""
    digest = hashlib.sha256()
    for name in sorted(params):
        digest.update(f"{name} {tuple(params[name].shape)} {params[name].dtype}".encode())
        digest.update(params[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
