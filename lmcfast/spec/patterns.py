"""Reading of the folded text form: lines with variables become entries for tensors and groups.

``layers.{i}.mlp.weight`` with ``index = ["0-31"]`` stands for 32 tensors, and ``{i}`` in its layouts for the number of
each. Of lines with variables that follow each other under one path (``layers.{i}``) first all are read for the first
number, then for the next: that is the order of the network, and the order of a spec's tensors is that of a matching.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import SpecError

VARIABLES = "ijkl"
OPEN = "_"
"""A fixed axis of open length in files (TOML has no null)."""

_VARIABLE = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
_MOST = 1_000_000  # tensors that one line may stand for

Values = Mapping[str, int]


@dataclass(frozen=True)
class Line:
    """One line of the axes; ``index``: the numbers of each variable of the key."""

    key: str
    index: tuple[tuple[int, ...], ...]
    layout: tuple[str, ...]
    buffer: bool
    stack: int | None
    why: Mapping[int, tuple[str, ...]]

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_VARIABLE.findall(self.key)))

    def head(self) -> str:
        """The key up to its first variable and with it, empty where it has none."""
        found = _VARIABLE.search(self.key)
        return self.key[: found.end()] if found else ""

    def at(self, value: int) -> Line:
        """The line with its first variable set."""
        values = {self.variables[0]: value}
        return Line(
            fill(self.key, values),
            self.index[1:],
            tuple(fill(text, values) for text in self.layout),
            self.buffer,
            self.stack,
            self.why,
        )


def fill(text: str, values: Values) -> str:
    """The text with numbers in place of the variables that have one."""
    return _VARIABLE.sub(lambda match: str(values.get(match[1], match[0])), text)


def index_text(numbers: Iterable[int]) -> str:
    """``"0-3,5"``."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)


def parse_index(text: Any, where: str) -> tuple[int, ...]:
    """The numbers of ``"0-3,5"``, or of a plain number. ``SpecError`` names ``where``."""
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return (text,)
    found: list[int] = []
    for part in text.split(",") if isinstance(text, str) else [""]:
        match = _RANGE.fullmatch(part.strip())
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise SpecError(f"{where}: index {text!r:.80} is not a range such as 0-31 or 0-3,5")
        found += range(int(match[1]), min(int(match[2] or match[1]), int(match[1]) + _MOST) + 1)
    return tuple(dict.fromkeys(found))


def read_lines(key: str, value: Any) -> list[Line]:
    """The lines of one key: a list of layouts, a table with ``layout``, or several tables."""
    where = f"axes[{key!r}]"
    several = isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)
    return [_line(key, entry, where) for entry in (value if several else [value])]


def _line(key: str, value: Any, where: str) -> Line:
    entry = value if isinstance(value, dict) else {"layout": value}
    unknown = sorted(set(entry) - {"layout", "index", "buffer", "stack", "why"})
    if unknown:
        raise SpecError(f"{where} has an unknown field {unknown[0]!r}; known are buffer, index, layout, stack, why")
    layout, stack, buffer = entry.get("layout"), entry.get("stack"), entry.get("buffer", False)
    if not isinstance(layout, list) or not all(text is None or isinstance(text, str) for text in layout):
        raise SpecError(f"{where} is not a list of layouts but {layout!r:.80}", tensor=key)
    if not isinstance(buffer, bool):
        raise SpecError(f"{where}: buffer is {buffer!r:.80}", tensor=key)
    if (stack is not None) != ("*" in key.split(".")) or key.split(".").count("*") > 1:
        raise SpecError(f"{where}: a stack and one part '*' of the name belong together", tensor=key)
    if stack is not None and (not isinstance(stack, int) or isinstance(stack, bool) or stack < 1):
        raise SpecError(f"{where}: stack is {stack!r:.80}, not a number of tensors", tensor=key)
    index = entry.get("index", [])
    variables = dict.fromkeys(_VARIABLE.findall(key))
    if not isinstance(index, list) or len(index) != len(variables):
        raise SpecError(f"{where} needs an index for each of its {len(variables)} variables, not {index!r:.80}", key)
    texts = tuple(text or OPEN for text in layout)
    for name in itertools.chain.from_iterable(_VARIABLE.findall(text) for text in texts):
        if name not in variables:
            raise SpecError(f"{where}: the layout has a variable {{{name}}} that the name has not", tensor=key)
    return Line(key, tuple(parse_index(part, where) for part in index), texts, buffer, stack, _why(entry, where))


def _why(entry: Mapping[str, Any], where: str) -> dict[int, tuple[str, ...]]:
    why = entry.get("why", {})
    if not isinstance(why, dict):
        raise SpecError(f"{where}: why is {why!r:.80}")
    found = {}
    for axis, reasons in why.items():
        if not (axis.isascii() and axis.isdigit()):
            raise SpecError(f"{where}: why has {axis!r:.80}, which is not an axis number")
        if not isinstance(reasons, list) or not all(isinstance(reason, str) for reason in reasons):
            raise SpecError(f"{where}: why of axis {axis} is not a list of reasons")
        found[int(axis)] = tuple(reasons)
    return found


def expand(lines: Sequence[Line]) -> Iterator[Line]:
    """A line without variables for each tensor, in the order that the module's docstring tells."""
    for head, run in itertools.groupby(lines, key=Line.head):
        together = list(run)
        if not head:
            yield from together
            continue
        values = sorted({value for line in together for value in line.index[0]})
        for value in values:
            yield from expand([line.at(value) for line in together if value in line.index[0]])


class GroupLines:
    """The lines of the groups; a group goes by the line of its own name, else by the one pattern that fits it."""

    def __init__(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        self.named = {key: entry for key, entry in entries.items() if not _VARIABLE.search(key)}
        self.patterns = [(_expression(key), entry) for key, entry in entries.items() if key not in self.named]

    def entry(self, name: str) -> dict[str, Any]:
        """Size, within and fixed of a group. ``SpecError`` where no line or more than one fits."""
        if name in self.named:
            return dict(self.named[name])
        fits = [(match, entry) for pattern, entry in self.patterns if (match := pattern.fullmatch(name))]
        if len(fits) != 1:
            found = "no line" if not fits else "two lines"
            raise SpecError(f"groups: {found} for group {name!r}", group=name)
        match, entry = fits[0]
        values = {variable: int(number) for variable, number in match.groupdict().items()}
        return {**entry, "within": tuple(fill(outer, values) for outer in entry.get("within", ()))}


def _expression(pattern: str) -> re.Pattern[str]:
    """What the names of a pattern look like; a variable that stands twice is the same number twice."""
    pieces, seen = [], set()
    for k, piece in enumerate(_VARIABLE.split(pattern)):
        if k % 2 == 0:
            pieces.append(re.escape(piece))
        elif piece in seen:
            pieces.append(f"(?P={piece})")
        elif re.fullmatch(r"[a-z]", piece):
            seen.add(piece)
            pieces.append(f"(?P<{piece}>0|[1-9][0-9]{{0,8}})")
        else:
            raise SpecError(f"groups: {pattern!r} has a variable {{{piece}}}; variables are single small letters")
    return re.compile("".join(pieces))
