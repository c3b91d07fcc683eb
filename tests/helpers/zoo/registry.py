"""Tiny networks by name: how one is declared, built and given weights on which a proof says something."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is ever fetched: every network is made from a configuration


@dataclass(frozen=True)
class Network:
    """A module in eval mode and what ``derive_spec`` and ``verify_spec`` take beside it."""

    module: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    outputs: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Entry:
    """``source``: the package that has the network's class; ``lost``: the freedom that a derivation leaves, and why."""

    name: str
    source: str
    make: Callable[[], Network]
    lost: str = ""


ENTRIES: dict[str, Entry] = {}


def entry(source: str, lost: str = "") -> Callable[[Callable[[], Network]], Callable[[], Network]]:
    """Declares a network: the function's name is the network's."""

    def declare(make: Callable[[], Network]) -> Callable[[], Network]:
        add(make.__name__, source, make, lost)
        return make

    return declare


def add(name: str, source: str, make: Callable[[], Network], lost: str = "") -> None:
    if name in ENTRIES:
        raise ValueError(f"two networks are called {name!r}")
    ENTRIES[name] = Entry(name, source, make, lost)


def build(name: str, seed: int = 0) -> Network:
    """The network, with every tensor random; torch's global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ENTRIES[name].make()
        network.module.eval()
        _randomize(network.module)
    return network


def _randomize(module: nn.Module) -> None:
    """Gives biases, norms, layer scales and statistics entries that differ: fresh ones would hide what moves."""
    with torch.no_grad():
        for tensor in module.parameters():
            if tensor.is_floating_point() and (tensor.ndim <= 1 or bool((tensor == tensor.flatten()[0]).all())):
                tensor.add_(0.3 * torch.randn_like(tensor))
        for name, tensor in module.named_buffers():
            leaf = name.rpartition(".")[2]
            if leaf == "running_mean":
                tensor.add_(0.3 * torch.randn_like(tensor))
            elif leaf == "running_var":
                tensor.mul_(0.5 + torch.rand_like(tensor))
            elif leaf == "e_score_correction_bias":
                tensor.add_(0.1 * torch.randn_like(tensor))


def settle_statistics(module: nn.Module, run: Callable[[], Any], passes: int = 20) -> None:
    """Batch norm statistics of the signal itself: with fresh ones it dies in a deep network, and proofs are empty."""
    module.train()
    with torch.no_grad():
        for _ in range(passes):
            run()
    module.eval()


def image(size: int = 32, batch: int = 2, channels: int = 3) -> Tensor:
    return torch.randn(batch, channels, size, size)


def tokens(length: int = 9, vocabulary: int = 50, batch: int = 2) -> Tensor:
    """Token ids without the first three, which configurations use for padding, begin and end."""
    return torch.randint(3, vocabulary, (batch, length))
