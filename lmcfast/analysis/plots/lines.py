"""Curves: loss on the line between networks, a match sweep by sweep, a barrier against the width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...matching import MatchResult, Step, Sweep
from ...matching.trace import sweeps_of
from ..barrier import LOSS, Barrier
from . import frame
from .frame import COLORS, MARKERS, STYLES, StrPath, Values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_barrier(
    curves: Mapping[str, Barrier],
    path: StrPath | None = None,
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
    frame.check_some("curves", curves)
    frame.check_some("metric", names)
    frame.check_path(path)
    for name in names:
        for curve in curves.values():
            curve.series(name)  # raises before anything is drawn
    columns = 1 if len(names) == 1 else 2
    figure = frame.new_figure(len(names), legend_rows=-(-len(curves) // columns))
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for index, (label, curve) in enumerate(curves.items()):
            _draw_curve(axes, index, label, curve, name)
        _dress_line(axes, name)
    frame.legend_above(figure, panels[0], columns)
    return frame.finish(figure, path)


def _draw_curve(axes: Axes, index: int, label: str, curve: Barrier, name: str) -> None:
    axes.plot(
        curve.lambdas,
        curve.series(name),
        color=COLORS[index % len(COLORS)],
        linestyle=STYLES[index % len(STYLES)],
        linewidth=2.0,
        # A marker at the midpoint only: the merge itself, and a cue beside colour and style.
        marker=MARKERS[index % len(MARKERS)],
        markersize=6,
        markevery=[curve.index(0.5)],
        label=label,
        zorder=3 + index,
    )


def _dress_line(axes: Axes, name: str) -> None:
    frame.dress(axes, name, "\N{GREEK SMALL LETTER LAMDA}, from A to B")
    axes.set_xlim(-0.02, 1.02)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["A", "0.25", "0.5", "0.75", "B"])
    low, high = axes.get_ylim()
    if name == LOSS and low < 0 <= high:
        axes.set_ylim(bottom=0)


def plot_trace(trace: MatchResult | Sequence[Step] | Sequence[Sweep], path: StrPath | None = None) -> Figure:
    """Draw a match sweep by sweep: the objective above, how many units each sweep moved below.

    Sweep 0 is the start. ``ValueError`` for a trace without steps (a result that was read from a file has none);
    other errors as of :func:`plot_barrier`.
    """
    frame.check_path(path)
    sweeps = _sweeps(trace.trace if isinstance(trace, MatchResult) else trace)
    frame.check_some("trace", sweeps)
    figure = frame.sized_figure(frame.WIDTH, 3.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    numbers = [sweep.sweep for sweep in sweeps]
    above.plot(numbers, [sweep.objective for sweep in sweeps], color=COLORS[1], marker="o", linewidth=2.0)
    below.bar(numbers, [sweep.changed for sweep in sweeps], color=COLORS[0], width=0.6)
    frame.dress(above, "objective after each sweep")
    frame.dress(below, "units moved in it", "sweep (0: start)")
    below.xaxis.get_major_locator().set_params(integer=True)
    return frame.finish(figure, path)


def _sweeps(records: Sequence[Step] | Sequence[Sweep]) -> Sequence[Sweep]:
    sweeps = [record for record in records if isinstance(record, Sweep)]
    return sweeps or sweeps_of([record for record in records if isinstance(record, Step)])


def plot_widths(
    barriers: Mapping[str, Mapping[float, Values]],
    path: StrPath | None = None,
    label: str = "barrier at the midpoint",
) -> Figure:
    """Draw a figure against the width of the networks, {label: {width: one value, or one for each search}}.

    Means with the sample deviation as whiskers; the widths on a logarithmic axis. Errors as of :func:`plot_barrier`.
    """
    frame.check_path(path)
    frame.check_some("barriers", barriers)
    figure = frame.new_figure(legend_rows=len(barriers))
    axes = figure.subplots()
    axes.set_xscale("log", base=2)
    for index, (name, by_width) in enumerate(barriers.items()):
        frame.check_some(f"barriers[{name!r}]", by_width)
        widths = sorted(by_width)
        summaries = [frame.summarised(by_width[width], f"barriers[{name!r}][{width!r}]") for width in widths]
        axes.errorbar(
            widths, [mean for mean, _ in summaries], yerr=[deviation for _, deviation in summaries], label=name,
            color=COLORS[index % len(COLORS)], linestyle=STYLES[index % len(STYLES)], linewidth=2.0, capsize=3,
            marker=MARKERS[index % len(MARKERS)], markersize=6,
        )  # fmt: skip
    frame.dress(axes, label, "width")
    axes.axhline(0.0, color=frame.FRAME, linewidth=1.0, zorder=1)
    ticks = sorted({float(width) for by_width in barriers.values() for width in by_width})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    frame.legend_above(figure, axes, columns=1)
    return frame.finish(figure, path)
