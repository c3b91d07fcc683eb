"""Two small transformers and how they are trained: a character-level GPT and a ViT for 28 x 28 images.

Plain torch, without dropout, normalisation before each half of a block; the weights of a seed are the same on one
machine. Both are small enough to train on two CPU cores in minutes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, scaled_dot_product_attention


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); shapes (batch, tokens, width)."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        heads = self.qkv(self.norm_1(x)).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        x = x + self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.down(gelu(self.up(self.norm_2(x))))


class CharGpt(nn.Module):
    """Characters (batch, tokens) int64 to logits (batch, tokens, characters); the embedding is the head."""

    def __init__(self, characters: int, context: int = 128, width: int = 256, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(characters, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads, causal=True) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, characters, bias=False)
        self.head.weight = self.embedding.weight
        _initialise(self, layers)

    def forward(self, text: Tensor) -> Tensor:
        x = self.embedding(text) + self.positions(torch.arange(text.shape[1], device=text.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class SmallViT(nn.Module):
    """Images (batch, 1, 28, 28) to logits (batch, classes): patches of 4 x 4, mean over the tokens at the end."""

    def __init__(self, classes: int = 10, width: int = 128, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, stride=4)
        self.positions = nn.Parameter(torch.zeros(49, width))
        self.blocks = nn.ModuleList(Block(width, heads, causal=False) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        _initialise(self, layers)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


def _initialise(module: nn.Module, layers: int) -> None:
    """GPT-2's initial weights: normal of 0.02, what is added to the stream smaller by the root of its terms."""
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            scale = 0.02 / math.sqrt(2 * layers) if name.endswith(("proj.weight", "down.weight")) else 0.02
            nn.init.normal_(parameter, std=scale)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


@dataclass(frozen=True)
class TransformerRecipe:
    """AdamW (0.9, 0.95), linear warm-up, then a cosine down to a tenth of the rate; gradients cut at norm 1."""

    steps: int
    batch_size: int
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    warmup: int = 50

    def rate(self, step: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * done))


def train(
    build: Callable[[], nn.Module],
    batches: Callable[[torch.Generator], Iterator[tuple[Tensor, Tensor]]],
    recipe: TransformerRecipe,
    seed: int,
    path: Path,
    say: Callable[[str], None] = print,
) -> dict[str, Tensor]:
    """Train ``build()`` by cross-entropy on ``batches(generator)``; the state dict is kept in ``path`` and read from
    there the next time, if it was trained by the same recipe."""
    stamp = json.dumps({**asdict(recipe), "seed": seed}, sort_keys=True)
    note = path.with_suffix(".json")
    if path.exists() and note.exists() and note.read_text() == stamp:
        return load_file(path)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = build().train()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        module.parameters(), recipe.learning_rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, recipe.rate)
    stream = batches(generator)
    for step in range(recipe.steps):
        inputs, targets = next(stream)
        loss = cross_entropy(module(inputs).flatten(0, -2), targets.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 50 == 0:
            say(f"{path.stem}: step {step + 1} of {recipe.steps}, loss {float(loss.detach()):.3f}")
    state = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
    note.write_text(stamp)
    return state
