"""The study as a report: claims, tables and figures, as Markdown and as one HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..analysis import Barrier, InputEnergy, Plane, Spectra
from ..analysis.page import Figure, Figures, Notice, Page, Section, Table, Text, render_page, save_page
from ..analysis.plots import (
    new_figure,
    plot_alignment,
    plot_barrier,
    plot_input_energy,
    plot_plane,
    plot_spectra,
    plot_widths,
    save_figure,
)
from ..io import atomic_path
from . import claims
from .claims import study_claims
from .settings import TITLES
from .tables import claims_table, study_label, study_tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

Study = Mapping[str, Any]
FILES = {"figures": "study.json", "markdown": "study.md", "page": "study.html"}


def write_report(out: Path, study: Study) -> dict[str, Path]:
    """Write ``study.json``, ``study.md`` with its pictures in ``figures/``, and ``study.html``; their paths.

    ``study``: what :func:`run_study` returned. Raises ``UnavailableError`` where matplotlib or jinja2 is missing.
    """
    pictures = study_pictures(study)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for name, (picture, _) in pictures.items():
        save_figure(picture, out / "figures" / f"{name}.png")
    files = {name: out / file for name, file in FILES.items()}
    content = {**study, "claims": [vars(claim) | {"verdict": claim.verdict} for claim in study_claims(study)]}
    for name, text in (("figures", json.dumps(content) + "\n"), ("markdown", markdown(study, pictures))):
        with atomic_path(files[name]) as temporary:
            temporary.write_text(text, encoding="utf-8")
    save_page(study_page(study, pictures), files["page"])
    return files


def check_reports() -> None:
    """``UnavailableError`` where matplotlib or jinja2 is missing: to be told before the trainings, not after."""
    new_figure()
    render_page(Page("check"))


def study_page(study: Study, pictures: Mapping[str, tuple[Picture, str]]) -> Page:
    """The report as a page."""
    sections = [
        Section("Claims", [Notice(verdict(study), _tone(study)), claims_table(study), *_disagreements(study)]),
        Section("Tables", list(study_tables([study]))),
        Section("Figures", [Figures([Figure(picture, text) for picture, text in pictures.values()])]),
        Section("How it was made", [Text(line) for line in conditions(study)]),
    ]
    return Page(f"Study: {study_label(study)}", conditions(study)[0], sections)


def markdown(study: Study, pictures: Mapping[str, tuple[Picture, str]]) -> str:
    """The report as text; pictures are links to ``figures/``."""
    lines = [f"# Study: {study_label(study)}", "", verdict(study), ""]
    blocks: list[Table | Text] = [claims_table(study), *_disagreements(study), *study_tables([study])]
    for block in blocks:
        if isinstance(block, Table):
            lines += [f"**{block.caption}**", "", block.markdown(), ""]
        else:
            lines += [block.text, ""]
    for name, (_, text) in pictures.items():
        lines += [f"![{text}](figures/{name}.png)", "", text, ""]
    for line in conditions(study):
        lines += [line, ""]
    return "\n".join(lines)


def verdict(study: Study) -> str:
    """How many claims were reproduced, and which not."""
    told = study_claims(study)
    measured = [claim for claim in told if claim.reproduced is not None]
    failed = [claim.number for claim in measured if not claim.reproduced]
    text = f"{len(measured) - len(failed)} of {len(measured)} claims reproduced"
    return f"{text}; not {', '.join(failed)}." if failed else f"{text}."


def _tone(study: Study) -> Any:
    return "good" if all(claim.reproduced is not False for claim in study_claims(study)) else "fair"


def _disagreements(study: Study) -> list[Text]:
    return [
        Text(
            f"{claim.number} disagrees with the paper: measured {claim.figures}; the criterion was: {claim.criterion}."
        )
        for claim in study_claims(study)
        if claim.reproduced is False
    ]


def conditions(study: Study) -> list[str]:
    """Recipe, searches, measures and machine, a paragraph each."""
    settings, data, machine = study["settings"], study["data"], study["machine"]
    recipe = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in _told(settings["recipe"]))
    shape = " x ".join(map(str, data["images"]["shape"]))
    given = [seed for seed, facts in study["networks"].items() if facts["given"]]
    losses = ", ".join(
        f"seed {seed}: {facts['loss']:.4f} and {100 * facts['accuracy']:.2f} %"
        for seed, facts in study["networks"].items()
    )
    train, test = (data["images"][split] for split in ("training", "test"))
    few, costly = settings["images"], settings["costly_images"]
    count = len(study["searches"]["none"])
    pairs = ", ".join(study["searches"]["none"])
    threes = ", ".join(study["triples"]["none"])
    paragraphs = [
        f"{train} training and {test} test images of {shape} from {data['name']}; trained by {recipe}. Test loss and "
        f"accuracy of the networks: {losses}.",
        f"Figures are means and sample standard deviations over {count} searches. A search is one pair of "
        f"independently trained networks, anchor first, and one run of the method: seeds {pairs}. A network can stand "
        f"in several pairs, so the searches are not independent of each other."
        + (f" Threes, anchor first: {threes}." if threes else ""),
        f"The barrier is the midpoint's: loss at 1/2 minus the mean of the ends' losses, signed, on the first "
        f"{min(few, test)} test images; Taylor estimates, inputs and plane: the first {min(costly, test)}. BatchNorm "
        f"statistics, where there are any, are computed anew at every point of a line, on the first "
        f"{min(few, train)} training images (of the plane: {min(costly, train)}); activation matching looks at the "
        f"first {min(few, train)} training images.",
        f"Straight-through estimator: {study['ste_steps']} steps of {settings['ste_batch']} images, Adam with rate "
        f"1e-3, theta~ from the anchor's weights (or random ones, where that is said), loss at the midpoint, the "
        f"permutations with the lowest running mean of the loss.",
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, torch "
        f"{machine['torch']}, Python {machine['python']}, {machine['system']}, lmcfast {study['lmcfast']}.",
    ]
    if given:
        paragraphs.insert(1, f"The networks of the seeds {', '.join(given)} were given as files, not trained here.")
    return paragraphs


def _told(recipe: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The recipe's entries that do something."""
    adam = recipe["optimizer"] == "adam"
    return [(name, value) for name, value in recipe.items() if value and not (adam and name == "momentum")]


