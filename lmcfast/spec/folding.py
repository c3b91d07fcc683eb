"""Folding of a spec over its layers: one line for all tensors whose names differ in numbers only.

A tensor's name is a path; its parts that are numbers become variables, in order: ``layers.3.mlp.weight`` belongs to
``layers.{i}.mlp.weight``. The layouts of such a family fold where each number in a group's name is either the same
everywhere or always one of the tensor's (``"kv.{i} v.{i}"``). ``patterns.py`` reads the lines back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .layout import format_layout
from .patterns import OPEN, VARIABLES, index_text

if TYPE_CHECKING:
    from .spec import PermutationSpec

Numbers = tuple[int, ...]
Reasons = dict[str, list[str]]

_NUMBER = r"(?:0|[1-9][0-9]*)"
_PATH = re.compile(rf"(?<![^.]){_NUMBER}(?![^.])")
"""Numbers that are whole parts of a path."""
_IN_TEXT = re.compile(rf"(?<![^\s()|\[\].:~]){_NUMBER}(?![^\s()|\[\].:~])")
"""Numbers that are whole parts of group names in a text (fixed runs start with ``_`` and are none)."""


def fold(spec: PermutationSpec) -> dict[str, Any]:
    """The sections ``groups``, ``axes``, ``tied`` and ``why_fixed`` of a spec, folded."""
    return _Fold(spec).sections()


class _Fold:
    def __init__(self, spec: PermutationSpec) -> None:
        self.spec = spec
        self.loose: dict[str, Reasons] = {}  # reasons that differ within a folded line, by tensor

    def sections(self) -> dict[str, Any]:
        families: dict[str, dict[str, Numbers]] = {}
        for name in self.spec.axes:
            if name in self.spec.tied:
                self.loose |= {name: self.reasons(name)} if self.reasons(name) else {}
                continue
            pattern, numbers = _pattern(name, _PATH)
            families.setdefault(pattern, {})[name] = numbers
        axes: dict[str, Any] = {}
        for pattern, members in families.items():
            axes |= self.family(pattern, members)
        groups = _fold_groups(self.spec)
        return {"groups": groups, "axes": axes, "tied": dict(self.spec.tied), "why_fixed": self.loose}

    def family(self, pattern: str, members: Mapping[str, Numbers]) -> dict[str, Any]:
        """The lines of the tensors of one pattern, by key."""
        classes: dict[object, list[str]] = {}
        for name in members:
            skeleton = tuple(_IN_TEXT.sub("#", text) for text in self.layout(name))
            attributes = tuple(self.attributes(name).items())
            classes.setdefault((skeleton, attributes), []).append(name)
        folded: list[dict[str, Any]] = []
        single: dict[str, Any] = {}
        for names in classes.values():
            numbers = [members[name] for name in names]
            layout = _template([self.layout(name) for name in names], numbers) if len(names) > 1 else None
            if layout is None:
                single |= {name: self.entry(name) for name in names}
                continue
            rest = {**self.attributes(names[0]), "layout": layout, **self.common_reasons(names)}
            folded += [{"index": index, **rest} for index in _boxes(numbers)]
        if folded:
            return {pattern: folded[0] if len(folded) == 1 else folded, **single}
        return single

    def layout(self, name: str) -> list[str]:
        return [format_layout(layout) or OPEN for layout in self.spec.axes[name]]

    def attributes(self, name: str) -> dict[str, Any]:
        stack = {"stack": self.spec.stacks[name]} if name in self.spec.stacks else {}
        return {**stack, "buffer": True} if name in self.spec.buffers else stack

    def entry(self, name: str) -> Any:
        """The line of one tensor: its layouts alone where there is nothing else to say."""
        why = {"why": self.reasons(name)} if self.reasons(name) else {}
        rest = {**self.attributes(name), **why}
        return {**rest, "layout": self.layout(name)} if rest else self.layout(name)

    def reasons(self, name: str) -> Reasons:
        why, axes = self.spec.why_fixed, range(len(self.spec.axes[name]))
        return {str(axis): list(why[name, axis]) for axis in axes if (name, axis) in why}

    def common_reasons(self, names: Sequence[str]) -> dict[str, Reasons]:
        """``{"why": reasons}`` where they are the same for all; else they are kept for a section of their own."""
        found = {name: self.reasons(name) for name in names}
        first = found[names[0]]
        if all(other == first for other in found.values()):
            return {"why": first} if first else {}
        self.loose |= {name: why for name, why in found.items() if why}
        return {}


def _pattern(name: str, number: re.Pattern[str]) -> tuple[str, Numbers]:
    """``layers.3.mlp.weight`` as ``layers.{i}.mlp.weight`` and (3,); numbers beyond the variables stay."""
    numbers = tuple(map(int, number.findall(name)))[: len(VARIABLES)]
    variables = iter(VARIABLES)
    return number.sub(lambda match: f"{{{next(variables)}}}", name, count=len(numbers) or -1), numbers


def _template(texts: Sequence[Sequence[str]], numbers: Sequence[Numbers]) -> list[str] | None:
    """Texts with variables that give every member its own; None where there are none such. All have one skeleton."""
    columns = [[list(map(int, _IN_TEXT.findall(text))) for text in column] for column in zip(*texts, strict=True)]
    template = []
    for first, column in zip(texts[0], columns, strict=True):
        pieces = [_piece(values, numbers) for values in zip(*column, strict=True)]
        if None in pieces:
            return None
        template.append(_IN_TEXT.sub(_one_after_the_other([str(piece) for piece in pieces]), first))
    return template


def _piece(values: Sequence[int], numbers: Sequence[Numbers]) -> str | None:
    """What gives each member its value: the value itself, or one of its own numbers."""
    if len(set(values)) == 1:
        return str(values[0])
    fits = (k for k in range(len(numbers[0])) if all(own[k] == v for own, v in zip(numbers, values, strict=True)))
    return next((f"{{{VARIABLES[k]}}}" for k in fits), None)


def _one_after_the_other(pieces: Sequence[str]) -> Callable[[re.Match[str]], str]:
    left = iter(pieces)
    return lambda match: next(left)


def _boxes(members: Sequence[Numbers]) -> list[list[str]]:
    """The members' numbers as few boxes, each a range for every variable: ``[["0-31", "0-7"]]``."""
    if not members[0]:
        return [[]]
    rest: dict[int, set[Numbers]] = {}
    for first, *others in members:
        rest.setdefault(first, set()).add(tuple(others))
    together: dict[tuple[Numbers, ...], list[int]] = {}
    for first, boxes in rest.items():
        together.setdefault(tuple(sorted(boxes)), []).append(first)
    return [[index_text(firsts), *box] for boxes, firsts in together.items() for box in _boxes(boxes)]


