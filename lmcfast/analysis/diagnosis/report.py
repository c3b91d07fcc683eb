"""A diagnosis as a page: what was measured, what it means in a sentence each, the verdict first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..barrier import LOSS, Barrier
from ..inputs import energy_share
from ..page import Block, Figure, Figures, Notice, Page, Section, Table, Text, Tone
from ..page.blocks import Cell
from ..plots import (
    plot_alignment,
    plot_barrier,
    plot_input_energy,
    plot_layer_difference,
    plot_layers,
    plot_spectra,
    plot_trace,
)
from ..plots.frame import Values
from ..spectra import Spectra
from ..summary import mean_deviation
from .behaviour import Behaviour
from .diagnose import Diagnosis
from .verdict import Answer
from .weights import GAMMAS, Weights

PANELS = 12
"""Layers that get a panel of their own; of more, these are picked evenly."""

WITHOUT, WITH, CHANCE = "without permutation", "with permutation", "by chance"
_TONES: dict[Answer, Tone] = {"yes": "good", "perhaps": "fair", "no": "bad"}
_TITLES: dict[tuple[Answer, bool], str] = {
    ("yes", True): "Yes.",
    ("perhaps", True): "Perhaps.",
    ("no", True): "No.",
    ("yes", False): "Likely.",
    ("perhaps", False): "The weights do not tell.",
    ("no", False): "Unlikely.",
}


def report_page(diagnosis: Diagnosis, name_a: str = "A", name_b: str = "B", notes: Sequence[str] = ()) -> Page:
    """The page of a diagnosis; ``save_page`` writes it. Raises ``UnavailableError`` where matplotlib is missing.

    ``name_a``, ``name_b``: of the networks, for the head. ``notes``: sentences for the end, on how they were read.
    """
    weights, behaviour = diagnosis.weights, diagnosis.behaviour
    sections = [_verdict(diagnosis)]
    if behaviour is not None:
        sections.append(_line(behaviour))
    sections += [_distance(weights), _alignment(weights), _layers(weights), _spectra(weights.spectra)]
    if behaviour is not None and behaviour.energy:
        sections.append(_inputs(behaviour))
    if diagnosis.sweeps:
        sections.append(_search(diagnosis))
    sections.append(_method(weights, notes))
    count = len(weights.reductions)
    searches = f" Figures are means over {count} permutations, ± their standard deviation." if count > 1 else ""
    return Page("Is a merge worth it?", f"A is {name_a}, B is {name_b}.{searches}", sections)


def _verdict(diagnosis: Diagnosis) -> Section:
    verdict, weights, behaviour = diagnosis.verdict, diagnosis.weights, diagnosis.behaviour
    title = _TITLES[verdict.answer, verdict.measured]
    gamma = GAMMAS[-1]
    rows: list[list[Cell]] = [
        ["distance of B to A", _number(weights.reductions[0].before), _mean(one.after for one in weights.reductions)],
        [
            f"R({gamma:g})",
            f"{weights.without[gamma].pooled:.3f}",
            _mean((one.pooled for one in weights.aligned[gamma]), digits=3),
        ],
    ]
    if behaviour is not None:
        for name in (LOSS, *behaviour.without.metrics):
            merged = [line.at(0.5)[name] for line in behaviour.aligned]
            rows.append([f"{name} of the merge", _number(behaviour.without.at(0.5)[name]), _mean(merged)])
        rows.append(["barrier, midpoint", _number(behaviour.without.midpoint), _mean(_midpoints(behaviour.aligned))])
    blocks: list[Block] = [
        Notice(verdict.reason, _TONES[verdict.answer], title),
        Table(["", WITHOUT, WITH], rows),
        Text(verdict.criteria),
    ]
    return Section("Verdict", blocks)


def _line(behaviour: Behaviour) -> Section:
    plain, lines = behaviour.without, behaviour.aligned
    curves = {WITHOUT: plain, WITH: lines[0]}
    names = [LOSS, *plain.metrics]
    pictures = [Figure(plot_barrier(curves, metric=name), f"The {name} on the line from A to B.") for name in names]
    head = ["", WITHOUT, WITH]
    rows: list[list[Cell]] = [
        ["midpoint", _number(plain.midpoint), _mean(_midpoints(lines))],
        ["value", _number(plain.value), _mean(line.value for line in lines)],
        ["git_re_basin", _number(plain.git_re_basin), _mean(line.git_re_basin for line in lines)],
    ]
    if behaviour.taylor:
        rows.append(["Taylor, midpoint", None, _mean(one.midpoint for one in behaviour.taylor)])
    ends = [[name, *map(_number, (series[0], series[-1]))] for name in names for series in (plain.series(name),)]
    blocks: list[Block] = [
        Text(
            "The merge is the midpoint of the line. Where the curve with permutation is flat or sags, the two networks "
            "lie in one basin once their units are lined up."
        ),
        Figures(pictures),
        Table(["", "A", "B"], ends, "What the two networks reach themselves."),
        Table(
            head,
            rows,
            "Barriers of the loss. midpoint: the loss at 1/2 minus the mean of the ends, negative where the merge is "
            "better; value: the largest excess over the straight line between the ends' losses; git_re_basin: the "
            "largest loss on the path minus the mean of the ends.",
        ),
    ]
    if behaviour.taylor:
        blocks.append(
            Text(
                "The Taylor estimate (theorem 3.1) is the barrier that the remaining distance would cause if the loss "
                "were quadratic. Where it is far from the measured midpoint, it is not the distance that explains how "
                "well the merge works."
            )
        )
    return Section("Loss on the line", blocks)


def _distance(weights: Weights) -> Section:
    rows: list[list[Cell]] = [
        ["L2 distance", _number(weights.reductions[0].before), _mean(one.after for one in weights.reductions)],
        ["cosine of the angle", _number(weights.cosine_before), _mean(weights.cosine_after)],
    ]
    rate = _mean((100 * one.rate for one in weights.reductions), "%", digits=1)
    text = (
        f"The permutation brings B closer by {rate}; against a network of the same singular values with random vectors "
        f"matching reaches {100 * weights.chance.rate:.1f} %. Trained networks that merge well are commonly 6 to 20 % "
        "closer after it: the distance alone does not explain it. The norm of the merge is "
        f"{_mean(weights.shrinkage)} of its parents' mean norm (0.71 if they were orthogonal, 1 if equal): what is "
        "missing has been averaged away."
    )
    return Section("Distance", [Table(["", WITHOUT, WITH], rows), Text(text)])


def _alignment(weights: Weights) -> Section:
    bars: dict[str, dict[str, Values]] = {
        f"γ = {gamma:g}": {
            WITHOUT: weights.without[gamma],
            WITH: weights.aligned[gamma],
            CHANCE: weights.chance.alignment[gamma],
        }
        for gamma in GAMMAS
    }
    merged: dict[str, dict[str, Values]] = {
        f"γ = {gamma:g}": {
            "merge and A": [one.with_a for one in weights.merged[gamma]],
            "merge and permuted B": [one.with_b for one in weights.merged[gamma]],
        }
        for gamma in GAMMAS
    }
    last = GAMMAS[-1]
    whole = mean_deviation(one.whole for one in weights.objective).mean
    kept = mean_deviation(one.kept for one in weights.objective).mean
    share = f" They carry {100 * kept / whole:.0f} % of the matching's objective." if whole > 0 else ""
    text = (
        "R tells how far the singular vectors of the two networks point the same way: 1 for equal layers, about 0 for "
        "unrelated ones. γ = 0.3 looks only at singular values of at least 0.3 of a layer's largest, which do most of "
        f"the work.{share} R that rises from γ = 0 to γ = {last:g}, and stands well above what matching reaches by "
        "chance, is the mark of networks that merge well."
    )
    figures = Figures(
        [
            Figure(plot_alignment(bars), "R between A and B."),
            Figure(plot_alignment(merged), "R between the merge and its parents: how much of each it has kept."),
        ]
    )
    return Section("Singular vectors", [Text(text), figures])


def _layers(weights: Weights) -> Section:
    gamma = GAMMAS[-1]
    series: dict[str, dict[str, Values]] = {
        WITHOUT: {name: layer.r for name, layer in weights.without[gamma].per_layer.items()},
        WITH: {
            name: [one.per_layer[name].r for one in weights.aligned[gamma]] for name in weights.without[gamma].per_layer
        },
    }
    head = ["layer", "R(0) without", "R(0) with", "R(0.3) without", "R(0.3) with", "left", "right", "kept", "gap"]
    rows: list[list[Cell]] = []
    for name, layer in weights.aligned[gamma][0].per_layer.items():
        figures = [
            one
            for cut in GAMMAS
            for one in (
                f"{weights.without[cut].per_layer[name].r:.3f}",
                _mean((found.per_layer[name].r for found in weights.aligned[cut]), digits=3),
            )
        ]
        sides = [_mean(values, digits=3) for values in _sides(weights, name)]
        gap = f"{min(layer.gap_a, layer.gap_b):.3g}"
        rows.append([name, *figures, *sides, f"{layer.kept_a}, {layer.kept_b}", gap])
    blocks: list[Block] = [
        Text(
            "Where along the depth the two networks agree. Layers near 0 are the first suspects if the merge is poor."
        ),
        Figures([Figure(plot_layers(series, label="R, γ = 0.3"), "R of each layer, inputs at the top.")]),
        Table(head, rows, "All layers", folded=True),
        Text(
            "left, right: share of the space of the kept output (input) directions that the two have in common, γ = "
            "0.3, with permutation. kept: how many singular values are kept in A and B. gap: the relative distance of "
            "the singular values at the cut; near 0 the cut, and R with it, is arbitrary."
        ),
    ]
    return Section("Layer by layer", blocks)


def _sides(weights: Weights, name: str) -> tuple[list[float], list[float]]:
    layers = [one.per_layer[name] for one in weights.aligned[GAMMAS[-1]]]
    return [layer.left for layer in layers], [layer.right for layer in layers]


def _spectra(spectra: Spectra) -> Section:
    spread = spectra.spread()
    largest = max(spread, key=lambda name: spread[name])
    shown = _picked(list(spectra.values))
    text = (
        "A permutation changes no singular value: the spectra of two networks that are one up to a permutation agree "
        f"by themselves. They differ most in {largest}, by {100 * spread[largest]:.2g} % of the mean spectrum's length."
    )
    figure = plot_spectra(Spectra({name: spectra.values[name] for name in shown}))
    rows: list[list[Cell]] = [[name, f"{100 * value:.3g}"] for name, value in spread.items()]
    blocks: list[Block] = [
        Text(text),
        Figures([Figure(figure, f"Singular values of A and B{_of(shown, spectra.values)}.")]),
        Table(["layer", "difference, %"], rows, "All layers", folded=True),
    ]
    return Section("Singular values", blocks)


def _inputs(behaviour: Behaviour) -> Section:
    shown = _picked(list(behaviour.energy))
    share = mean_deviation(energy_share(one, -(-len(one.energy) // 10)) for one in behaviour.energy.values()).mean
    differences = {WITHOUT: behaviour.difference_without, WITH: behaviour.differences[0]}
    pictures = [
        Figure(
            plot_input_energy({name: behaviour.energy[name] for name in shown}),
            f"Inputs of A's layers along its right singular vectors{_of(shown, behaviour.energy)}. On average "
            f"{100 * share:.0f} % of a layer's input lies along the first tenth of them, so that it matters most that "
            "these are lined up.",
        ),
        Figure(
            plot_layer_difference(differences),
            "How far the outputs of A's and B's layers are apart on the inputs that they get in A (theorem 4.2): "
            "0 for equal outputs, 1 for unrelated ones.",
        ),
    ]
    return Section("What the layers see", [Figures(pictures)])


def _search(diagnosis: Diagnosis) -> Section:
    sweeps = diagnosis.sweeps
    moved = sum(sweep.changed for sweep in sweeps)
    seconds = sum(sweep.seconds for sweep in sweeps)
    text = (
        f"{len(sweeps)} sweeps in {seconds:.2g} s moved units {moved} times. Every step counts only if the objective "
        "rises, and its assignment is exact: the gap bounds what any other would have gained."
    )
    head = ["sweep", "visits", "steps", "units moved", "gain", "objective", "gap", "seconds"]
    rows: list[list[Cell]] = [
        [str(one.sweep), one.visits, one.taken, one.changed, one.gain, f"{one.objective:.8g}", one.gap, one.seconds]
        for one in sweeps
    ]
    figure = Figure(plot_trace(sweeps), "The objective sweep by sweep.")
    return Section("The search", [Text(text), Figures([figure]), Table(head, rows, "All sweeps", folded=True)])


def _method(weights: Weights, notes: Sequence[str]) -> Section:
    tensors = len(weights.spectra.values)
    text = (
        f"Singular vectors of {tensors} tensors in float64; values that are rounding of the stored type are left out, "
        "since their vectors are arbitrary. Distances leave out BatchNorm's running statistics. R and the theorems are "
        "those of Ito, Yamada and Kumagai, Analysis of Linear Mode Connectivity via Permutation-Based "
        "Weight Matching, arXiv:2402.04051."
    )
    return Section("How it was measured", [Text(text), *map(Text, notes)])


def _picked(names: Sequence[str]) -> list[str]:
    """At most ``PANELS`` of the names, evenly, the first and the last among them."""
    if len(names) <= PANELS:
        return list(names)
    return [names[round(index * (len(names) - 1) / (PANELS - 1))] for index in range(PANELS)]


def _of(shown: Sequence[str], names: Iterable[str]) -> str:
    count = len(list(names))
    return f" ({len(shown)} of {count} layers)" if len(shown) < count else ""


def _midpoints(lines: Sequence[Barrier]) -> list[float]:
    return [line.midpoint for line in lines]


def _number(value: float) -> str:
    return f"{value:.4g}"


def _mean(values: Iterable[float], unit: str = "", digits: int | None = None) -> str:
    """The mean, with the deviation where there are several values."""
    found = list(values)
    mean, deviation = mean_deviation(found)
    form = ".4g" if digits is None else f".{digits}f"
    text = f"{mean:{form}}" if len(found) == 1 else f"{mean:{form}} ± {deviation:.2g}"
    return f"{text} {unit}".rstrip()
