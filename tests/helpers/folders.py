"""Small checkpoints as Hugging Face stores them: folders whose keys are not the names in the spec."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import lmcfast
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


def write_kept_pair(folder: Path, name: str, files: int = 1, dtype: torch.dtype = torch.float32) -> tuple[Path, Path]:
    """As :func:`write_pair` with the residual stream left where it is; A too in ``files`` parts."""
    config, keys = NETWORKS[name]
    spec = table_for(config)
    params = {key: tensor.to(dtype) for key, tensor in random_params(spec, 0).items()}
    setting = spec.random_permutations(seed=1) | {"stream": torch.arange(spec.sizes["stream"])}
    shuffled = lmcfast.apply_permutations(spec, setting, params)
    write_folder(folder / "a", config, keys(params), files)
    write_folder(folder / "b", config, keys(shuffled), files)
    return folder / "a", folder / "b"


def read_folder(path: Path) -> Tensors:
    """All tensors of a folder."""
    from lmcfast.io import read_weights

    return read_weights(path).tensors


def change_tensor(folder: Path, key: str, tensor: torch.Tensor | None) -> Path:
    """Replace a tensor of a folder, or remove it; the file that held it."""
    for file in sorted(folder.glob("*.safetensors")):
        tensors = lmcfast.load_checkpoint(file)
        if key in tensors:
            kept = {**tensors, key: tensor}
            lmcfast.save_checkpoint(file, {name: value for name, value in kept.items() if value is not None})
            return file
    raise KeyError(key)