def _fold_groups(spec: PermutationSpec) -> dict[str, dict[str, Any]]:
    """One line for the groups of a pattern where they agree in everything; else one for each."""
    families: dict[str, dict[str, Numbers]] = {}
    for name in spec.groups:
        pattern, numbers = _pattern(name, _IN_TEXT)
        families.setdefault(pattern, {})[name] = numbers
    lines: dict[str, dict[str, Any]] = {}
    for pattern, members in families.items():
        entries = [group_entry(spec, name) for name in members]
        plain = {(entry.get("size"), entry.get("fixed"), len(entry.get("within", ()))) for entry in entries}
        within = [entry.get("within", []) for entry in entries]
        skeletons = {tuple(_IN_TEXT.sub("#", text) for text in texts) for texts in within}
        folds = len(entries) > 1 and len(plain) == len(skeletons) == 1
        template = _template(within, list(members.values())) if folds else None
        if template is None:
            lines |= dict(zip(members, entries, strict=True))
        else:
            lines[pattern] = {**entries[0], "within": template} if template else entries[0]
    return lines


def group_entry(spec: PermutationSpec, name: str) -> dict[str, Any]:
    """What a file says of a group; fields that say nothing are left out."""
    group = spec.groups[name]
    size = {} if group.size is None else {"size": group.size}
    within = {"within": list(group.within)} if group.within else {}
    return {**size, **within, "fixed": True} if group.fixed else {**size, **within}
