"""Layouts: how the units along one axis of a tensor are made of groups.

A layout string is read in storage order (row-major):

===================  ====================================================================================
``"h0"``             one index of group ``h0`` for each position
``"c5 _49"``         product: for each index of ``c5`` a fixed run of 49 positions (a flattened 7 x 7 channel)
``"h q | h v"``      concatenation: the positions of ``h q``, then those of ``h v``
``"h (q | v)"``      brackets: for each ``h``, its ``q`` positions and then its ``v`` positions
``"[s = a | b]"``    the concatenation ``a | b`` under the name ``s``, which tells in which arm a position lies
``"[s ? a | b]"``    case: ``a`` where ``s`` is in its first arm, ``b`` where it is in its second
``"_49"``            49 positions that never move
``None``             a whole axis that never moves, of any length
===================  ====================================================================================

A name is any run of characters without blanks, brackets and ``|`` that does not start with ``_``.

A case is met where a reshape or an index has put units of two groups side by side: the channels ``a`` and ``b`` that a
channel shuffle has interleaved are ``[s ? a | b] [s = _1 | _1]``. The concatenation that a case refers to stands once
beside it, in the same product or on another axis of the tensor, as an outer group does (``nesting.py``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..errors import SpecError

_TOKEN = re.compile(r"[()|\]]|(?<![^\s()|\[])\[|[^\s()|\]]+")
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
    """The positions of the parts, one part after the other; cases refer to it by the name ``selector``, if any."""

    parts: tuple[Layout, ...]
    selector: str | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """``parts[k]`` where the concatenation named ``selector`` is in its arm k. All parts have one length."""

    selector: str
    parts: tuple[Layout, ...]


Layout: TypeAlias = Atom | Fixed | Product | Concat | Case


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


def concat(parts: Iterable[Layout], selector: str | None = None) -> Layout:
    """The concatenation in normal form: no concatenation directly inside, neighbouring fixed runs joined.

    Under a name it keeps its arms as they are, since cases count them; so does a named one inside another.
    """
    if selector is not None:
        return Concat(tuple(parts), selector)
    flat: list[Layout] = []
    for part in parts:
        for arm in part.parts if isinstance(part, Concat) and part.selector is None else (part,):
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


def case(selector: str, parts: Iterable[Layout]) -> Layout:
    """The case in normal form: none where all parts are alike."""
    arms = tuple(parts)
    return arms[0] if arms and all(arm == arms[0] for arm in arms) else Case(selector, arms)


def rebuild(layout: Layout, change: Callable[[Layout], Layout]) -> Layout:
    """The layout in normal form with ``change`` made to each of its parts; an atom or a run has none and stays."""
    if isinstance(layout, Product):
        return product(map(change, layout.parts))
    if isinstance(layout, Concat):
        return concat(map(change, layout.parts), layout.selector)
    return case(layout.selector, map(change, layout.parts)) if isinstance(layout, Case) else layout


def in_arm(layout: Layout, selector: str, arm: int) -> Layout:
    """What holds of the layout where the concatenation ``selector`` is in its arm number ``arm``: the cases on it and
    the concatenation itself give way to their part of that number."""
    if isinstance(layout, Concat | Case) and layout.selector == selector:
        return in_arm(layout.parts[arm], selector, arm)
    return rebuild(layout, lambda part: in_arm(part, selector, arm))


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
    selector = None if isinstance(layout, Product) else layout.selector
    if selector is not None and not (isinstance(selector, str) and _NAME.fullmatch(selector)):
        raise SpecError(f"{selector!r} is no name for a concatenation")
    if Fixed(None) in layout.parts and (len(layout.parts) > 1 or selector is not None):
        _length(Fixed(None))
    if isinstance(layout, Case) and not layout.parts:
        raise SpecError(f"the case on {selector!r} has no parts")
    return rebuild(layout, normalize)


def atoms(layout: Layout) -> Iterator[str]:
    """The names of the groups in the layout, in storage order, each as often as it occurs."""
    if isinstance(layout, Atom):
        yield layout.name
    elif not isinstance(layout, Fixed):
        for part in layout.parts:
            yield from atoms(part)


def selectors(layout: Layout) -> Iterator[Concat | Case]:
    """The named concatenations in the layout and the cases that refer to one, from the outside inwards."""
    if isinstance(layout, Case) or (isinstance(layout, Concat) and layout.selector is not None):
        yield layout
    if not isinstance(layout, Atom | Fixed):
        for part in layout.parts:
            yield from selectors(part)


def without_idle_names(layouts: Sequence[Layout]) -> tuple[Layout, ...]:
    """A tensor's layouts, without the names of concatenations to which none of its cases refers.

    ``SpecError`` where a case and what it refers to do not have the same number of arms.
    """
    named = [part for layout in layouts for part in selectors(layout)]
    used = {part.selector: len(part.parts) for part in named if isinstance(part, Case)}
    for part in named:
        if used.get(part.selector or "", len(part.parts)) != len(part.parts):
            raise SpecError(f"a case on {part.selector!r} or that concatenation has an arm too many")

    def change(layout: Layout) -> Layout:
        if isinstance(layout, Concat) and layout.selector not in used:
            return concat(map(change, layout.parts))
        return rebuild(layout, change)

    return tuple(change(layout) for layout in layouts)


def variants(layout: Layout) -> list[Layout]:
    """The layout without cases, once for each arm of the case with most arms; all have the length of the layout.

    Arms that are equally long are all that this says of a case; which arm holds where takes the whole tensor.
    """
    most = max((len(part.parts) for part in selectors(layout) if isinstance(part, Case)), default=1)

    def pick(layout: Layout, arm: int) -> Layout:
        if isinstance(layout, Case):
            return pick(layout.parts[min(arm, len(layout.parts) - 1)], arm)
        return rebuild(layout, lambda part: pick(part, arm))

    return [pick(layout, arm) for arm in range(most)]


def layout_size(layout: Layout, sizes: Mapping[str, int]) -> int:
    """Number of positions, with ``sizes`` the sizes of the groups. ``KeyError`` for a group without one."""
    if isinstance(layout, Atom):
        return sizes[layout.name]
    if isinstance(layout, Fixed):
        return _length(layout)
    if isinstance(layout, Case):
        return layout_size(layout.parts[0], sizes)
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
        arms = self.arms(depth)
        return arms[0] if len(arms) == 1 else concat(arms)

    def arms(self, depth: int) -> list[Layout]:
        if depth > _MAX_DEPTH:
            raise self.error(f"brackets more than {_MAX_DEPTH} deep")
        arms = [self.factors(depth)]
        while self.next == "|":
            self.at += 1
            arms.append(self.factors(depth))
        return arms

    def named(self, depth: int) -> Layout:
        """What stands after ``[``: a named concatenation or a case."""
        name, sign, *_ = (*self.tokens[self.at : self.at + 2], "", "")
        if not _NAME.fullmatch(name) or sign not in ("=", "?"):
            raise self.error("after '[' a name and '=' or '?' are needed")
        self.at += 2
        arms = self.arms(depth)
        self.close("]")
        return concat(arms, name) if sign == "=" else case(name, arms)

    def close(self, bracket: str) -> None:
        if self.next != bracket:
            raise self.error("a bracket is not closed")
        self.at += 1

    def factors(self, depth: int) -> Layout:
        parts: list[Layout] = []
        while (token := self.next) is not None and token not in (")", "]", "|"):
            self.at += 1
            if token == "(":
                parts.append(self.concatenation(depth + 1))
                self.close(")")
            elif token == "[":
                parts.append(self.named(depth + 1))
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
    if isinstance(layout, Product):
        return " ".join(f"({_format(part)})" if _is_open(part) else _format(part) for part in layout.parts)
    arms = " | ".join(f"({_format(part)})" if _is_open(part) else _format(part) for part in layout.parts)
    if layout.selector is None:
        return arms
    return f"[{layout.selector} {'=' if isinstance(layout, Concat) else '?'} {arms}]"


def _is_open(layout: Layout) -> bool:
    """Whether a layout is written as arms without brackets around them."""
    return isinstance(layout, Concat) and layout.selector is None
