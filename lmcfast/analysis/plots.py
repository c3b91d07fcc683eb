"""Pictures of the analysis, one function each; matplotlib is imported on first use.

Figures are made without pyplot, so no window, backend or global state is touched.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UnavailableError
from ..io import atomic_path
from .barrier import LOSS, Barrier

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which all common kinds of colour blindness tell apart, in an order of falling contrast; the
# line styles carry the same information in grey print.
COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES: tuple[Any, ...] = ("--", "-", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)))
MARKERS = ("s", "o", "^", "D", "v", "P", "X")
FORMATS = (".png", ".svg", ".pdf")
INK = "#333333"


def plot_barrier(
    curves: Mapping[str, Barrier],
    path: str | os.PathLike[str] | None = None,
    metric: str | Sequence[str] | None = None,
) -> Figure:
    """Draw what was measured on the line between two networks, one curve for each label.

    Args:
        curves: {label: Barrier}; drawn and listed in this order.
        path: where to save the picture (.png, .svg or .pdf), which appears whole or not at all.
        metric: None or "loss" for the loss, the name of a metric, or several names for panels side by side.

    Returns:
        The matplotlib Figure, 4.2 inches by 3.2 for each panel, taller under a long legend.

    Raises:
        UnavailableError: matplotlib is not installed.
        ValueError: ``curves`` is empty, a metric was not measured, or the file's ending is none of the three.
        CheckpointError: the file cannot be written.
    """
    names = [LOSS] if metric is None else [metric] if isinstance(metric, str) else list(metric)
    if not curves or not names:
        raise ValueError(f"{'metric' if curves else 'curves'}: at least one is needed, there is none")
    if path is not None and Path(path).suffix.lower() not in FORMATS:
        raise ValueError(f"path: {os.fspath(path)!r} must end in one of {', '.join(FORMATS)}")
    for name in names:
        for curve in curves.values():
            curve.series(name)  # raises before anything is drawn

    columns = 1 if len(names) == 1 else 2
    figure = new_figure(len(names), legend_rows=-(-len(curves) // columns))
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for index, (label, curve) in enumerate(curves.items()):
            _draw_curve(axes, index, label, curve, name)
        _dress(axes, name)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=columns, frameon=False, fontsize=9, handlelength=3.2,
        labelcolor=INK,
    )  # fmt: skip
    if path is not None:
        save_figure(figure, path)
    return figure


def new_figure(panels: int = 1, legend_rows: int = 2) -> Figure:
    """A white figure of ``panels`` panels side by side, taller where the legend above them has more than two rows.

    ``UnavailableError`` where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UnavailableError("matplotlib is needed for plots: pip install lmcfast[plot]") from error
    size = (4.2 * panels, 3.2 + 0.19 * max(0, legend_rows - 2))
    figure = Figure(figsize=size, dpi=160, layout="constrained", facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.06)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write the figure in the format of the path's ending, whole or not at all."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=Path(path).suffix.lower().removeprefix("."))


def _draw_curve(axes: Axes, index: int, label: str, curve: Barrier, name: str) -> None:
    color, style = COLORS[index % len(COLORS)], STYLES[index % len(STYLES)]
    values = curve.series(name)
    axes.plot(
        curve.lambdas,
        values,
        color=color,
        linestyle=style,
        linewidth=2.0,
        # A marker at the midpoint only: the merge itself, and a cue beside colour and style.
        marker=MARKERS[index % len(MARKERS)],
        markersize=6,
        markevery=[curve.index(0.5)],
        label=label,
        zorder=3 + index,
    )


def _dress(axes: Axes, name: str) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["A", "0.25", "0.5", "0.75", "B"])
    axes.set_xlabel("\N{GREEK SMALL LETTER LAMDA}, from A to B", fontsize=10, color=INK)
    axes.set_title(name, fontsize=11, color=INK, loc="left")
    low, high = axes.get_ylim()
    if name == LOSS and low < 0 <= high:
        axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=9, colors=INK)
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#888888")
