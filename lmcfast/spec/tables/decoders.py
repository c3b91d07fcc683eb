"""Tables of decoders with configurations of transformers: Llama and its like, Mixtral, GPT-2, GPT-NeoX.

Rotary embeddings turn pairs of query and key dimensions by fixed angles, so these dimensions stay; value dimensions and
the heads themselves move. Query heads are nested in the key-value head that they share.
"""

from __future__ import annotations

from ..spec import PermutationSpec
from .configured import Config, Table

_QKV_BIAS = {"qwen2"}
_QK_NORM = {"qwen3"}
_TIED = {"gemma"}


def llama(config: Config) -> PermutationSpec:
    """Llama, Mistral, Qwen2, Qwen3, Gemma, Granite and Phi-3 (fused projections), as ``...ForCausalLM``."""
    table = Table(config)
    kind = str(config.get("model_type"))
    stream = _frame(table, tied=kind in _TIED)
    _grouped_attention(table, stream, kind)
    width = table.size("intermediate_size")
    unit = table.group("mlp.{i}", width)
    bias = table.flag("mlp_bias")
    if kind == "phi3":
        table.dense("model.layers.{i}.mlp.gate_up_proj", f"{unit} | {unit}", stream, bias=False)
    else:
        table.dense("model.layers.{i}.mlp.gate_proj", unit, stream, bias)
        table.dense("model.layers.{i}.mlp.up_proj", unit, stream, bias)
    table.dense("model.layers.{i}.mlp.down_proj", stream, unit, bias)
    return table.spec()


def mixtral(config: Config) -> PermutationSpec:
    """Mixtral as ``MixtralForCausalLM``, its experts fused; their units are nested in them."""
    table = Table(config)
    stream = _frame(table, tied=False)
    _grouped_attention(table, stream, "mixtral")
    count = table.size("num_local_experts")
    expert = table.group("expert.{i}", count)
    unit = table.group("unit.{i}", table.size("intermediate_size"), expert)
    table.add("model.layers.{i}.mlp.gate.weight", expert, stream)
    table.add("model.layers.{i}.mlp.experts.gate_up_proj", expert, f"{unit} | {unit}", stream)
    table.add("model.layers.{i}.mlp.experts.down_proj", expert, stream, unit)
    return table.spec()


def _frame(table: Table, tied: bool) -> str:
    """Embedding, norms and head; the group of the residual stream."""
    table.layers = table.size("num_hidden_layers")
    stream = table.group("stream", table.size("hidden_size"))
    vocabulary = table.size("vocab_size")
    table.add("model.embed_tokens.weight", vocabulary, stream)
    for name in ("input_layernorm", "post_attention_layernorm"):
        table.norm(f"model.layers.{{i}}.{name}", stream, bias=False)
    table.norm("model.norm", stream, bias=False)
    tied = table.flag("tie_word_embeddings", tied)
    table.head("lm_head.weight", vocabulary, stream, "model.embed_tokens.weight", tied)
    return stream


def _grouped_attention(table: Table, stream: str, kind: str) -> None:
    heads = table.size("num_attention_heads")
    shared = table.size("num_key_value_heads", default=heads)
    length = table.size("head_dim", default=table.size("hidden_size") // heads)
    kv = table.group("kv.{i}", shared)
    q = table.group("q.{i}", heads // shared, kv)
    v = table.group("v.{i}", length, kv)
    query, key, value = f"{kv} {q} _{length}", f"{kv} _{length}", f"{kv} {v}"
    bias = table.flag("attention_bias")
    prefix = "model.layers.{i}.self_attn."
    if kind == "phi3":
        table.dense(f"{prefix}qkv_proj", f"{query} | {key} | {value}", stream, bias=False)
    else:
        for name, layout in (("q_proj", query), ("k_proj", key), ("v_proj", value)):
            table.dense(f"{prefix}{name}", layout, stream, bias or kind in _QKV_BIAS)
    table.dense(f"{prefix}o_proj", stream, f"{kv} {q} {v}", bias)
    if kind in _QK_NORM:
        table.add(f"{prefix}q_norm.weight", length)
        table.add(f"{prefix}k_norm.weight", length)


def gpt2(config: Config) -> PermutationSpec:
    """GPT-2 as ``GPT2LMHeadModel``; its linear layers store (in, out)."""
    table = Table(config)
    table.layers = table.size("n_layer", "num_hidden_layers")
    width, heads = table.size("n_embd", "hidden_size"), table.size("n_head", "num_attention_heads")
    stream = table.group("stream", width)
    head = table.group("head.{i}", heads)
    qk = table.group("qk.{i}", width // heads, head)
    v = table.group("v.{i}", width // heads, head)
    unit = table.group("mlp.{i}", table.size("n_inner", default=4 * width))
    vocabulary = table.size("vocab_size")
    table.add("transformer.wte.weight", vocabulary, stream)
    table.add("transformer.wpe.weight", table.size("n_positions", "max_position_embeddings"), stream)
    prefix = "transformer.h.{i}."
    qkv = f"{head} {qk} | {head} {qk} | {head} {v}"
    for name, into, out in (
        ("attn.c_attn", stream, qkv),
        ("attn.c_proj", f"{head} {v}", stream),
        ("mlp.c_fc", stream, unit),
        ("mlp.c_proj", unit, stream),
    ):
        table.add(f"{prefix}{name}.weight", into, out)
        table.add(f"{prefix}{name}.bias", out)
    for name in (f"{prefix}ln_1", f"{prefix}ln_2", "transformer.ln_f"):
        table.norm(name, stream)
    tied = table.flag("tie_word_embeddings", True)
    table.head("lm_head.weight", vocabulary, stream, "transformer.wte.weight", tied)
    return table.spec()


def gpt_neox(config: Config) -> PermutationSpec:
    """GPT-NeoX and Pythia as ``GPTNeoXForCausalLM``; rotary embeddings turn the first part of each head only."""
    table = Table(config)
    table.layers = table.size("num_hidden_layers")
    width, heads = table.size("hidden_size"), table.size("num_attention_heads")
    length = width // heads
    rope = config.get("rope_parameters") or {}
    share = rope.get("partial_rotary_factor") or config.get("rotary_pct") or 0.25
    turned = int(length * float(share))
    stream = table.group("stream", width)
    head = table.group("head.{i}", heads)
    qk = table.group("qk.{i}", length - turned, head) if turned < length - 1 else f"_{length - turned}"
    v = table.group("v.{i}", length, head)
    unit = table.group("mlp.{i}", table.size("intermediate_size"))
    vocabulary = table.size("vocab_size")
    table.add("gpt_neox.embed_in.weight", vocabulary, stream)
    prefix = "gpt_neox.layers.{i}."
    bias = table.flag("attention_bias", True)
    qkv = f"{head} (_{turned} | {qk} | _{turned} | {qk} | {v or '_1'})"
    table.dense(f"{prefix}attention.query_key_value", qkv, stream, bias)
    table.dense(f"{prefix}attention.dense", stream, f"{head} {v}", bias)
    table.dense(f"{prefix}mlp.dense_h_to_4h", unit, stream)
    table.dense(f"{prefix}mlp.dense_4h_to_h", stream, unit)
    for name in (f"{prefix}input_layernorm", f"{prefix}post_attention_layernorm", "gpt_neox.final_layer_norm"):
        table.norm(name, stream)
    tied = table.flag("tie_word_embeddings")
    table.head("lm_head.weight", vocabulary, stream, "gpt_neox.embed_in.weight", tied)
    return table.spec()
