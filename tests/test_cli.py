"""The application as a whole: help, versions, exit codes, and what it must not import."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.commands import Commands, mlp

import lmcfast
from lmcfast.cli import app
from lmcfast.cli.info import built_for_gpu

COMMANDS = ["demo", "match", "apply", "align", "merge", "barrier", "analyze", "study", "spec", "info"]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capsys)


def fresh(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run ``python -m lmcfast`` in a process of its own."""
    run = [sys.executable, "-m", "lmcfast", *arguments]
    return subprocess.run(run, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]


def test_every_command_is_tested_here() -> None:
    assert [info.callback.__name__ for info in app.registered_commands if info.callback] == COMMANDS


@pytest.mark.parametrize("arguments", [["--help"], [], *([name, "--help"] for name in COMMANDS)])
def test_help_has_an_example_that_can_be_copied(command: Commands, arguments: list[str]) -> None:
    ran = command.works(*arguments)
    assert ran.err == ""
    _, _, examples = ran.out.partition("Example:\n")
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    assert lines
    assert all(line.startswith("lmcfast ") for line in lines)
    assert lines[0].startswith(" ".join(["lmcfast", *arguments[:-1]]))
    assert all(len(line) < 110 for line in ran.out.splitlines())


@pytest.mark.parametrize("name", ["match", "apply", "merge", "spec"])
def test_help_says_what_happens_to_existing_output(command: Commands, name: str) -> None:
    text = " ".join(command.works(name, "--help").out.split())
    assert "is replaced, in one step" in text
    assert "--no-overwrite" in text


def test_help_is_quick_and_does_not_import_torch() -> None:
    code = """
import sys, time
begin = time.perf_counter()
from lmcfast.cli import main
code = main(sys.argv[1:])
seconds = time.perf_counter() - begin
assert "torch" not in sys.modules and "numpy" not in sys.modules
print("seconds", seconds)
raise SystemExit(code)
"""
    seconds = []
    for arguments in (["--help"], ["merge", "--help"], ["--version"]):
        ran = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        seconds.append(float(ran.stdout.split()[-1]))
    assert min(seconds) < 0.5  # the smallest: other processes may hold the machine


