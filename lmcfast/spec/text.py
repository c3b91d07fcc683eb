"""The text forms of a spec: JSON with one line for each group and tensor, and a form folded over layers.

Whole, in JSON: ``{"format": "lmcfast-spec", "version": 1, "groups": {name: {"size", "within", "fixed"}}, "axes":
{tensor: [layouts]}, "tied": {alias: canonical}, "buffers": [tensors], "why_fixed": {tensor: {axis: [reasons]}}}``, and
``"stacks": {tensor: number}`` where there are any. Layouts are the strings of ``layout.py``, null for a fixed axis of
open length. Fields that say nothing are left out.

Folded over layers, in TOML or JSON, with ``"folded": true``: a key of ``groups`` or ``axes`` may have variables
(``folding.py``); a line of ``axes`` is a list of layouts or a table ``{index, layout, buffer, stack, why}``; the layout
of an open axis is ``"_"``.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import SpecError
from .folding import fold, group_entry
from .layout import atoms, format_layout, parse_layout
from .patterns import OPEN, GroupLines, Line, expand, read_lines

if TYPE_CHECKING:
    from .spec import PermutationSpec

FORMAT = "lmcfast-spec"
VERSION = 1

_FIELDS = {"format", "version", "groups", "axes", "tied", "buffers", "why_fixed", "stacks"}
_FOLDED_FIELDS = {"format", "version", "folded", "groups", "axes", "tied", "why_fixed"}
_GROUP_FIELDS = {"size", "within", "fixed"}


@dataclass(frozen=True)
class Document:
    """The fields of a spec file, checked for type; layouts are still text."""

    groups: dict[str, dict[str, Any]]
    axes: dict[str, list[str | None]]
    tied: dict[str, str]
    buffers: frozenset[str]
    why_fixed: dict[tuple[str, int], tuple[str, ...]]
    stacks: dict[str, int] = field(default_factory=dict)


def _sections(spec: PermutationSpec) -> dict[str, Any]:
    """What makes up the spec, without the reasons."""
    groups = {name: group_entry(spec, name) for name in spec.groups}
    axes = {name: [format_layout(layout) for layout in layouts] for name, layouts in spec.axes.items()}
    stacks = {"stacks": spec.stacks} if spec.stacks else {}
    return {"groups": groups, "axes": axes, "tied": spec.tied, "buffers": sorted(spec.buffers), **stacks}


def canonical_text(spec: PermutationSpec) -> str:
    """JSON that is equal for equal specs: sorted, without blanks and reasons."""
    document = {"format": FORMAT, "version": VERSION, **_sections(spec)}
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def write_text(spec: PermutationSpec) -> str:
    """Readable JSON, one line for each entry."""
    lines = [f'  "format": {json.dumps(FORMAT)}', f'  "version": {VERSION}']
    sections = _sections(spec)
    lines += [_block(key, sections[key]) for key in ("groups", "axes")]
    lines += [_block(key, sections[key]) for key in ("tied", "stacks") if sections.get(key)]
    if sections["buffers"]:
        lines.append('  "buffers": [\n' + ",\n".join(f"    {json.dumps(n)}" for n in sections["buffers"]) + "\n  ]")
    if spec.why_fixed:
        reasons: dict[str, dict[str, list[str]]] = {}
        for (name, axis), why in spec.why_fixed.items():
            reasons.setdefault(name, {})[str(axis)] = list(why)
        lines.append(_block("why_fixed", reasons))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def write_folded_text(spec: PermutationSpec) -> str:
    """JSON folded over layers, one line for each entry."""
    lines = [f'  "format": {json.dumps(FORMAT)}', f'  "version": {VERSION}', '  "folded": true']
    lines += [_block(key, entries) for key, entries in fold(spec).items() if entries or key in ("groups", "axes")]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def write_toml(spec: PermutationSpec) -> str:
    """TOML folded over layers, one line for each entry."""
    lines = [f"format = {_toml(FORMAT)}", f"version = {VERSION}", "folded = true"]
    for section, entries in fold(spec).items():
        if entries or section in ("groups", "axes"):
            lines += ["", f"[{section}]", *(f"{_toml(key)} = {_toml(entry)}" for key, entry in entries.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """A value on one line, which the libraries that write TOML do not do for tables."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_toml(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # A JSON string is a TOML string, but for DEL, which has to be escaped, and for halves of surrogate pairs.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)


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
    return read_document(raw)


