"""Layers whose output channels can be scaled and shifted by changing their own weights, and what they give on data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..batches import device_of, inputs_of, to_device
from ..errors import InvalidParamsError
from .batchnorm import batchnorm_layers, training_only

CONSTANT = 1e-12  # a variance below this share of the mean square is rounding: the channel does not vary


def channel_layers(module: nn.Module) -> dict[str, nn.Module]:
    """{path: layer} of the linear layers and convolutions that own their weight, each once."""
    owners = Counter(id(parameter) for part in module.modules() for parameter in part.parameters(recurse=False))
    found = {}
    for path, layer in module.named_modules():
        linear = isinstance(layer, nn.Linear | _ConvNd) or _is_transposed(layer)
        weight = layer._parameters.get("weight") if linear else None
        if weight is not None and weight.is_floating_point() and owners[id(weight)] == 1:
            found[path] = layer
    return found


def channel_axis(layer: nn.Module) -> int:
    """The axis of the layer's output (of a BatchNorm: of its input) that holds the channels, with or without batch."""
    return -(len(layer.kernel_size) + 1) if isinstance(layer, _ConvNd) else -1


def weight_rows(layer: nn.Module, weight: torch.Tensor) -> torch.Tensor:
    """A weight of the layer's shape as (groups, channels of each, inputs of each), float64."""
    wide, groups = weight.detach().double(), layer.groups if isinstance(layer, _ConvNd) else 1
    if isinstance(layer, _ConvTransposeNd):  # (in, out / groups, ...)
        return _grouped(wide, groups).transpose(1, 2).flatten(2)
    return _grouped(wide.T if _is_transposed(layer) else wide.flatten(1), groups)


def scale_rows(layer: nn.Module, factor: torch.Tensor) -> None:
    """Multiply the weights of each channel; computed in float64 and rounded once."""
    weight = layer.get_parameter("weight")
    with torch.no_grad():
        wide, factor = weight.double(), factor.to(weight.device, torch.float64)
        if isinstance(layer, _ConvTransposeNd):
            shaped = factor.reshape(layer.groups, 1, -1, *[1] * (weight.ndim - 2))
            weight.copy_((_grouped(wide, layer.groups) * shaped).flatten(0, 1))
        elif _is_transposed(layer):
            weight.copy_(wide * factor)
        else:
            weight.copy_(wide * factor.reshape(-1, *[1] * (weight.ndim - 1)))


def fold(layer: nn.Module, scale: torch.Tensor, shift: torch.Tensor) -> None:
    """Make scale * y + shift of each output channel y; without a bias the shift is lost."""
    scale_rows(layer, scale)
    bias = layer._parameters.get("bias")
    if bias is not None:
        with torch.no_grad():
            bias.copy_(bias.double() * scale.to(bias.device) + shift.to(bias.device))


def _grouped(tensor: torch.Tensor, groups: int) -> torch.Tensor:
    return tensor.reshape(groups, -1, *tensor.shape[1:])


def _is_transposed(layer: nn.Module) -> bool:
    """Whether it is transformers' linear layer with weights (in, out)."""
    return type(layer).__name__ == "Conv1D"


@dataclass
class Moments:
    """Count, mean and sum of squared deviations of each channel, float64, merged piece by piece."""

    count: int = 0
    mean: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    squares: torch.Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, values: torch.Tensor, axis: int) -> None:
        rows = values.detach().movedim(axis, 0).flatten(1).double() if values.ndim > 1 else values.double()[:, None]
        count, mean = rows.shape[1], rows.mean(1).cpu()
        if count == 0:
            return
        squares = (rows - mean.to(rows.device)[:, None]).square().sum(1).cpu()
        total = self.count + count
        away = mean - self.mean
        self.squares = self.squares + squares + away.square() * (self.count * count / total)
        self.mean = self.mean + away * (count / total)
        self.count = total

    @property
    def variance(self) -> torch.Tensor:
        """Over all examples and positions, divided by their number; 0 where nothing but rounding varies."""
        variance = self.squares / self.count
        return torch.where(variance <= CONSTANT * self.mean.square(), torch.zeros_like(variance), variance)

    @property
    def deviation(self) -> torch.Tensor:
        return self.variance.sqrt()


@dataclass(frozen=True)
class Passage:
    """What one batch shows of a module: the layers in the order in which they are reached, how often each is, those
    whose output a BatchNorm takes as it is, and those whose output is the module's."""

    order: tuple[str, ...]
    calls: Mapping[str, int]
    normalised: frozenset[str]
    outputs: frozenset[str]


def passage(module: nn.Module, batch: Any) -> Passage:
    """Watch one batch go through the module's channel layers and BatchNorm layers."""
    layers, norms = channel_layers(module), batchnorm_layers(module)
    calls: Counter[str] = Counter()
    given: dict[int, tuple[str, torch.Tensor, int]] = {}  # holding the tensors keeps their ids theirs
    normalised: set[str] = set()

    def source(value: Any) -> set[str]:
        """The layer whose output this tensor is, unless something was written over it since."""
        found = given.get(id(value))
        return {found[0]} if found is not None and found[1]._version == found[2] else set()

    def see(path: str, args: tuple[Any, ...], output: Any) -> None:
        calls[path] += 1
        if path in norms:
            normalised.update(*map(source, args[:1]))
        elif isinstance(output, torch.Tensor):
            given[id(output)] = (path, output, output._version)

    with watching({**layers, **norms}, see), training_only(module, {}), torch.no_grad():
        result = module(to_device(inputs_of(batch), device_of(module)))
    outputs = {path for tensor in _tensors(result) for path in source(tensor)}
    return Passage(tuple(calls), calls, frozenset(normalised), frozenset(outputs))


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping | tuple | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(part)


class _Reached(Exception):
    """The last layer that matters has been seen; the rest of the network need not run."""


def observe(
    module: nn.Module, paths: Collection[str], batches: Iterable[Any], argument: str, early: bool = False
) -> dict[str, Moments]:
    """Moments of the outputs of channel layers, and of the inputs of BatchNorm layers, over all batches.

    The module runs in evaluation mode. ``early``: a batch need go no further than to the first of the layers. Raises
    ``InvalidParamsError`` where they are not finite, ``ValueError`` without batches.
    """
    parts = dict(module.named_modules())
    found = {path: Moments() for path in paths}

    def see(path: str, args: tuple[Any, ...], output: Any) -> None:
        norm = isinstance(parts[path], _BatchNorm)
        value = args[0] if norm else output
        found[path].add(value, 1 if norm and value.ndim > 1 else channel_axis(parts[path]))
        if early:
            raise _Reached

    with watching({path: parts[path] for path in paths}, see), training_only(module, {}), torch.no_grad():
        device = device_of(module)
        for batch in batches:
            with suppress(_Reached):
                module(to_device(inputs_of(batch), device))
    for path, moments in found.items():
        if moments.count == 0:
            raise ValueError(f"batches: no example reached layer {path!r} of {argument}")
        if not bool(torch.isfinite(moments.mean).all() and torch.isfinite(moments.squares).all()):
            raise InvalidParamsError(f"{argument}: the outputs of layer {path!r} are not finite", f"{path}.weight")
    return found


@contextmanager
def watching(layers: Mapping[str, nn.Module], see: Any) -> Iterator[None]:
    """Call ``see(path, args, output)`` after each layer has run, inside the block."""
    with ExitStack() as stack:
        for path, layer in layers.items():

            def hook(_: nn.Module, args: tuple[Any, ...], output: Any, path: str = path) -> None:
                see(path, args, output)

            stack.callback(layer.register_forward_hook(hook).remove)
        yield
