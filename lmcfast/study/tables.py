"""Tables 1 to 4 of the paper, one row for each study; figures are mean ± sample standard deviation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..analysis.page import Table
from .claims import Figures, spread, study_claims
from .settings import TITLES

Study = Mapping[str, Any]
_NUMBERS = {"wm": "Table 1", "ste": "Table 2", "am": "Table 4", "ste-random": "Table 2, from random weights"}


def study_label(study: Study) -> str:
    """Network, width and data: "mlp 3 x 512, mnist"."""
    settings = study["settings"]
    width = f"3 x {settings['width']:g}" if settings["network"] == "mlp" else f"width {settings['width']:g}"
    return f"{settings['network']} {width}, {study['data']['name']}"


def study_tables(studies: Sequence[Study]) -> list[Table]:
    """Tables 1, 2, 4 and 3 (those whose methods were run), then losses and R.

    Of several studies each table has a row for each; of one study, tables 1, 2 and 4 are one table.
    """
    methods = [method for method in _NUMBERS if any(Figures(study).has(method) for study in studies)]
    groups = [methods] if len(studies) == 1 else [[method] for method in methods]
    found = [_pair_table(studies, group) for group in groups if group]
    rows = [row for study in studies for row in _triple_rows(study)]
    if rows:
        head = ["study", "method", "barrier between b and c", "R(0)", "R(0.3)", "loss of the three merged", "accuracy"]
        found.append(Table(head, rows, "Table 3: three models, b and c matched to the third one"))
    head = ["study", "method", "loss of the networks", "merged", "accuracy of the networks", "merged", "seconds"]
    found.append(Table(head, [row for study in studies for row in _loss_rows(study)], "Test loss and accuracy"))
    head = ["study", "method", "R(0)", "R(0.3)", "merged and parents, R(0)", "R(0.3)", "placed as by WM"]
    caption = "R: how well singular vectors are aligned (figures 2, 3, 15 and 16)"
    found.append(Table(head, [row for study in studies for row in _r_rows(study)], caption))
    return [_without_constant(table) for table in found]


def _without_constant(table: Table) -> Table:
    """Without the study's or the method's column, where the caption or the page says it."""
    kept = [
        index for index, name in enumerate(table.head)
        if name not in ("study", "method") or len({row[index] for row in table.rows}) > 1
    ]  # fmt: skip
    if table.head[kept[0]] not in ("study", "method"):
        kept.insert(0, 0)
    rows = [[row[index] for index in kept] for row in table.rows]
    return Table([table.head[index] for index in kept], rows, table.caption)


def claims_table(study: Study, caption: str = "") -> Table:
    rows = [
        [f"{claim.number} {claim.text}", claim.verdict, claim.figures or None, claim.criterion]
        for claim in study_claims(study)
    ]
    return Table(["claim", "verdict", "measured", "criterion"], rows, caption or f"Claims: {study_label(study)}")


def _pair_table(studies: Sequence[Study], methods: Sequence[str]) -> Table:
    head = [
        "study", "method", "barrier without matching", "with", "Taylor estimate", "distance without matching", "with",
        "reduction, %",
    ]  # fmt: skip
    rows = [_pair_row(study, method) for method in methods for study in studies if Figures(study).has(method)]
    numbers = [_NUMBERS[method] for method in methods]
    caption = f"{_NUMBERS[methods[0]]}: {TITLES[methods[0]]}" if len(methods) == 1 else "; ".join(numbers)
    return Table(head, rows, caption)


def _pair_row(study: Study, method: str) -> list[str]:
    figures = Figures(study)
    before = figures.of_searches(method, lambda one: float(one["distance"]["before"]))
    after = figures.of_searches(method, lambda one: float(one["distance"]["after"]))
    return [
        study_label(study),
        TITLES[method],
        spread(figures.barrier("none")),
        spread(figures.barrier(method), 4),
        spread(figures.taylor(method), 4),
        spread(before, 2),
        spread(after, 2),
        spread(figures.reduction(method), 1),
    ]


def _methods(study: Study) -> list[str]:
    return [method for method in TITLES if Figures(study).has(method)]


def _triple_rows(study: Study) -> list[list[str]]:
    figures, rows = Figures(study), []
    for method in TITLES:
        if not study["triples"].get(method):
            continue
        loss = figures.of_triples(method, lambda one: float(one["merged"]["loss"]))
        accuracy = figures.of_triples(method, lambda one: 100 * float(one["merged"]["accuracy"]))
        rows.append(
            [
                study_label(study), TITLES[method], spread(figures.triple_barrier(method), 4),
                spread(figures.triple_r(method, "0")), spread(figures.triple_r(method, "0.3")), spread(loss),
                f"{spread(accuracy, 1)} %",
            ]
        )  # fmt: skip
    return rows


def _at(name: str, place: str) -> Callable[[Mapping[str, Any]], float]:
    """Loss or accuracy of a search: at the midpoint, or the mean of both ends."""

    def value(one: Mapping[str, Any]) -> float:
        line = one["barrier"]
        series = line["losses"] if name == "loss" else line["metrics"][name]
        if place == "ends":
            return float(series[0] + series[-1]) / 2
        return float(series[line["lambdas"].index(0.5)])

    return value


def _loss_rows(study: Study) -> list[list[str | None]]:
    figures, rows = Figures(study), []
    for method in _methods(study):
        shares = [
            [100 * value for value in figures.of_searches(method, _at("accuracy", place))] for place in ("ends", "mid")
        ]
        took = figures.of_searches(method, lambda one: float(one["match"].get("seconds", 0.0)))
        rows.append(
            [
                study_label(study), TITLES[method], spread(figures.of_searches(method, _at("loss", "ends"))),
                spread(figures.of_searches(method, _at("loss", "mid"))), f"{spread(shares[0], 1)} %",
                f"{spread(shares[1], 1)} %", None if method == "none" else spread(took, 1),
            ]
        )  # fmt: skip
    return rows


def _r_rows(study: Study) -> list[list[str | None]]:
    figures, rows = Figures(study), []
    for method in _methods(study):
        merged: list[str | None] = [None, None, None]
        if method != "none":
            alike = figures.of_searches(method, lambda one: 100 * float(one["match"].get("as_wm", 0.0)))
            merged = [
                spread(figures.r_merged(method, "0")), spread(figures.r_merged(method, "0.3")),
                f"{spread(alike, 0)} %" if figures.has("wm") else None,
            ]  # fmt: skip
        rows.append(
            [
                study_label(study), TITLES[method], spread(figures.r(method, "0"), 4), spread(figures.r(method, "0.3")),
                *merged,
            ]
        )  # fmt: skip
    return rows
