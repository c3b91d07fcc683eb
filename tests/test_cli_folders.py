"""``match``, ``apply`` and ``merge`` on Hugging Face folders, whose keys are not the names in the spec."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import Commands, assert_same_params, mlp, write_planted_pair

import lmcfast
from lmcfast.io import read_weights
from lmcfast.spec import configuration
from lmcfast.spec.layout import layout_size
from lmcfast.spec.tables.by_config import table_for

Tensors = dict[str, torch.Tensor]

SMALL = {
    "hidden_size": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 24,
    "vocab_size": 50,
}
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **SMALL, "tie_word_embeddings": True}
MIXTRAL = {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], **SMALL, "num_local_experts": 3}
GPT2 = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
GPT2 |= {"n_embd": 16, "n_head": 4, "n_layer": 2, "vocab_size": 50, "n_positions": 12}


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


def llama_keys(params: Mapping[str, torch.Tensor]) -> Tensors:
    """The tied head stands in the file once."""
    return {name: tensor for name, tensor in params.items() if name != "lm_head.weight"}


def gpt2_keys(params: Mapping[str, torch.Tensor]) -> Tensors:
    """As OpenAI's checkpoint: no ``transformer.``, no head, and the causal masks beside the weights."""
    keys = {name.removeprefix("transformer."): tensor for name, tensor in params.items() if name != "lm_head.weight"}
    return keys | {f"h.{i}.attn.bias": torch.ones(1, 1, 12, 12).tril() for i in range(2)}


def mixtral_keys(params: Mapping[str, torch.Tensor]) -> Tensors:
    """Experts one by one, gate and up projection apart."""
    keys: Tensors = {}
    for name, tensor in params.items():
        old = name.replace(".mlp.", ".block_sparse_moe.")
        before = old.rpartition(".")[0]
        if name.endswith("gate_up_proj"):
            for e, expert in enumerate(tensor):
                keys[f"{before}.{e}.w1.weight"], keys[f"{before}.{e}.w3.weight"] = expert.chunk(2)
        elif name.endswith("experts.down_proj"):
            keys |= {f"{before}.{e}.w2.weight": expert for e, expert in enumerate(tensor)}
        else:
            keys[old] = tensor
    return keys


NETWORKS = {"llama": (LLAMA, llama_keys), "gpt2": (GPT2, gpt2_keys), "mixtral": (MIXTRAL, mixtral_keys)}


def random_params(spec: lmcfast.PermutationSpec, seed: int) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    params: Tensors = {}
    for name, layouts in spec.axes.items():
        shape = [layout_size(layout, spec.sizes) for layout in layouts]
        params[name] = torch.randn(shape, generator=generator)
    return params | {alias: params[name] for alias, name in spec.tied.items()}


def write_folder(path: Path, config: Mapping[str, Any], tensors: Tensors, files: int = 1) -> None:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    if files == 1:
        lmcfast.save_checkpoint(path / "model.safetensors", tensors)
        return
    names = list(tensors)
    parts = {f"model-{k + 1}-of-{files}.safetensors": names[k::files] for k in range(files)}
    for file, keys in parts.items():
        lmcfast.save_checkpoint(path / file, {key: tensors[key] for key in keys})
    places = {key: file for file, keys in parts.items() for key in keys}
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def write_pair(folder: Path, name: str, files: int = 1) -> tuple[Path, Path]:
    """Folders A and B, where B is A with all its units shuffled."""
    config, keys = NETWORKS[name]
    spec = table_for(config)
    params = random_params(spec, 0)
    shuffled = lmcfast.apply_permutations(spec, spec.random_permutations(seed=1), params)
    write_folder(folder / "a", config, keys(params))
    write_folder(folder / "b", config, keys(shuffled), files)
    return folder / "a", folder / "b"


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
