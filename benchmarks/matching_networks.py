"""The networks of the matching benchmark: random and trained pairs, the trained ones cached in a folder.

Random weights are standard normal over the square root of the fan-in, norm scales around 1; trained ones are two
networks from different seeds, trained on scikit-learn's digits (the MLP on an .npz file of MNIST where one is
given). Accuracy does not matter here, only that the weights have the structure that training gives them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lmcfast.io.checkpoint import load_checkpoint, save_checkpoint
from lmcfast.study.data import Dataset, load_digits, load_npz
from lmcfast.study.networks import Mlp, Resnet20
from lmcfast.study.training import Recipe, build, train

Params = dict[str, torch.Tensor]

VGG16 = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512, "pool")


class Vgg16(nn.Module):
    """VGG16 for 32 x 32 images with BatchNorm and one linear layer; keys as in torchvision."""

    def __init__(self, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        size = channels
        for item in VGG16:
            if isinstance(item, int):
                layers += [nn.Conv2d(size, item, 3, padding=1), nn.BatchNorm2d(item), nn.ReLU()]
                size = item
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(size, classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.classifier(self.features(inputs).flatten(1))
        return output


@dataclass(frozen=True)
class Case:
    """A network of the benchmark: how it is made, and how it is trained. ``enlarge``: factor on the digits' sides."""

    network: Callable[[], nn.Module]
    recipe: Recipe
    enlarge: int = 1


CASES = {
    "mlp 3x2048": Case(lambda: Mlp(784, (2048, 2048, 2048)), Recipe(3, 250)),
    "mlp 3x1024": Case(lambda: Mlp(784, (1024, 1024, 1024)), Recipe(5, 500)),
    "mlp 3x512": Case(lambda: Mlp(784, (512, 512, 512)), Recipe(5, 250)),
    "vgg16": Case(lambda: Vgg16(1), Recipe(6, 50), enlarge=4),
    "resnet20 x8": Case(lambda: Resnet20(8.0, 1), Recipe(6, 50)),
    "resnet20": Case(lambda: Resnet20(1.0, 1), Recipe(30, 50)),
}


def random_pair(name: str, seed: int = 0) -> tuple[Params, Params]:
    """Two state dicts with independent random weights."""
    first, second = (_drawn(CASES[name].network, 2 * seed + k) for k in range(2))
    return first, second


def _drawn(network: Callable[[], nn.Module], seed: int) -> Params:
    params = {key: tensor.detach().clone() for key, tensor in build(network, 0).state_dict().items()}
    generator = torch.Generator().manual_seed(1000 + seed)
    for key, tensor in params.items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim >= 2:
            params[key] = noise / (tensor.numel() / tensor.shape[0]) ** 0.5
        elif key.endswith("running_var"):
            params[key] = 0.5 + noise.abs()
        else:
            params[key] = 0.1 * noise + float(tensor.mean().round())
    return params


def trained_pair(name: str, cache: Path, npz: Path | None = None) -> tuple[Params, Params]:
    """Two trained state dicts, from ``cache`` where they are there, else trained and put there."""
    first, second = (_trained(name, seed, cache, npz) for seed in range(2))
    return first, second


def _trained(name: str, seed: int, cache: Path, npz: Path | None) -> Params:
    path = cache / f"{name.replace(' ', '_')}_{seed}.safetensors"
    if path.exists():
        return load_checkpoint(path)
    case = CASES[name]
    if name.startswith("mlp"):
        if npz is None:
            raise SystemExit(f"{path} is missing: give --mnist PATH, an .npz file of MNIST, to train it")
        data = load_npz(npz)
    else:
        data = _enlarged(load_digits(), case.enlarge)
    module = train(case.network, data, case.recipe, seed)
    params = {key: tensor.detach().clone() for key, tensor in module.state_dict().items()}
    with torch.no_grad():
        right = (module(data.test_inputs[:500]).argmax(1) == data.test_targets[:500]).float().mean()
    print(f"trained {name}, seed {seed}: {100 * float(right):.1f} % right", flush=True)
    cache.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, params)
    return params


def _enlarged(data: Dataset, factor: int) -> Dataset:
    def larger(images: torch.Tensor) -> torch.Tensor:
        return images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)

    return Dataset(
        data.name, larger(data.train_inputs), data.train_targets, larger(data.test_inputs), data.test_targets
    )
