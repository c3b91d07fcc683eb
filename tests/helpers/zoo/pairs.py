"""Encoders with decoders, and pairs of towers, of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .configured import PATCHES, configured, two_texts
from .registry import image, tokens

_END = 49
_T5 = {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 44, "num_layers": 2, "num_heads": 4}
_BART = {
    "vocab_size": 50,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 44,
    "decoder_ffn_dim": 40,
}
_WORDS = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 16,
}


def _sound() -> dict[str, Any]:
    return {"input_features": torch.randn(1, 8, 20), "decoder_input_ids": tokens(6, batch=1)}


def _captions() -> dict[str, Any]:
    """The text ends with the end token: the text tower reads its output there."""
    return {"input_ids": torch.cat([tokens(8, _END), torch.full((2, 1), _END)], 1), "pixel_values": image()}


def _likeness(output: Any) -> Any:
    return output.logits_per_image


def _towers() -> Mapping[str, Any]:
    return {"text_config": {**_WORDS, "eos_token_id": _END}, "vision_config": {**PATCHES, "hidden_size": 24}}


configured("t5", "T5ForConditionalGeneration", "T5Config", two_texts, **_T5)
configured("t5_gated", "T5ForConditionalGeneration", "T5Config", two_texts, feed_forward_proj="gated-gelu",
           tie_word_embeddings=False, **_T5)  # fmt: skip
configured("umt5", "UMT5ForConditionalGeneration", "UMT5Config", two_texts, **_T5)
configured("bart", "BartForConditionalGeneration", "BartConfig", two_texts, max_position_embeddings=32, **_BART)
configured("pegasus", "PegasusForConditionalGeneration", "PegasusConfig", two_texts, max_position_embeddings=32,
           **_BART)  # fmt: skip
configured("marian", "MarianMTModel", "MarianConfig", two_texts, max_position_embeddings=32, pad_token_id=0, **_BART)
configured("whisper", "WhisperForConditionalGeneration", "WhisperConfig", _sound, num_mel_bins=8,
           max_source_positions=10, max_target_positions=16, pad_token_id=0, bos_token_id=1, eos_token_id=2,
           decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None, **_BART)  # fmt: skip
configured("clip", "CLIPModel", "CLIPConfig", _captions, _likeness, projection_dim=20, **_towers())
configured("siglip", "SiglipModel", "SiglipConfig", _captions, _likeness, **{
    key: {**value, "hidden_size": 32, "projection_size": 32} for key, value in _towers().items()
})  # fmt: skip
