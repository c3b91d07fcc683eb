"""What the tables of configured architectures share: lines of the folded text form with sizes from a configuration.

A table speaks the names of the module (transformers' own); ``names.py`` leads from the keys of a checkpoint to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import SpecError
from ..spec import PermutationSpec
from ..text import FORMAT, VERSION, read_document

Config = Mapping[str, Any]


class Table:
    """Lines of a spec. In keys ``{i}`` is a layer; an axis that never moves is given by its length."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.groups: dict[str, dict[str, Any]] = {}
        self.axes: dict[str, Any] = {}
        self.tied: dict[str, str] = {}
        self.layers = 0

    def size(self, *names: str, default: int | None = None) -> int:
        """A number of the configuration, under the first of the names that has one."""
        for name in names:
            value = self.config.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
            if value is not None:
                raise SpecError(f"the configuration has {name} = {value!r:.80}, not a positive number")
        if default is None:
            raise SpecError(f"the configuration has no {names[0]!r}")
        return default

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self.config.get(name, default))

    def group(self, name: str, size: int, *within: str) -> str:
        """The name of a group for layouts, empty where its one unit cannot move; so for outer groups in ``within``."""
        if size == 1:
            return ""
        outer = [entry for entry in within if entry]
        self.groups[name] = {"size": size, "within": outer} if outer else {"size": size}
        return name

    def add(self, key: str, *layout: str | int) -> None:
        """A tensor: a layout or a length for each of its axes."""
        texts = [f"_{axis}" if isinstance(axis, int) else " ".join(axis.split()) or "_1" for axis in layout]
        self.axes[key] = {"index": [f"0-{self.layers - 1}"], "layout": texts} if "{i}" in key else texts

    def dense(self, key: str, out: str | int, into: str | int, bias: bool = True) -> None:
        """A linear layer, its weight stored as (out, in)."""
        self.add(f"{key}.weight", out, into)
        if bias:
            self.add(f"{key}.bias", out)

    def norm(self, key: str, width: str, bias: bool = True) -> None:
        self.add(f"{key}.weight", width)
        if bias:
            self.add(f"{key}.bias", width)

    def head(self, key: str, out: int, into: str, embedding: str, tied: bool) -> None:
        """The last layer without bias, tied to the embedding or not."""
        if tied:
            self.tied[key] = embedding
        else:
            self.add(key, out, into)

    def spec(self) -> PermutationSpec:
        """The spec, with all sizes."""
        document = {"groups": self.groups, "axes": self.axes, "tied": self.tied}
        return PermutationSpec.from_document(
            read_document({"format": FORMAT, "version": VERSION, "folded": True, **document})
        )
