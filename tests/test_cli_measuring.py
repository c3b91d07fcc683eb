"""``barrier`` and ``analyze`` on a user's own network and data, and every wrong input as one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.commands import Commands, mlp, snapshot, write_planted_pair

import lmcfast
from lmcfast.merging import match_files

CODE = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 4))

def flat():
    return nn.Sequential(nn.Flatten(), *make())

def wide():
    return nn.Sequential(nn.Linear(6, 10))

def broken():
    raise RuntimeError("no weights here\\nsecond line")

def loader():
    source = torch.Generator().manual_seed(0)
    return [(torch.randn(20, 6, generator=source), torch.randint(4, (20,), generator=source)) for _ in range(3)]

def once():
    return iter(loader())

def wrong_inputs():
    return [(torch.randn(5, 3), torch.zeros(5, dtype=torch.int64))]

def single():
    return [torch.randn(5, 6)]

def none():
    return []

def number():
    return 5

def half_squared(outputs, targets):
    return outputs.square().mean() / 2

def normed():
    return nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 4))
"""


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capsys)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the user's module in it, as the current one; two checkpoints and their permutations."""
    (tmp_path / "own_code.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "own_code", raising=False)
    a, b = write_planted_pair(tmp_path)
    match_files(a, b, tmp_path / "p.safetensors")
    return tmp_path


CODE_OPTIONS = ("--model", "own_code:make", "--data", "own_code:loader")
A, B, P = "a.safetensors", "b.safetensors", "p.safetensors"


def test_barrier_prints_the_curve_and_the_three_figures(command: Commands, folder: Path) -> None:
    ran = command.works("barrier", A, B, *CODE_OPTIONS, "--lambdas", 5)
    lines = ran.out.splitlines()
    assert lines[0].split() == ["lambda", "loss", "accuracy", "curve"]
    rows = [[float(figure) for figure in line.split()] for line in lines[1:6]]
    assert [row[0] for row in rows] == [0, 0.25, 0.5, 0.75, 1]
    figures = dict(line.split(maxsplit=1) for line in lines[7:])
    assert float(figures["midpoint"]) == pytest.approx(rows[2][3], abs=1e-3)
    assert set(figures) == {"midpoint", "value", "git_re_basin"}
    ran = command.works("barrier", A, B, *CODE_OPTIONS, "--lambdas", 3, "--permutations", P)
    assert float(dict(line.split(maxsplit=1) for line in ran.out.splitlines()[5:])["value"]) < 1e-5


def test_barrier_agrees_with_the_library(command: Commands, folder: Path) -> None:
    found = json.loads(command.works("barrier", A, B, *CODE_OPTIONS, "--lambdas", 4, "--json").out)
    namespace: dict[str, object] = {}
    exec(CODE, namespace)
    expected = lmcfast.analysis.barrier(
        namespace["make"](), lmcfast.load_checkpoint(A), lmcfast.load_checkpoint(B), namespace["loader"](),
        torch.nn.functional.cross_entropy, 4,
    )  # fmt: skip
    assert found["curve"] == pytest.approx(expected.curve.tolist())
    assert found["midpoint"] == pytest.approx(expected.midpoint)
    once = json.loads(
        command.works(
            "barrier", A, B, "--model", "own_code:make", "--data", "own_code:once", "--lambdas", 4, "--json"
        ).out
    )
    assert once["curve"] == found["curve"]
    own = command.works("barrier", A, B, *CODE_OPTIONS, "--loss", "own_code:half_squared", "--lambdas", 2, "--json")
    assert json.loads(own.out)["metrics"] == {}
    first = json.loads(command.works("barrier", A, B, *CODE_OPTIONS, "--max-batches", 1, "--lambdas", 2, "--json").out)
    assert first["losses"] != found["losses"]


@pytest.mark.parametrize("name", ["line.png", "line.svg", "line.json"])
def test_barrier_writes_a_picture_or_the_figures(command: Commands, folder: Path, name: str) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    before = snapshot(folder)
    ran = command.works("barrier", A, B, *CODE_OPTIONS, "--lambdas", 3, "-o", name)
    assert f"written       {name}" in ran.out
    assert snapshot(folder).keys() - before.keys() == {name}
    if name.endswith("json"):
        assert json.loads((folder / name).read_text())["lambdas"] == [0.0, 0.5, 1.0]
    message = command.fails("barrier", A, B, *CODE_OPTIONS, "-o", name, "--no-overwrite", folder=folder)
    assert message == f"error: {name}: exists, and overwriting is off"


def write_npz(path: Path) -> None:
    source = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 40), ("test", 30)):
        arrays[f"x_{split}"] = source.random((count, 2, 3), dtype=np.float32)
        arrays[f"y_{split}"] = source.integers(0, 4, count)
    np.savez(path, **arrays)


