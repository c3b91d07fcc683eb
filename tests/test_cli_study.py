"""``lmcfast study``: what it prints and writes, and how it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import Commands

pytest.importorskip("matplotlib", reason="the study's report needs matplotlib")
pytest.importorskip("jinja2", reason="the study's report needs jinja2")

TINY = ["--width", 8, "--methods", "wm", "--seeds", "1,2", "--searches", 1, "--triples", 0, "--epochs", 1]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capsys)


def some_data(folder: Path) -> Path:
    generator = np.random.default_rng(0)
    path = folder / "some.npz"
    images = {
        f"x_{split}": generator.integers(0, 256, (n, 4, 4), np.uint8) for split, n in (("train", 60), ("test", 20))
    }
    labels = {f"y_{split}": np.arange(n) % 3 for split, n in (("train", 60), ("test", 20))}
    np.savez(path, **images, **labels)
    return path


def test_the_study_prints_its_claims_and_writes_its_report(command: Commands, tmp_path: Path) -> None:
    data, out = some_data(tmp_path), tmp_path / "new" / "study"
    ran = command.works("study", "--data", data, "-o", out, *TINY)
    lines = ran.out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["1a", "1b", "1c"]
    assert "claims reproduced" in ran.out
    assert "train 1 done" in ran.err
    assert {path.name for path in out.iterdir()} >= {"study.json", "study.md", "study.html", "networks", "figures"}
    again = command.works("study", "--data", data, "-o", out, *TINY, "--json")
    assert again.err == ""
    told = json.loads(again.out)
    assert {claim["verdict"] for claim in told["claims"]} <= {"reproduced", "not reproduced", "not measured"}
    assert told["files"]["page"] == str(out / "study.html")


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["--network", "lenet"], "--network: must be of mlp, vgg11, resnet20, not 'lenet'", 2),
        (["--methods", "wm,guess"], "--methods: must be of wm, am, ste, ste-random, not 'guess'", 2),
        (["--seeds", "1,x"], "--seeds: must be whole numbers", 2),
        (["--seeds", "1"], "--seeds: at least two", 2),
        (["--seeds", "1,2", "--searches", "3"], "--searches: 3 need more than 2 networks", 2),
        (["--width", "-1"], "--width: a number above 0", 2),
        (["--network", "resnet20", "--width", "0.001"], "--width: 0.001 leaves no unit", 2),
        (["--ste-epochs", "0"], "--ste-epochs: a number above 0", 2),
        (["--pad", "2"], "--pad: the images are 4 x 4", 2),
        (["--data", "none.npz"], "none.npz: cannot be read", 1),
    ],
)
def test_bad_arguments_are_one_line(
    command: Commands, tmp_path: Path, arguments: list[str], words: str, code: int
) -> None:
    data = some_data(tmp_path)
    line = command.fails("study", "--data", data, "-o", tmp_path / "out", *arguments, folder=tmp_path, code=code)
    assert words in line


def test_an_unwritable_folder_is_told_before_the_data_are_read(command: Commands, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = command.fails("study", "--data", tmp_path / "none", "-o", tmp_path / "file", folder=tmp_path)
    assert line.startswith(f"error: {tmp_path / 'file'}: is a file")


def test_ctrl_c_says_what_is_kept(command: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lmcfast.study.run.train", stop)
    out = tmp_path / "out"
    ran = command("study", "--data", some_data(tmp_path), "-o", out, *TINY)
    assert ran.code == 130
    assert (
        ran.err.splitlines()[-1] == f"error: interrupted; what is done is kept in {out}, and the same command goes on"
    )


def test_the_command_line_starts_without_torch() -> None:
    code = "import sys, lmcfast.cli.application; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
