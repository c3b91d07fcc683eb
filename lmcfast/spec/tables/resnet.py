"""Table of residual networks with torchvision's or the usual CIFAR names.

``conv1 bn1 layer{s}.{b}.conv{k} layer{s}.{b}.bn{k}``, a shortcut ``downsample.0/.1`` or ``shortcut.0/.1`` (a
convolution of any kernel and its norm), and one linear layer ``fc``, ``linear`` or ``classifier``; without any norm
too. Two convolutions a block (basic) or three (bottleneck), the norm after its convolution.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from ...errors import SpecError
from ..layout import Atom, Fixed, Layout, concat, product
from ..spec import PermutationSpec
from .modules import Builder, Module, natural, read_modules

_BLOCK = re.compile(r"(layer\d+\.\d+)\.(conv[123]|bn[123]|(?:downsample|shortcut)\.[01])")
_HEADS = ("fc", "linear", "classifier")


def resnet_spec(params: Mapping[str, torch.Tensor]) -> PermutationSpec:
    """Spec of a residual network from its state dict, bound to it.

    Groups: ``stream{s}`` for the units that all blocks of a stage add to (``stream0`` from the first convolution on;
    a block with a shortcut convolution starts a new one), ``layer{s}.{b}.{k}`` inside a block. Where a block doubles
    the width without a shortcut convolution, the input is taken to be padded with zero channels, half on each side
    (He et al. 2016, option A, as CIFAR implementations write it): the layout becomes ``low | stream | high``.
    ``SpecError`` naming the tensor for anything else.
    """
    modules = read_modules(params)
    blocks: dict[str, dict[str, Module]] = {}
    outside: dict[str, Module] = {}
    for path, module in modules.items():
        match = _BLOCK.fullmatch(path)
        if match:
            part = match[2].replace("shortcut", "downsample")
            if blocks.setdefault(match[1], {}).setdefault(part, module) is not module:
                raise _refuse(module, "the block has two shortcuts")
        else:
            outside[path] = module
    heads = [outside.pop(name) for name in _HEADS if name in outside]
    if "conv1" not in outside or not blocks or len(heads) != 1 or heads[0].kind != "linear":
        raise SpecError("not a residual network: conv1, blocks layer1.0.conv1 .. and one linear layer fc are needed")
    stem = _Unit(outside.pop("conv1"), outside.pop("bn1", None))
    if outside:
        raise _refuse(next(iter(outside.values())), "it is not part of the table")
    walk = _Walk(stem)
    for path in sorted(blocks, key=natural):
        walk.block(path, blocks[path])
    walk.head(heads[0])
    return walk.builder.spec(params)


def _refuse(module: Module, reason: str) -> SpecError:
    tensor = f"{module.key}.{module.tensors[0]}"
    return SpecError(f"module {module.key!r} does not fit a residual network: {reason}", tensor)


class _Unit:
    """A convolution and the batch norm that follows it, if any."""

    def __init__(self, conv: Module | None, norm: Module | None) -> None:
        if conv is None:
            raise SpecError("a block of the residual network lacks a convolution")
        if conv.kind != "conv":
            raise _refuse(conv, "a convolution is needed")
        if norm is not None and (norm.kind != "batchnorm" or norm.outputs != conv.outputs):
            raise _refuse(norm, f"no batch norm that fits {conv.key!r}, which it should follow")
        self.conv = conv
        self.norm = norm


class _Walk:
    """The stream that the blocks add to: its layout and its number of channels."""

    def __init__(self, stem: _Unit) -> None:
        self.builder = Builder()
        self.normed = stem.norm is not None
        self.layout: Layout = Atom("stream0")
        self.size = stem.conv.outputs
        self.streams = 1
        self.add(stem, self.layout, Fixed(None))

    def add(self, unit: _Unit, out: Layout, into: Layout, inputs: int | None = None) -> None:
        if inputs is not None and unit.conv.inputs != inputs:
            raise _refuse(unit.conv, f"it takes {unit.conv.inputs} of {inputs} channels (is it grouped?)")
        if (unit.norm is not None) != self.normed:
            raise _refuse(unit.norm or unit.conv, "either every convolution has a batch norm after it or none has")
        self.builder.add(unit.conv, out, into)
        if unit.norm is not None:
            self.builder.add(unit.norm, out)

    def block(self, path: str, parts: dict[str, Module]) -> None:
        count = 3 if "conv3" in parts else 2
        units = [_Unit(parts.pop(f"conv{k}", None), parts.pop(f"bn{k}", None)) for k in range(1, count + 1)]
        shortcut = None
        if "downsample.0" in parts:
            shortcut = _Unit(parts.pop("downsample.0"), parts.pop("downsample.1", None))
        if parts:
            raise _refuse(next(iter(parts.values())), "its block has no place for it")
        before, before_size = self.layout, self.size
        self.step_stream(path, units[-1].conv, shortcut)
        into, inputs = before, before_size
        for k, unit in enumerate(units[:-1], start=1):
            inner = Atom(f"{path}.{k}")
            self.add(unit, inner, into, inputs)
            into, inputs = inner, unit.conv.outputs
        self.add(units[-1], self.layout, into, inputs)
        if shortcut is not None:
            self.add(shortcut, self.layout, before, before_size)

    def step_stream(self, path: str, last: Module, shortcut: _Unit | None) -> None:
        """The stream after a block whose last convolution is ``last``."""
        if shortcut is not None:
            if shortcut.conv.outputs != last.outputs:
                raise _refuse(shortcut.conv, f"it gives {shortcut.conv.outputs} channels beside {last.outputs}")
            self.layout, self.size = Atom(f"stream{self.streams}"), last.outputs
            self.streams += 1
        elif last.outputs != self.size:
            if last.outputs != 2 * self.size or self.size % 2:
                raise _refuse(last, f"without a shortcut convolution, {last.outputs} channels follow {self.size}")
            low, high = Atom(f"{path}.low"), Atom(f"{path}.high")
            self.builder.sizes |= {low.name: self.size // 2, high.name: self.size // 2}
            self.layout, self.size = concat([low, self.layout, high]), last.outputs

    def head(self, module: Module) -> None:
        positions, rest = divmod(module.inputs, self.size)
        if rest or not positions:
            raise _refuse(module, f"it takes {module.inputs} units where {self.size} channels come in")
        self.builder.add(module, Fixed(None), product([self.layout, Fixed(positions)]))
