"""The loss on the plane through three networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..plane import Plane
from . import frame
from .frame import StrPath

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEVELS = 14


def plot_plane(plane: Plane, labels: Sequence[str] = ("A", "B", "C"), path: StrPath | None = None) -> Figure:
    """Draw the loss on a plane as filled contours, with the three networks marked.

    Levels are spaced evenly, or evenly in the logarithm where the losses span more than a factor of ten. Both axes have
    one scale: distances in the picture are L2 distances. ``ValueError`` where ``labels`` are not three; other errors
    as of :func:`plot_barrier`.
    """
    frame.check_path(path)
    if len(labels) != 3:
        raise ValueError(f"labels: three are needed, not {len(labels)}")
    across, along = float(np.ptp(plane.x)), float(np.ptp(plane.y))
    figure = frame.sized_figure(frame.WIDTH, 1.7 + min(5.0, 3.5 * along / across))
    axes = figure.subplots()
    levels = _levels(plane.losses)
    logarithmic = bool(len(levels) > 2 and not np.isclose(levels[1] - levels[0], levels[-1] - levels[-2]))
    from matplotlib.colors import LogNorm, Normalize

    norm = (LogNorm if logarithmic else Normalize)(levels[0], levels[-1])
    filled = axes.contourf(plane.x, plane.y, plane.losses, levels=levels, cmap="cividis", norm=norm, extend="both")
    axes.contour(plane.x, plane.y, plane.losses, levels=levels, colors="white", linewidths=0.4)
    bar = figure.colorbar(filled, ax=axes, format="%.3g", location="bottom", aspect=30)
    bar.ax.tick_params(labelsize=8, colors=frame.INK)
    bar.ax.minorticks_off()
    bar.set_ticks(levels[::3].tolist())
    for (x, y), label in zip(plane.points, labels, strict=True):
        axes.plot(x, y, "o", color="white", markeredgecolor="black", markersize=7)
        axes.annotate(
            label, (x, y), xytext=(6, 6), textcoords="offset points", fontsize=9, color="black",
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
        )  # fmt: skip
    frame.dress(axes, "loss", "L2 distance", "")
    axes.grid(visible=False)
    axes.set_aspect("equal")
    return frame.finish(figure, path)


def _levels(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = float(losses.min()), float(losses.max())
    if not high > low:
        high = low + max(abs(low), 1.0) * 1e-6
    levels: NDArray[np.float64] = (
        np.geomspace(low, high, _LEVELS) if 0 < 10 * low < high else np.linspace(low, high, _LEVELS)
    )
    return levels
