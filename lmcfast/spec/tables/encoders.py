"""Tables of networks with encoders and configurations of transformers: BERT and RoBERTa, ViT, T5, CLIP."""

from __future__ import annotations

from ...errors import SpecError
from ..spec import PermutationSpec
from .configured import Config, Table


def bert(config: Config) -> PermutationSpec:
    """BERT, RoBERTa, XLM-RoBERTa and CamemBERT with the head for masked words."""
    table = Table(config)
    base = "bert" if config.get("model_type") == "bert" else "roberta"
    table.layers = table.size("num_hidden_layers")
    stream = table.group("stream", table.size("hidden_size"))
    vocabulary = table.size("vocab_size")
    embeddings = f"{base}.embeddings"
    table.add(f"{embeddings}.word_embeddings.weight", vocabulary, stream)
    table.add(f"{embeddings}.position_embeddings.weight", table.size("max_position_embeddings"), stream)
    table.add(f"{embeddings}.token_type_embeddings.weight", table.size("type_vocab_size", default=2), stream)
    table.norm(f"{embeddings}.LayerNorm", stream)
    layer = f"{base}.encoder.layer.{{i}}"
    names = ("self.query", "self.key", "self.value", "output.dense")
    _attention(table, f"{layer}.attention.", names, stream, table.size("num_attention_heads"))
    unit = table.group("mlp.{i}", table.size("intermediate_size"))
    table.dense(f"{layer}.intermediate.dense", unit, stream)
    table.dense(f"{layer}.output.dense", stream, unit)
    table.norm(f"{layer}.attention.output.LayerNorm", stream)
    table.norm(f"{layer}.output.LayerNorm", stream)
    tied = table.flag("tie_word_embeddings", True)
    # Tied to the embedding, the last layer takes what comes in the order of the stream.
    last = stream if tied else table.group("transform", table.size("hidden_size"))
    head, inner, norm = (
        ("cls.predictions", "transform.dense", "transform.LayerNorm")
        if base == "bert"
        else ("lm_head", "dense", "layer_norm")
    )
    table.add(f"{head}.bias", vocabulary)
    table.dense(f"{head}.{inner}", last, stream)
    table.norm(f"{head}.{norm}", last)
    if tied:
        table.tied[f"{head}.decoder.bias"] = f"{head}.bias"
    else:
        table.add(f"{head}.decoder.bias", vocabulary)
    table.head(f"{head}.decoder.weight", vocabulary, last, f"{embeddings}.word_embeddings.weight", tied)
    return table.spec()


def _attention(table: Table, prefix: str, names: tuple[str, str, str, str], stream: str, heads: int) -> None:
    """Query, key, value and output of attention whose heads have their own inner permutations."""
    length = table.size("hidden_size") // heads
    head = table.group("head.{i}", heads)
    qk = table.group("qk.{i}", length, head)
    v = table.group("v.{i}", length, head)
    for name, layout in zip(names, (f"{head} {qk}", f"{head} {qk}", f"{head} {v}"), strict=False):
        table.dense(f"{prefix}{name}", layout, stream)
    table.dense(f"{prefix}{names[3]}", stream, f"{head} {v}")


