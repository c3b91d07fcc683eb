"""``lmcfast spec``: shown, written, read back, and proved on a network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import networks as networks_helper
from helpers.commands import Commands, mlp, write_planted_pair

import lmcfast

NETWORKS = """
import torch
from torch import nn

def mlp():
    return nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 4))

def square():
    return nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5))

def number():
    return 7

def needs(width):
    return mlp()

def fails():
    raise KeyError("boom\\nand more")

def stops():
    raise SystemExit(3)

nothing = None
"""


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capsys)


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder, under a name that no other test uses."""
    (tmp_path / "networks_for_the_spec_command.py").write_text(NETWORKS)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    return "networks_for_the_spec_command"


def test_print_write_and_read_back(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    spec = tmp_path / "spec.json"
    printed = command.works("spec", a, "-o", spec).out
    report = str(lmcfast.PermutationSpec.load(spec).report())
    assert printed == f"{report}\nwritten  {spec}\n"
    assert "0.weight" in report or "h0" in report
    assert command.works("spec", spec).out == f"{report}\n"
    command.works("match", a, b, "--spec", spec, "-o", tmp_path / "p.safetensors")
    assert command.works("spec", tmp_path / "p.safetensors").out == f"{report}\n"


def test_json(command: Commands, tmp_path: Path) -> None:
    a, _ = write_planted_pair(tmp_path)
    document = json.loads(command.works("spec", a, "--json").out)
    assert document["spec"]["format"] == "lmcfast-spec"
    assert set(document["spec"]["axes"]) == set(mlp(0))
    assert (document["file"], document["verified"], document["out"]) == (str(a), None, None)


def test_no_overwrite(command: Commands, tmp_path: Path) -> None:
    a, _ = write_planted_pair(tmp_path)
    (tmp_path / "spec.json").write_text("old")
    command.fails("spec", a, "-o", tmp_path / "spec.json", "--no-overwrite", folder=tmp_path)
    command.works("spec", a, "-o", tmp_path / "spec.json")
    assert lmcfast.PermutationSpec.load(tmp_path / "spec.json").movable_groups


def test_check_proves_the_spec(command: Commands, tmp_path: Path, networks: str) -> None:
    a, _ = write_planted_pair(tmp_path)
    arguments = ["--check", f"{networks}:mlp", "--input-shape", "8,6"]
    assert len(command.works("spec", a, *arguments).out) > len(command.works("spec", a).out)
    assert json.loads(command.works("spec", a, *arguments, "--json").out)["verified"] is True
    command.works("spec", a, "-o", tmp_path / "spec.json")
    command.works("spec", tmp_path / "spec.json", *arguments)


def test_check_names_the_wrong_tensor_where_shapes_do_not(command: Commands, tmp_path: Path, networks: str) -> None:
    axes = {"0.weight": ("h0", None), "0.bias": ("h0",), "2.weight": ("h1", None), "2.bias": ("h1",)}
    spec = lmcfast.PermutationSpec.from_axes({**axes, "4.weight": (None, "h1"), "4.bias": (None,)})
    spec.save(tmp_path / "spec.json")
    out = tmp_path / "copy.json"
    message = command.fails(
        "spec", "spec.json", "--check", f"{networks}:square", "--input-shape", "8,5", "-o", out, folder=tmp_path
    )
    assert "2.weight" in message or "0.weight" in message or "h0" in message


def test_check_with_another_networks_checkpoint(command: Commands, tmp_path: Path, networks: str) -> None:
    a, _ = write_planted_pair(tmp_path)
    message = command.fails("spec", a, "--check", f"{networks}:square", "--input-shape", "8,5", folder=tmp_path)
    assert message.startswith(f"error: {a}: does not fit the module of --check: ")
    assert "0.weight" in message


def test_full_lists_everything(command: Commands, tmp_path: Path) -> None:
    lmcfast.save_checkpoint(tmp_path / "r.pt", networks_helper.params_of(networks_helper.resnet(blocks=3)))
    short = command.works("spec", tmp_path / "r.pt").out
    full = command.works("spec", tmp_path / "r.pt", "--full").out
    assert len(short.splitlines()) < 20 < len(full.splitlines())
    assert "layer2.2.bn2.running_var" in full
    assert "layer2.2.bn2.running_var" not in short


@pytest.mark.parametrize("columns", [60, 80])
def test_output_fits_the_terminal(
    command: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(columns))
    lmcfast.save_checkpoint("r.pt", networks_helper.params_of(networks_helper.cifar_resnet("pad", blocks=3)))
    for arguments in (["spec", "r.pt"], ["spec", "r.pt", "--full"], ["match", "r.pt", "r.pt", "-o", "p.safetensors"]):
        lines = command.works(*arguments).out.splitlines()
        assert max(map(len, lines)) <= columns


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--check", "{networks}:mlp", "--input-shape", "8,5"],
            "--input-shape: the example inputs (of shape (8, 5)) do",
        ),
        (["--check", "{networks}:mlp", "--input-shape", "8,6", "--input-shape", "2"], "--input-shape: the example inp"),
        (["--check", "{networks}:needs", "--input-shape", "8,6"], "--check: '{networks}:needs' failed: TypeError: "),
        (["--check", "{networks}:fails", "--input-shape", "8,6"], "--check: '{networks}:fails' failed: KeyError: "),
        (["--check", "{networks}:stops", "--input-shape", "8,6"], "--check: '{networks}:stops' failed: SystemExit: 3"),
        (["--check", "broken:mlp", "--input-shape", "8,6"], "--check: module 'broken' cannot be imported: SyntaxError"),
        (
            ["--check", "needy:mlp", "--input-shape", "8,6"],
            "--check: module 'needy' cannot be imported: ModuleNotFoundError: No module named 'no_such_mod",
        ),
    ],
)
def test_check_whose_code_fails(
    command: Commands, tmp_path: Path, networks: str, arguments: list[str], words: str
) -> None:
    a, _ = write_planted_pair(tmp_path)
    (tmp_path / "broken.py").write_text("def mlp(:\n")
    (tmp_path / "needy.py").write_text("import no_such_module_anywhere\n")
    arguments = [argument.format(networks=networks) for argument in arguments]
    message = command.fails("spec", a, *arguments, folder=tmp_path)
    assert message.startswith("error: " + words.format(networks=networks))
    debug = command("spec", a, *arguments, "--debug")
    assert debug.code == 1
    assert "Traceback" in debug.err


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("{networks}", "must be MODULE:FACTORY"),
        ("no_such_module_anywhere:mlp", "no_such_module_anywhere"),
        ("{networks}:missing", "no callable 'missing'"),
        ("{networks}:nothing", "no callable 'nothing'"),
        ("{networks}:number", "gave a int"),
    ],
)
def test_check_targets_that_are_none(command: Commands, tmp_path: Path, networks: str, target: str, words: str) -> None:
    a, _ = write_planted_pair(tmp_path)
    arguments = ["--check", target.format(networks=networks), "--input-shape", "8,6"]
    assert words in command.fails("spec", a, *arguments, folder=tmp_path, code=2)


