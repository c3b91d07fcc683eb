"""The study from end to end at its smallest: figures against single calls, what is kept, what is done again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import lmcfast
from lmcfast import analysis
from lmcfast.study import (
    Dataset,
    Mlp,
    Recipe,
    StudySettings,
    default_settings,
    padded,
    run_study,
    study_claims,
    train,
    write_report,
)
from lmcfast.study.demo import one_thread
from lmcfast.study.settings import Search, Triple


def blobs(side: int = 4) -> Dataset:
    """Three classes of noisy images around three patterns: 300 for training, 60 for testing."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(3, 1, side, side, generator=generator)
    targets = torch.arange(360) % 3
    inputs = patterns[targets] + 0.7 * torch.randn(360, 1, side, side, generator=generator)
    return Dataset("blobs", inputs[:300], targets[:300], inputs[300:], targets[300:])


SMALL = StudySettings(
    width=12, recipe=Recipe(3, 20, learning_rate=0.01), seeds=(1, 2, 3), searches=2, triples=1, methods=("wm", "am"),
    points=3, resolution=3,
)  # fmt: skip


class Stages:
    """Which stages were begun; stops the run where it is told to."""

    def __init__(self, stop: str | None = None) -> None:
        self.seen: list[str] = []
        self.stop = stop

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage == self.stop:
            raise KeyboardInterrupt
        if stage not in self.seen:
            self.seen.append(stage)


@pytest.fixture(scope="module", autouse=True)
def small_products_on_one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("study")
    return folder, run_study(folder, blobs(), SMALL)


def test_figures_are_those_of_single_calls(small: tuple[Path, dict[str, Any]]) -> None:
    data, found = blobs(), small[1]
    a, b, c = (train(lambda: Mlp(16, (12,) * 3, 3), data, SMALL.recipe, seed).state_dict() for seed in (1, 2, 3))
    spec = lmcfast.spec_from_params(a)
    m, n = (lmcfast.weight_matching(spec, a, other) for other in (b, c))
    aligned = m.apply(b)
    module = Mlp(16, (12,) * 3, 3)
    line = analysis.barrier(module, a, aligned, data.test_batches(), cross_entropy, 3)
    ours = found["searches"]["wm"]["1-2"]
    assert ours["barrier"]["midpoint"] == pytest.approx(line.midpoint, abs=1e-6)
    estimate = analysis.taylor_barrier(module, a, aligned, data.test_batches(), cross_entropy)
    assert ours["taylor"]["midpoint"] == pytest.approx(estimate.midpoint, abs=1e-6)
    assert ours["distance"]["rate"] == pytest.approx(analysis.distance_reduction(spec, a, b, m.permutations).rate)
    merged = lmcfast.interpolate(a, aligned)
    for gamma, key in ((0.0, "0"), (0.3, "0.3")):
        r = analysis.singular_alignment(spec, a, b, m.permutations, gamma).pooled
        assert ours["r"][key]["pooled"] == pytest.approx(r, abs=1e-6)
        both = analysis.singular_alignment(spec, merged, aligned, None, gamma).pooled
        assert ours["r_merged"]["b"][key]["pooled"] == pytest.approx(both, abs=1e-6)
        bare = analysis.singular_alignment(spec, a, b, None, gamma).pooled
        assert found["searches"]["none"]["1-2"]["r"][key]["pooled"] == pytest.approx(bare, abs=1e-6)
    three = found["triples"]["wm"]["1-2-3"]
    between = analysis.barrier(module, aligned, n.apply(c), data.test_batches(), cross_entropy, 3)
    assert three["barrier"]["midpoint"] == pytest.approx(between.midpoint, abs=1e-6)
    assert np.shape(three["plane"]["losses"]) == (3, 3)
    assert ours["match"]["as_wm"] == 1.0
    assert found["networks"]["1"]["accuracy"] == pytest.approx(
        found["searches"]["none"]["1-2"]["barrier"]["metrics"]["accuracy"][0]
    )


def test_nothing_is_done_twice_and_changes_are_noticed(small: tuple[Path, dict[str, Any]]) -> None:
    folder, found = small
    again = Stages()
    assert run_study(folder, blobs(), SMALL, again)["searches"] == found["searches"]
    assert again.seen == []
    coarser = Stages()
    run_study(folder, blobs(), replace(SMALL, points=2), coarser)
    assert coarser.seen
    assert all(stage.startswith(("measure search", "measure triple")) for stage in coarser.seen)
    one_more = blobs()
    one_more.train_inputs[0, 0, 0, 0] += 1.0
    for data, recipe in ((one_more, SMALL.recipe), (blobs(), replace(SMALL.recipe, epochs=4))):
        other = Stages()
        run_study(folder, data, replace(SMALL, recipe=recipe, methods=("wm",)), other)
        assert {"train 1", "train 2", "train 3", "match wm-1-2"} <= set(other.seen)


