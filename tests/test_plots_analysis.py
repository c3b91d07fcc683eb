"""Pictures of spectra, alignment, inputs, layers, plane, trace and widths: what they show is what they were given."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.networks import mlp

import lmcfast
from lmcfast.analysis import (
    InputEnergy,
    LayerAlignment,
    LayerDifference,
    Plane,
    SingularAlignment,
    Spectra,
    mean_deviation,
    plot_alignment,
    plot_input_energy,
    plot_layer_difference,
    plot_layers,
    plot_plane,
    plot_spectra,
    plot_trace,
    plot_widths,
)
from lmcfast.matching import Step

pytest.importorskip("matplotlib", reason="the plots need matplotlib")


def aligned(r: float) -> SingularAlignment:
    return SingularAlignment({"w": LayerAlignment(r, r, r, 4, 4, 1.0, 1.0)}, 0.0)


def steps() -> list[Step]:
    return [
        Step(0, "", "start", 0.0, 1.0, 0.0, 0, 0.1),
        Step(1, "h0", "step", 2.0, 3.0, 1e-9, 5, 0.2),
        Step(1, "h1", "step", 0.0, 3.0, 3e-9, 0, 0.2),
        Step(2, "h0", "step", 1.0, 4.0, 2e-9, 2, 0.3),
    ]


def values(seed: int, *shape: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).random(shape))[..., ::-1]


SPECTRA = Spectra({f"layer{index}.weight": values(index, 2, 6) for index in range(3)})
ENERGY = {
    "a.weight": InputEnergy(values(0, 6), values(1, 6), 4.0),
    "b.weight": InputEnergy(values(2, 1), values(3, 1), 4.0),
}
PLANE = Plane(np.linspace(-1, 3, 4), np.linspace(0, 2, 3), values(4, 3, 4), np.array([[0, 0], [2.0, 0], [1, 2]]))
DIFFERENCE = {"a.weight": LayerDifference(1.0, 1.0, 3.0)}

PICTURES: dict[str, Callable[..., Any]] = {
    "spectra": lambda path=None: plot_spectra(SPECTRA, path=path),
    "alignment": lambda path=None: plot_alignment({"γ = 0": {"with": [aligned(0.1), 0.3]}}, path),
    "layers": lambda path=None: plot_layers({"with": {"a.weight": [0.1, 0.3]}}, path),
    "difference": lambda path=None: plot_layer_difference({"with": DIFFERENCE}, path),
    "energy": lambda path=None: plot_input_energy(ENERGY, path),
    "plane": lambda path=None: plot_plane(PLANE, path=path),
    "trace": lambda path=None: plot_trace(steps(), path),
    "widths": lambda path=None: plot_widths({"VGG11": {1: [0.5, 0.7], 4: 0.1}}, path),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_is_one_column_wide_and_can_be_saved(name: str, tmp_path: Path) -> None:
    figure = PICTURES[name](tmp_path / "picture.png")
    assert figure.get_figwidth() == pytest.approx(4.2)
    assert 1.0 < figure.get_figheight() < 8.0
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"must end in one of \.png"):
        PICTURES[name](tmp_path / "picture.bmp")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_spectra_have_a_panel_for_each_layer_and_a_curve_for_each_network() -> None:
    figure = PICTURES["spectra"]()
    panels = [axes for axes in figure.axes if axes.lines]
    assert [axes.get_title(loc="left") for axes in panels] == ["layer0", "layer1", "layer2"]
    for axes, found in zip(panels, SPECTRA.values.values(), strict=True):
        np.testing.assert_array_equal([line.get_ydata() for line in axes.lines], found)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["A", "B"]
    with pytest.raises(ValueError, match="labels: 2 are needed, one for each network, not 1"):
        plot_spectra(SPECTRA, ["A"])
    with pytest.raises(ValueError, match="spectra: at least one"):
        plot_spectra(Spectra({}))


def test_bars_are_means_with_their_deviation() -> None:
    figure = plot_alignment({"γ = 0": {"without": 0.0, "with": [aligned(0.1), 0.3]}, "γ = 0.3": {"with": 0.5}})
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([0.0, 0.2, 0.5])
    assert [text.get_text() for text in axes.texts] == [" 0.000", " 0.200 ± 0.141", " 0.500"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["without", "with"]
    hatches = {patch.get_hatch() for patch in figure.legends[0].get_patches()}
    assert len(hatches) == 2  # a cue beside the colour
    with pytest.raises(ValueError, match=r"alignment\['γ = 0'\]\['with'\]: finite numbers"):
        plot_alignment({"γ = 0": {"with": [math.nan]}})
    with pytest.raises(ValueError, match="alignment: at least one"):
        plot_alignment({})


def test_layers_are_rows_with_the_inputs_above() -> None:
    figure = plot_layers({"without": {"0.weight": 0.0, "a.b.weight": 0.1}, "with": {"0.weight": [0.2, 0.4]}})
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.weight", "a.b"]
    low, high = axes.get_ylim()
    assert low > high
    points = [np.asarray(container.lines[0].get_xdata(), dtype=float) for container in axes.containers]
    np.testing.assert_allclose(points[0], [0.0, 0.1])
    np.testing.assert_allclose(points[1], [0.3])
    many = plot_layers({"R": {f"layer{index}.weight": 0.1 for index in range(200)}})
    assert many.get_figheight() < 20
    difference = PICTURES["difference"]().axes[0].containers[0].lines[0].get_xdata()
    np.testing.assert_allclose(np.asarray(difference, dtype=float), [0.25])


def test_input_energies_are_shares() -> None:
    figure = PICTURES["energy"]()
    values, share = figure.axes[0].lines
    np.testing.assert_allclose(share.get_ydata(), ENERGY["a.weight"].energy / 4.0)
    assert values.get_ydata()[0] == 1.0
    assert figure.axes[0].get_yscale() == "log"


def test_the_plane_marks_the_three_networks() -> None:
    figure = plot_plane(PLANE, ("A", "π(B)", "π(C)"))
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["A", "π(B)", "π(C)"]
    np.testing.assert_array_equal([[line.get_xdata()[0], line.get_ydata()[0]] for line in axes.lines], PLANE.points)
    assert axes.get_aspect() == 1.0
    flat = Plane(PLANE.x, PLANE.y, np.ones_like(PLANE.losses), PLANE.points)
    steep = Plane(PLANE.x, PLANE.y, 10.0 ** (4 * PLANE.losses), PLANE.points)
    for plane in (flat, steep):
        plot_plane(plane).canvas.draw()
    with pytest.raises(ValueError, match="labels: three are needed, not 2"):
        plot_plane(PLANE, ("A", "B"))


def test_a_trace_is_summed_by_sweep() -> None:
    above, below = PICTURES["trace"]().axes
    np.testing.assert_array_equal(above.lines[0].get_xydata(), [[0, 1], [1, 3], [2, 4]])
    assert [bar.get_height() for bar in below.patches] == [0, 5, 2]
    with pytest.raises(ValueError, match="trace: at least one"):
        plot_trace([])


def test_widths_are_in_order_whatever_the_order_given() -> None:
    figure = plot_widths({"VGG11": {4: 0.1, 0.25: [0.5, 0.7]}})
    line = figure.axes[0].containers[0].lines[0]
    np.testing.assert_allclose(line.get_xydata(), [[0.25, 0.6], [4, 0.1]])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0.25", "4"]


def test_mean_and_deviation() -> None:
    assert mean_deviation([2.0]) == (2.0, 0.0)
    numbers = np.random.default_rng(1).standard_normal(9)
    assert mean_deviation(numbers) == pytest.approx((numbers.mean(), numbers.std(ddof=1)))
    with pytest.raises(ValueError, match="values: at least one"):
        mean_deviation([])


def test_a_data_frame_needs_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for pandas: what it is given is the whole trace, one dict for each row."""
    a, b = (dict(mlp((5, 12, 10, 3), seed=seed).state_dict()) for seed in (0, 1))
    match = lmcfast.weight_matching(lmcfast.spec_from_params(a), a, b)
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=list))
    rows: Any = match.trace_frame()
    assert [row["objective"] for row in rows] == [step.objective for step in match.trace]
    assert list(rows[0]) == ["sweep", "group", "kind", "gain", "objective", "gap", "changed", "seconds"]
    by_sweep: Any = match.trace_frame("sweep")
    assert by_sweep == [asdict(sweep) for sweep in match.sweep_trace()]
    with pytest.raises(ValueError, match="by: must be 'step' or 'sweep', not 'group'"):
        match.trace_frame("group")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(lmcfast.UnavailableError, match="pip install pandas"):
        match.trace_frame()


def test_sweeps_of_a_real_match_add_up() -> None:
    a, b = (dict(mlp((5, 12, 10, 3), seed=seed).state_dict()) for seed in (0, 1))
    match = lmcfast.weight_matching(lmcfast.spec_from_params(a), a, b)
    sweeps = match.sweep_trace()
    assert [sweep.sweep for sweep in sweeps] == sorted({step.sweep for step in match.trace})
    assert sweeps[-1].objective == match.trace[-1].objective
    assert sweeps[-1].taken == sweeps[-1].changed == 0  # it only proves convergence
    assert sum(sweep.changed for sweep in sweeps) == sum(step.changed for step in match.trace)
    gained = match.trace[0].objective + sum(sweep.gain for sweep in sweeps)
    assert gained == pytest.approx(match.objective, rel=1e-9)