def vit(config: Config) -> PermutationSpec:
    """ViT as ``ViTForImageClassification``."""
    table = Table(config)
    table.layers = table.size("num_hidden_layers")
    stream = table.group("stream", table.size("hidden_size"))
    patch, image = table.size("patch_size", default=16), table.size("image_size", default=224)
    channels = table.size("num_channels", default=3)
    table.add("vit.embeddings.cls_token", 1, 1, stream)
    table.add("vit.embeddings.position_embeddings", 1, (image // patch) ** 2 + 1, stream)
    table.add("vit.embeddings.patch_embeddings.projection.weight", stream, channels, patch, patch)
    table.add("vit.embeddings.patch_embeddings.projection.bias", stream)
    if not table.flag("qkv_bias", True):
        raise SpecError(
            "the table of ViT has biases for queries, keys and values, but the configuration says qkv_bias = False"
        )
    names = ("q_proj", "k_proj", "v_proj", "o_proj")
    _attention(table, "vit.layers.{i}.attention.", names, stream, table.size("num_attention_heads"))
    unit = table.group("mlp.{i}", table.size("intermediate_size"))
    table.dense("vit.layers.{i}.mlp.fc1", unit, stream)
    table.dense("vit.layers.{i}.mlp.fc2", stream, unit)
    for name in ("vit.layers.{i}.layernorm_before", "vit.layers.{i}.layernorm_after", "vit.layernorm"):
        table.norm(name, stream)
    labels = config.get("id2label")
    classes = len(labels) if isinstance(labels, dict) else table.size("num_labels", default=2)
    table.dense("classifier", classes, stream)
    return table.spec()


def t5(config: Config) -> PermutationSpec:
    """T5 as ``T5ForConditionalGeneration``; the position bias of the first layer ties the heads of its whole stack."""
    table = Table(config)
    stream = table.group("stream", table.size("d_model"))
    vocabulary = table.size("vocab_size")
    table.add("shared.weight", vocabulary, stream)
    depth = table.size("num_layers")
    _t5_stack(table, "encoder", depth, stream)
    _t5_stack(table, "decoder", table.size("num_decoder_layers", default=depth), stream)
    for stack in ("encoder", "decoder"):
        table.tied[f"{stack}.embed_tokens.weight"] = "shared.weight"
    table.head("lm_head.weight", vocabulary, stream, "shared.weight", table.flag("tie_word_embeddings", True))
    return table.spec()


def _t5_stack(table: Table, stack: str, depth: int, stream: str) -> None:
    table.layers = depth
    heads, length = table.size("num_heads"), table.size("d_kv")
    kinds = [(0, "SelfAttention", table.group(f"{stack}.head", heads))]
    if stack == "decoder":
        kinds.append((1, "EncDecAttention", table.group("cross.head.{i}", heads)))
    block = f"{stack}.block.{{i}}.layer"
    for place, kind, head in kinds:
        qk = table.group(f"{stack}.{kind}.qk.{{i}}", length, head)
        v = table.group(f"{stack}.{kind}.v.{{i}}", length, head)
        for name, layout in (("q", f"{head} {qk}"), ("k", f"{head} {qk}"), ("v", f"{head} {v}")):
            table.dense(f"{block}.{place}.{kind}.{name}", layout, stream, bias=False)
        table.dense(f"{block}.{place}.{kind}.o", stream, f"{head} {v}", bias=False)
        table.norm(f"{block}.{place}.layer_norm", stream, bias=False)
    buckets = table.size("relative_attention_num_buckets", default=32)
    table.add(f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight", buckets, kinds[0][2])
    last = len(kinds)
    unit = table.group(f"{stack}.mlp.{{i}}", table.size("d_ff"))
    gated = str(table.config.get("feed_forward_proj", "relu")).startswith("gated")
    for name in ("wi_0", "wi_1") if gated else ("wi",):
        table.dense(f"{block}.{last}.DenseReluDense.{name}", unit, stream, bias=False)
    table.dense(f"{block}.{last}.DenseReluDense.wo", stream, unit, bias=False)
    table.norm(f"{block}.{last}.layer_norm", stream, bias=False)
    table.norm(f"{stack}.final_layer_norm", stream, bias=False)


def clip(config: Config) -> PermutationSpec:
    """CLIP as ``CLIPModel``, for what it says of pairs (``logits_per_image``); two towers and a common projection."""
    table = Table(config)
    common = table.group("projection", table.size("projection_dim", default=512))
    table.add("logit_scale")
    for tower in ("text", "vision"):
        part = config.get(f"{tower}_config")
        if not isinstance(part, dict):
            raise SpecError(f"the configuration has no {tower}_config")
        side = Table(part)
        stream = _clip_tower(side, tower)
        table.groups |= side.groups
        table.axes |= side.axes
        table.dense(f"{'visual' if tower == 'vision' else 'text'}_projection", common, stream, bias=False)
    return table.spec()


def _clip_tower(table: Table, tower: str) -> str:
    table.layers = table.size("num_hidden_layers", default=12)
    stream = table.group(f"{tower}.stream", table.size("hidden_size", default=512 if tower == "text" else 768))
    base = f"{tower}_model"
    if tower == "text":
        table.add(f"{base}.embeddings.token_embedding.weight", table.size("vocab_size", default=49408), stream)
        positions = table.size("max_position_embeddings", default=77)
    else:
        patch, image = table.size("patch_size", default=32), table.size("image_size", default=224)
        channels = table.size("num_channels", default=3)
        table.add(f"{base}.embeddings.class_embedding", stream)
        table.add(f"{base}.embeddings.patch_embedding.weight", stream, channels, patch, patch)
        positions = (image // patch) ** 2 + 1
        table.norm(f"{base}.pre_layrnorm", stream)
    table.add(f"{base}.embeddings.position_embedding.weight", positions, stream)
    heads = table.size("num_attention_heads", default=8 if tower == "text" else 12)
    head = table.group(f"{tower}.head.{{i}}", heads)
    length = table.size("hidden_size", default=512 if tower == "text" else 768) // heads
    qk = table.group(f"{tower}.qk.{{i}}", length, head)
    v = table.group(f"{tower}.v.{{i}}", length, head)
    layer = f"{base}.encoder.layers.{{i}}"
    for name, layout in (("k_proj", f"{head} {qk}"), ("v_proj", f"{head} {v}"), ("q_proj", f"{head} {qk}")):
        table.dense(f"{layer}.self_attn.{name}", layout, stream)
    table.dense(f"{layer}.self_attn.out_proj", stream, f"{head} {v}")
    unit = table.group(f"{tower}.mlp.{{i}}", table.size("intermediate_size", default=2048 if tower == "text" else 3072))
    table.dense(f"{layer}.mlp.fc1", unit, stream)
    table.dense(f"{layer}.mlp.fc2", stream, unit)
    table.norm(f"{layer}.layer_norm1", stream)
    table.norm(f"{layer}.layer_norm2", stream)
    table.norm(f"{base}.{'final_layer_norm' if tower == 'text' else 'post_layernorm'}", stream)
    return stream