def test_a_lost_match_is_found_and_measured_again(small: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    shutil.copytree(small[0], tmp_path, dirs_exist_ok=True)
    run_study(tmp_path, blobs(), SMALL)
    (tmp_path / "matches" / "wm-1-2.safetensors").write_bytes(b"broken")
    again = Stages()
    found = run_study(tmp_path, blobs(), SMALL, again)
    assert again.seen == ["match wm-1-2", "measure search-wm-1-2", "measure triple-wm-1-2-3"]
    assert_close(found["searches"], small[1]["searches"])


def test_a_study_goes_on_where_it_was_stopped(small: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    whole = Stages()
    with pytest.raises(KeyboardInterrupt):
        run_study(tmp_path, blobs(), SMALL, Stages(stop="measure search-am-1-2"))
    result = run_study(tmp_path, blobs(), SMALL, whole)
    assert whole.seen[0] == "measure search-am-1-2"
    assert "train 1" not in whole.seen
    for part in ("searches", "triples", "alone"):
        assert_close(result[part], small[1][part])


def assert_close(one: Any, two: Any) -> None:
    """Equal up to rounding, which differs with the place of a tensor in memory; times are not compared."""
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one.keys() - {"seconds"}:
            assert_close(one[key], two[key])
    elif isinstance(one, str | bool | None):
        assert one == two
    else:
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_a_network_can_be_put_there_by_hand(tmp_path: Path) -> None:
    settings = replace(SMALL, methods=("wm",), searches=1, triples=0)
    folder = tmp_path / "networks"
    folder.mkdir()
    given = Mlp(16, (12,) * 3, 3).state_dict()
    lmcfast.save_checkpoint(folder / "mlp-w12-2.safetensors", given)
    stages = Stages()
    found = run_study(tmp_path, blobs(), settings, stages)
    assert "train 1" in stages.seen
    assert "train 2" not in stages.seen
    assert [found["networks"][seed]["given"] for seed in ("1", "2")] == [False, True]
    write_report(tmp_path, found)
    assert "The networks of the seeds 2 were given as files" in (tmp_path / "study.md").read_text()
    lmcfast.save_checkpoint(folder / "mlp-w12-2.safetensors", Mlp(16, (11,), 3).state_dict())
    with pytest.raises(lmcfast.CheckpointError, match=r"mlp-w12-2\.safetensors: is not a mlp-w12 network"):
        run_study(tmp_path, blobs(), settings)
    (folder / "mlp-w12-2.safetensors").write_bytes(b"broken")
    with pytest.raises(lmcfast.CheckpointError, match="delete it to train the network anew"):
        run_study(tmp_path, blobs(), settings)


def test_networks_with_batchnorm_and_the_straight_through_estimator(tmp_path: Path) -> None:
    data = padded(blobs(), 8)
    few = replace(data, train_inputs=data.train_inputs[:40], train_targets=data.train_targets[:40])
    settings = StudySettings(
        "resnet20", 1 / 8, Recipe(1, 20, "sgd", 0.05), ("wm", "ste", "ste-random"), (4, 5), 1, 0, ste_batch=20,
        images=20, costly_images=10, points=2, resolution=2, ste_epochs=1,
    )  # fmt: skip
    found = run_study(tmp_path, few, settings)
    for method in ("wm", "ste", "ste-random"):
        search = found["searches"][method]["4-5"]
        assert len(search["barrier"]["losses"]) == 3
        assert 0 <= search["match"]["as_wm"] <= 1
    assert all(np.isfinite(found["searches"]["ste"]["4-5"]["barrier"]["losses"]))
    assert [claim.reproduced for claim in study_claims(found) if claim.number in ("4a", "4c")] == [None, None]


def test_the_report_holds_claims_tables_and_figures(small: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    files = write_report(tmp_path, small[1])
    content = json.loads(files["figures"].read_text())
    assert {claim["verdict"] for claim in content["claims"]} >= {"reproduced", "not measured"}
    text = files["markdown"].read_text()
    for words in ("Table 1", "Table 3", "Table 4", "claims reproduced", "Figure 16", "seeds 1-2, 1-3"):
        assert words in text
    pictures = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert pictures >= {f"figure{n}" for n in (1, 2, 3, 4, 5, 15, 16)} | {"figure6-wm", "line-loss"}
    page = files["page"].read_text()
    assert "data:image" in page
    assert "not measured" in page


def test_searches_are_halves_of_the_triples() -> None:
    settings = default_settings("mlp", blobs())
    assert settings.search_list() == [Search(1, 2), Search(1, 3), Search(2, 3), Search(2, 4), Search(3, 4)]
    assert settings.triple_list() == [Triple(1, 2, 3), Triple(2, 3, 4), Triple(3, 4, 5)]
    assert settings.needed_seeds() == [1, 2, 3, 4, 5]
    three = default_settings("resnet20", blobs())
    assert len(three.search_list()) == 5
    assert len(set(three.search_list())) == 5
    two = default_settings("mlp", blobs(), seeds=(7, 8))
    assert (two.search_list(), two.triple_list()) == ([Search(7, 8), Search(8, 7)], [])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network": "lenet"}, "network: must be one of"),
        ({"methods": ("wm", "xx")}, "methods: must be one of .*'xx'"),
        ({"methods": ("wm", "wm")}, "methods: different ones"),
        ({"width": 1.5}, "width: an MLP's is a whole number"),
        ({"width": 0.0}, "width: a number above 0"),
        ({"seeds": (1,)}, "seeds: at least two"),
        ({"seeds": (1, -2)}, "seeds: must be whole numbers"),
        ({"seeds": (1, 2), "searches": 3, "triples": 0}, "searches: 3 need more than 2 networks"),
        ({"seeds": (1, 2), "searches": 1}, "triples: 3 need more than 2 networks"),
        ({"points": 1}, "points: must be at least 2"),
        ({"ste_epochs": 0.0}, "ste_epochs"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        StudySettings(**changes)


def test_vgg11_asks_for_its_size() -> None:
    with pytest.raises(ValueError, match="vgg11 takes images of 32 x 32, not 4 x 4"):
        default_settings("vgg11", blobs()).factory(blobs())
