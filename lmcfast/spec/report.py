"""What a spec moves and what it does not, as data and as a table."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from .layout import Atom, Fixed, atoms, format_layout, layout_size
from .spec import PermutationSpec

WIDTH = 100
NARROWEST = 40
_SHOWN = 40  # lines of a section that are printed


@dataclass(frozen=True)
class GroupRow:
    """One group: its size (None: not known) and the places where it stands, as ``tensor[axis]``, buffers left out."""

    name: str
    size: int | None
    within: tuple[str, ...]
    fixed: bool
    places: tuple[str, ...]


@dataclass(frozen=True)
class SpecReport:
    """``moving``: parameters (elements) in tensors that some group moves, of all ``parameters``; buffers left out, tied
    tensors counted once. ``bits``: log2 of the number of settings. All three are None for a spec without sizes.
    ``composed``: axes with a layout that is more than one group. ``fixed``: axes without a group and why.
    """

    groups: tuple[GroupRow, ...]
    tensors: int
    buffers: tuple[str, ...]
    tied: tuple[tuple[str, str], ...]
    composed: tuple[tuple[str, int, str], ...]
    fixed: tuple[tuple[str, int, str], ...]
    moving: int | None
    parameters: int | None
    bits: float | None

    @property
    def share(self) -> float | None:
        """Share of the parameters that lie in tensors which move, 0 to 1."""
        return None if self.moving is None else self.moving / max(self.parameters or 0, 1)

    def __str__(self) -> str:
        return self.text()

    def text(self, full: bool = False, width: int = WIDTH) -> str:
        """The report as a table of at most ``width`` columns (40 where that is less).

        Short: a line for each group and one for each kind of axis that stays; names too long are cut with an ellipsis.
        ``full``: every place, every axis that stays or has several parts, every buffer; nothing is cut but long lists.
        """
        width = max(width, NARROWEST)
        lines = textwrap.wrap(self._headline(), width)
        if full:
            lines += ["", *_full_table(self.groups, width)]
            for title, entries in self._sections():
                lines += ["", *_section(title, entries, width)] if entries else []
        else:
            lines += ["", *_short_table(self.groups, width), ""]
            for title, summary in self._summary():
                lines += _line(f"{title}: {summary}", width) if summary else []
        return "\n".join(lines).rstrip()

    def _headline(self) -> str:
        movable = sum(not row.fixed for row in self.groups)
        text = f"{movable} group{'s' * (movable != 1)} moving {self.tensors} tensors"
        if self.share is None or self.bits is None:
            return text + "; sizes not known (bind the spec to a state dict)"
        return (
            text + f": {percent(self.share)} of {self.parameters:,} parameters, "
            f"2^{self.bits:,.0f} settings with the same output"
        )

    def _sections(self) -> list[tuple[str, list[str]]]:
        """Titles and entries of everything but the groups."""
        return [
            ("axes of several parts", [f"{t}[{a}] = {text}" for t, a, text in self.composed]),
            ("axes that never move", [f"{why}: {' '.join(places)}" for why, places in _by_reason(self.fixed).items()]),
            ("buffers, moved but not scored", [", ".join(self.buffers)] if self.buffers else []),
            ("tied, counted once", [f"{alias} = {name}" for alias, name in self.tied]),
        ]

    def _summary(self) -> list[tuple[str, str]]:
        """The same in one entry each: the first of them, and how many more."""
        fixed = [f"{why} ({_first(places)})" for why, places in _by_reason(self.fixed).items()]
        composed = [f"{tensor}[{axis}] = {text}" for tensor, axis, text in self.composed]
        return [
            ("of several parts", _first(composed)),
            ("never moving", "; ".join(fixed)),
            ("buffers, moved but not scored", _first(self.buffers)),
            ("tied, counted once", _first([f"{alias} = {name}" for alias, name in self.tied])),
        ]


def percent(share: float) -> str:
    """``"99.9 %"``, with more digits where the share is less than 1 but would be rounded to 100."""
    digits = 1
    while share < 1 and f"{100 * share:.{digits}f}".startswith("100") and digits < 15:
        digits += 1
    return f"{100 * share:.{digits}f} %"


def shorten(text: str, width: int) -> str:
    """The text, or its two ends around an ellipsis where it is longer than ``width`` (at least 3)."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def _first(entries: Sequence[str]) -> str:
    more = f" and {len(entries) - 1} more" if len(entries) > 1 else ""
    return "".join(entries[:1]) + more


