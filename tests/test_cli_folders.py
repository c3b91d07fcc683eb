"""``match``, ``apply`` and ``merge`` on Hugging Face folders, whose keys are not the names in the spec."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import Commands, assert_same_params, mlp, write_planted_pair
from helpers.folders import GPT2, LLAMA, write_pair

import lmcfast
from lmcfast.io import read_weights
from lmcfast.spec import configuration
from lmcfast.spec.tables.by_config import table_for


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capsys)


@pytest.fixture(autouse=True)
def shipped_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where transformers is not installed: a table is quick, a derivation is not."""
    find = configuration.importlib.util.find_spec
    monkeypatch.setattr(
        configuration.importlib.util, "find_spec", lambda name: None if name == "transformers" else find(name)
    )


@pytest.mark.parametrize(("name", "files"), [("llama", 1), ("gpt2", 3), ("mixtral", 1)])
def test_a_hidden_permutation_is_recovered(command: Commands, tmp_path: Path, name: str, files: int) -> None:
    a, b = write_pair(tmp_path, name, files)
    weights = a / "model.safetensors"
    p, aligned, merged = (tmp_path / f"{k}.safetensors" for k in ("p", "b2", "m"))
    found = json.loads(command.works("match", a, b, "-o", p, "--json").out)
    assert (found["unchecked_spec"], found["distance_after"]) == (None, 0)
    assert found["distance_before"] > 1
    applied = json.loads(command.works("apply", p, b, "-o", aligned, "--json").out)
    assert (applied["tensors"], applied["unchecked_spec"]) == (len(lmcfast.load_checkpoint(weights)), None)
    assert_same_params(aligned, weights)
    command.works("merge", a, b, "--permutations", p, "-o", merged)
    assert_same_params(merged, weights)
    command.works("merge", a, b, "-o", merged)
    assert_same_params(merged, weights)


def test_files_with_a_spec_of_another_place(command: Commands, tmp_path: Path) -> None:
    """Files beside no configuration: the spec comes from a folder, its config.json, or a spec file of it."""
    a, _ = write_pair(tmp_path, "gpt2")
    file, spec = a / "model.safetensors", tmp_path / "spec.toml"
    command.works("spec", a, "-o", spec)
    for source in (a, a / "config.json", spec):
        out = tmp_path / "m.safetensors"
        ran = command.works("merge", file, tmp_path / "b" / "model.safetensors", "--spec", source, "-o", out, "--json")
        assert json.loads(ran.out)["unchecked_spec"] == (str(spec) if source == spec else None)
        assert_same_params(out, file)


def test_a_spec_from_code(command: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code_for_the_match_command.py").write_text(
        "from torch import nn\n\n"
        "def mlp():\n"
        "    return nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 4))\n"
    )
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    a, b = write_planted_pair(tmp_path)
    lmcfast.save_checkpoint(a, {f"module.{name}": tensor for name, tensor in lmcfast.load_checkpoint(a).items()})
    lmcfast.save_checkpoint(b, {f"module.{name}": tensor for name, tensor in lmcfast.load_checkpoint(b).items()})
    target, out = "code_for_the_match_command:mlp", tmp_path / "m.safetensors"
    command.works("merge", a, b, "--spec", target, "--input-shape", "8,6", "-o", out)
    assert_same_params(out, a)
    arguments = ["match", a, b, "-o", tmp_path / "p.safetensors"]
    assert "inputs are needed" in command.fails(*arguments, "--spec", target, folder=tmp_path, code=2)
    assert "has no effect" in command.fails(*arguments, "--input-shape", "8,6", folder=tmp_path, code=2)
    message = command.fails(*arguments, "--spec", target, "--input-shape", "8,5", folder=tmp_path)
    assert "--input-shape" in message


def test_errors_name_folder_and_reason(command: Commands, tmp_path: Path) -> None:
    a, b = write_pair(tmp_path, "llama")
    arguments = ["match", a, b, "-o", tmp_path / "p.safetensors"]
    tensors = lmcfast.load_checkpoint(a / "model.safetensors")

    def said(change: Mapping[str, Any], *options: object) -> str:
        (a / "config.json").write_text(json.dumps({**LLAMA, **change}))
        return command.fails(*arguments, *options, folder=tmp_path)

    assert said({"model_type": "own"}).startswith(f"error: {a}: there is no table for model_type 'own'")
    assert "length 24, not 25" in said({"intermediate_size": 25})
    message = said({"num_hidden_layers": 1})
    assert message.startswith(f"error: {a}: keys and names of the spec differ: no tensor of the spec for the keys ")
    assert "'model.layers.1.input_layernorm.weight'" in message
    message = said({"num_hidden_layers": 3})
    assert "no key for 'model.layers.2." in message
    (tmp_path / "other.json").write_text(table_for(GPT2).to_json())
    message = said({}, "--spec", tmp_path / "other.json")
    assert message.startswith(f"error: {a}: does not fit the spec in {tmp_path / 'other.json'}: keys and names")
    del tensors["model.norm.weight"]
    for folder in (a, b):
        lmcfast.save_checkpoint(folder / "model.safetensors", tensors)
    assert "no key for 'model.norm.weight'" in said({})


def test_indexes_that_are_wrong(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    lmcfast.save_checkpoint(tmp_path / "x.safetensors", mlp(0))
    lmcfast.save_checkpoint(tmp_path / "y.safetensors", mlp(0))
    for text, reason in (
        ("{", "no JSON"),
        ("[]", "no 'weight_map'"),
        ('{"weight_map": {"w": "../x.safetensors"}}', "no file of this folder"),
        ('{"weight_map": {"w": "z.safetensors"}}', "no such file"),
        ('{"weight_map": {"v": "x.safetensors", "w": "y.safetensors"}}', "stands in another file"),
    ):
        index.write_text(text)
        with pytest.raises(lmcfast.CheckpointError, match=reason):
            read_weights(tmp_path)


def test_the_weights_of_a_folder_are_not_overwritten(command: Commands, tmp_path: Path) -> None:
    a, b = write_pair(tmp_path, "llama")
    message = command.fails("merge", a, b, "-o", b / "model.safetensors", folder=tmp_path)
    assert "would overwrite an input" in message
