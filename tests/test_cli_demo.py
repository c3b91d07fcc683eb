"""``lmcfast demo`` at its smallest: the table, the files, the progress."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.commands import Commands, write_planted_pair

import lmcfast

pytest.importorskip("sklearn", reason="the demo needs scikit-learn")
pytest.importorskip("matplotlib", reason="the demo needs matplotlib")

SMALL = ["--width", "8", "--layers", "1", "--epochs", "1"]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capsys)


def test_demo_prints_its_table_and_writes_its_files(command: Commands, tmp_path: Path) -> None:
    out = tmp_path / "new" / "demo"
    ran = command.works("demo", "-o", out, *SMALL, "--seeds", "3,4")
    for label in ("A (seed 3)", "B (seed 4)", "midpoint without matching", "midpoint with matching"):
        assert len([line for line in ran.out.splitlines() if line.startswith(label)]) == 1
    assert "train A done" in ran.err
    assert "train A done" not in ran.out
    files = {path.name for path in out.iterdir()}
    assert files >= {"a.safetensors", "b.safetensors", "merged.safetensors", "permutations.safetensors"}
    assert [name for name in files if name.endswith(".png")]
    a, b, p, merged = (out / f"{name}.safetensors" for name in ("a", "b", "permutations", "again"))
    command.works("merge", a, b, "--permutations", p, "-o", merged)
    for name, tensor in lmcfast.load_checkpoint(out / "merged.safetensors").items():
        assert tensor.equal(lmcfast.load_checkpoint(merged)[name])


def test_demo_on_a_narrow_terminal_breaks_no_word(
    command: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "60")
    lines = command.works("demo", *SMALL).out.splitlines()
    assert max(map(len, lines)) <= 60
    text = " ".join(" ".join(lines).split())
    assert "largest relative output error" in text
    assert "written lmcfast-demo: a.safetensors, b.safetensors, b_aligned.safetensors, merged.safetensors," in text


def test_demo_as_json(command: Commands, tmp_path: Path) -> None:
    figures = json.loads(command.works("demo", "-o", tmp_path, *SMALL, "--json").out)
    assert [0 <= row["accuracy"] <= 1 for row in figures["table"]] == [True] * 4
    assert figures["out"] == str(tmp_path)


def test_demo_refuses_its_folder_before_the_training(
    command: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmcfast.study.demo.train", lambda *_, **__: pytest.fail("the training began"))
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "deep", Path("/proc/demo")):
        assert command.fails("demo", "-o", out, folder=tmp_path).startswith(f"error: {out}: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--seeds", "1"], "--seeds"), (["--epochs", "0"], "--epochs"), (["--width", "x"], "--width")],
)
def test_demo_refuses_bad_arguments(command: Commands, tmp_path: Path, arguments: list[str], words: str) -> None:
    assert words in command.fails("demo", "-o", tmp_path / "out", *arguments, folder=tmp_path, code=2)


def on_a_terminal(*arguments: object) -> tuple[int, bytes, str]:
    """Run a command whose stderr is a terminal; returns exit code, stdout, and what the terminal got."""
    terminal, its_end = pty.openpty()
    run = [sys.executable, "-m", "lmcfast", *map(str, arguments)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=its_end, env=environment) as process:
        os.close(its_end)
        screen = b""
        with suppress(OSError):  # Linux ends a terminal whose other side is closed with an error
            while chunk := os.read(terminal, 4096):
                screen += chunk
        os.close(terminal)
        out, _ = process.communicate()
    return process.returncode, out, screen.decode()


def test_a_terminal_gets_a_bar_and_stdout_stays_clean(tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    code, out, screen = on_a_terminal("match", a, b, "-o", tmp_path / "p.safetensors", "--json")
    assert code == 0, screen
    assert json.loads(out)["converged"] is True
    assert "━" in screen
    assert "match: " not in screen
    code, out, screen = on_a_terminal("match", a, tmp_path / "none.pt", "-o", tmp_path / "q.safetensors")
    assert (code, out) == (1, b"")
    assert screen.strip() == f"error: {tmp_path / 'none.pt'}: cannot read: no such file or directory"
