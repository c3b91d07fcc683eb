"""Perceptrons and recurrent networks in plain torch, and one of awkward reshapes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .registry import Network, entry


@entry("torch")
def mlp() -> Network:
    layers = [nn.Flatten(), nn.Linear(48, 20), nn.ReLU(), nn.Linear(20, 16), nn.GELU(), nn.Linear(16, 5)]
    return Network(nn.Sequential(*layers), (torch.randn(4, 3, 4, 4),))


class _Fused(nn.Module):
    """Fused gate and up projections, interleaved pairs, a scaled skip."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(7, 24)
        self.gate_up = nn.Linear(24, 40)
        self.down = nn.Linear(20, 24)
        self.pairs = nn.Linear(24, 32)
        self.mix = nn.Linear(16, 24, bias=False)
        self.leave = nn.Linear(24, 3)
        self.scale = nn.Parameter(torch.rand(24))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        gate, up = self.gate_up(x).chunk(2, -1)
        x = x + self.down(functional.silu(gate) * up) * self.scale
        pairs = self.pairs(x).unflatten(-1, (16, 2))
        return self.leave(x + self.mix(pairs[..., 0] * torch.sigmoid(pairs[..., 1])))


@entry("torch")
def fused_and_interleaved() -> Network:
    return Network(_Fused(), (torch.randn(5, 7),))


@entry("torch")
def tied_autoencoder() -> Network:
    """One weight, used forwards and transposed."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(10, 8)
            self.second = nn.Linear(8, 6)
            self.bias = nn.Parameter(torch.randn(8))

        def forward(self, x: Tensor) -> Tensor:
            code = self.second(functional.relu(self.first(x)))
            return functional.relu(code @ self.second.weight + self.bias) @ self.first.weight

    return Network(Tied(), (torch.randn(4, 10),))


class _Recurrent(nn.Module):
    def __init__(self, layer: nn.RNNBase, width: int) -> None:
        super().__init__()
        self.layer = layer
        self.leave = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.layer(x)[0])


@entry("torch")
def lstm() -> Network:
    return Network(_Recurrent(nn.LSTM(6, 10, 2, batch_first=True), 10), (torch.randn(2, 5, 6),))


@entry("torch")
def lstm_bidirectional() -> Network:
    layer = nn.LSTM(6, 10, 2, batch_first=True, bidirectional=True)
    return Network(_Recurrent(layer, 20), (torch.randn(2, 5, 6),))


@entry("torch")
def gru() -> Network:
    return Network(_Recurrent(nn.GRU(6, 10, 2, batch_first=True), 10), (torch.randn(2, 5, 6),))


@entry("torch")
def rnn_tanh() -> Network:
    return Network(_Recurrent(nn.RNN(6, 10, 2, batch_first=True), 10), (torch.randn(2, 5, 6),))
