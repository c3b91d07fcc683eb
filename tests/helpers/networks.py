"""Small networks for tests, in the key styles of the architectures that the spec tables know.

Every builder is deterministic from ``seed`` and leaves torch's global generator as it was. All tensors are random,
BatchNorm's scale, shift and running statistics included, so that a statistic that was forgotten changes the output.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Norm = Callable[[int], nn.Module]


def randomize(module: nn.Module, seed: int) -> nn.Module:
    """Draw every parameter and floating buffer anew; weights keep the signal's size through the network. Eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict(keep_vars=True).items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            leaf = name.rpartition(".")[2]
            if leaf == "running_var":
                tensor.copy_(0.5 + noise.abs())
            elif tensor.ndim >= 2:
                tensor.copy_(noise * (2.0 / (tensor.numel() / tensor.shape[0])) ** 0.5)
            elif leaf == "weight":
                tensor.copy_(1.0 + 0.3 * noise)
            else:
                tensor.copy_(0.3 * noise)
    return module.eval()


def _build(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        return randomize(make(), seed)


def inputs(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal example inputs."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + 12345))


# ---- chains


def mlp(widths: Sequence[int] = (6, 8, 7, 5), seed: int = 0, bias: bool = True, norm: bool = False) -> nn.Module:
    """nn.Sequential of linear layers (keys ``0.weight`` ..), optionally with BatchNorm1d before each ReLU."""

    def make() -> nn.Module:
        layers: list[nn.Module] = []
        for k, (into, out) in enumerate(itertools.pairwise(widths)):
            layers.append(nn.Linear(into, out, bias=bias))
            if k < len(widths) - 2:
                layers += [nn.BatchNorm1d(out), nn.ReLU()] if norm else [nn.ReLU()]
        return nn.Sequential(*layers)

    return _build(make, seed)


class NamedMlp(nn.Module):
    """An MLP with layers ``fc1 fc2 ..``, batch norms ``bn1 ..`` after them if asked for, and ``out``."""

    def __init__(self, widths: Sequence[int], norm: bool) -> None:
        super().__init__()
        self.depth = len(widths) - 2
        self.norm = norm
        for k in range(self.depth):
            setattr(self, f"fc{k + 1}", nn.Linear(widths[k], widths[k + 1]))
            if norm:
                setattr(self, f"bn{k + 1}", nn.BatchNorm1d(widths[k + 1]))
        self.out = nn.Linear(widths[-2], widths[-1])

    def forward(self, x: Tensor) -> Tensor:
        for k in range(1, self.depth + 1):
            x = getattr(self, f"fc{k}")(x)
            x = torch.relu(getattr(self, f"bn{k}")(x) if self.norm else x)
        y: Tensor = self.out(x)
        return y


def named_mlp(widths: Sequence[int] = (6, 8, 8, 5), seed: int = 0, norm: bool = False) -> nn.Module:
    """See :class:`NamedMlp`."""
    return _build(lambda: NamedMlp(widths, norm), seed)


def cnn(seed: int = 0, norm: bool = True) -> nn.Module:
    """nn.Sequential: two convolutions, a flatten of 2 x 2 positions with BatchNorm1d after it, two linear layers."""

    def make() -> nn.Module:
        def bn(width: int) -> list[nn.Module]:
            return [nn.BatchNorm2d(width)] if norm else []

        return nn.Sequential(
            *[nn.Conv2d(2, 5, 3, padding=1), *bn(5), nn.ReLU(), nn.MaxPool2d(2)],
            *[nn.Conv2d(5, 6, 3, padding=1, bias=False), *bn(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()],
            *([nn.BatchNorm1d(24)] if norm else []),
            *[nn.Linear(24, 7), nn.ReLU(), nn.Linear(7, 4)],
        )

    return _build(make, seed)


class Vgg(nn.Module):
    """torchvision's VGG (``features.N``, ``classifier.N``), or the CIFAR form with one linear layer ``classifier``."""

    def __init__(self, plan: Sequence[int | str], norm: bool, pooled: int, hidden: int | None, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for entry in plan:
            if isinstance(entry, str):
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(width, entry, 3, padding=1), *([nn.BatchNorm2d(entry)] if norm else []), nn.ReLU()]
                width = entry
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(pooled)
        flat = width * pooled * pooled
        if hidden is None:
            self.classifier: nn.Module = nn.Linear(flat, classes)
        else:
            first = [nn.Linear(flat, hidden), nn.ReLU(), nn.Dropout()]
            second = [nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout()]
            self.classifier = nn.Sequential(*first, *second, nn.Linear(hidden, classes))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
        return y


def vgg(
    plan: Sequence[int | str] = (4, "M", 6, 5, "M", 6),
    seed: int = 0,
    norm: bool = True,
    pooled: int = 2,
    hidden: int | None = 7,
    classes: int = 5,
) -> nn.Module:
    """A small VGG; ``pooled`` x ``pooled`` positions are flattened, ``hidden`` None gives the CIFAR classifier."""
    return _build(lambda: Vgg(plan, norm, pooled, hidden, classes), seed)


# ---- residual networks


class Block(nn.Module):
    """Basic block (two convolutions) or bottleneck (three, ``expansion`` times as wide at its end)."""

    def __init__(self, into: int, width: int, stride: int, style: Style) -> None:
        super().__init__()
        out = width * style.expansion
        bias = style.norm is None
        if style.expansion == 1:
            shapes = [(into, width, 3, stride), (width, width, 3, 1)]
        else:
            shapes = [(into, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
        self.count = len(shapes)
        for k, (a, b, kernel, step) in enumerate(shapes, start=1):
            setattr(self, f"conv{k}", nn.Conv2d(a, b, kernel, step, kernel // 2, bias=bias))
            if style.norm is not None:
                setattr(self, f"bn{k}", style.norm(b))
        self.style = style
        if (into != out or stride != 1) and style.shortcut_kernel:
            kernel = style.shortcut_kernel
            parts: list[nn.Module] = [nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=bias)]
            setattr(self, style.shortcut, nn.Sequential(*parts, *([style.norm(out)] if style.norm is not None else [])))
        self.stride, self.pad = stride, (out - into) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for k in range(1, self.count + 1):
            y = getattr(self, f"conv{k}")(y)
            y = getattr(self, f"bn{k}")(y) if self.style.norm is not None else y
            y = torch.relu(y) if k < self.count else y
        if hasattr(self, self.style.shortcut):
            x = getattr(self, self.style.shortcut)(x)
        elif self.pad:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return torch.relu(x + y)


@dataclass(frozen=True)
class Style:
    """How a residual network is written. ``shortcut_kernel`` 0: zero padding (option A)."""

    shortcut: str = "downsample"
    head: str = "fc"
    shortcut_kernel: int = 1
    expansion: int = 1
    norm: Norm | None = nn.BatchNorm2d


class ResNet(nn.Module):
    """``conv1 bn1 layer1.0.conv1 ..`` and a linear layer, with a 3 x 3 first convolution and global average pooling."""

    def __init__(self, widths: Sequence[int], blocks: int, style: Style, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=style.norm is None)
        if style.norm is not None:
            self.bn1 = style.norm(widths[0])
        self.depth = len(widths)
        into = widths[0]
        for s, width in enumerate(widths, start=1):
            stage = []
            for b in range(blocks):
                stage.append(Block(into, width, 2 if s > 1 and b == 0 else 1, style))
                into = width * style.expansion
            setattr(self, f"layer{s}", nn.Sequential(*stage))
        setattr(self, style.head, nn.Linear(into, classes))
        self.style = style

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = torch.relu(self.bn1(x) if self.style.norm is not None else x)
        for s in range(1, self.depth + 1):
            x = getattr(self, f"layer{s}")(x)
        y: Tensor = getattr(self, self.style.head)(x.mean((2, 3)))
        return y


def resnet(
    widths: Sequence[int] = (4, 6), seed: int = 0, blocks: int = 2, bottleneck: bool = False, norm: bool = True
) -> nn.Module:
    """torchvision's key style: ``downsample``, ``fc``; basic blocks or bottlenecks; without norm the bias is used."""
    style = Style(expansion=2 if bottleneck else 1, norm=nn.BatchNorm2d if norm else None)
    return _build(lambda: ResNet(widths, blocks, style, classes=5), seed)


def cifar_resnet(
    shortcut: str = "3x3", seed: int = 0, widths: Sequence[int] = (4, 8, 16), blocks: int = 1, norm: bool = True
) -> nn.Module:
    """CIFAR key style: ``shortcut``, ``linear``; shortcut by a "3x3" or "1x1" convolution, or zero padding ("pad")."""
    kernel = {"3x3": 3, "1x1": 1, "pad": 0}[shortcut]
    style = Style("shortcut", "linear", kernel, norm=nn.BatchNorm2d if norm else None)
    return _build(lambda: ResNet(widths, blocks, style, classes=5), seed)


def group_norm_resnet(seed: int = 0) -> nn.Module:
    """A residual network with GroupNorm: its keys look like BatchNorm's without statistics. No table may claim it."""
    style = Style("shortcut", "linear", 1, norm=lambda width: nn.GroupNorm(2, width))
    return _build(lambda: ResNet((4, 8), 1, style, classes=5), seed)


# ---- others


class TiedAutoencoder(nn.Module):
    """``decoder(relu(encoder(x)))`` where ``tied_input`` and ``tied_output`` are one matrix, used once each way."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(width, hidden)
        self.inner = nn.Linear(hidden, hidden)
        self.decoder = nn.Linear(hidden, width)
        self.again = nn.Linear(width, hidden)
        self.again.weight = self.encoder.weight
        self.again.bias = self.encoder.bias

    def forward(self, x: Tensor) -> Tensor:
        x = self.decoder(torch.relu(self.inner(torch.relu(self.encoder(x)))))
        return torch.relu(self.again(x)).square().sum(-1, keepdim=True) + functional.linear(
            torch.tanh(self.encoder(x)), self.encoder.weight.t()
        )


def tied_autoencoder(width: int = 6, hidden: int = 8, seed: int = 0) -> tuple[nn.Module, dict[str, Any]]:
    """The module and the arguments of ``PermutationSpec.from_axes``; ``again`` is an alias of ``encoder``."""
    axes = {
        "encoder.weight": ("h0", None),
        "encoder.bias": ("h0",),
        "inner.weight": ("h1", "h0"),
        "inner.bias": ("h1",),
        "decoder.weight": (None, "h1"),
        "decoder.bias": (None,),
    }
    tied = {"again.weight": "encoder.weight", "again.bias": "encoder.bias"}
    return _build(lambda: TiedAutoencoder(width, hidden), seed), {"axes": axes, "tied": tied}


class Attention(nn.Module):
    """One self-attention layer with stacked q, k, v, whose heads and inner dimensions move: nested on one axis."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads, self.inner = heads, inner
        self.qkv = nn.Linear(width, 3 * heads * inner)
        self.out = nn.Linear(heads * inner, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, self.heads, self.inner).permute(2, 0, 3, 1, 4)
        y = torch.softmax(q @ k.transpose(-1, -2) / self.inner**0.5, -1) @ v
        result: Tensor = self.out(y.transpose(1, 2).reshape(batch, length, -1))
        return result


class Experts(nn.Module):
    """Soft mixture of experts with stacked weights: units nested in the expert, which is another axis of the tensor."""

    def __init__(self, width: int, experts: int, units: int) -> None:
        super().__init__()
        self.router = nn.Parameter(torch.empty(experts, width))
        self.up = nn.Parameter(torch.empty(experts, units, width))
        self.down = nn.Parameter(torch.empty(experts, width, units))

    def forward(self, x: Tensor) -> Tensor:
        share = torch.softmax(x @ self.router.t(), -1)
        hidden = torch.relu(torch.einsum("bw,euw->beu", x, self.up))
        return torch.einsum("be,beu,ewu->bw", share, hidden, self.down)


def attention(seed: int = 0, width: int = 5, heads: int = 3, inner: int = 4) -> nn.Module:
    """See :class:`Attention`; inputs (batch, length, width)."""
    return _build(lambda: Attention(width, heads, inner), seed)


def experts(seed: int = 0, width: int = 5, count: int = 3, units: int = 4) -> nn.Module:
    """See :class:`Experts`; inputs (batch, width)."""
    return _build(lambda: Experts(width, count, units), seed)


def params_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the state dict in which shared tensors are shared."""
    copies: dict[int, Tensor] = {}
    result = {}
    for name, tensor in module.state_dict().items():
        result[name] = copies.setdefault(tensor.data_ptr(), tensor.clone())
    return result


def architectures() -> Iterable[tuple[str, nn.Module, Tensor]]:
    """Every network that the tables know: name, module, example inputs."""
    image = inputs(2, 3, 8, 8)
    vector = inputs(4, 6)
    yield "mlp", mlp(), vector
    yield "deep mlp without bias", mlp((6, 8, 8, 8, 9, 3), bias=False), vector
    yield "mlp with batch norm", mlp((6, 8, 7, 5), norm=True), vector
    yield "mlp with two-unit layers", mlp((6, 2, 2, 5), seed=1), vector
    yield "named mlp", named_mlp(), vector
    yield "named mlp with batch norm", named_mlp(norm=True), vector
    yield "cnn", cnn(), inputs(2, 2, 8, 8)
    yield "cnn without norm", cnn(norm=False), inputs(2, 2, 8, 8)
    for norm in (True, False):
        yield f"vgg, norm {norm}", vgg(norm=norm), image
        yield f"cifar vgg, norm {norm}", vgg(norm=norm, pooled=1, hidden=None), image
        yield f"resnet, norm {norm}", resnet(norm=norm), image
        yield f"bottleneck resnet, norm {norm}", resnet(bottleneck=True, norm=norm), image
        for shortcut in ("3x3", "1x1", "pad"):
            yield f"cifar resnet {shortcut}, norm {norm}", cifar_resnet(shortcut, norm=norm), image