def test_code_is_traced_and_proved(command: Commands, networks: str, tmp_path: Path) -> None:
    target = f"{networks}:mlp"
    ran = command.works("spec", target, "--input-shape", "8,6", "--check", "-o", tmp_path / "spec.toml")
    assert "verified: 2 groups" in ran.out
    again = command.works("spec", tmp_path / "spec.toml", "--check", target, "--input-shape", "8,6")
    assert "verified: 2 groups" in again.out
    assert lmcfast.PermutationSpec.load(tmp_path / "spec.toml").sizes.keys()


def test_a_folder_goes_by_its_configuration(command: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmcfast.spec import configuration

    find = configuration.importlib.util.find_spec
    monkeypatch.setattr(
        configuration.importlib.util, "find_spec", lambda name: None if name == "transformers" else find(name)
    )
    config = {"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 3, "vocab_size": 11, "n_positions": 5}
    (tmp_path / "config.json").write_text(json.dumps(config))
    ran = command.works("spec", tmp_path, "-o", tmp_path / "spec.toml")
    assert "13 groups" in ran.out
    assert '"transformer.h.{i}.attn.c_attn.weight" = {index = ["0-2"]' in (tmp_path / "spec.toml").read_text()
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": {"AutoModel": "x.X"}}))
    assert "never run" in command("spec", tmp_path).err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["{networks}:mlp"], "inputs are needed"),
        (["{networks}:mlp", "--input-shape", "8,6", "--check", "{networks}:mlp"], "takes no value here"),
        (["{networks}:fails", "--input-shape", "8,6"], "failed: KeyError"),
        (["{networks}:mlp", "--input-shape", "8,5"], "--input-shape"),
        (["spec.json", "--check"], "needs MODULE:FACTORY"),
    ],
)
def test_arguments_for_code(command: Commands, networks: str, arguments: list[str], reason: str) -> None:
    Path("spec.json").write_text(lmcfast.PermutationSpec.from_axes({"w": ("h",)}).to_json())
    ran = command("spec", *(text.format(networks=networks) for text in arguments))
    assert ran.code in (1, 2)
    assert reason in ran.err
    assert len(ran.err.splitlines()) == 1