def test_version(command: Commands) -> None:
    assert command.works("--version").out == f"lmcfast {lmcfast.__version__}\n"
    assert fresh("--version").stdout == f"lmcfast {lmcfast.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "nonsense"),
        (["--nonsense"], "--nonsense"),
        (["match"], "A"),
        (["match", "a", "b"], "--out"),
        (["match", "a", "b", "-o", "p.safetensors", "--start", "nowhere"], "'nowhere'"),
        (["match", "a", "b", "-o", "p.safetensors", "--restarts", "0"], "--restarts"),
        (["match", "a", "b", "-o", "p.safetensors", "--max-sweeps", "many"], "--max-sweeps"),
        (["match", "a", "b", "-o", "p.safetensors", "--seed", "-1"], "--seed: must be a whole number from 0 to 2^63"),
        (["merge", "a", "b", "-o", "m.pt", "--seed", str(2**63)], f"2^63 - 1, not {2**63}"),
        (["match", "a", "b", "-o", "p.safetensors", "--device", "tpu"], "--device: must be cpu, cuda or cuda:N"),
        (["demo", "--seeds", "-1,0"], "--seeds"),
        (["merge", "a", "b", "-o", "m.pt", "--weights", "1"], "--weights"),
        (["merge", "a", "b", "-o", "m.pt", "--weights", "x,y"], "'x,y'"),
        (["merge", "a", "b", "-o", "m.pt", "--weights", "0.5,0.6"], "add up to 1"),
        (["merge", "a", "b", "-o", "m.pt", "--weights", "nan,nan"], "add up to 1"),
        (["merge", "a", "b", "-o", "m.pt", "--weights", "1.5,-0.5"], "0 .. 1"),
        (["merge", "a", "b", "-o", "m.pt", "--permutations", "p", "--seed", "0"], "--seed"),
        (["merge", "a", "b", "-o", "m.pt", "--permutations", "p", "--max-sweeps", "9"], "--max-sweeps"),
        (["merge", "a", "b", "-o", "m.pt", "--ignore-sources"], "--ignore-sources"),
        (["apply", "p"], "B"),
        (["spec"], "FILE"),
        (["spec", "a", "-o", "s.yaml"], ".json or .toml"),
        (["spec", "a", "--check", "m:f"], "--input-shape"),
        (["spec", "a", "--input-shape", "1,2"], "--check"),
        (["spec", "a", "--check", "m:f", "--input-shape", "1,x"], "'1,x'"),
        (["spec", "a", "--check", "m:f", "--input-shape", "0"], "'0'"),
    ],
)
def test_bad_arguments_give_one_line_and_code_2(
    command: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in command.fails(*arguments, folder=tmp_path, code=2)


def test_info(command: Commands) -> None:
    figures = dict(line.split(maxsplit=1) for line in command.works("info").out.splitlines() if line[0] != " ")
    assert figures["lmcfast"] == lmcfast.__version__
    found = json.loads(command.works("info", "--json").out)
    assert found["lmcfast"] == lmcfast.__version__
    assert found["torch"][0].isdigit()
    assert found["extension"]


def test_info_is_quick_and_does_not_import_torch_built_for_the_cpu(tmp_path: Path) -> None:
    note = tmp_path / "version.py"
    for text, wanted in (
        ("from typing import Optional\ncuda: Optional[str] = None\nhip: Optional[str] = None\n", False),
        ("cuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n", True),
        ("cuda = None\nhip = '6.2'\n", True),
        ("cuda = something()\n", True),
        ("", True),
    ):
        note.write_text(text)
        assert built_for_gpu(note) is wanted
    assert built_for_gpu(tmp_path / "none.py")
    if torch.version.cuda is None and torch.version.hip is None:
        code = """
import sys
from lmcfast.cli import main
code = main(["info"])
assert "torch" not in sys.modules
raise SystemExit(code)
"""
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_info_without_the_extension_says_so_and_fails() -> None:
    code = "import sys; sys.modules['lmcfast._core'] = None; from lmcfast.cli import main; sys.exit(main(['info']))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "torch" in ran.stdout
    assert (
        "error: lmcfast's compiled extension cannot be imported" in ran.stderr
    )  # after a note where torch loads slowly
    assert len(ran.stderr.splitlines()) == 1


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.pt")
    plain, debug = fresh("spec", missing), fresh("spec", missing, "--debug")
    assert plain.returncode == debug.returncode == 1
    assert plain.stderr.splitlines() == [f"error: {missing}: cannot read: no such file or directory"]
    assert "Traceback" in debug.stderr
    assert "CheckpointError" in debug.stderr


def test_a_reader_that_stops_early_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        run = [sys.executable, "-m", "lmcfast", "--help"]
        ran = subprocess.run(run, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writing)
    assert ran.stderr == ""
    assert ran.returncode == 141


def test_a_reader_that_stops_after_one_line(tmp_path: Path) -> None:
    """The report is still in the buffer when the reader goes; it fails while the program ends."""
    lmcfast.save_checkpoint(tmp_path / "a.safetensors", mlp(0))
    script = f"{shlex.quote(sys.executable)} -m lmcfast spec a.safetensors --json; echo $? >&2"
    run = ["bash", "-c", f"({script}) | (exec 0<&-; exit 0)"]
    ran = subprocess.run(run, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.stderr == "141\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_writing_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """The process signals itself from inside the library's write: the moment at which a half file exists."""
    code = """
import os, sys
import safetensors.torch
from lmcfast.cli import main
def interrupted(tensors, path, metadata):
    with open(path, "wb") as file:
        file.write(b"half")
    os.kill(os.getpid(), int(sys.argv[1]))
safetensors.torch.save_file = interrupted
raise SystemExit(main(sys.argv[2:]))
"""
    lmcfast.save_checkpoint(tmp_path / "a.safetensors", mlp(0))
    lmcfast.save_checkpoint(tmp_path / "b.safetensors", mlp(1))
    before = sorted(os.listdir(tmp_path))
    paths = [str(tmp_path / name) for name in ("a.safetensors", "b.safetensors")]
    arguments = [str(int(number)), "merge", *paths, "-o", str(tmp_path / "m.safetensors")]
    ran = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    word, code_wanted = {signal.SIGINT: ("interrupted", 130), signal.SIGTERM: ("terminated", 143)}[number]
    assert ran.returncode == code_wanted
    assert ran.stderr.splitlines()[-1] == f"error: {word}; no output was written"
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("module", ["typer", "lmcfast.cli.common", "torch", "lmcfast.merging.files"])
def test_an_interrupt_during_an_import_is_one_line(tmp_path: Path, module: str) -> None:
    code = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from lmcfast.cli import main
raise SystemExit(main(sys.argv[2:]))
"""
    lmcfast.save_checkpoint(tmp_path / "a.safetensors", mlp(0))
    arguments = ["match", "a.safetensors", "a.safetensors", "-o", "p.safetensors"]
    run = [sys.executable, "-c", code, module, *arguments]
    ran = subprocess.run(run, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.stderr == "error: interrupted; no output was written\n"
    assert ran.returncode == 130
