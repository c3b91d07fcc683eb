"""What a page is made of: plain data, which the template turns into HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

Tone = Literal["good", "fair", "bad", "neutral"]
_FIGURES = 24  # characters; a longer cell is a sentence
Cell = str | int | float | None


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Notice:
    """A sentence that must not be missed, with a coloured edge: a verdict, a warning."""

    text: str
    tone: Tone = "neutral"
    title: str = ""
    kind: ClassVar[str] = "notice"


@dataclass(frozen=True)
class Table:
    """``head`` and ``rows`` of one length; text stands as it is, numbers with four significant digits, None as a dash.

    ``folded``: only the caption shows until a reader opens it.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    folded: bool = False
    kind: ClassVar[str] = "table"

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.head):
                raise ValueError(f"rows: each must have {len(self.head)} cells, as the head has, not {len(row)}")

    @property
    def cells(self) -> list[list[str]]:
        """The rows as text."""
        return [[cell_text(cell) for cell in row] for row in self.rows]

    @property
    def wordy(self) -> list[bool]:
        """Whether a column after the first holds sentences, set flush left and wrapped, rather than figures."""
        return [index > 0 and any(len(row[index]) > _FIGURES for row in self.cells) for index in range(len(self.head))]

    def markdown(self) -> str:
        """The table for a Markdown file, without the caption."""
        lines = [list(self.head), ["---"] * len(self.head), *self.cells]
        return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


@dataclass(frozen=True, eq=False)
class Figure:
    """A matplotlib figure with what is to be seen in it; ``alt``: for readers who cannot see it, else the caption."""

    picture: Picture
    caption: str = ""
    alt: str = ""


@dataclass(frozen=True, eq=False)
class Figures:
    """Figures side by side, below each other where the screen is narrow."""

    figures: Sequence[Figure]
    kind: ClassVar[str] = "figures"


Block = Text | Notice | Table | Figures


@dataclass(eq=False)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: list[Block] = field(default_factory=list)


@dataclass(eq=False)
class Page:
    """``lead``: what stands under the title; ``sections`` are listed there too where there are three and more."""

    title: str
    lead: str = ""
    sections: list[Section] = field(default_factory=list)


def cell_text(cell: Any) -> str:
    """Text as it is, whole numbers whole, others with four significant digits, None as a dash."""
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    return str(int(cell)) if isinstance(cell, int) else f"{float(cell):.4g}"
