"""What all pictures share: colours, sizes, axes, saving; matplotlib is imported on first use.

Figures are made without pyplot, so no window, backend or global state is touched. Each is one column of ``WIDTH``
inches unless it says otherwise: scaled to a phone its letters stay legible.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UnavailableError
from ...io import atomic_path
from ...spec.report import shorten
from ..alignment import SingularAlignment
from ..summary import mean_deviation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

StrPath = str | os.PathLike[str]
Values = float | SingularAlignment | Sequence[float | SingularAlignment]
"""One figure, or one for each of several searches; an alignment stands for its pooled R."""

# Okabe and Ito's palette, which all common kinds of colour blindness tell apart, in an order of falling contrast; the
# line styles carry the same information in grey print.
COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES: tuple[Any, ...] = ("--", "-", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)))
MARKERS = ("s", "o", "^", "D", "v", "P", "X")
HATCHES = ("//", "", "..", "xx", "--", "\\\\", "++")
FORMATS = (".png", ".svg", ".pdf")
INK = "#333333"
FRAME = "#888888"
WIDTH = 4.2
HEIGHT = 3.2


def new_figure(panels: int = 1, legend_rows: int = 2) -> Figure:
    """A white figure of ``panels`` panels side by side, taller where the legend above them has more than two rows.

    ``UnavailableError`` where matplotlib is not installed.
    """
    return sized_figure(WIDTH * panels, HEIGHT + 0.19 * max(0, legend_rows - 2))


def sized_figure(width: float, height: float) -> Figure:
    """A white figure of this size in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UnavailableError("matplotlib is needed for plots: pip install lmcfast[plot]") from error
    figure = Figure(figsize=(width, height), dpi=160, layout="constrained", facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.06)
    return figure


def panel_grid(count: int, columns: int = 2, height: float = 1.55, legend_rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A column of small panels, ``columns`` in a row; places without a panel stay empty."""
    rows = -(-count // columns)
    figure = sized_figure(WIDTH, height * rows + 0.35 + 0.19 * legend_rows)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in panels[count:]:
        spare.set_axis_off()
    return figure, panels[:count]


def check_path(path: StrPath | None) -> None:
    """``ValueError`` for a picture whose format is not one that is written."""
    if path is not None and Path(path).suffix.lower() not in FORMATS:
        raise ValueError(f"path: {os.fspath(path)!r} must end in one of {', '.join(FORMATS)}")


def check_some(argument: str, values: Any) -> None:
    if not len(values):
        raise ValueError(f"{argument}: at least one is needed, there is none")


def save_figure(figure: Figure, path: StrPath) -> None:
    """Write the figure in the format of the path's ending, whole or not at all."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=Path(path).suffix.lower().removeprefix("."))


def finish(figure: Figure, path: StrPath | None) -> Figure:
    if path is not None:
        save_figure(figure, path)
    return figure


def dress(axes: Axes, title: str = "", x_label: str = "", y_label: str = "", small: bool = False) -> None:
    """Title at the left, quiet frame and grid; ``small`` for panels of a grid."""
    axes.set_title(title, fontsize=8.5 if small else 11, color=INK, loc="left")
    axes.set_xlabel(x_label, fontsize=8 if small else 10, color=INK)
    axes.set_ylabel(y_label, fontsize=8 if small else 10, color=INK)
    axes.tick_params(labelsize=7.5 if small else 9, colors=INK)
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FRAME)


def legend_above(figure: Figure, axes: Axes, columns: int = 2) -> None:
    """The legend of one panel above all of them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=min(columns, len(labels)), frameon=False, fontsize=9,
        handlelength=3.2, labelcolor=INK,
    )  # fmt: skip


def numbers(values: Values) -> list[float]:
    """One figure or several as floats."""
    several: Iterable[float | SingularAlignment] = values if isinstance(values, Sequence) else [values]
    return [value.pooled if isinstance(value, SingularAlignment) else float(value) for value in several]


def summarised(values: Values, name: str) -> tuple[float, float]:
    """Mean and sample deviation; ``ValueError`` naming what has no value or one that is not finite."""
    found = numbers(values)
    if not found or not all(map(math.isfinite, found)):
        raise ValueError(f"{name}: finite numbers are needed, at least one, not {found!r}")
    return mean_deviation(found)


def short(name: str, longest: int = 26) -> str:
    """A tensor's name for an axis: without ".weight" but where a bare number is left; the middle left out if long."""
    layer = name.removesuffix(".weight")
    name = name if layer.isdecimal() else layer
    return shorten(name, longest)
