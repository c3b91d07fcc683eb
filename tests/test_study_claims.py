"""The claims decide by their criteria: figures as the paper's reproduce all of them, and each can be missed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from lmcfast.study import study_claims, study_tables

Change = Callable[[dict[str, Any]], object]


def r_of(low: float, high: float) -> dict[str, Any]:
    return {"0": {"pooled": low}, "0.3": {"pooled": high}}


def line(midpoint: float) -> dict[str, Any]:
    accuracy = [0.9, 0.9 - midpoint / 10, 0.9]
    return {
        "midpoint": midpoint, "lambdas": [0.0, 0.5, 1.0], "losses": [0.1, 0.1 + midpoint, 0.1],
        "metrics": {"accuracy": accuracy},
    }  # fmt: skip


def search(barrier: float, taylor: float, rate: float, r: tuple[float, float], as_wm: float) -> dict[str, Any]:
    return {
        "barrier": line(barrier), "taylor": {"midpoint": taylor}, "r": r_of(*r),
        "distance": {"before": 10.0, "after": 10.0 * (1 - rate), "rate": rate}, "spectrum_change": 1e-16,
        "r_merged": {"a": r_of(0.5, 0.8), "b": r_of(0.5, 0.8)}, "match": {"seconds": 1.0, "as_wm": as_wm},
    }  # fmt: skip


def triple(barrier: float, r: tuple[float, float]) -> dict[str, Any]:
    return {"barrier": line(barrier), "r": r_of(*r), "merged": {"loss": 0.1, "accuracy": 0.9}}


def papers() -> dict[str, Any]:
    """A study whose figures are as the paper tells them."""

    def two(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
        return {"1-2": one, "1-3": other}

    return {
        "settings": {"network": "mlp", "width": 512.0},
        "data": {"name": "some"},
        "alone": {"spread": {"0.weight": 0.02, "2.weight": 0.03}},
        "searches": {
            "none": two(search(1.0, 0, 0.0, (0.001, 0.02), 0), search(1.2, 0, 0.0, (-0.001, 0.0), 0)),
            "wm": two(search(0.01, 0.3, 0.15, (0.06, 0.5), 1), search(-0.01, 0.2, 0.17, (0.07, 0.5), 1)),
            "am": two(search(0.02, 0.3, 0.13, (0.06, 0.5), 0.4), search(0.0, 0.2, 0.15, (0.06, 0.5), 0.5)),
            "ste": two(search(0.01, 0.3, 0.05, (0.01, 0.02), 0.1), search(0.0, 0.2, 0.05, (0.01, 0.02), 0.1)),
        },
        "triples": {
            "none": two(triple(1.0, (0, 0)), triple(1.1, (0, 0))),
            "wm": two(triple(0.1, (0.05, 0.4)), triple(0.2, (0.05, 0.4))),
            "ste": two(triple(0.5, (0.0, 0.01)), triple(0.7, (0.0, 0.01))),
        },
    }


def verdicts(study: dict[str, Any]) -> dict[str, bool | None]:
    return {claim.number: claim.reproduced for claim in study_claims(study)}


def test_the_papers_figures_reproduce_every_claim() -> None:
    told = verdicts(papers())
    assert list(told) == ["1a", "1b", "1c", "2a", "2b", "2c", "2d", "2e", "3a", "3b", "3c", "3d", "4a", "4b", "4c"]
    assert set(told.values()) == {True}


def each(method: str, change: Callable[[dict[str, Any]], object], part: str = "searches") -> Change:
    return lambda study: [change(one) for one in study[part][method].values()]


@pytest.mark.parametrize(
    ("number", "change"),
    [
        ("1a", each("wm", lambda one: one["distance"].update(rate=0.25))),
        ("1a", each("wm", lambda one: one["distance"].update(rate=0.05))),
        ("1b", each("wm", lambda one: one["barrier"].update(midpoint=0.2))),
        ("1c", each("wm", lambda one: one["taylor"].update(midpoint=one["barrier"].update(midpoint=0.05) or 0.09))),
        ("2a", each("wm", lambda one: one.update(spectrum_change=1e-3))),
        ("2b", lambda study: study["alone"]["spread"].update({"2.weight": 0.2})),
        ("2c", each("wm", lambda one: one["r"].update({"0.3": {"pooled": 0.05}}))),
        ("2d", each("none", lambda one: one["r"].update({"0": {"pooled": -0.02}}))),
        ("2e", each("wm", lambda one: one["r_merged"]["b"].update({"0.3": {"pooled": 0.1}}))),
        ("3a", each("am", lambda one: one["barrier"].update(midpoint=0.3))),
        ("3b", each("am", lambda one: one["distance"].update(rate=0.08))),
        ("3c", each("am", lambda one: one["r"].update({"0.3": {"pooled": 0.1}}))),
        ("3d", each("am", lambda one: one["match"].update(as_wm=0.95))),
        ("4a", each("ste", lambda one: one["barrier"].update(midpoint=0.05), "triples")),
        ("4b", each("ste", lambda one: one["r"].update({"0.3": {"pooled": 0.3}}))),
        ("4c", each("ste", lambda one: one["r"].update({"0.3": {"pooled": 0.5}}), "triples")),
    ],
)
def test_each_claim_can_be_missed(number: str, change: Change) -> None:
    study = papers()
    change(study)
    assert verdicts(study)[number] is False
    claim = next(claim for claim in study_claims(study) if claim.number == number)
    assert claim.verdict == "not reproduced"


def test_the_difference_must_exceed_its_standard_error() -> None:
    study = papers()
    for name, value in (("1-2", 0.05), ("1-3", 0.3)):  # STE below WM once, above once: 0.025 +- 0.075
        study["triples"]["ste"][name]["barrier"]["midpoint"] = value
    assert verdicts(study)["4a"] is False


def test_what_was_not_run_is_not_judged() -> None:
    study = papers()
    del study["searches"]["am"], study["triples"]["ste"], study["triples"]["wm"]
    told = verdicts(study)
    assert [number for number, found in told.items() if found is None] == ["3a", "3b", "3c", "3d", "4a", "4c"]
    assert told["4b"] is True
    assert "Table 4" not in " ".join(table.caption for table in study_tables([study]))


def test_random_weights_are_judged_beside() -> None:
    study = papers()
    for part in ("searches", "triples"):
        study[part]["ste-random"] = copy.deepcopy(study[part]["ste"])
    assert [number for number in verdicts(study) if number.endswith("*")] == ["4a*", "4b*", "4c*"]


def test_tables_hold_means_and_deviations() -> None:
    tables = {table.caption.partition(":")[0]: table for table in study_tables([papers(), papers()])}
    assert list(tables)[:4] == ["Table 1", "Table 2", "Table 4", "Table 3"]
    row = tables["Table 1"].rows[1]
    assert row[:4] == ["mlp 3 x 512, some", "1.100 ± 0.141", "0.0000 ± 0.0141", "0.2500 ± 0.0707"]
    assert row[-1] == "16.0 ± 1.4"
    assert len(tables["Table 3"].rows) == 6


def test_tables_of_one_study_have_a_row_for_each_method() -> None:
    tables = study_tables([papers()])
    assert [table.caption.partition(":")[0] for table in tables[:2]] == ["Table 1; Table 2; Table 4", "Table 3"]
    assert tables[0].head[0] == "method"
    assert [row[0] for row in tables[0].rows] == [
        "weight matching", "straight-through estimator", "activation matching",
    ]  # fmt: skip
    alone = papers()
    del alone["searches"]["am"], alone["searches"]["ste"]
    assert study_tables([alone])[0].rows[0][0] == "mlp 3 x 512, some"
