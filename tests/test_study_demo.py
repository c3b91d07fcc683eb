"""The demo end to end on narrow networks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import lmcfast
from lmcfast.study import DemoResult, Mlp, load_digits, run_demo
from lmcfast.study.demo import DEMO_RECIPE, FILES

pytest.importorskip("sklearn", reason="the demo needs scikit-learn")
pytest.importorskip("matplotlib", reason="the demo needs matplotlib")

RECIPE = replace(DEMO_RECIPE, epochs=20, batch_size=50, decay=True)
Calls = list[tuple[str, int, int]]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoResult, Path, Calls]:
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    calls: Calls = []
    threads = torch.get_num_threads()
    result = run_demo(out, (2, 5), 128, recipe=RECIPE, lambdas=9, progress=lambda *call: calls.append(call))
    assert torch.get_num_threads() == threads
    return result, out, calls


def test_matching_removes_the_barrier(ran: tuple[DemoResult, Path, Calls]) -> None:
    result, _, _ = ran
    a, b, without, matched = result.rows
    assert [a.label, b.label] == ["A (seed 2)", "B (seed 5)"]
    assert min(a.accuracy, b.accuracy) > 0.88
    assert without.loss > 4 * max(a.loss, b.loss)
    assert matched.loss < without.loss / 3
    assert matched.accuracy > without.accuracy + 0.2
    assert result.matched.midpoint < 0.3 * result.unmatched.midpoint
    assert result.unmatched.losses[[0, -1]] == pytest.approx(result.matched.losses[[0, -1]], rel=1e-5)
    assert 0.1 < result.reduction.rate < 0.5
    assert result.match.converged
    assert result.proof.startswith("verified: 3 groups")


def test_the_files_hold_what_the_table_says(ran: tuple[DemoResult, Path, Calls]) -> None:
    result, out, _ = ran
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES.values())
    assert {name: path.name for name, path in result.files.items()} == FILES
    a, b, aligned, merged = (
        lmcfast.load_checkpoint(result.files[name]) for name in ("a", "b", "b_aligned", "merged")
    )  # fmt: skip
    saved = lmcfast.load_permutations(result.files["permutations"])
    for name, tensor in saved.apply(b).items():
        assert torch.equal(tensor, aligned[name])
        torch.testing.assert_close(merged[name], (a[name] + tensor) / 2)
    module, data = Mlp(64, (128,) * 3), load_digits()
    module.load_state_dict(merged)
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(module(data.test_inputs), data.test_targets)
    assert result.rows[3].loss == pytest.approx(float(loss), rel=1e-5)
    figures = json.loads(result.files["figures"].read_text(encoding="utf-8"))
    assert figures["table"][3]["loss"] == result.rows[3].loss
    assert figures["barrier"]["with matching"]["midpoint"] == result.matched.midpoint
    assert figures["settings"]["seeds"] == [2, 5]
    assert set(figures["seconds"]) == {"train A", "train B", "match", "measure", "write"}


def test_the_picture_is_not_blank(ran: tuple[DemoResult, Path, Calls]) -> None:
    from matplotlib import image

    picture = np.asarray(image.imread(ran[0].files["picture"]))[..., :3]
    assert picture.shape[1] > 1000
    assert 0.02 < float((picture.min(-1) < 0.9).mean()) < 0.5


def test_progress_goes_through_the_stages(ran: tuple[DemoResult, Path, Calls]) -> None:
    _, _, calls = ran
    stages = list(dict.fromkeys(stage for stage, _, _ in calls))
    assert stages == ["train A", "train B", "match", "measure", "write"]
    assert [call[1:] for call in calls if call[0] == "train A"] == [(done, 20) for done in range(21)]
    assert [call[1:] for call in calls if call[0] == "write"] == [(0, 1), (1, 1)]


def test_the_same_seeds_give_the_same_figures(tmp_path: Path) -> None:
    recipe = replace(DEMO_RECIPE, epochs=1)
    first, again = (run_demo(tmp_path / name, width=16, layers=1, recipe=recipe, lambdas=3) for name in "ab")
    assert first.rows == again.rows
    assert first.match.objective == again.match.objective
    assert first.files["merged"].read_bytes() == again.files["merged"].read_bytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"width": 0}, "width"), ({"layers": 0}, "layers"), ({"lambdas": 1}, "lambdas"), ({"seeds": (0, -1)}, "seeds")],
)
def test_bad_arguments_are_refused_before_anything_is_made(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        run_demo(tmp_path / "out", **changes)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_bad_folder_is_refused_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmcfast.study.demo.train", lambda *_, **__: pytest.fail("the training began"))
    (tmp_path / "file").touch()
    with pytest.raises(lmcfast.CheckpointError, match="file"):
        run_demo(tmp_path / "file")
    (tmp_path / "out" / "demo.json").mkdir(parents=True)
    with pytest.raises(lmcfast.CheckpointError, match=r"demo\.json"):
        run_demo(tmp_path / "out")
