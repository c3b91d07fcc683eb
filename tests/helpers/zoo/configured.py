"""transformers' networks from small configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from .registry import Network, add, image, tokens
from .sources import source

Inputs = Callable[[], Mapping[str, Any]]

LANGUAGE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
GROUPED: dict[str, Any] = {**LANGUAGE, "num_key_value_heads": 2}
GPT: dict[str, Any] = {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
PATCHES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}


def words() -> dict[str, Any]:
    return {"input_ids": tokens()}


def masked_words() -> dict[str, Any]:
    return {"input_ids": tokens(), "attention_mask": torch.ones(2, 9, dtype=torch.long)}


def pixels() -> dict[str, Any]:
    return {"pixel_values": image()}


def two_texts() -> dict[str, Any]:
    return {"input_ids": tokens(), "decoder_input_ids": tokens(6)}


def configured(
    name: str,
    model: str,
    config: str,
    inputs: Inputs = words,
    outputs: Callable[[Any], Any] | None = None,
    finish: Callable[[Any, Mapping[str, Any]], None] | None = None,
    lost: str = "",
    **options: Any,
) -> None:
    """Declares ``transformers.<model>`` of ``transformers.<config>(**options)``; ``finish`` may settle its weights."""

    def make() -> Network:
        transformers = source("transformers")
        module = _module(getattr(transformers, model), getattr(transformers, config)(**options))
        example = dict(inputs())
        if finish is not None:
            finish(module, example)
        return Network(module, (), example, outputs)

    add(name, "transformers", make, lost)


def _module(model: Any, config: Any) -> Any:
    config.use_cache = False
    try:
        config._attn_implementation = "sdpa"
        return model(config)
    except ValueError:  # this class has no sdpa
        config._attn_implementation = "eager"
        return model(config)