def study_pictures(study: Study) -> dict[str, tuple[Picture, str]]:
    """{name: (matplotlib figure, caption)}: figures 1 to 6, 15 and 16 as far as they were measured, and the lines."""
    values = claims.Figures(study)
    methods = [method for method in TITLES if values.has(method)]
    found: dict[str, tuple[Picture, str]] = {}
    first = next(iter(study["searches"]["none"]))
    lines = {TITLES[method]: _barrier(study["searches"][method][first]["barrier"]) for method in methods}
    for name in ("loss", "accuracy"):
        found[f"line-{name}"] = (plot_barrier(lines, metric=name), f"Test {name} between the networks {first}.")
    spectra = Spectra({name: np.array(rows) for name, rows in study["alone"]["spectra"].items()})
    found["figure1"] = (
        plot_spectra(spectra, [f"seed {seed}" for seed in study["networks"]]),
        "Figure 1: singular values of the trained networks, layer by layer.",
    )
    if values.has("wm"):
        found["figure2"] = (_r_picture(values, "wm"), "Figure 2: R without and with weight matching.")
        found["figure3"] = (_merged_picture(values, "wm"), "Figure 3: R of the merged network with its parents.")
    energy = {
        name: InputEnergy(np.array(one["values"]), np.array(one["energy"]), one["total"])
        for name, one in study["alone"]["inputs"].items()
    }
    found["figure4"] = (plot_input_energy(energy), "Figure 4: inputs of each layer along its right singular vectors.")
    found.update(_triple_pictures(study, values))
    if values.has("am"):
        found["figure15"] = (_r_picture(values, "am"), "Figure 15: R without and with activation matching.")
        found["figure16"] = (
            _merged_picture(values, "am"), "Figure 16: R of the network merged by activation matching and its parents.",
        )  # fmt: skip
    return found


def _barrier(content: Mapping[str, Any]) -> Barrier:
    metrics = {name: np.array(values) for name, values in content["metrics"].items()}
    return Barrier(np.array(content["lambdas"]), np.array(content["losses"]), metrics)


def _gamma(gamma: str) -> str:
    return f"γ = {gamma}"


def _r_picture(values: claims.Figures, method: str) -> Picture:
    sides = (("without matching", "none"), (TITLES[method], method))
    return plot_alignment(
        {_gamma(gamma): {label: values.r(which, gamma) for label, which in sides} for gamma in ("0", "0.3")}
    )


def _merged_picture(values: claims.Figures, method: str) -> Picture:
    def side(which: str, gamma: str) -> list[float]:
        return values.of_searches(method, lambda one: float(one["r_merged"][which][gamma]["pooled"]))

    return plot_alignment(
        {_gamma(gamma): {"merged and A": side("a", gamma), "merged and B": side("b", gamma)} for gamma in ("0", "0.3")}
    )


def _triple_pictures(study: Study, values: claims.Figures) -> dict[str, tuple[Picture, str]]:
    methods = [method for method in TITLES if study["triples"].get(method)]
    if not methods:
        return {}
    bars = {
        _gamma(gamma): {TITLES[method]: values.triple_r(method, gamma) for method in methods} for gamma in ("0", "0.3")
    }
    found = {"figure5": (plot_alignment(bars), "Figure 5: R of two networks that were matched to a third one.")}
    for method in methods:
        name, first = next(iter(study["triples"][method].items()))
        seen = Plane(*(np.array(first["plane"][key]) for key in ("x", "y", "losses", "points")))
        text = f"Figure 6, {TITLES[method]}: test loss on the plane through the networks {name}."
        found[f"figure6-{method}"] = (plot_plane(seen), text)
    return found


def width_picture(studies: Sequence[Study]) -> Picture:
    """The barrier at the midpoint against the width, for studies of one kind of network."""
    curves: dict[str, dict[float, list[float]]] = {}
    for study in sorted(studies, key=lambda study: float(study["settings"]["width"])):
        values = claims.Figures(study)
        for method in TITLES:
            if values.has(method):
                curves.setdefault(TITLES[method], {})[float(study["settings"]["width"])] = values.barrier(method)
    return plot_widths(curves)
