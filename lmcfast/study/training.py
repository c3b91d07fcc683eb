"""Training from a seed: the same seed gives the same network on one machine, and torch's random state is left alone.

A training can keep its state after every epoch in a file; the same call goes on from there and ends with the same
weights as one that was never stopped.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from ..errors import CheckpointError
from ..io import atomic_path
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
    state: str | os.PathLike[str] | None = None,
) -> nn.Module:
    """Train ``network()`` on the training split of ``data`` by cross-entropy; returned on ``device`` in eval mode.

    ``seed`` fixes initial weights, order of the examples, augmentation and dropout. ``progress(done, total)`` is called
    in epochs, first with those done before. ``state``: a file that is written after every epoch and from which the same
    call goes on; raises ``CheckpointError`` where it is of another training.
    """
    device = torch.device(device)
    with _seeded(seed, device):
        module = network().to(device).train()
        _order(module, torch.channels_last)  # a third faster for convolutions on a CPU
        inputs, targets = data.train_inputs.to(device), data.train_targets.to(device)
        steps = -(-len(inputs) // recipe.batch_size)
        run = _Run(module, recipe, seed, data, steps)
        if state is not None and Path(state).exists():
            run.load(state, device)
        for epoch in range(run.epoch, recipe.epochs):
            if progress is not None:
                progress(epoch, recipe.epochs)
            run.train_epoch(inputs, targets, steps)
            if state is not None:
                run.save(state)
        if progress is not None:
            progress(recipe.epochs, recipe.epochs)
    module.zero_grad(set_to_none=True)
    _order(module, torch.contiguous_format)
    return module.eval()


class _Run:
    """A training under way: all that decides how it goes on."""

    def __init__(self, module: nn.Module, recipe: Recipe, seed: int, data: Dataset, steps: int) -> None:
        self.module, self.recipe, self.epoch = module, recipe, 0
        self.generator = torch.Generator().manual_seed(seed)
        self.optimizer = _optimizer(recipe, module)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: _rate(recipe, step, steps))
        # what another training would differ in; the recipe as text, since its fields may grow
        shapes = {key: list(value.shape) for key, value in module.state_dict().items()}
        self.identity = {"recipe": repr(asdict(recipe)), "seed": seed, "data": data.name, "shapes": shapes}

    def train_epoch(self, inputs: Tensor, targets: Tensor, steps: int) -> None:
        size = self.recipe.batch_size
        order = torch.randperm(len(inputs), generator=self.generator).to(inputs.device)
        for step in range(steps):
            chosen = order[step * size : (step + 1) * size]
            images = augment(inputs[chosen], self.recipe, self.generator)
            if images.ndim == 4:
                images = images.contiguous(memory_format=torch.channels_last)
            self.optimizer.zero_grad(set_to_none=True)
            cross_entropy(self.module(images), targets[chosen]).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.schedule.step()
        self.epoch += 1

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state, whole or not at all."""
        content = {
            "identity": self.identity, "epoch": self.epoch, "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(), "random": torch.get_rng_state(),
        }  # fmt: skip
        with atomic_path(path) as temporary:
            torch.save(content, temporary)

    def load(self, path: str | os.PathLike[str], device: torch.device) -> None:
        """Go on from a state; CheckpointError where the file is none, or one of another training."""
        try:
            content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
            identity = content["identity"]
        except Exception as error:  # torch raises what the broken bytes happen to trigger
            raise CheckpointError(f"{path}: is not the state of a training: {error}", str(path)) from error
        for name, value in self.identity.items():
            if identity.get(name) != value:
                raise CheckpointError(f"{path}: is the state of another training: its {name} differs", str(path))
        self.module.load_state_dict(content["module"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.schedule.load_state_dict(content["schedule"])
        self.generator.set_state(content["generator"].cpu())
        torch.set_rng_state(content["random"].cpu())
        self.epoch = content["epoch"]


def _order(module: nn.Module, memory: torch.memory_format) -> None:
    """Lay out the kernels of convolutions as ``memory`` says."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=memory)


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
