"""Names of groups: from the first tensor that shows them, the same in every layer so that layers fold.

A name is the shortest end of the first tensor's path that no other kind of group has, then a letter for the second and
later groups that begin in this tensor, then the numbers in the path: ``q_proj.3`` and ``q_proj:b.3`` in layer 3. A
group that runs through repeated layers is a ``stream``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

_PLAIN = frozenset({"weight", "bias"})
_ENDING = re.compile(r"_(weight|bias)$")
_UNFIT = re.compile(r"[^\w\-]")

Use = tuple[str, int, int]
"""A tensor's name, the axis, and the number of the tensor's axes."""


@dataclass(frozen=True)
class _Origin:
    """Where a group begins: words and numbers of the path, and how many groups began in the same tensor before."""

    words: tuple[str, ...]
    numbers: tuple[str, ...]
    ordinal: int

    def name(self, length: int) -> str:
        """The name with the last ``length`` words."""
        letter = f":{_letters(self.ordinal)}" if self.ordinal else ""
        return ".".join((".".join(self.words[-length:]) + letter, *self.numbers))


def group_names(uses: Mapping[int, Sequence[Use]], nests: Iterable[int]) -> dict[int, str]:
    """Names for groups (any keys, in order of first use) by their uses; ``nests``: those with others in or around."""
    nesting = set(nests)
    origins: dict[int, _Origin] = {}
    begun: dict[tuple[tuple[str, ...], tuple[str, ...]], int] = defaultdict(int)
    for key, places in uses.items():
        stream = key not in nesting and _repeats(places)
        words, numbers = _stream_path(places) if stream else _path(places[0][0])
        origins[key] = _Origin(words, numbers, begun[words, numbers])
        begun[words, numbers] += 1
    kinds = {origin.words for origin in origins.values()}
    lengths = {words: _distinct(words, kinds) for words in kinds}
    return {key: origin.name(lengths[origin.words]) for key, origin in origins.items()}


def _path(tensor: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words and the numbers in a tensor's path; its own name only where that says something."""
    *parts, last = tensor.split(".")
    if last not in _PLAIN:
        parts.append(_ENDING.sub("", last))
    words = tuple(_UNFIT.sub("-", part).lstrip("_") or "h" for part in parts if not (part.isdigit() or part == "*"))
    return words or ("h",), tuple(part for part in parts if part.isdigit())


def _stream_path(places: Sequence[Use]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    paths = [tensor.split(".")[:-1] for tensor, _, _ in places]
    common = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))]
    return _path(".".join((*common, "stream")))


def _repeats(places: Sequence[Use]) -> bool:
    """Whether one kind of tensor shows the group in several layers, on an axis that depthwise kernels don't have."""
    seen: dict[tuple[str, int, int], str] = {}
    for tensor, axis, rank in places:
        if axis == 0:
            continue
        kind = ".".join("#" if part.isdigit() else part for part in tensor.split("."))
        if seen.setdefault((kind, axis, rank), tensor) != tensor:
            return True
    return False


def _distinct(words: tuple[str, ...], kinds: set[tuple[str, ...]]) -> int:
    """The least number of last words that tell this kind from the others."""
    for length in range(1, len(words)):
        if not any(other != words and other[-length:] == words[-length:] for other in kinds):
            return length
    return len(words)


def _letters(ordinal: int) -> str:
    """b, c, ... z, ba, bb, ... for 1, 2, ..."""
    text = ""
    while ordinal:
        ordinal, rest = divmod(ordinal, 26)
        text = chr(ord("a") + rest) + text
    return text
