"""What a spec moves and what it does not, as data and as a table."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass

from .layout import Atom, Fixed, atoms, format_layout, layout_size
from .spec import PermutationSpec

WIDTH = 100
_SHOWN = 40  # lines of a section that are printed
_TENSORS = 8  # tensors that are named for one reason


@dataclass(frozen=True)
class GroupRow:
    """One group: its size (None: not known) and the places where it stands, as ``tensor[axis]``."""

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
        lines = textwrap.wrap(self._headline(), WIDTH)
        lines += ["", *self._group_table()]
        if self.composed:
            lines += ["", *_section("axes of several parts", [f"{t}[{a}] = {text}" for t, a, text in self.composed])]
        if self.fixed:
            lines += ["", *_section("axes that never move", _by_reason(self.fixed))]
        if self.buffers:
            lines += ["", *_section("buffers, moved but not scored", [", ".join(self.buffers)])]
        if self.tied:
            lines += ["", *_section("tied, counted once", [f"{alias} = {name}" for alias, name in self.tied])]
        return "\n".join(lines)

    def _headline(self) -> str:
        movable = sum(not row.fixed for row in self.groups)
        text = f"{movable} group{'s' * (movable != 1)} moving {self.tensors} tensors"
        if self.share is None or self.bits is None:
            return text + "; sizes not known (bind the spec to a state dict)"
        return (
            text + f": {100 * self.share:.1f} % of {self.parameters:,} parameters, "
            f"2^{self.bits:,.0f} settings with the same output"
        )

    def _group_table(self) -> list[str]:
        name_width = min(max([len("group"), *(len(row.name) for row in self.groups)]), 32)
        lines = [f"{'group':<{name_width}}  {'size':>7}  places"]
        indent = " " * (name_width + 11)
        for row in self.groups:
            size = "?" if row.size is None else str(row.size)
            notes = [f"within {', '.join(row.within)}:"] if row.within else []
            notes += ["(fixed)"] if row.fixed else []
            cell = textwrap.wrap(" ".join([*notes, *row.places]), WIDTH - len(indent))
            head = f"{row.name:<{name_width}}  {size:>7}  "
            if len(row.name) > name_width:
                lines += textwrap.wrap(row.name, WIDTH)
                head = f"{'':<{name_width}}  {size:>7}  "
            lines += [head + cell[0], *(indent + line for line in cell[1:])]
        return lines


def _by_reason(fixed: tuple[tuple[str, int, str], ...]) -> list[str]:
    places: dict[str, dict[str, list[str]]] = {}
    for tensor, axis, why in fixed:
        places.setdefault(why, {}).setdefault(tensor, []).append(str(axis))
    entries = []
    for why, tensors in places.items():
        shown = [f"{tensor}[{','.join(axes)}]" for tensor, axes in tensors.items()]
        more = [f"and {len(shown) - _TENSORS} more tensors"] if len(shown) > _TENSORS else []
        entries.append(f"{why}: {' '.join([*shown[:_TENSORS], *more])}")
    return entries


def _section(title: str, entries: list[str]) -> list[str]:
    lines = []
    for entry in entries:
        lines += textwrap.wrap(entry, WIDTH - 2, initial_indent="  ", subsequent_indent="    ")
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
            for name in names:
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
    moving = parameters = bits = None
    if spec.is_bound:
        moving, parameters = _count(spec)
        bits = sum(
            math.prod(spec.shape_of(name)[:-1]) * math.lgamma(spec.sizes[name] + 1) / math.log(2)
            for name in spec.movable_groups
        )
    tensors = sum(_moves(spec, name) for name in spec.axes)
    return SpecReport(
        tuple(rows),
        tensors,
        tuple(sorted(spec.buffers)),
        tuple(spec.tied.items()),
        tuple(composed),
        tuple(fixed),
        moving,
        parameters,
        bits,
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
