"""Names of a module's tensors and keys of its checkpoint: a mapping that leads both ways.

A spec speaks the names of the module. A checkpoint may hold the same tensors under other keys: with a prefix more or
less, tied tensors once, experts one by one where the module has them in one tensor or the reverse, and the arms of a
projection fused in one of both and side by side in the other. :func:`match_names` finds the way from one to the other,
from names alone; nothing is guessed: a key that leads nowhere and a tensor that no key leads to are errors.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from ..errors import InvalidParamsError
from .binding import added_prefix
from .layout import layout_size
from .pieces import Piece, joined, taken
from .spec import PermutationSpec
from .stacks import members

Params = Mapping[str, torch.Tensor]

_CARRIED = ("position_ids", "token_type_ids", "inv_freq", "attn.bias", "attn.masked_bias", "num_batches_tracked")
"""Ends of keys that old files have beside a module's tensors: constants and counters, carried along as they are."""

_VARIABLE = re.compile(r"\{([a-z]+)\}")
_FORMS = {"p": r"(?:.*\.)?", "leaf": "weight|bias", "e": r"[0-9]+|\*"}
"""What a variable of a rule may be (``*``: a stack of all experts); all others are numbers."""

_MIXTRAL, _FINE = "{p}block_sparse_moe.experts.{e}.", "{p}mlp.experts.{e}."
_VIT = "{p}encoder.layer.{i}."

_RULES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("{p}mlp.experts.gate_up_proj", (f"{_MIXTRAL}w1.weight", f"{_MIXTRAL}w3.weight")),
    ("{p}mlp.experts.down_proj", (f"{_MIXTRAL}w2.weight",)),
    ("{p}mlp.gate.weight", ("{p}block_sparse_moe.gate.weight",)),
    ("{p}mlp.experts.gate_up_proj", (f"{_FINE}gate_proj.weight", f"{_FINE}up_proj.weight")),
    ("{p}mlp.experts.down_proj", (f"{_FINE}down_proj.weight",)),
    ("{p}qkv_proj.{leaf}", ("{p}q_proj.{leaf}", "{p}k_proj.{leaf}", "{p}v_proj.{leaf}")),
    ("{p}gate_up_proj.{leaf}", ("{p}gate_proj.{leaf}", "{p}up_proj.{leaf}")),
    ("{p}layers.{i}.attention.q_proj.{leaf}", (f"{_VIT}attention.attention.query.{{leaf}}",)),
    ("{p}layers.{i}.attention.k_proj.{leaf}", (f"{_VIT}attention.attention.key.{{leaf}}",)),
    ("{p}layers.{i}.attention.v_proj.{leaf}", (f"{_VIT}attention.attention.value.{{leaf}}",)),
    ("{p}layers.{i}.attention.o_proj.{leaf}", (f"{_VIT}attention.output.dense.{{leaf}}",)),
    ("{p}layers.{i}.mlp.fc1.{leaf}", (f"{_VIT}intermediate.dense.{{leaf}}",)),
    ("{p}layers.{i}.mlp.fc2.{leaf}", (f"{_VIT}output.dense.{{leaf}}",)),
    ("{p}layers.{i}.layernorm_before.{leaf}", (f"{_VIT}layernorm_before.{{leaf}}",)),
    ("{p}layers.{i}.layernorm_after.{leaf}", (f"{_VIT}layernorm_after.{{leaf}}",)),
    ("{p}LayerNorm.weight", ("{p}LayerNorm.gamma",)),
    ("{p}LayerNorm.bias", ("{p}LayerNorm.beta",)),
)
"""Tensor of the module, and the keys whose tensors it is made of, joined along the output axis. Where the keys have
``{e}``, each expert's come from its own keys, and are stacked along a new first axis."""


@dataclass(frozen=True)
class Source:
    """The keys that a tensor is made of: rows are stacked (if ``stacked``), the keys of a row joined along axis 0."""

    rows: tuple[tuple[str, ...], ...]
    stacked: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for row in self.rows for key in row)