def _columns(rows: Sequence[GroupRow], width: int) -> int:
    """Width of the column of names: a third of the whole at most."""
    return min(max([len("group"), *(len(row.name) for row in rows)]), width // 3)


def _size(row: GroupRow) -> str:
    return "?" if row.size is None else str(row.size)


def _notes(row: GroupRow) -> list[str]:
    return [f"within {', '.join(row.within)}:"] * bool(row.within) + ["(fixed)"] * row.fixed


def _short_table(rows: Sequence[GroupRow], width: int) -> list[str]:
    names = _columns(rows, width)
    left = width - names - 11
    lines = [f"{'group':<{names}}  {'size':>7}  places"]
    for row in rows[:_SHOWN]:
        cell = _fitting([*_notes(row), *row.places], left)
        lines.append(f"{shorten(row.name, names):<{names}}  {_size(row):>7}  {cell}".rstrip())
    if len(rows) > _SHOWN:
        lines.append(f"and {len(rows) - _SHOWN} more groups")
    return lines


def _fitting(words: Sequence[str], width: int) -> str:
    """As many of the words as fit, and how many more there are; the first one is cut if it does not fit itself."""
    for shown in range(len(words), 0, -1):
        more = f" +{len(words) - shown}" if shown < len(words) else ""
        text = " ".join(words[:shown])
        if len(text) + len(more) <= width:
            return text + more
        if shown == 1:
            return shorten(text, width - len(more)) + more
    return ""


def _full_table(rows: Sequence[GroupRow], width: int) -> list[str]:
    names = _columns(rows, width)
    lines = [f"{'group':<{names}}  {'size':>7}  places"]
    indent = " " * (names + 11)
    for row in rows:
        cell = textwrap.wrap(" ".join([*_notes(row), *row.places]), width - len(indent)) or [""]
        head = f"{row.name:<{names}}  {_size(row):>7}  "
        if len(row.name) > names:
            lines += textwrap.wrap(row.name, width)
            head = f"{'':<{names}}  {_size(row):>7}  "
        lines += [(head + cell[0]).rstrip(), *(indent + line for line in cell[1:])]
    return lines


def _by_reason(fixed: tuple[tuple[str, int, str], ...]) -> dict[str, list[str]]:
    """{reason: places}, the axes of a tensor together: ``conv1.weight[2,3]``."""
    places: dict[str, dict[str, list[str]]] = {}
    for tensor, axis, why in fixed:
        places.setdefault(why, {}).setdefault(tensor, []).append(str(axis))
    return {why: [f"{tensor}[{','.join(axes)}]" for tensor, axes in tensors.items()] for why, tensors in places.items()}


def _line(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)


def _section(title: str, entries: list[str], width: int) -> list[str]:
    lines = []
    for entry in entries:
        lines += textwrap.wrap(entry, width - 2, initial_indent="  ", subsequent_indent="    ")
    more = len(lines) - _SHOWN
    if more > 0:
        lines = [*lines[:_SHOWN], f"  and {more} more lines"]
    return [title, *lines]


def make_report(spec: PermutationSpec) -> SpecReport:
    """The report on a spec; :meth:`PermutationSpec.report` is the public way to it."""
    places: dict[str, list[str]] = {name: [] for name in spec.groups}
    composed, fixed = [], []
    for tensor, layouts in spec.axes.items():
        for axis, layout in enumerate(layouts):
            names = tuple(dict.fromkeys(atoms(layout)))
            for name in names if tensor not in spec.buffers else ():
                places[name].append(f"{tensor}[{axis}]")
            if not names and layout != Fixed(1):
                fixed.append((tensor, axis, ", ".join(spec.why_fixed.get((tensor, axis), ())) or "stated by the spec"))
            if names and not isinstance(layout, Atom):
                composed.append((tensor, axis, str(format_layout(layout))))
    order = [*spec.movable_groups, *(name for name in spec.groups if spec.groups[name].fixed)]
    rows = [
        GroupRow(name, group.size, group.within, group.fixed, tuple(places[name]))
        for name, group in ((name, spec.groups[name]) for name in order)
    ]
    moving, parameters = _count(spec) if spec.is_bound else (None, None)
    tensors = sum(_moves(spec, name) for name in spec.axes)
    return SpecReport(
        tuple(rows),
        tensors,
        tuple(name for name in spec.axes if name in spec.buffers),
        tuple(spec.tied.items()),
        tuple(composed),
        tuple(fixed),
        moving,
        parameters,
        spec.bits if spec.is_bound else None,
    )


def _moves(spec: PermutationSpec, tensor: str) -> bool:
    return any(not spec.groups[name].fixed for name in spec.groups_of(tensor))


def _count(spec: PermutationSpec) -> tuple[int, int]:
    moving = parameters = 0
    for tensor, layouts in spec.axes.items():
        if tensor not in spec.buffers and tensor not in spec.tied:
            size = math.prod(layout_size(layout, spec.sizes) for layout in layouts)
            parameters += size
            moving += size if _moves(spec, tensor) else 0
    return moving, parameters