def read_toml(text: str) -> Document:
    """The same for TOML."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"not a spec: no TOML ({error})") from None
    except RecursionError:
        raise SpecError("not a spec: TOML nested too deep") from None
    return read_document(raw)


def read_document(raw: Any) -> Document:
    """Check the fields of a document of either version. ``SpecError`` in one line."""
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
        raise SpecError(f'not a spec: "format" is not "{FORMAT}" but {found!r}')
    if raw.get("version") != VERSION or isinstance(raw.get("version"), bool):
        raise SpecError(f"spec version {raw.get('version')!r} is not {VERSION}, the one that this lmcfast reads")
    folded = raw.get("folded") is True
    _no_others(raw, _FOLDED_FIELDS if folded else _FIELDS, "the spec")
    for key in ("groups", "axes"):
        if key not in raw:
            raise SpecError(f"the spec has no field {key!r}")
    return _folded(raw) if folded else _unfolded(raw)


def _unfolded(raw: dict[str, Any]) -> Document:
    stacks = _mapping(raw.get("stacks", {}), "stacks")
    return Document(
        groups={name: _group(name, entry) for name, entry in _mapping(raw["groups"], "groups").items()},
        axes={name: _layouts(name, entry) for name, entry in _mapping(raw["axes"], "axes").items()},
        tied={name: _string(entry, f"tied[{name!r}]") for name, entry in _mapping(raw.get("tied", {}), "tied").items()},
        buffers=frozenset(_strings(raw.get("buffers", []), "buffers")),
        why_fixed=_reasons(_mapping(raw.get("why_fixed", {}), "why_fixed")),
        stacks={name: _count(number, f"stacks[{name!r}]") for name, number in stacks.items()},
    )


def _folded(raw: dict[str, Any]) -> Document:
    entries = _mapping(raw["axes"], "axes")
    lines: dict[str, Line] = {}
    for line in expand([line for key, value in entries.items() for line in read_lines(key, value)]):
        if line.key in lines:
            raise SpecError(f"axes: two lines give layouts to tensor {line.key!r}", tensor=line.key)
        lines[line.key] = line
    known = {name: _group(name, entry) for name, entry in _mapping(raw["groups"], "groups").items()}
    why = {(name, axis): reasons for name, line in lines.items() for axis, reasons in line.why.items()}
    tied = _mapping(raw.get("tied", {}), "tied")
    return Document(
        groups=_used_groups(GroupLines(known), lines),
        axes={name: [None if text == OPEN else text for text in line.layout] for name, line in lines.items()},
        tied={name: _string(entry, f"tied[{name!r}]") for name, entry in tied.items()},
        buffers=frozenset(name for name, line in lines.items() if line.buffer),
        why_fixed=why | _reasons(_mapping(raw.get("why_fixed", {}), "why_fixed")),
        stacks={name: line.stack for name, line in lines.items() if line.stack is not None},
    )


def _used_groups(known: GroupLines, lines: Mapping[str, Line]) -> dict[str, dict[str, Any]]:
    """The groups in the layouts, each with its line; a line of one name is taken even where no layout has it."""
    found = {name: dict(entry) for name, entry in known.named.items()}
    for text in dict.fromkeys(text for line in lines.values() for text in line.layout):
        for name in atoms(parse_layout(None if text == OPEN else text)):
            if name not in found:
                found[name] = known.entry(name)
    return found


def _count(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SpecError(f"{where} is {value!r:.80}, not a number of tensors")
    return value


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