@dataclass(frozen=True)
class NameMap:
    """``sources``: tensor of the module -> the keys that it is made of; ``pieces``: -> the key that it is part of.

    ``carried``: keys that no tensor needs.
    """

    sources: dict[str, Source]
    carried: tuple[str, ...] = ()
    pieces: dict[str, Piece] = field(default_factory=dict)

    def to_module(self, tensors: Params) -> dict[str, torch.Tensor]:
        """The checkpoint's tensors as the module names them; tied names share one tensor."""
        made: dict[Source, torch.Tensor] = {}
        for source in self.sources.values():
            if source not in made:
                rows = [
                    torch.cat([tensors[k] for k in row]) if len(row) > 1 else tensors[row[0]] for row in source.rows
                ]
                made[source] = torch.stack(rows) if source.stacked else rows[0]
        return {name: made[source] for name, source in self.sources.items()} | taken(self.pieces, tensors)

    def to_checkpoint(self, params: Params, like: Params) -> dict[str, torch.Tensor]:
        """The module's tensors under the keys of the checkpoint ``like``, in its order.

        ``like`` tells how long the parts of joined tensors are, and is the source of what is carried along.
        """
        found = {key: like[key] for key in self.carried} | joined(self.pieces, params)
        for name, source in self.sources.items():
            rows = params[name].unbind(0) if source.stacked else [params[name]]
            for row, tensor in zip(source.rows, rows, strict=True):
                parts = torch.split(tensor, [like[key].shape[0] for key in row]) if len(row) > 1 else [tensor]
                found |= {key: part for key, part in zip(row, parts, strict=True) if key not in found}
        return {key: found[key] for key in like}


def match_names(spec: PermutationSpec, keys: Iterable[str], spare: Collection[str] = ()) -> NameMap:
    """The way from the keys of a checkpoint to the names in a spec.

    A tied tensor may stand under any of its names or all of them. ``spare``: keys that are carried along where they
    lead nowhere, as counters and masks. ``InvalidParamsError`` lists keys that lead nowhere,
    and tensors that no key leads to (``tensor``: the first).
    """
    known = list(keys)
    rename = _prefix_change(spec, known)
    own = {rename(key): key for key in known}
    sources: dict[str, Source] = {}
    pieces: dict[str, Piece] = {}
    for name in spec.axes:
        source = _stack(name, spec.stacks[name], own) if name in spec.stacks else _source(name, own)
        piece = _piece(spec, name, own) if source is None else None
        if source is not None:
            sources[name] = source
        elif piece is not None:
            pieces[name] = piece
    for alias, canonical in spec.tied.items():
        family = [canonical, *(other for other, same in spec.tied.items() if same == canonical)]
        first = next((sources[name] for name in family if name in sources), None)
        if first is not None:
            sources.setdefault(canonical, first)
            sources.setdefault(alias, first)
    missing = [name for name in spec.axes if name not in sources and name not in pieces]
    used = {key for source in sources.values() for key in source.keys} | {piece.key for piece in pieces.values()}
    left = [key for key in own if key not in used]
    extra = [own[key] for key in left if not key.endswith(_CARRIED) and own[key] not in spare]
    if missing or extra:
        raise _mismatch(missing, extra)
    back = {name: Source(_renamed(source.rows, own), source.stacked) for name, source in sources.items()}
    parts = {name: replace(piece, key=own[piece.key]) for name, piece in pieces.items()}
    return NameMap({name: back[name] for name in spec.axes if name in back}, tuple(own[key] for key in left), parts)


def _renamed(rows: tuple[tuple[str, ...], ...], own: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(own[key] for key in row) for row in rows)


def _mismatch(missing: Collection[str], extra: Collection[str]) -> InvalidParamsError:
    parts = [f"no key for {_listed(missing)}"] * bool(missing)
    parts += [f"no tensor of the spec for the key{'s' * (len(extra) > 1)} {_listed(extra)}"] * bool(extra)
    first = next(iter([*missing, *extra]))
    return InvalidParamsError(f"keys and names of the spec differ: {'; '.join(parts)}", first)


