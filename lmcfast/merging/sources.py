"""The checkpoints of a large merge, opened and compared before any work: what cannot be merged is refused by name."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, InvalidParamsError, SpecError
from ..io.atomic import StrPath, reason
from ..io.shards import LazyCheckpoint
from ..spec import PermutationSpec, check_params, match_names, spec_for, spec_from_params
from ..spec.binding import added_prefix
from ..spec.configuration import CONFIG, read_config
from ..spec.names import NameMap
from .models import is_configured, naming
from .seen import Model
from .slots import make_slots

_ADAPTER = "adapter_config.json"
_QUANTISED = (".qweight", ".qzeros", ".g_idx", ".SCB", ".absmax", ".quant_state", ".weight_scale", ".weight_packed")
"""Ends of keys that quantisation leaves in a checkpoint (GPTQ, AWQ, bitsandbytes, compressed-tensors)."""

_ADVICE = "merge the full-precision checkpoint, and quantise the result"


def open_sources(paths: Sequence[StrPath], any_dtype: bool = False) -> list[LazyCheckpoint]:
    """Open checkpoints and check that they hold the same tensors. ``any_dtype``: of any floating dtype each.

    ``CheckpointError`` and ``InvalidParamsError`` name the file and the tensor.
    """
    opened: list[LazyCheckpoint] = []
    try:
        for path in paths:
            _refuse_special(Path(path))
            opened.append(LazyCheckpoint(path))
            _refuse_quantised(opened[-1])
        for other in opened[1:]:
            _check_alike(opened[0], other, any_dtype)
            _check_vocabulary(opened[0].path, other.path)
    except BaseException:
        for source in opened:
            source.close()
        raise
    return opened


def _refuse_special(path: Path) -> None:
    if not path.exists():
        raise CheckpointError(f"{path}: cannot read: no such file or directory", str(path))
    if (path / _ADAPTER).exists():
        raise CheckpointError(
            f"{path / _ADAPTER}: the folder is an adapter (LoRA), not a network; merge it into its base first "
            "(peft: merge_and_unload)",
            str(path),
        )
    if is_configured(path):
        found = read_config(path).get("quantization_config")
        if found:
            kind = found.get("quant_method", "unknown method") if isinstance(found, dict) else "unknown method"
            raise CheckpointError(f"{path / CONFIG}: the checkpoint is quantised ({kind}); {_ADVICE}", str(path))


def _refuse_quantised(source: LazyCheckpoint) -> None:
    if not source.entries:
        raise CheckpointError(f"{source.path}: holds no tensors", str(source.path))
    for key, entry in source.entries.items():
        if key.endswith(_QUANTISED):
            raise CheckpointError(f"{entry.path}: tensor {key!r} is part of a quantised checkpoint; {_ADVICE}", key)
        if entry.code in ("I8", "U8") and key.endswith("weight") and len(entry.shape) > 1:
            name = entry.code.lower()
            raise CheckpointError(f"{entry.path}: tensor {key!r} is quantised ({name}); {_ADVICE}", str(entry.path))


def _check_alike(a: LazyCheckpoint, b: LazyCheckpoint, any_dtype: bool) -> None:
    """The same keys with the same shapes and dtypes."""
    for has, lacks in ((a, b), (b, a)):
        missing = [key for key in has.entries if key not in lacks.entries]
        if missing:
            prefix = added_prefix(has.entries, lacks.entries)
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            hint = f"; all names in {has.path} begin with {prefix!r}" if prefix else ""
            raise InvalidParamsError(
                f"{lacks.path}: tensor {missing[0]!r} of {has.entries[missing[0]].path} is missing{more}{hint}",
                missing[0],
            )
    for key, entry in a.entries.items():
        other = b.entries[key]
        if entry.shape != other.shape:
            raise InvalidParamsError(
                f"{other.path}: tensor {key!r} has shape {other.shape}, and {entry.shape} in {entry.path}", key
            )
        if entry.code != other.code and not (any_dtype and entry.is_floating and other.is_floating):
            kinds = [str(e.dtype).removeprefix("torch.") for e in (other, entry)]
            advice = "; --dtype says what the result is to be" if entry.is_floating and other.is_floating else ""
            raise InvalidParamsError(
                f"{other.path}: tensor {key!r} is {kinds[0]} and {kinds[1]} in {entry.path}{advice}", key
            )


def _check_vocabulary(a: Path, b: Path) -> None:
    """The tokens have the same numbers: rows of the embeddings are merged number by number."""
    if not (a.is_dir() and b.is_dir()):
        return
    if is_configured(a) and is_configured(b):
        kinds = [read_config(path).get("model_type") for path in (a, b)]
        if kinds[0] != kinds[1]:
            raise CheckpointError(f"{b / CONFIG}: model_type {kinds[1]!r}, and {kinds[0]!r} in {a / CONFIG}", str(b))
    for name in ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model"):
        if (a / name).is_file() and (b / name).is_file() and _tokens(a / name) != _tokens(b / name):
            raise CheckpointError(
                f"{b / name}: other tokens than {a / name}; models of different vocabularies cannot be merged", str(b)
            )


def _tokens(path: Path) -> Any:
    """What a tokenizer's file says of the tokens' numbers."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {reason(error)}", str(path)) from error
    if path.name != "tokenizer.json":
        return content
    try:
        found = json.loads(content)
        return found["model"].get("vocab"), sorted(
            (str(token.get("content")), token.get("id")) for token in found.get("added_tokens") or []
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return content


def spec_of_sources(spec: str | PermutationSpec, source: LazyCheckpoint) -> PermutationSpec:
    """The spec of the network, not yet bound: by its configuration, a spec file, or the tensors' names."""
    if isinstance(spec, PermutationSpec):
        return spec
    if spec != "auto":
        return spec_for(spec) if is_configured(spec) else PermutationSpec.load(spec)
    if is_configured(source.path):
        with naming(source.path):
            return spec_for(source.path)
    with naming(source.path):
        return spec_from_params(meta_tensors(source))


def meta_tensors(source: LazyCheckpoint) -> dict[str, torch.Tensor]:
    """The tensors without their numbers."""
    return {key: torch.empty(e.shape, dtype=e.dtype, device="meta") for key, e in source.entries.items()}


def bind(spec: PermutationSpec, source: LazyCheckpoint) -> tuple[PermutationSpec, Model]:
    """The spec bound to the sizes of a checkpoint, stacks as tensors of their own, and the checkpoint seen by it."""
    tensors = meta_tensors(source)
    spare = {key for key, entry in source.entries.items() if not entry.shape or not entry.is_floating}
    with naming(source.path):
        names = match_names(spec, tensors, spare)
        whole = replace(spec, stacks={}) if spec.stacks else spec
        bound = check_params(whole, names.to_module(tensors), argument=str(source.path))
        shapes = {key: entry.shape for key, entry in source.entries.items()}
        return bound, Model(source, names, make_slots(bound, names, shapes))


def seen_alike(model: Model, other: LazyCheckpoint) -> Model:
    """Another checkpoint of the same keys and shapes, seen in the same way."""
    return Model(other, NameMap(model.names.sources, model.names.carried), model.slots)


def prove_spec(source: LazyCheckpoint) -> bool:
    """Verify the spec of a folder's configuration on a tiny network of its class; False where that cannot be made."""
    from ..spec.configuration import make_network, prove, tiny

    known = importlib.util.find_spec("transformers") is not None and is_configured(source.path)
    if not known or read_config(source.path).get("auto_map"):
        return False
    try:
        make_network(tiny(source.path))
    except (ImportError, SpecError, KeyError):
        return False
    with naming(source.path):
        prove(source.path)
    return True


def source_state(source: LazyCheckpoint) -> list[list[Any]]:
    """What tells that the files are those of an earlier run: names, sizes, times of their last change."""
    found: Mapping[Path, Any] = {shard.path: shard.path.stat() for shard in source.shards}
    return [[path.name, state.st_size, state.st_mtime_ns] for path, state in found.items()]