def test_data_of_a_file_and_batchnorm(command: Commands, folder: Path) -> None:
    write_npz(folder / "data.npz")
    options = ("--data", "data.npz", "--lambdas", 3)
    renamed = {
        name: {f"{int(key.split('.')[0]) + 1}.{key.split('.')[1]}": value for key, value in mlp(seed).items()}
        for seed, name in enumerate(("c.pt", "d.pt"))
    }
    for name, params in renamed.items():
        lmcfast.save_checkpoint(name, params)
    command.works("barrier", "c.pt", "d.pt", "--model", "own_code:flat", *options, "--batch-size", 7)
    import own_code

    for seed, name in enumerate(("e.pt", "f.pt")):
        torch.manual_seed(seed)
        lmcfast.save_checkpoint(name, own_code.normed().state_dict())
    code = ("--model", "own_code:normed", "--data", "own_code:loader", "--lambdas", 3)
    plain = command.works("barrier", "e.pt", "f.pt", *code)
    assert "warning: the network has BatchNorm running statistics" in plain.err
    assert "--reset-batchnorm" in plain.err
    assert "prepare=" not in plain.err
    reset = command.works("barrier", "e.pt", "f.pt", *code, "--reset-batchnorm")
    assert reset.err == ""
    assert reset.out != plain.out


MAKE, LOADER = "own_code:make", "own_code:loader"
FAILS = "--model, --data or --loss: "
WRONG = [
    ("own_code", LOADER, [], 2, "--model: must be MODULE:FACTORY, not 'own_code'"),
    ("own_code:gone", LOADER, [], 2, "has no callable 'gone'"),
    ("nowhere:make", LOADER, [], 2, "--model: there is no module 'nowhere' here"),
    ("own_code:broken", LOADER, [], 1, "--model: 'own_code:broken' failed: RuntimeError: no weights here"),
    (LOADER, LOADER, [], 2, "gave a list, not a module"),
    ("own_code:wide", LOADER, [], 1, "a.safetensors: --model:"),
    (MAKE, "nothing", [], 2, "--data: must be MODULE:LOADER or a file FILE.npz"),
    (MAKE, "gone.npz", [], 1, "gone.npz: cannot read: no such file"),
    (MAKE, "own_code:wrong_inputs", [], 1, f"{FAILS}RuntimeError: mat1"),
    (MAKE, "own_code:single", [], 1, "--data: own_code:single gave batches that are no pairs"),
    (MAKE, "own_code:none", [], 1, "--data: own_code:none gave no batches"),
    (MAKE, "own_code:number", [], 2, "gave a int, not batches"),
    (MAKE, "own_code:broken", [], 1, "'own_code:broken' failed: RuntimeError: no weights here"),
    (MAKE, LOADER, ["--loss", "hinge"], 2, "--loss: must be cross_entropy"),
    (MAKE, LOADER, ["--loss", "own_code:broken"], 1, f"{FAILS}TypeError: broken()"),
    (MAKE, LOADER, ["--lambdas", "1"], 2, "--lambdas"),
]


@pytest.mark.parametrize(("model", "data", "more", "code", "words"), WRONG)
def test_wrong_input_is_one_line_and_nothing_is_written(
    command: Commands, folder: Path, model: str, data: str, more: list[str], code: int, words: str
) -> None:
    options = ["--model", model, "--data", data, *more]
    for arguments in (["barrier", A, B, "-o", "x.json"], ["analyze", A, B, "--permutations", P, "-o", "x.html"]):
        assert words in command.fails(*arguments, *options, folder=folder, code=code)


