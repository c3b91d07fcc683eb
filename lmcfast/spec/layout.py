"""Layouts: how the units along one axis of a tensor are made of groups.

A layout string is read in storage order (row-major):

==============  =========================================================================================
``"h0"``        one index of group ``h0`` for each position
``"c5 _49"``    product: for each index of ``c5`` a fixed run of 49 positions (a flattened 7 x 7 channel)
``"h q | h v"`` concatenation: the positions of ``h q``, then those of ``h v``
``"h (q | v)"`` brackets: for each ``h``, its ``q`` positions and then its ``v`` positions
``"_49"``       49 positions that never move
``None``        a whole axis that never moves, of any length
==============  =========================================================================================

A name is any run of characters without blanks, brackets and ``|`` that does not start with ``_``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ..errors import SpecError

_TOKEN = re.compile(r"[()|]|[^\s()|]+")
_NAME = re.compile(r"[^\s()\[\]{}|_][^\s()\[\]{}|]*")
_RUN = re.compile(r"_[0-9]{1,18}")
_MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Atom:
    """One index of the group ``name``."""

    name: str


@dataclass(frozen=True, slots=True)
class Fixed:
    """``size`` positions that never move; None: a whole axis of any length."""

    size: int | None


@dataclass(frozen=True, slots=True)
class Product:
    """Row-major product: the last part runs fastest."""

    parts: tuple[Layout, ...]


@dataclass(frozen=True, slots=True)
class Concat:
    """The positions of the parts, one part after the other."""

    parts: tuple[Layout, ...]


Layout: TypeAlias = Atom | Fixed | Product | Concat


def product(parts: Iterable[Layout]) -> Layout:
    """The product in normal form: no product directly inside, neighbouring fixed runs joined, one part stands alone."""
    flat: list[Layout] = []
    for part in parts:
        for factor in part.parts if isinstance(part, Product) else (part,):
            if isinstance(factor, Fixed) and factor.size == 1:
                continue
            before = flat[-1] if flat else None
            if isinstance(factor, Fixed) and isinstance(before, Fixed):
                flat[-1] = Fixed(_length(before) * _length(factor))
            else:
                flat.append(factor)
    if not flat:
        return Fixed(1)
    return flat[0] if len(flat) == 1 else Product(tuple(flat))


def concat(parts: Iterable[Layout]) -> Layout:
    """The concatenation in normal form: no concatenation directly inside, neighbouring fixed runs joined."""
    flat: list[Layout] = []
    for part in parts:
        for arm in part.parts if isinstance(part, Concat) else (part,):
            if isinstance(arm, Fixed) and arm.size == 0:
                continue
            before = flat[-1] if flat else None
            if isinstance(arm, Fixed) and isinstance(before, Fixed):
                flat[-1] = Fixed(_length(before) + _length(arm))
            else:
                flat.append(arm)
    if not flat:
        return Fixed(0)
    return flat[0] if len(flat) == 1 else Concat(tuple(flat))


def _length(run: Fixed) -> int:
    if run.size is None:
        raise SpecError("a fixed axis of open length (None) cannot be part of a product or a concatenation")
    return run.size


def normalize(layout: Layout) -> Layout:
    """The layout in the normal form that :func:`parse_layout` gives. Raises ``SpecError`` on a malformed one."""
    if isinstance(layout, Atom):
        if not (isinstance(layout.name, str) and _NAME.fullmatch(layout.name)):
            raise SpecError(f"{layout.name!r} is not a group name", group=str(layout.name))
        return layout
    if isinstance(layout, Fixed):
        if layout.size is not None and layout.size < 0:
            raise SpecError(f"a fixed run has length {layout.size}")
        return layout
    parts = tuple(normalize(part) for part in layout.parts)
    if len(parts) > 1 and Fixed(None) in parts:
        _length(Fixed(None))
    return product(parts) if isinstance(layout, Product) else concat(parts)


def atoms(layout: Layout) -> Iterator[str]:
    """The names of the groups in the layout, in storage order, each as often as it occurs."""
    if isinstance(layout, Atom):
        yield layout.name
    elif isinstance(layout, Product | Concat):
        for part in layout.parts:
            yield from atoms(part)


def layout_size(layout: Layout, sizes: Mapping[str, int]) -> int:
    """Number of positions, with ``sizes`` the sizes of the groups. ``KeyError`` for a group without one."""
    if isinstance(layout, Atom):
        return sizes[layout.name]
    if isinstance(layout, Fixed):
        return _length(layout)
    lengths = [layout_size(part, sizes) for part in layout.parts]
    return math.prod(lengths) if isinstance(layout, Product) else sum(lengths)


def solve_size(layout: Layout, name: str, sizes: Mapping[str, int], length: int) -> int | None:
    """The size of group ``name`` with which the layout has ``length`` positions; None where there is none.

    All other groups of the layout must have sizes. The length grows with the size, so bisection finds it.
    """

    def length_at(size: int) -> int:
        return layout_size(layout, {**sizes, name: size})

    low, high = 0, length
    while low < high:
        middle = (low + high) // 2
        if length_at(middle) < length:
            low = middle + 1
        else:
            high = middle
    return low if length_at(low) == length else None


def parse_layout(text: str | None) -> Layout:
    """Read a layout string (grammar: module docstring). Raises ``SpecError`` with the text and what is wrong in it."""
    if text is None:
        return Fixed(None)
    if not isinstance(text, str):
        raise SpecError(f"a layout is a string or None, not {type(text).__name__} {text!r}")
    tokens = _TOKEN.findall(text)
    if not tokens:
        raise SpecError(f"layout {text!r} is empty; write None for an axis that never moves")
    parser = _Parser(text, tokens)
    layout = parser.concatenation(depth=0)
    if parser.next is not None:
        raise parser.error(f"unexpected {parser.next!r}")
    return layout


class _Parser:
    """Recursive descent over the tokens of one layout string."""

    def __init__(self, text: str, tokens: list[str]) -> None:
        self.text = text
        self.tokens = tokens
        self.at = 0

    @property
    def next(self) -> str | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def error(self, reason: str) -> SpecError:
        return SpecError(f"layout {self.text!r}: {reason}")

    def concatenation(self, depth: int) -> Layout:
        if depth > _MAX_DEPTH:
            raise self.error(f"brackets more than {_MAX_DEPTH} deep")
        arms = [self.factors(depth)]
        while self.next == "|":
            self.at += 1
            arms.append(self.factors(depth))
        return arms[0] if len(arms) == 1 else concat(arms)

    def factors(self, depth: int) -> Layout:
        parts: list[Layout] = []
        while (token := self.next) is not None and token not in ")|":
            self.at += 1
            if token == "(":
                parts.append(self.concatenation(depth + 1))
                if self.next != ")":
                    raise self.error("a bracket is not closed")
                self.at += 1
            elif _RUN.fullmatch(token):
                parts.append(Fixed(int(token[1:])))
            elif _NAME.fullmatch(token):
                parts.append(Atom(token))
            else:
                raise self.error(f"{token!r} is neither a group name nor a fixed run such as _49")
        if not parts:
            raise self.error(f"nothing stands before {self.next!r}" if self.next else "nothing stands at the end")
        return product(parts)


def format_layout(layout: Layout) -> str | None:
    """The layout as the string that :func:`parse_layout` reads back to its normal form; None for an open fixed axis."""
    if layout == Fixed(None):
        return None
    return _format(layout)


def _format(layout: Layout) -> str:
    if isinstance(layout, Atom):
        return layout.name
    if isinstance(layout, Fixed):
        return f"_{_length(layout)}"
    if isinstance(layout, Concat):
        return " | ".join(f"({_format(part)})" if isinstance(part, Concat) else _format(part) for part in layout.parts)
    return " ".join(_format(part) if isinstance(part, Atom | Fixed) else f"({_format(part)})" for part in layout.parts)
