"""A merged folder is a model of transformers like its parents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.folders import read_folder

import lmcfast
from lmcfast.io.shards import LazyCheckpoint
from lmcfast.merging import FolderOptions, align_checkpoint, merge_checkpoints
from lmcfast.merging.families import residual_groups
from lmcfast.merging.sources import bind, spec_of_sources

transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra: zoo)")

SMALL = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2}
DECODER = {**SMALL, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
DECODER |= {"num_key_value_heads": 2}
NETWORKS: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": DECODER,
    "MixtralForCausalLM": {**DECODER, "num_local_experts": 4},
    "GPT2LMHeadModel": {**SMALL, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32},
}


def write_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """A as transformers writes it, in several files, and B: A with the units of all layers shuffled."""
    kind = getattr(transformers, name)
    torch.manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        network = kind(kind.config_class(**NETWORKS[name]))
    a, b = folder / "a", folder / "b"
    network.save_pretrained(a, max_shard_size="40KB")
    with LazyCheckpoint(a) as source:
        spec, model = bind(spec_of_sources("auto", source), source)
        keys = {key: source.read(entry) for key, entry in source.entries.items()}
    setting = spec.random_permutations(1)
    setting |= {group: torch.arange(spec.sizes[group]) for group in residual_groups(spec)}
    shuffled = model.names.to_checkpoint(lmcfast.apply_permutations(spec, setting, model.names.to_module(keys)), keys)
    b.mkdir()
    (b / "config.json").write_bytes((a / "config.json").read_bytes())
    lmcfast.save_checkpoint(b / "model.safetensors", shuffled, {"format": "pt"})
    return a, b


def logits(folder: Path) -> torch.Tensor:
    network = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        found: torch.Tensor = network(torch.arange(3, 23).reshape(2, 10)).logits
    return found


@pytest.mark.parametrize("name", list(NETWORKS))
def test_merged_and_aligned_folders_load_and_compute_what_the_parent_does(tmp_path: Path, name: str) -> None:
    a, b = write_pair(tmp_path, name)
    options = FolderOptions(prove=False)
    merged = merge_checkpoints([a, b], tmp_path / "m", options=options)
    align_checkpoint(a, b, tmp_path / "b2", options=options)
    assert not merged.identity_won
    wanted = logits(a)
    torch.testing.assert_close(logits(b), wanted, rtol=1e-4, atol=1e-5)
    for folder in ("m", "b2"):
        assert all(torch.equal(tensor, read_folder(a)[key]) for key, tensor in read_folder(tmp_path / folder).items())
        assert torch.equal(logits(tmp_path / folder), wanted)


@pytest.mark.long
def test_the_spec_of_a_folder_is_proved_first(tmp_path: Path) -> None:
    a, b = write_pair(tmp_path, "GPT2LMHeadModel")
    assert merge_checkpoints([a, b], tmp_path / "m").proved
