"""Write a random Llama-like checkpoint of a chosen size, and a partner: its units permuted, and noise added.

    python benchmarks/make_checkpoint.py --gigabytes 4 --noise 0.1 FOLDER

makes FOLDER/a, FOLDER/b and FOLDER/hidden.safetensors, the permutations that lead from A to B (``--residual``: of the
residual stream too). Tensors are made and written one by one, so the size is bounded by the disk alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch

from lmcfast.io import write_permutations
from lmcfast.io.shard_writer import ShardWriter
from lmcfast.io.shards import LazyCheckpoint
from lmcfast.merging.sources import bind
from lmcfast.merging.stream import BLOCK, Aligned, PlacedRows, row_blocks
from lmcfast.spec.tables.by_config import table_for

SHARD = 1 << 30  # bytes at most
STD = 0.02  # of random weights, as transformers initialises them


def configuration(gigabytes: float, width: int | None = None) -> dict[str, object]:
    """Layers as of Llama 2 7B (from 2 GB on) or half as wide, as many as fit, with grouped key and value heads."""
    width = width or (4096 if gigabytes >= 2 else 2048)
    inner = 11008 * width // 4096
    layer = 3 * width * inner + 2 * width * width + 2 * width * width // 4
    layers = max(1, round((gigabytes * 1e9 / 2 - 2 * 32000 * width) / layer))
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": width // 128,
        "num_key_value_heads": width // 512,
        "num_hidden_layers": layers,
        "vocab_size": 32000,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }


def shapes(config: dict[str, object]) -> dict[str, tuple[int, ...]]:
    width, inner, layers = (int(str(config[k])) for k in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (32000, width)}
    for i in range(layers):
        at = f"model.layers.{i}."
        for name, rows, columns in (
            ("self_attn.q_proj", width, width),
            ("self_attn.k_proj", width // 4, width),
            ("self_attn.v_proj", width // 4, width),
            ("self_attn.o_proj", width, width),
            ("mlp.gate_proj", inner, width),
            ("mlp.up_proj", inner, width),
            ("mlp.down_proj", width, inner),
        ):
            found[f"{at}{name}.weight"] = (rows, columns)
        found[f"{at}input_layernorm.weight"] = found[f"{at}post_attention_layernorm.weight"] = (width,)
    return {**found, "model.norm.weight": (width,), "lm_head.weight": (32000, width)}


def shards(sizes: dict[str, tuple[int, ...]]) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name, shape in sizes.items():
        own = 2 * torch.Size(shape).numel()
        if names and size + own > SHARD:
            yield names
            names, size = [], 0
        names.append(name)
        size += own
    yield names


def write_a(folder: Path, config: dict[str, object], seed: int) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    sizes = shapes(config)
    parts = list(shards(sizes))
    places = {}
    generator = torch.Generator().manual_seed(seed)
    for k, names in enumerate(parts, 1):
        file = f"model-{k:05}-of-{len(parts):05}.safetensors"
        places |= dict.fromkeys(names, file)
        with ShardWriter(folder / file, [(n, "BF16", sizes[n]) for n in names], {"format": "pt"}) as writer:
            for name in names:
                tensor = torch.randn(sizes[name], generator=generator).mul_(STD)
                writer.write((tensor.add_(1) if len(sizes[name]) == 1 else tensor).bfloat16())
            writer.finish()
    total = sum(2 * torch.Size(shape).numel() for shape in sizes.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def write_b(a: Path, b: Path, hidden: Path, noise: float, residual: bool, seed: int) -> None:
    """A with every group's units shuffled, and noise of ``noise`` standard deviations of the weights."""
    b.mkdir()
    for name in ("config.json", "model.safetensors.index.json"):
        (b / name).write_bytes((a / name).read_bytes())
    generator = torch.Generator().manual_seed(seed)
    with LazyCheckpoint(a) as source:
        spec, model = bind(table_for(json.loads((a / "config.json").read_text())), source)
        setting = spec.random_permutations(seed)
        if not residual:
            setting["stream"] = torch.arange(spec.sizes["stream"])
        for shard in source.shards:
            tensors = [(entry.key, entry.code, entry.shape) for entry in shard.entries]
            with ShardWriter(b / shard.path.name, tensors, shard.metadata, shard.keys) as writer:
                for entry in shard.entries:
                    placed = PlacedRows(Aligned(model, setting), entry.key)
                    for start, stop in row_blocks(entry, BLOCK):
                        block = placed.rows(start, stop).float()
                        block.add_(torch.randn(block.shape, generator=generator), alpha=noise * STD)
                        writer.write(block.bfloat16())
                writer.finish()
        write_permutations(hidden, setting, spec.to_json(folded=True), 0.0, 0.0)


def make(
    folder: Path,
    gigabytes: float,
    noise: float = 0.1,
    residual: bool = False,
    seed: int = 1,
    width: int | None = None,
) -> None:
    """Write both models and what is hidden between them. ``width``: of the stream, a multiple of 512."""
    write_a(folder / "a", configuration(gigabytes, width), seed)
    write_b(folder / "a", folder / "b", folder / "hidden.safetensors", noise, residual, seed + 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--width", type=int, help="of the residual stream, a multiple of 512")
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--residual", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    make(given.folder, given.gigabytes, given.noise, given.residual, given.seed, given.width)