def test_wrong_paths_and_endings(command: Commands, folder: Path) -> None:
    for arguments in (["barrier", A, B, *CODE_OPTIONS], ["analyze", A, B]):
        assert "must end in" in command.fails(*arguments, "-o", "x.txt", folder=folder, code=2)
        assert "none" in command.fails(
            *arguments, "-o", f"none/x.{'json' if arguments[0] == 'barrier' else 'html'}", folder=folder
        )
    assert "gone.pt: cannot read" in command.fails("barrier", A, "gone.pt", *CODE_OPTIONS, folder=folder)
    other = mlp(5)
    lmcfast.save_checkpoint("other.safetensors", other)
    message = command.fails("barrier", A, "other.safetensors", *CODE_OPTIONS, "--permutations", P, folder=folder)
    assert "other.safetensors" in message
    command.works(
        "barrier", A, "other.safetensors", *CODE_OPTIONS, "--permutations", P, "--ignore-sources", "--lambdas", 2
    )
    message = command.fails("barrier", A, B, *CODE_OPTIONS, "--ignore-sources", folder=folder, code=2)
    assert message == "error: --ignore-sources: has no effect without --permutations"


def test_analyze_from_the_weights_alone(command: Commands, folder: Path) -> None:
    ran = command.works("analyze", A, B)
    figures = dict(line.split(maxsplit=1) for line in ran.out.splitlines())
    assert list(figures) == ["verdict", "reason", "distance", "R(0)", "R(0.3)"]
    assert figures["verdict"] == "yes (by the weights alone)"
    found = json.loads(command.works("analyze", A, B, "--permutations", P, "--layer", "2.*", "--json").out)
    assert found["verdict"]["measured"] is False
    assert list(found["alignment"][0]["with"][0]["layers"]) == ["2.weight"]
    assert found["alignment"][0]["with"][0]["pooled"] == pytest.approx(1.0)
    assert found["sweeps"] == []
    assert "data" not in found


def test_analyze_writes_one_report(command: Commands, folder: Path) -> None:
    pytest.importorskip("jinja2", reason="reports need jinja2")
    pytest.importorskip("matplotlib", reason="reports need matplotlib")
    before = snapshot(folder)
    ran = command.works("analyze", A, B, *CODE_OPTIONS, "--lambdas", 3, "-o", "report.html")
    assert "barrier" in ran.out
    assert "Taylor" in ran.out
    assert snapshot(folder).keys() - before.keys() == {"report.html"}
    html = (folder / "report.html").read_text()
    assert "A is a.safetensors, B is b.safetensors." in html
    assert html.count("<img ") == 9
    two = command.works(
        "analyze",
        A,
        B,
        "--permutations",
        P,
        "--permutations",
        P,
        *CODE_OPTIONS,
        "--lambdas",
        3,
        "--no-taylor",
        "--json",
    )
    found = json.loads(two.out)
    assert len(found["data"]["with"]) == len(found["distance"]) == 2
    assert found["data"]["taylor"] == []


def test_options_of_analyze_that_have_no_effect(command: Commands, folder: Path) -> None:
    for options, words in (
        (["--lambdas", "5"], "--lambdas: has no effect without --model and --data"),
        (["--model", "own_code:make"], "--data: is needed with --model"),
        (["--data", "own_code:loader"], "--model: is needed with --data"),
        (["--permutations", P, "--restarts", "2"], "--restarts: has no effect with --permutations"),
        (["--ignore-sources"], "--ignore-sources: has no effect without --permutations"),
        (["--layer", "9.*"], "--layer: '9.*' names none of the spec's 3 weights"),
    ):
        assert command.fails("analyze", A, B, *options, folder=folder, code=2) == f"error: {words}"
    spec = lmcfast.spec_from_params(mlp(0)).bind(mlp(0))
    axes = {**spec.axes, "0.weight": (None, None), "0.bias": (None,), "2.weight": ("h1", None)}
    narrower = lmcfast.PermutationSpec.from_axes(axes)
    lmcfast.weight_matching(narrower, mlp(0), mlp(1)).save("q.safetensors")
    message = command.fails("analyze", A, B, "--permutations", P, "--permutations", "q.safetensors", folder=folder)
    assert message.startswith("error: q.safetensors: made with another spec than p.safetensors")
