"""One family of groups matched from files: its tensors are read, scored and forgotten, one after the other.

A plain group (units of a feed-forward layer, a residual stream) needs its score matrix and one tensor of A and B at a
time, experts that a file holds one by one the same for each pair of them (``stacked.py``). Any other family, with
nested or several groups (heads), is held in memory, and matched as any network.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch

from ..errors import CheckpointError
from ..matching import weight_matching
from ..spec import group_places, unfold
from ..spec.names import NameMap
from ..terms import full_precision
from .families import Family
from .seen import Found, Model, Sums, Told, check_tensor, read_placed, solved
from .slots import Setting, Slot
from .stacked import is_stacked, visit_stacked


def visit(
    family: Family,
    a: Model,
    b: Model,
    setting: Setting | None = None,
    settled: Collection[str] | None = None,
    told: Told | None = None,
) -> Found:
    """Match one family, all other groups as ``setting`` places them (default: where they are).

    ``settled``: score only tensors all of whose other groups are in it, as in the start of a descent; the result is
    then taken whatever it is worth on the others. Raises ``InvalidParamsError`` naming file and tensor.
    """
    others = {name: index for name, index in (setting or {}).items() if name not in family.groups}
    now = {name: index for name, index in (setting or {}).items() if name in family.groups}
    with torch.no_grad(), full_precision():
        if family.is_plain:
            return _plain(family, a, b, others, now, settled, told)
        if is_stacked(family, a):
            return visit_stacked(family, a, b, others, now, told)
        return _whole(family, a, b, others, now, told)


# ---- plain groups


def _plain(
    family: Family,
    a: Model,
    b: Model,
    others: Setting,
    now: Setting,
    settled: Collection[str] | None,
    told: Told | None,
) -> Found:
    group = family.groups[0]
    n = family.spec.sizes[group]
    keys = _scored_keys(family, a, others.keys() if settled is None else settled, settled is not None)
    wide = any(m.files.entries[key].code == "F64" for m in (a, b) for key in keys)
    sums = Sums.of(n, torch.float64 if wide else torch.float32)
    for at, key in enumerate(keys):
        if at + 1 < len(keys):
            for model in (a, b):
                model.files.want(model.files.entries[keys[at + 1]])
        _add_key(sums, group, key, a, b, others, told)
    current = now.get(group, torch.arange(n))
    return solved(group, sums, current, settled is not None)


def _scored_keys(family: Family, model: Model, known: Collection[str], partial: bool) -> list[str]:
    """The keys that count: floating ones of tensors that are no buffers; with ``partial`` those of known neighbours."""
    tensors = [t for t in family.tensors if t not in family.spec.buffers and t not in family.spec.tied]
    keys = [key for key in model.keys_of(tensors) if model.files.entries[key].is_floating]
    if not partial:
        return keys
    free = {name for name in known} | set(family.groups)
    return [key for key in keys if free.issuperset(_groups_on(model.slots[key]))]


def _groups_on(slot: Slot) -> set[str]:
    movable = {name for name, group in slot.spec.groups.items() if not group.fixed}
    return movable | ({slot.order} if slot.order is not None else set())


def _add_key(sums: Sums, group: str, key: str, a: Model, b: Model, others: Setting, told: Told | None) -> None:
    placed = read_placed(b, key, others)
    whole = a.files.read(a.files.entries[key])
    for place in group_places(a.slots[key].spec, group):
        sums.add(unfold(whole, place), unfold(placed, place))
    for model, squares in ((a, sums.squares_a), (b, sums.squares_b)):
        if not bool(squares.isfinite().all()):
            tensor = model.files.read(model.files.entries[model.slots[key].source(others if model is b else {})])
            check_tensor(model.files.entries[key], tensor)
    if told is not None:
        told(a.files.entries[key].size + b.files.entries[key].size)


# ---- families that are held in memory


def _whole(family: Family, a: Model, b: Model, others: Setting, now: Setting, told: Told | None) -> Found:
    params_a = assembled(family, a, {}, told)
    params_b = assembled(family, b, others, told)
    for params, model in ((params_a, a), (params_b, b)):
        for name, tensor in params.items():
            _check_held(model, name, tensor)
    init = dict(now) or None
    result = weight_matching(family.spec, params_a, params_b, init=init)
    start = result.starts.get("init", result.starts["identity"])
    scored = [t for t in family.tensors if t not in family.spec.buffers and t not in family.spec.tied]
    norms = math.fsum(float(p[t].double().square().sum()) for p in (params_a, params_b) for t in scored)
    identity = family.spec.identity()
    found = {name: result.permutations[name] for name in family.groups}
    moved = sum(int((index != now.get(name, identity[name])).sum()) for name, index in found.items())
    units = sum(index.numel() for index in found.values())
    return Found(found, start, result.objective, norms, result.gap, moved, units)


def assembled(family: Family, model: Model, others: Setting, told: Told | None = None) -> dict[str, torch.Tensor]:
    """The family's tensors as the spec names them, with ``others`` placed."""
    sources = {name: model.names.sources[name] for name in family.tensors}
    keys = model.keys_of(family.tensors)
    for key in keys:
        model.files.want(model.files.entries[key])
    held = {}
    for key in keys:
        held[key] = read_placed(model, key, others)
        if told is not None:
            told(model.files.entries[key].size)
    return NameMap(sources).to_module(held)


def _check_held(model: Model, name: str, tensor: torch.Tensor) -> None:
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float().sum())):
        for key in model.names.sources[name].keys:
            entry = model.files.entries[key]
            check_tensor(entry, model.files.read(entry))
    elif tensor.is_complex():
        raise CheckpointError(f"{model.files.path}: tensor {name!r} is complex", str(model.files.path))
