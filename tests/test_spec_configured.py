"""Specs by configuration: the shipped tables against the derivation, both ways, and what has no way to a spec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import lmcfast
from lmcfast.errors import CheckpointError, SpecError
from lmcfast.spec import configuration, derive_spec, difference, verify_spec
from lmcfast.spec.tables.by_config import table_for, table_types
from lmcfast.spec.trial import Trial

SMALL = {
    "hidden_size": 16,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 24,
    "vocab_size": 50,
    "max_position_embeddings": 32,
}
GROUPED = {**SMALL, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
T5 = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4, "vocab_size": 50}
PIXELS = {"image_size": 8, "patch_size": 4}


def config(kind: str, network: str, **values: Any) -> dict[str, Any]:
    return {"model_type": kind, "architectures": [network], **values}


CONFIGS = {
    "llama": config("llama", "LlamaForCausalLM", **GROUPED),
    "llama with biases": config("llama", "LlamaForCausalLM", **GROUPED, attention_bias=True, mlp_bias=True),
    "llama without groups": config(
        "llama", "LlamaForCausalLM", **{**GROUPED, "num_key_value_heads": 4}, tie_word_embeddings=True
    ),
    "llama with one shared head": config("llama", "LlamaForCausalLM", **{**GROUPED, "num_key_value_heads": 1}),
    "mistral": config("mistral", "MistralForCausalLM", **GROUPED),
    "qwen2": config("qwen2", "Qwen2ForCausalLM", **GROUPED),
    "qwen3": config("qwen3", "Qwen3ForCausalLM", **GROUPED, head_dim=6),
    "gemma": config("gemma", "GemmaForCausalLM", **GROUPED, head_dim=4, tie_word_embeddings=True),
    "granite": config("granite", "GraniteForCausalLM", **GROUPED),
    "phi3": config("phi3", "Phi3ForCausalLM", **GROUPED),
    "mixtral": config("mixtral", "MixtralForCausalLM", **GROUPED, num_local_experts=3),
    "gpt2": config("gpt2", "GPT2LMHeadModel", n_embd=16, n_head=4, n_layer=2, vocab_size=50, n_positions=32),
    "gpt_neox": config("gpt_neox", "GPTNeoXForCausalLM", **SMALL, rotary_pct=0.5),
    "bert": config("bert", "BertForMaskedLM", **SMALL),
    "bert untied": config("bert", "BertForMaskedLM", **SMALL, tie_word_embeddings=False),
    "roberta": config("roberta", "RobertaForMaskedLM", **SMALL, pad_token_id=1),
    "vit": config("vit", "ViTForImageClassification", **SMALL, **PIXELS),
    "t5": config(
        "t5", "T5ForConditionalGeneration", d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4, vocab_size=50
    ),
    "t5 gated": config(
        "t5",
        "T5ForConditionalGeneration",
        **T5,
        feed_forward_proj="gated-gelu",
    ),
    "clip": config(
        "clip",
        "CLIPModel",
        projection_dim=12,
        text_config={**SMALL, "eos_token_id": 2},
        vision_config={**{name: SMALL[name] for name in list(SMALL)[:4]}, **PIXELS},
    ),
}


QUICK = ("llama with biases", "phi3", "mixtral", "gpt2", "bert")
"""Of the tables, one of each kind is compared with the derivation in every run, the others in long ones."""


def test_every_table_is_tried() -> None:
    tried = {entry["model_type"] for entry in CONFIGS.values()}
    assert set(table_types()) - tried == {"xlm-roberta", "camembert"}  # RoBERTa under other names


@pytest.fixture(scope="module")
def networks() -> Any:
    """Makes the networks of configurations, on the CPU with random weights."""
    pytest.importorskip("transformers", reason="the tables are checked against transformers' classes")
    from helpers.zoo.sources import source

    source("transformers")
    made: dict[str, Any] = {}

    def make(name: str) -> Any:
        if name not in made:
            torch.manual_seed(0)
            made[name] = configuration.make_network(CONFIGS[name], "cpu")
        return made[name]

    return make


def inputs(network: Any) -> dict[str, torch.Tensor]:
    found = configuration.example_inputs(network)
    return {name: torch.randn(x.shape) if x.is_floating_point() else x for name, x in found.items()}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in CONFIGS]
)
def test_tables_equal_the_derivation(name: str, networks: Any) -> None:
    network = networks(name)
    table = table_for(CONFIGS[name])
    derived = derive_spec(network, (), inputs(network), configuration.default_choice(network))
    assert difference(table, derived) is None
    assert table.bits == pytest.approx(derived.bits)


@pytest.mark.parametrize(
    "name",
    ["phi3", "gpt2", pytest.param("gpt_neox", marks=pytest.mark.long), pytest.param("clip", marks=pytest.mark.long)],
)
def test_tables_are_proved(name: str, networks: Any) -> None:
    network = networks(name)
    report = verify_spec(table_for(CONFIGS[name]), network, (), inputs(network), configuration.default_choice(network))
    assert report.max_error < 1e-12


def test_a_wrong_table_is_found_out(networks: Any) -> None:
    """Rotary dimensions set free: not equal, and refused by the proof."""
    network = networks("mistral")
    table = table_for(CONFIGS["mistral"])
    text = table.to_toml().replace("q.{i} _4", "q.{i} v.{i}").replace('"kv.{i} _4"', '"kv.{i} v.{i}"')
    wrong = lmcfast.PermutationSpec.from_toml(text)
    assert "self_attn" in str(difference(wrong, table))
    trial = Trial(wrong, network, (), inputs(network), None)
    assert trial.error(trial.moved(trial.spec, trial.spec.random_permutations(1))) > 1e-4


def test_spec_for_derives_or_takes_the_table(tmp_path: Path, networks: Any) -> None:
    networks("llama")
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["llama"]))
    derived = lmcfast.spec_for(tmp_path)
    assert derived.same(lmcfast.spec_for(tmp_path / "config.json", derive=False))
    assert derived == lmcfast.spec_for(CONFIGS["llama"]) == lmcfast.spec_for(networks("llama").config)


def test_own_code_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("raise SystemExit('this was run')")
    own = {"auto_map": {"AutoModelForCausalLM": "own.Own"}, "model_type": "own", "architectures": ["Own"]}
    (tmp_path / "config.json").write_text(json.dumps(own))
    with pytest.raises(SpecError, match=r"names code of its own \(auto_map\), which is never run.*write a spec file"):
        lmcfast.spec_for(tmp_path)
    llama = {**CONFIGS["llama"], **{"auto_map": own["auto_map"]}}
    assert lmcfast.spec_for(llama) == table_for(CONFIGS["llama"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": None}, "has no model_type"),
        ({"model_type": "never_heard_of"}, "there is no table for model_type 'never_heard_of'"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "not for architecture 'LlamaForSequence"),
        ({"hidden_size": None}, "the configuration has no 'hidden_size'"),
        ({"hidden_size": "16"}, "hidden_size = '16', not a positive number"),
    ],
)
def test_configurations_without_a_table(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as caught:
        lmcfast.spec_for({**CONFIGS["llama"], **change}, derive=False)
    assert "\n" not in str(caught.value)


def test_an_unknown_type_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    find = configuration.importlib.util.find_spec
    monkeypatch.setattr(
        configuration.importlib.util, "find_spec", lambda name: None if name == "transformers" else find(name)
    )
    assert lmcfast.spec_for(CONFIGS["gpt2"]) == table_for(CONFIGS["gpt2"])
    with pytest.raises(
        SpecError, match=r"no table for model_type 'opt', and transformers is not installed; tables: llama"
    ):
        lmcfast.spec_for({"model_type": "opt"})
    with pytest.raises(SpecError, match="not one that an installed transformers knows"):
        lmcfast.spec_for(CONFIGS["gpt2"], derive=True)


@pytest.mark.parametrize(("content", "reason"), [("{", "no JSON"), ("[]", "not a configuration but a list")])
def test_broken_files(content: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot read"):
        lmcfast.spec_for(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=reason):
        lmcfast.spec_for(tmp_path)
    with pytest.raises(SpecError, match="not int"):
        lmcfast.spec_for(3)


def test_tiny_keeps_the_kind() -> None:
    large = {
        **CONFIGS["clip"],
        "text_config": {**SMALL, "num_hidden_layers": 12, "vocab_size": 49408, "eos_token_id": 49407},
    }
    small = configuration.tiny(large)["text_config"]
    assert (small["num_hidden_layers"], small["vocab_size"], small["eos_token_id"]) == (2, 1000, 999)
