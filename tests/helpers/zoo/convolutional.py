"""Convolutional networks in plain torch: VGG, CIFAR ResNets, U-Nets, and forms that libraries do not have."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .registry import Network, entry, image


def _conv_norm_relu(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]


@entry("torch")
def vgg_flatten() -> Network:
    """Channels meet their positions in a linear layer: ``c _4``."""
    features = [*_conv_norm_relu(3, 8), nn.MaxPool2d(2), *_conv_norm_relu(8, 12), *_conv_norm_relu(12, 12)]
    head = [nn.Flatten(), nn.Linear(40, 30), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(30, 10)]
    tail = [nn.MaxPool2d(2), nn.Conv2d(12, 10, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d((2, 2))]
    return Network(nn.Sequential(*features, *tail, *head), (image(16),))


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, pad: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        changes = stride > 1 or inputs != outputs
        self.extra = outputs - inputs if changes and pad else 0
        self.shortcut: nn.Module = nn.Identity()
        if changes and not pad:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.extra:
            before = self.extra // 2
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, before, self.extra - before))
        return functional.relu(y + self.shortcut(x))


def _resnet20(pad: bool) -> Network:
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    width = 8
    for outputs in (8, 16, 32):
        for block in range(3):
            layers.append(_Block(width, outputs, 2 if block == 0 and outputs > 8 else 1, pad))
            width = outputs
    return Network(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)), (image(16),))


@entry("torch")
def resnet20_convolution_shortcut() -> Network:
    return _resnet20(pad=False)


@entry("torch")
def resnet20_padded_shortcut() -> Network:
    """Later stages hold the earlier channels between zeros, and move in blocks."""
    return _resnet20(pad=True)


class _UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.GroupNorm(4, 8)
        self.down = nn.Conv2d(8, 12, 3, 2, 1)
        self.middle = nn.Conv2d(12, 12, 3, padding=1)
        self.up = nn.ConvTranspose2d(12, 10, 2, 2)
        self.join = nn.Conv2d(18, 8, 3, padding=1)
        self.leave = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        high = functional.silu(self.norm(self.enter(x)))
        low = functional.relu(self.down(high))
        low = low + self.middle(low)
        return self.leave(functional.relu(self.join(torch.cat([self.up(low), high], 1))))


@entry("torch")
def unet_group_norm() -> Network:
    return Network(_UNet(), (image(16),))


class _Upsampling(nn.Module):
    """Pixel shuffle, interpolation, instance norm, a squeeze-and-excitation gate."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.InstanceNorm2d(8, affine=True)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.excite = nn.Conv2d(4, 8, 1)
        self.grow = nn.Conv2d(8, 24, 3, padding=1)
        self.leave = nn.Conv2d(6, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.leaky_relu(self.norm(self.enter(x)), 0.1)
        gate = torch.sigmoid(self.excite(functional.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        x = functional.interpolate(x * gate, scale_factor=2, mode="bilinear", align_corners=False)
        return self.leave(functional.pixel_shuffle(self.grow(x), 2))


@entry("torch")
def pixel_shuffle() -> Network:
    return Network(_Upsampling(), (image(8),))


@entry("torch")
def volume_and_line() -> Network:
    """Convolutions over three dimensions, then over one."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.volume = nn.Conv3d(2, 8, 3, padding=1)
            self.norm = nn.BatchNorm3d(8)
            self.line = nn.Conv1d(8, 10, 3, padding=1, groups=2)
            self.out = nn.Linear(10, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = functional.max_pool3d(functional.elu(self.norm(self.volume(x))), 2)
            return self.out(functional.relu(self.line(x.flatten(2))).amax(-1))

    return Network(Both(), (torch.randn(2, 2, 4, 4, 4),))
