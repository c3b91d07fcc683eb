"""One row for each layer: R, or how far two layers' outputs are apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..inputs import LayerDifference
from . import frame
from .frame import COLORS, MARKERS, StrPath, Values

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMED = 60  # layers whose names fit a picture; of more, every k-th is named


def plot_layers(layers: Mapping[str, Mapping[str, Values]], path: StrPath | None = None, label: str = "R") -> Figure:
    """Draw one figure for each layer and series, {series: {tensor: one value, or one for each search}}.

    A row for each tensor, in the order of the first series, the inputs above; means with the sample deviation as
    whiskers. Errors as of :func:`plot_barrier`.
    """
    frame.check_path(path)
    frame.check_some("layers", layers)
    tensors = list(dict.fromkeys(name for values in layers.values() for name in values))
    frame.check_some("layers' tensors", tensors)
    height = 0.9 + 0.19 * len(layers) + 0.24 * min(len(tensors), _NAMED)
    figure = frame.sized_figure(frame.WIDTH, height)
    axes = figure.subplots()
    for index, (series, values) in enumerate(layers.items()):
        rows = [row for row, name in enumerate(tensors) if name in values]
        summaries = [frame.summarised(values[tensors[row]], f"layers[{series!r}][{tensors[row]!r}]") for row in rows]
        axes.errorbar(
            [mean for mean, _ in summaries], rows, xerr=[deviation for _, deviation in summaries], label=series,
            color=COLORS[index % len(COLORS)], marker=MARKERS[index % len(MARKERS)], markersize=6, capsize=2,
            linestyle="none",
        )  # fmt: skip
    step = -(-len(tensors) // _NAMED)
    axes.set_yticks(range(0, len(tensors), step), [frame.short(name) for name in tensors[::step]])
    axes.set_ylim(len(tensors) - 0.4, -0.6)
    frame.dress(axes, "", label)
    axes.tick_params(axis="y", labelsize=8)
    axes.axvline(0.0, color=frame.FRAME, linewidth=1.0)
    frame.legend_above(figure, axes, columns=1 if len(layers) > 2 else 2)
    return frame.finish(figure, path)


def plot_layer_difference(
    differences: Mapping[str, Mapping[str, LayerDifference]], path: StrPath | None = None
) -> Figure:
    """Draw the relative output difference of every layer, {series: {tensor: LayerDifference}}.

    Series as "without permutation" and "with permutation". 0: equal outputs, 1: unrelated ones. Errors as of
    :func:`plot_barrier`.
    """
    relative = {
        series: {tensor: found.relative for tensor, found in layers.items()} for series, layers in differences.items()
    }
    return plot_layers(relative, path, "output difference (1: unrelated)")
