"""The networks of the paper's study (Ito et al., arXiv:2402.04051), as plain modules.

State-dict keys are the ones that the built-in specs know. Initial weights come from torch's global random state; use
``lmcfast.study.training.build`` to make a network from a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn

Network = Callable[[], nn.Module]
"""What makes a network, with fresh initial weights on every call."""

_VGG11 = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool")
_RESNET20 = (16, 32, 64)
_BLOCKS = 3


class Mlp(nn.Sequential):
    """Linear layers with ReLU between them; keys ``0.weight 0.bias 2.weight ...``.

    Inputs of shape (batch, ...) are flattened to (batch, ``inputs``); the output is (batch, ``classes``) logits.
    """

    def __init__(self, inputs: int = 784, widths: Sequence[int] = (512, 512, 512), classes: int = 10) -> None:
        layers: list[nn.Module] = []
        for size, following in pairwise((inputs, *widths, classes)):
            layers += [nn.Linear(size, following), nn.ReLU()]
        super().__init__(*layers[:-1])

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        output = input.flatten(1)
        for layer in self:
            output = layer(output)
        return output


class Vgg11(nn.Module):
    """VGG11 for 32 x 32 images: eight 3x3 convolutions, each with BatchNorm and ReLU, five max-pools, one linear layer.

    Keys as in torchvision: ``features.N``, ``classifier``. ``width`` multiplies the channels 64 .. 512; ``norm`` False
    leaves out BatchNorm. Inputs (batch, ``channels``, 32, 32), outputs (batch, ``classes``).
    """

    def __init__(self, width: float = 1.0, channels: int = 3, classes: int = 10, norm: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        size = channels
        for item in _VGG11:
            if isinstance(item, int):
                following = scaled(item, width)
                layers.append(nn.Conv2d(size, following, 3, padding=1, bias=not norm))
                layers += [nn.BatchNorm2d(following), nn.ReLU()] if norm else [nn.ReLU()]
                size = following
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(size, classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.classifier(self.features(inputs).flatten(1))
        return output


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm and a shortcut, which has a 3x3 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outputs))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.bn1(self.conv1(inputs)))
        return torch.relu(self.bn2(self.conv2(inner)) + self.shortcut(inputs))


class Resnet20(nn.Module):
    """ResNet20 of CIFAR: three stages of three basic blocks with 16, 32 and 64 channels times ``width``.

    Keys ``conv1 bn1 layer1.0.conv1 .. layer2.0.shortcut.0 .. fc``. Inputs (batch, ``channels``, height, width), outputs
    (batch, ``classes``).
    """

    def __init__(self, width: float = 1.0, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        first, second, third = (scaled(size, width) for size in _RESNET20)
        self.conv1 = nn.Conv2d(channels, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.layer1 = _stage(first, first, 1)
        self.layer2 = _stage(first, second, 2)
        self.layer3 = _stage(second, third, 2)
        self.fc = nn.Linear(third, classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        stream = torch.relu(self.bn1(self.conv1(inputs)))
        stream = self.layer3(self.layer2(self.layer1(stream)))
        output: torch.Tensor = self.fc(stream.mean((2, 3)))
        return output


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    further = [BasicBlock(outputs, outputs, 1) for _ in range(_BLOCKS - 1)]
    return nn.Sequential(BasicBlock(inputs, outputs, stride), *further)


def scaled(size: int, width: float) -> int:
    """A layer of ``size`` units times the width multiplier, rounded; ValueError where nothing is left of it."""
    units = round(size * width)
    if units < 1:
        raise ValueError(f"width: {width!r} leaves no unit in a layer of {size}")
    return units
