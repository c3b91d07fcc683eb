"""Singular values and vectors: spectra side by side, alignment R, where the inputs lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..inputs import InputEnergy
from ..spectra import Spectra
from . import frame
from .frame import COLORS, HATCHES, STYLES, StrPath, Values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_spectra(spectra: Spectra, labels: Sequence[str] | None = None, path: StrPath | None = None) -> Figure:
    """Draw the singular values of every layer, one panel for each, one curve for each network.

    Args:
        spectra: of ``analysis.spectra``; its ``layers=`` picks the panels.
        labels: the networks' names, default A, B, C ...
        path: where to save the picture (.png, .svg or .pdf), which appears whole or not at all.

    Returns the matplotlib Figure. Raises as :func:`plot_barrier`, and ``ValueError`` where there are not as many
    labels as networks.
    """
    frame.check_path(path)
    frame.check_some("spectra", spectra.values)
    models = len(next(iter(spectra.values.values())))
    names = [chr(ord("A") + index) for index in range(models)] if labels is None else list(labels)
    if len(names) != models:
        raise ValueError(f"labels: {models} are needed, one for each network, not {len(names)}")
    figure, panels = frame.panel_grid(len(spectra.values), legend_rows=-(-models // 3))
    for axes, (tensor, values) in zip(panels, spectra.values.items(), strict=True):
        for index, row in enumerate(values):
            _rank_curve(axes, row, index, names[index])
        frame.dress(axes, frame.short(tensor), small=True)
        axes.set_ylim(bottom=0)
    figure.supxlabel("index of the singular value", fontsize=8.5, color=frame.INK)
    frame.legend_above(figure, panels[0], columns=3)
    return frame.finish(figure, path)


def plot_input_energy(energy: Mapping[str, InputEnergy], path: StrPath | None = None) -> Figure:
    """Draw how much of each layer's input lies along each right singular vector, one panel for each layer.

    Both the share of the input's energy and the singular values, over the largest, on one logarithmic axis. Errors as
    of :func:`plot_barrier`.
    """
    frame.check_path(path)
    frame.check_some("energy", energy)
    figure, panels = frame.panel_grid(len(energy))
    for axes, (tensor, found) in zip(panels, energy.items(), strict=True):
        largest = found.values.max(initial=0.0)
        axes.set_yscale("log")
        _rank_curve(axes, found.values / largest if largest > 0 else found.values, 0, "singular value / largest")
        _rank_curve(axes, found.energy / found.total if found.total > 0 else found.energy, 1, "share of the input")
        axes.set_ylim(bottom=1e-7, top=2.0)  # what is below is rounding of float32
        axes.set_yticks([1e-6, 1e-4, 1e-2, 1])
        frame.dress(axes, frame.short(tensor), small=True)
    figure.supxlabel("index of the singular vector", fontsize=8.5, color=frame.INK)
    frame.legend_above(figure, panels[0])
    return frame.finish(figure, path)


def _rank_curve(axes: Axes, values: np.ndarray[tuple[int], np.dtype[np.float64]], index: int, label: str) -> None:
    axes.plot(
        np.arange(1, len(values) + 1), values, color=COLORS[index % len(COLORS)], linewidth=1.6, label=label,
        linestyle=STYLES[index % len(STYLES)], marker="o" if len(values) == 1 else None, markersize=3,
    )  # fmt: skip


def plot_alignment(
    alignment: Mapping[str, Mapping[str, Values]], path: StrPath | None = None, label: str = "R"
) -> Figure:
    """Draw R as bars, {category: {series: one value, or one for each search}}.

    Categories as "γ = 0" and "γ = 0.3"; series as "without permutation" and "with permutation", or "merged and A" and
    "merged and B". Values: floats or :class:`SingularAlignment` (their pooled R). Bars are means, whiskers the sample
    deviation, and the figures stand beside them. Errors as of :func:`plot_barrier`.
    """
    frame.check_path(path)
    frame.check_some("alignment", alignment)
    series = list(dict.fromkeys(name for bars in alignment.values() for name in bars))
    frame.check_some("alignment's series", series)
    figure = frame.sized_figure(frame.WIDTH, 0.75 + 0.19 * len(series) + len(alignment) * (0.22 * len(series) + 0.18))
    axes = figure.subplots()
    thick = 0.8 / len(series)
    ends = [0.0]
    for row, (category, bars) in enumerate(alignment.items()):
        for index, name in enumerate(series):
            if name not in bars:
                continue
            mean, deviation = frame.summarised(bars[name], f"alignment[{category!r}][{name!r}]")
            _bar(axes, row + (index - (len(series) - 1) / 2) * thick, thick, mean, deviation, index)
            ends += [mean - deviation, mean + deviation]
    span = max(ends) - min(ends) or 1.0
    axes.set_xlim(min(ends) - 0.02 * span, max(ends) + 0.38 * span)
    axes.set_yticks(range(len(alignment)), list(alignment))
    axes.invert_yaxis()
    frame.dress(axes, "", label)
    axes.grid(visible=False, axis="y")
    axes.axvline(0.0, color=frame.FRAME, linewidth=1.0)
    handles = [_swatch(index, name) for index, name in enumerate(series)]
    figure.legend(
        handles=handles, loc="outside upper center", ncols=1 if len(series) > 2 else 2, frameon=False, fontsize=9,
        labelcolor=frame.INK,
    )  # fmt: skip
    return frame.finish(figure, path)


def _bar(axes: Axes, place: float, thick: float, mean: float, deviation: float, index: int) -> None:
    axes.barh(
        place, mean, height=0.9 * thick, color=COLORS[index % len(COLORS)], hatch=HATCHES[index % len(HATCHES)],
        edgecolor="white", linewidth=0.0,
    )  # fmt: skip
    if deviation > 0:
        axes.errorbar(mean, place, xerr=deviation, color=frame.INK, capsize=3, linewidth=1.2)
    text = f" {mean:.3f} ± {deviation:.3f}" if deviation > 0 else f" {mean:.3f}"
    axes.text(max(mean, 0.0) + deviation, place, text, va="center", fontsize=8.5, color=frame.INK)


def _swatch(index: int, name: str) -> object:
    from matplotlib.patches import Patch

    color, hatch = COLORS[index % len(COLORS)], HATCHES[index % len(HATCHES)]
    return Patch(facecolor=color, hatch=hatch, edgecolor="white", linewidth=0.0, label=name)