def _listed(names: Collection[str], limit: int = 20) -> str:
    shown = ", ".join(repr(name) for name in list(names)[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


class _Prefix:
    """Takes a prefix away from keys, or puts one before them."""

    def __init__(self, take: str = "", put: str = "") -> None:
        self.take = take
        self.put = put

    def __call__(self, key: str) -> str:
        return self.put + key.removeprefix(self.take)


def _prefix_change(spec: PermutationSpec, keys: list[str]) -> _Prefix:
    """The change of prefix under which most keys are names of the spec; none where the names are right already."""
    names = set(spec.axes)
    choices = [_Prefix(), _Prefix(take="module."), _Prefix(take="_orig_mod.")]
    heads = dict.fromkeys(name.split(".")[0] + "." for name in [*names, *keys])
    choices += [_Prefix(take=head) for head in heads] + [_Prefix(put=head) for head in heads]
    prefix = added_prefix(keys, names), added_prefix(names, keys)
    choices += [_Prefix(take=prefix[0])] * bool(prefix[0]) + [_Prefix(put=prefix[1])] * bool(prefix[1])
    return max(choices, key=lambda choice: sum(choice(key) in names for key in keys))


def _stack(name: str, number: int, keys: Collection[str]) -> Source | None:
    """A tensor that the spec stacks: ``*`` stands for the numbers from 0 on."""
    if name in keys:
        return Source(((name,),))
    parts = members(name, number)
    return Source(tuple((part,) for part in parts), stacked=True) if set(parts) <= set(keys) else None


def _source(name: str, keys: Collection[str]) -> Source | None:
    if name in keys:
        return Source(((name,),))
    for target, parts in _RULES:
        match = re.fullmatch(_expression(target), name)
        if match is None:
            continue
        filled = [_filled(part, match.groupdict()) for part in parts]
        source = _experts(filled, keys) if "{e}" in filled[0] else Source((tuple(filled),))
        if source.rows and all(key in keys for key in source.keys):
            return source
    return None


def _piece(spec: PermutationSpec, name: str, keys: Collection[str]) -> Piece | None:
    """The rules read backwards: a tensor that the module has apart and the checkpoint as part of one."""
    for target, parts in _RULES:
        for place, part in enumerate(parts):
            match = re.fullmatch(_expression(part), name)
            if match is None:
                continue
            key = _filled(target, match.groupdict())
            if key not in keys:
                continue
            siblings = [_filled(other, match.groupdict()) for other in parts]
            number = match.groupdict().get("e")
            lengths = _lengths(spec, siblings, axis=1 if number == "*" else 0)
            if lengths is not None:
                start = sum(lengths[:place])
                index = int(number) if number is not None and number != "*" else None
                return Piece(key, 1 if number == "*" else 0, start, start + lengths[place], index)
    return None


def _lengths(spec: PermutationSpec, names: Sequence[str], axis: int) -> list[int] | None:
    """The lengths of an axis of several tensors, where the spec has all of them and knows its sizes."""
    if not spec.is_bound or any(name not in spec.axes for name in names):
        return None
    return [layout_size(spec.axes[name][axis], spec.sizes) for name in names]


def _filled(pattern: str, values: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: values.get(found[1], found[0]), pattern)


def _experts(parts: Sequence[str], keys: Collection[str]) -> Source:
    """The keys of the experts 0, 1 .. that are there, to be stacked."""
    rows: list[tuple[str, ...]] = []
    while parts[0].replace("{e}", str(len(rows))) in keys:
        rows.append(tuple(part.replace("{e}", str(len(rows))) for part in parts))
    return Source(tuple(rows), stacked=True)


def _expression(pattern: str) -> str:
    pieces = _VARIABLE.split(pattern)
    form = (
        f"(?P<{piece}>{_FORMS.get(piece, '[0-9]+')})" if k % 2 else re.escape(piece) for k, piece in enumerate(pieces)
    )
    return "".join(form)
