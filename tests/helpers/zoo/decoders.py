"""Language models of transformers that write from left to right."""

from __future__ import annotations

from .configured import GPT, GROUPED, LANGUAGE, configured

_HEADED = {**GROUPED, "head_dim": 8}

configured("gpt2", "GPT2LMHeadModel", "GPT2Config", **GPT)
configured("gpt_neo", "GPTNeoForCausalLM", "GPTNeoConfig", vocab_size=50, hidden_size=32, num_layers=2, num_heads=4,
           attention_types=[[["global", "local"], 1]], max_position_embeddings=32)  # fmt: skip
configured("gpt_neox", "GPTNeoXForCausalLM", "GPTNeoXConfig", **LANGUAGE)
configured("gptj", "GPTJForCausalLM", "GPTJConfig", rotary_dim=4, **GPT)
configured("codegen", "CodeGenForCausalLM", "CodeGenConfig", rotary_dim=4, **GPT)
configured("gpt_bigcode", "GPTBigCodeForCausalLM", "GPTBigCodeConfig", **GPT)
configured("llama", "LlamaForCausalLM", "LlamaConfig", **GROUPED)
configured("llama_biases", "LlamaForCausalLM", "LlamaConfig", attention_bias=True, mlp_bias=True, **GROUPED)
configured("mistral", "MistralForCausalLM", "MistralConfig", **GROUPED)
configured("qwen2", "Qwen2ForCausalLM", "Qwen2Config", **GROUPED)
configured("qwen3", "Qwen3ForCausalLM", "Qwen3Config", **_HEADED)
configured("gemma", "GemmaForCausalLM", "GemmaConfig", **_HEADED)
configured("gemma2", "Gemma2ForCausalLM", "Gemma2Config", **_HEADED)
configured("gemma3", "Gemma3ForCausalLM", "Gemma3TextConfig", **_HEADED)
configured("phi", "PhiForCausalLM", "PhiConfig", **LANGUAGE)
configured("phi3", "Phi3ForCausalLM", "Phi3Config", **GROUPED)
configured("olmo", "OlmoForCausalLM", "OlmoConfig", **GROUPED)
configured("olmo2", "Olmo2ForCausalLM", "Olmo2Config", **GROUPED)
configured("stablelm", "StableLmForCausalLM", "StableLmConfig", **GROUPED)
configured("cohere", "CohereForCausalLM", "CohereConfig", **GROUPED)
configured("starcoder2", "Starcoder2ForCausalLM", "Starcoder2Config", **GROUPED)
configured("granite", "GraniteForCausalLM", "GraniteConfig", **GROUPED)
configured("glm", "GlmForCausalLM", "GlmConfig", **_HEADED)
configured("nemotron", "NemotronForCausalLM", "NemotronConfig", **_HEADED)
configured("smollm3", "SmolLM3ForCausalLM", "SmolLM3Config", **GROUPED)
configured("opt", "OPTForCausalLM", "OPTConfig", vocab_size=50, hidden_size=32, ffn_dim=44, num_hidden_layers=2,
           num_attention_heads=4, max_position_embeddings=32, word_embed_proj_dim=32)  # fmt: skip
configured("opt_projected", "OPTForCausalLM", "OPTConfig", vocab_size=50, hidden_size=32, ffn_dim=44,
           num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32, word_embed_proj_dim=20,
           do_layer_norm_before=False)  # fmt: skip
configured("bloom", "BloomForCausalLM", "BloomConfig", vocab_size=50, hidden_size=32, n_layer=2, n_head=4)
configured("falcon", "FalconForCausalLM", "FalconConfig", vocab_size=50, hidden_size=32, num_hidden_layers=2,
           num_attention_heads=4, num_kv_heads=2, new_decoder_architecture=True, ffn_hidden_size=44)  # fmt: skip
configured("falcon_multi_query", "FalconForCausalLM", "FalconConfig", vocab_size=50, hidden_size=32,
           num_hidden_layers=2, num_attention_heads=4, multi_query=True, parallel_attn=True,
           ffn_hidden_size=44)  # fmt: skip
configured("mpt", "MptForCausalLM", "MptConfig", vocab_size=50, d_model=32, n_layers=2, n_heads=4, max_seq_len=32)
configured("mamba", "MambaForCausalLM", "MambaConfig", vocab_size=50, hidden_size=16, num_hidden_layers=1,
           state_size=4)  # fmt: skip
configured("mamba2", "Mamba2ForCausalLM", "Mamba2Config", vocab_size=50, hidden_size=16, num_hidden_layers=1,
           state_size=4, num_heads=4, head_dim=8, expand=2, n_groups=1, chunk_size=4)  # fmt: skip
configured("xlnet", "XLNetLMHeadModel", "XLNetConfig", vocab_size=50, d_model=32, n_layer=2, n_head=4, d_inner=44)
configured("ctrl", "CTRLLMHeadModel", "CTRLConfig", vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=32,
           dff=44)  # fmt: skip
