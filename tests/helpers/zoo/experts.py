"""Language models of transformers with routed experts."""

from __future__ import annotations

from typing import Any

import torch

from .configured import GROUPED, LANGUAGE, configured, two_texts


def _masked_texts() -> dict[str, Any]:
    """The encoder insists on its mask."""
    return {**two_texts(), "attention_mask": torch.ones(2, 9, dtype=torch.long)}


_MANY = {"num_experts": 6, "num_experts_per_tok": 2, **GROUPED}
_GROUPS = {
    "n_routed_experts": 8,
    "n_group": 2,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 12,
    "q_lora_rank": 16,
    "kv_lora_rank": 12,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
    **LANGUAGE,
}

configured("mixtral", "MixtralForCausalLM", "MixtralConfig", num_local_experts=4, **GROUPED)
configured("qwen2_moe", "Qwen2MoeForCausalLM", "Qwen2MoeConfig", moe_intermediate_size=12,
           shared_expert_intermediate_size=20, **_MANY)  # fmt: skip
configured("qwen3_moe", "Qwen3MoeForCausalLM", "Qwen3MoeConfig", moe_intermediate_size=12, head_dim=8, **_MANY)
configured("olmoe", "OlmoeForCausalLM", "OlmoeConfig", **_MANY)
configured("phimoe", "PhimoeForCausalLM", "PhimoeConfig", num_local_experts=4, **GROUPED)
configured("granite_moe", "GraniteMoeForCausalLM", "GraniteMoeConfig", num_local_experts=4, **GROUPED)
configured("gpt_oss", "GptOssForCausalLM", "GptOssConfig", num_local_experts=4, num_experts_per_tok=2, head_dim=8,
           **GROUPED)  # fmt: skip
configured("deepseek_v2", "DeepseekV2ForCausalLM", "DeepseekV2Config", topk_method="group_limited_greedy",
           n_shared_experts=1, **_GROUPS)  # fmt: skip
configured("deepseek_v3", "DeepseekV3ForCausalLM", "DeepseekV3Config", **_GROUPS)
configured("switch_transformer", "SwitchTransformersForConditionalGeneration", "SwitchTransformersConfig",
           inputs=_masked_texts, vocab_size=50,
           d_model=32, d_kv=8, d_ff=44, num_layers=2, num_decoder_layers=2, num_heads=4, num_experts=4)  # fmt: skip
