"""Training from a seed: the same seed gives the same network on one machine, and torch's random state is left alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from .data import Dataset
from .networks import Network

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    ``optimizer``: "adam" or "sgd" (with ``momentum``). ``warmup`` epochs of linearly rising rate, then, with ``decay``,
    linear to 0. ``shift``: each image moves by up to so many pixels on either axis, zeros come in (a random crop of the
    padded image); ``flip``: it is mirrored left to right half of the time.
    """

    epochs: int
    batch_size: int
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    warmup: int = 0
    decay: bool = False
    shift: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if self.optimizer not in ("adam", "sgd"):
            raise ValueError(f"optimizer: must be 'adam' or 'sgd', not {self.optimizer!r}")
        for name, least in (("epochs", 0), ("batch_size", 1), ("warmup", 0), ("shift", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: must be at least {least}, not {getattr(self, name)!r}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate: must be a number above 0, not {self.learning_rate!r}")


MLP_RECIPE = Recipe(epochs=5, batch_size=500)
"""The paper's MLP on MNIST and Fashion-MNIST."""

CONVOLUTION_RECIPE = Recipe(
    epochs=100, batch_size=500, optimizer="sgd", learning_rate=0.4, weight_decay=5e-4, warmup=5, decay=True,
    shift=4, flip=True,
)  # fmt: skip
"""The paper's VGG11 and ResNet20 on CIFAR-10."""


def build(network: Network, seed: int) -> nn.Module:
    """A network with the initial weights of ``seed``, on the CPU."""
    with _seeded(seed, torch.device("cpu")):
        return network()


def train(
    network: Network,
    data: Dataset,
    recipe: Recipe,
    seed: int,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> nn.Module:
    """Train ``network()`` on the training split of ``data`` by cross-entropy; returned on ``device`` in eval mode.

    ``seed`` fixes initial weights, order of the examples, augmentation and dropout. ``progress(done, total)`` is called
    in epochs, first with 0 done.
    """
    device = torch.device(device)
    with _seeded(seed, device):
        module = network().to(device).train()
        generator = torch.Generator().manual_seed(seed)
        inputs, targets = data.train_inputs.to(device), data.train_targets.to(device)
        steps = -(-len(inputs) // recipe.batch_size)
        optimizer = _optimizer(recipe, module)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(recipe, step, steps))
        for epoch in range(recipe.epochs):
            if progress is not None:
                progress(epoch, recipe.epochs)
            order = torch.randperm(len(inputs), generator=generator).to(device)
            for step in range(steps):
                chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
                images = augment(inputs[chosen], recipe, generator)
                optimizer.zero_grad(set_to_none=True)
                cross_entropy(module(images), targets[chosen]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
        if progress is not None:
            progress(recipe.epochs, recipe.epochs)
    module.zero_grad(set_to_none=True)
    return module.eval()


def augment(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """``images`` (batch, channels, height, width) shifted and flipped at random as the recipe says."""
    if recipe.flip:
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(-1), images)
    if recipe.shift:
        height, width = images.shape[-2:]
        corners = torch.randint(0, 2 * recipe.shift + 1, (2, len(images), 1), generator=generator)
        rows = (corners[0] + torch.arange(height)).to(images.device)
        columns = (corners[1] + torch.arange(width)).to(images.device)
        example = torch.arange(len(images), device=images.device)
        padded = pad(images, (recipe.shift,) * 4).movedim(1, -1)
        images = padded[example[:, None, None], rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
    return images


def _optimizer(recipe: Recipe, module: nn.Module) -> torch.optim.Optimizer:
    rate, weight_decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "adam":
        return torch.optim.Adam(module.parameters(), rate, weight_decay=weight_decay)
    return torch.optim.SGD(module.parameters(), rate, momentum=recipe.momentum, weight_decay=weight_decay)


def _rate(recipe: Recipe, step: int, steps: int) -> float:
    """Factor of the learning rate at a step, counted over all epochs of ``steps`` each."""
    rising, total = recipe.warmup * steps, recipe.epochs * steps
    if step < rising:
        return (step + 1) / rising
    if not recipe.decay:
        return 1.0
    return max(0.0, (total - step) / max(1, total - rising))


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's global random state set from ``seed`` inside the block, as it was afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
