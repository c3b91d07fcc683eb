"""Attention and experts in plain torch: torch's own encoder, relative positions, complex rotary, experts in a list."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .registry import Network, entry


@entry("torch")
def transformer_encoder() -> Network:
    layer = nn.TransformerEncoderLayer(24, 4, 40, batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return Network(nn.Sequential(nn.Linear(6, 24), encoder, nn.Linear(24, 3)), (torch.randn(2, 5, 6),))


@entry("torch")
def transformer_encoder_post_norm() -> Network:
    layer = nn.TransformerEncoderLayer(24, 4, 40, activation="gelu")
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return Network(nn.Sequential(nn.Linear(6, 24), encoder, nn.Linear(24, 3)), (torch.randn(5, 2, 6),))


class _Attention(nn.Module):
    """Einsum attention with complex rotary positions."""

    def __init__(self, heads: int = 3, size: int = 4) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        width = heads * size
        self.enter = nn.Linear(6, width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.leave = nn.Linear(width, 3)
        angles = torch.arange(5)[:, None] / 10.0 ** torch.arange(size // 2)
        self.register_buffer("turns", torch.polar(torch.ones_like(angles), angles), persistent=False)

    def rotate(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.unflatten(-1, (self.size // 2, 2)))
        return torch.view_as_real(pairs * self.turns[:, None]).flatten(-2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        shape = (self.heads, self.size)
        q, k, v = (layer(x).unflatten(-1, shape) for layer in (self.query, self.key, self.value))
        scores = torch.einsum("...ihd,...jhd->...hij", self.rotate(q), self.rotate(k))
        return self.leave(x + torch.einsum("...hij,...jhd->...ihd", scores.softmax(-1), v).flatten(-2))


@entry("torch")
def complex_rotary() -> Network:
    return Network(_Attention(), (torch.randn(2, 5, 6),))


class _ExpertList(nn.Module):
    """Every expert is a module of its own; all of them run, the router weighs them."""

    def __init__(self, experts: int = 4) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 12)
        self.router = nn.Linear(12, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 12)) for _ in range(experts)
        )
        self.leave = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        shares = self.router(x).softmax(-1)
        mixed = torch.stack([expert(x) for expert in self.experts], -1)
        return self.leave(x + (mixed * shares.unsqueeze(-2)).sum(-1))


@entry("torch")
def experts_in_a_list() -> Network:
    return Network(_ExpertList(), (torch.randn(5, 6),))


class _Relative(nn.Module):
    """Local attention over unfolded windows with a learned table of relative positions."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.table = nn.Parameter(torch.randn(2, 5))
        self.leave = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, 2, 4).permute(2, 0, 3, 1, 4)
        k, v = (functional.pad(t, (0, 0, 2, 2)).unfold(2, 5, 1) for t in (k, v))
        scores = (q.unsqueeze(-2) @ k).squeeze(-2) + self.table[:, None]
        mixed = (v * scores.softmax(-1).unsqueeze(-2)).sum(-1)
        return self.leave(mixed.transpose(1, 2).flatten(2))


@entry("torch")
def unfolded_windows() -> Network:
    return Network(_Relative(), (torch.randn(2, 7, 8),))
