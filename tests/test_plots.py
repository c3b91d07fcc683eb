"""The picture of the barrier: not blank, all curves in it, and no global state touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lmcfast
from lmcfast.analysis import Barrier, plot_barrier

pytest.importorskip("matplotlib", reason="the plots need matplotlib")


def curve(height: float) -> Barrier:
    lambdas = np.linspace(0, 1, 25)
    bump = 4 * lambdas * (1 - lambdas)
    return Barrier(lambdas, 0.1 + height * bump, {"accuracy": 0.9 - height / 10 * bump})


CURVES = {"without matching": curve(2.0), "with matching": curve(0.0)}


def pixels(path: Path) -> np.ndarray:
    from matplotlib import image

    return np.asarray(image.imread(path))[..., :3]


def count(picture: np.ndarray, color: str) -> int:
    """Pixels within 2 % of a "#rrggbb" colour."""
    wanted = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return int((np.abs(picture - wanted).max(-1) < 0.02).sum())


@pytest.mark.parametrize(("metric", "panels"), [(None, 1), ("accuracy", 1), (("loss", "accuracy"), 2)])
def test_the_picture_shows_every_curve(tmp_path: Path, metric: str | tuple[str, ...] | None, panels: int) -> None:
    from lmcfast.analysis.plots import COLORS

    path = tmp_path / "barrier.png"
    figure = plot_barrier(CURVES, path, metric)
    assert len(figure.axes) == panels
    names = ["loss"] if metric is None else [metric] if isinstance(metric, str) else metric
    for axes, name in zip(figure.axes, names, strict=True):
        assert axes.get_title(loc="left") == name
        for line, found in zip(axes.lines, CURVES.values(), strict=True):
            np.testing.assert_array_equal(line.get_ydata(), found.series(name))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(CURVES)
    picture = pixels(path)
    assert picture.shape[1] > 600 * panels
    for color in COLORS[:2]:
        assert count(picture, color) > 500  # far more than the legend's sample of the line
    assert [file.name for file in tmp_path.iterdir()] == ["barrier.png"]


def test_curves_differ_in_more_than_colour() -> None:
    figure = plot_barrier({str(index): curve(index) for index in range(7)})
    lines = figure.axes[0].lines
    assert len({line.get_color() for line in lines}) == 7
    assert len({line.get_marker() for line in lines}) == 7
    assert len({str(line._dash_pattern) for line in lines}) == 7


@pytest.mark.parametrize("ending", ["svg", "PDF"])
def test_other_formats(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"picture.{ending}"
    plot_barrier(CURVES, path)
    assert path.read_bytes().startswith(b"%PDF" if ending == "PDF" else b"<?xml")


def test_wrong_arguments_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="curves: at least one"):
        plot_barrier({}, tmp_path / "a.png")
    with pytest.raises(ValueError, match="metric: at least one"):
        plot_barrier(CURVES, tmp_path / "a.png", metric=())
    with pytest.raises(ValueError, match=r"'f1' was not measured; there are 'loss', 'accuracy'"):
        plot_barrier(CURVES, tmp_path / "a.png", metric="f1")
    with pytest.raises(ValueError, match=r"must end in one of \.png, \.svg, \.pdf"):
        plot_barrier(CURVES, tmp_path / "a.bmp")
    with pytest.raises(lmcfast.CheckpointError, match="none"):
        plot_barrier(CURVES, tmp_path / "none" / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_missing_matplotlib_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(lmcfast.UnavailableError, match=r"pip install lmcfast\[plot\]"):
        plot_barrier(CURVES)


def test_no_pyplot_and_no_matplotlib_before_the_first_plot(tmp_path: Path) -> None:
    code = f"""
import sys
from lmcfast.analysis import Barrier, plot_barrier
assert "matplotlib" not in sys.modules
curve = Barrier(*map(__import__("numpy").array, ([0, .5, 1], [1.0, 2.0, 1.0])))
plot_barrier({{"a": curve}}, {str(tmp_path / "a.png")!r})
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "a.png").stat().st_size > 5000
