"""The text form of a spec: JSON with one line for each group and tensor.

``{"format": "lmcfast-spec", "version": 1, "groups": {name: {"size", "within", "fixed"}}, "axes": {tensor: [layouts]},
"tied": {alias: canonical}, "buffers": [tensors], "why_fixed": {tensor: {axis: [reasons]}}}``. Layouts are the strings
of ``layout.py``, null for a fixed axis of open length. Fields that say nothing are left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import SpecError
from .layout import format_layout

if TYPE_CHECKING:
    from .spec import PermutationSpec

FORMAT = "lmcfast-spec"
VERSION = 1

_FIELDS = {"format", "version", "groups", "axes", "tied", "buffers", "why_fixed"}
_GROUP_FIELDS = {"size", "within", "fixed"}


@dataclass(frozen=True)
class Document:
    """The fields of a spec file, checked for type; layouts are still text."""

    groups: dict[str, dict[str, Any]]
    axes: dict[str, list[str | None]]
    tied: dict[str, str]
    buffers: frozenset[str]
    why_fixed: dict[tuple[str, int], tuple[str, ...]]


def _sections(spec: PermutationSpec) -> dict[str, Any]:
    """What makes up the spec, without the reasons."""
    groups: dict[str, dict[str, Any]] = {}
    for name, group in spec.groups.items():
        entry: dict[str, Any] = {}
        if group.size is not None:
            entry["size"] = group.size
        if group.within:
            entry["within"] = list(group.within)
        if group.fixed:
            entry["fixed"] = True
        groups[name] = entry
    axes = {name: [format_layout(layout) for layout in layouts] for name, layouts in spec.axes.items()}
    return {"groups": groups, "axes": axes, "tied": spec.tied, "buffers": sorted(spec.buffers)}


def canonical_text(spec: PermutationSpec) -> str:
    """JSON that is equal for equal specs: sorted, without blanks and reasons."""
    document = {"format": FORMAT, "version": VERSION, **_sections(spec)}
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def write_text(spec: PermutationSpec) -> str:
    """Readable JSON, one line for each entry."""
    lines = [f'  "format": {json.dumps(FORMAT)}', f'  "version": {VERSION}']
    sections = _sections(spec)
    lines += [_block(key, sections[key]) for key in ("groups", "axes")]
    if sections["tied"]:
        lines.append(_block("tied", sections["tied"]))
    if sections["buffers"]:
        lines.append('  "buffers": [\n' + ",\n".join(f"    {json.dumps(n)}" for n in sections["buffers"]) + "\n  ]")
    if spec.why_fixed:
        reasons: dict[str, dict[str, list[str]]] = {}
        for (name, axis), why in spec.why_fixed.items():
            reasons.setdefault(name, {})[str(axis)] = list(why)
        lines.append(_block("why_fixed", reasons))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _block(key: str, entries: dict[str, Any]) -> str:
    body = ",\n".join(f"    {json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items())
    return f"  {json.dumps(key)}: {{\n{body}\n  }}" if body else f"  {json.dumps(key)}: {{}}"


def read_text(text: str) -> Document:
    """Check everything that JSON alone can tell. ``SpecError`` in one line."""
    try:
        raw = json.loads(text, object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as error:
        raise SpecError(f"not a spec: no JSON ({error.msg} in line {error.lineno})") from None
    except RecursionError:
        raise SpecError("not a spec: JSON nested too deep") from None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
        raise SpecError(f'not a spec: "format" is not "{FORMAT}" but {found!r}')
    if raw.get("version") != VERSION or isinstance(raw.get("version"), bool):
        raise SpecError(f"spec version {raw.get('version')!r} is not {VERSION}, the one that this lmcfast reads")
    _no_others(raw, _FIELDS, "the spec")
    for key in ("groups", "axes"):
        if key not in raw:
            raise SpecError(f"the spec has no field {key!r}")
    return Document(
        groups={name: _group(name, entry) for name, entry in _mapping(raw["groups"], "groups").items()},
        axes={name: _layouts(name, entry) for name, entry in _mapping(raw["axes"], "axes").items()},
        tied={name: _string(entry, f"tied[{name!r}]") for name, entry in _mapping(raw.get("tied", {}), "tied").items()},
        buffers=frozenset(_strings(raw.get("buffers", []), "buffers")),
        why_fixed=_reasons(_mapping(raw.get("why_fixed", {}), "why_fixed")),
    )


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise SpecError(f"the spec has two entries {key!r}")
        found[key] = value
    return found


def _no_others(entry: dict[str, Any], allowed: set[str], where: str) -> None:
    others = sorted(set(entry) - allowed)
    if others:
        raise SpecError(f"{where} has an unknown field {others[0]!r}; known are {', '.join(sorted(allowed))}")


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SpecError(f"{where} is not an object but {value!r:.80}")
    return value


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise SpecError(f"{where} is not a string but {value!r:.80}")
    return value


def _strings(value: Any, where: str) -> list[str]:
    if not isinstance(value, list):
        raise SpecError(f"{where} is not a list but {value!r:.80}")
    return [_string(entry, f"an entry of {where}") for entry in value]


def _group(name: str, value: Any) -> dict[str, Any]:
    where = f"group {name!r}"
    entry = _mapping(value, where)
    _no_others(entry, _GROUP_FIELDS, where)
    size, fixed = entry.get("size"), entry.get("fixed", False)
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        raise SpecError(f"{where}: size is {size!r:.80}", group=name)
    if not isinstance(fixed, bool):
        raise SpecError(f"{where}: fixed is {fixed!r:.80}", group=name)
    within = tuple(_strings(entry.get("within", []), f"{where}: within"))
    return {"size": size, "within": within, "fixed": fixed}


def _layouts(name: str, value: Any) -> list[str | None]:
    if not isinstance(value, list):
        raise SpecError(f"axes[{name!r}] is not a list of layouts but {value!r:.80}", tensor=name)
    return [None if entry is None else _string(entry, f"a layout of {name!r}") for entry in value]


def _reasons(entries: dict[str, Any]) -> dict[tuple[str, int], tuple[str, ...]]:
    found: dict[tuple[str, int], tuple[str, ...]] = {}
    for name, value in entries.items():
        for axis, why in _mapping(value, f"why_fixed[{name!r}]").items():
            if not (axis.isascii() and axis.isdigit()):
                raise SpecError(f"why_fixed[{name!r}]: {axis!r} is not an axis number", tensor=name)
            found[name, int(axis)] = tuple(_strings(why, f"why_fixed[{name!r}][{axis}]"))
    return found
