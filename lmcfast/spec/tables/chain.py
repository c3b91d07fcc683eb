"""Tables of networks that are one chain of layers: feed-forward networks and VGG.

Between two layers with weights only elementwise functions, batch norms, pooling, dropout and a flatten may stand. The
keys do not show the forward pass: a network with a skip connection, a grouped first convolution or a transposed square
convolution can have the keys of a chain. ``verify_spec`` on the module tells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch

from ...errors import SpecError
from ..layout import Atom, Fixed, Layout, product
from ..spec import PermutationSpec
from .modules import Builder, Module, natural, read_modules

_NAMED = re.compile(r"(?P<stem>[A-Za-z]+(?:_[A-Za-z]+)*)_?(?P<number>\d+)")
_LAST = ("out", "output", "head", "classifier", "fc", "linear")
_LAYER_STEMS = ("fc", "lin", "linear", "dense", "layer", "hidden", "conv")
_NORM_STEMS = ("bn", "norm", "batchnorm", "batch_norm")


def feed_forward_spec(params: Mapping[str, torch.Tensor]) -> PermutationSpec:
    """Spec of a feed-forward network from its state dict, bound to it.

    Linear layers, convolutions and batch norms, named by numbers (an ``nn.Sequential``: ``0.weight``, ``net.2.bias``)
    or in order (``fc1``, ``bn1``, ``fc2``, ``out``); a flatten before a linear layer may leave any number of positions.
    Groups are ``c0, c1 ..`` for convolutions and ``h0, h1 ..`` for linear layers. ``SpecError`` naming the tensor
    for anything else.
    """
    modules = read_modules(params)
    if all(re.fullmatch(r"\d+(\.\d+)*", path) for path in modules):
        ordered = sorted(modules.values(), key=lambda module: natural(module.path))
    else:
        ordered = _order_named(modules)
    return chain_spec(params, ordered)


def vgg_spec(params: Mapping[str, torch.Tensor]) -> PermutationSpec:
    """Spec of a VGG (or AlexNet) from its state dict, bound to it: ``features.N`` then ``classifier.N``.

    torchvision's and the CIFAR form (one linear layer ``classifier``, ``fc`` or ``linear``), with or without batch
    norm; the flatten may leave any number of positions. ``SpecError`` naming the tensor for anything else.
    """
    modules = read_modules(params)
    features, classifier = [], []
    for path, module in modules.items():
        if re.fullmatch(r"features\.\d+", path):
            features.append(module)
        elif re.fullmatch(r"classifier(\.\d+)?|fc|linear", path):
            classifier.append(module)
        else:
            raise SpecError(f"module {module.key!r} is not part of a VGG (features.N, classifier.N)", _first(module))
    if not features or not classifier or any(module.kind == "linear" for module in features):
        raise SpecError("not a VGG: convolutions features.N and linear layers classifier.N are needed")
    ordered = [*_sorted(features), *_sorted(classifier)]
    return chain_spec(params, ordered)


def _sorted(modules: Sequence[Module]) -> list[Module]:
    return sorted(modules, key=lambda module: natural(module.path))


def _first(module: Module) -> str:
    return f"{module.key}.{module.tensors[0]}"


def chain_spec(params: Mapping[str, torch.Tensor], ordered: Sequence[Module]) -> PermutationSpec:
    """Spec of layers that are applied one after the other."""
    weighted = [module for module in ordered if module.kind != "batchnorm"]
    if not weighted:
        raise SpecError("the state dict has no linear layer and no convolution")
    walk, counts = _Walk(), {"conv": 0, "linear": 0}
    for module in ordered:
        if module.kind == "batchnorm":
            walk.norm(module)
            continue
        number = counts[module.kind]
        counts[module.kind] += 1
        name = f"{'c' if module.kind == 'conv' else 'h'}{number}"
        walk.layer(module, Fixed(None) if module is weighted[-1] else Atom(name))
    return walk.builder.spec(params)


class _Walk:
    """The state between two layers: the layout of the units, their number, and whether they still have positions."""

    def __init__(self) -> None:
        self.builder = Builder()
        self.layout: Layout = Fixed(None)
        self.size: int | None = None  # not known before the first module
        self.spatial = False
        self.started = False  # whether a layer with weights was seen

    def layer(self, module: Module, out: Layout) -> None:
        if module.kind == "conv" and self.started and not self.spatial:
            raise self.misfit(module, "a convolution after a linear layer or a flatten")
        fits = self.size is None or module.inputs == self.size
        if not fits and (module.kind != "linear" or not self.flatten(module.inputs)):
            raise self.misfit(module, f"it takes {module.inputs} units where {self.size} come in")
        self.builder.add(module, out, self.layout)
        self.layout, self.size = out, module.outputs
        self.spatial = module.kind == "conv"
        self.started = True

    def norm(self, module: Module) -> None:
        if module.outputs != self.size and self.size is not None and not self.flatten(module.outputs):
            raise self.misfit(module, f"it takes {module.outputs} units where {self.size} come in")
        self.size = module.outputs
        self.builder.add(module, self.layout, edge="output" if self.started else "input")

    def flatten(self, size: int) -> bool:
        """Turn channels into channels times positions, where ``size`` is a multiple of them."""
        if not self.spatial or not self.size or size % self.size:
            return False
        if self.layout != Fixed(None):
            self.layout = product([self.layout, Fixed(size // self.size)])
        self.size, self.spatial = size, False
        return True

    def misfit(self, module: Module, reason: str) -> SpecError:
        return SpecError(f"module {module.key!r} does not continue a chain of layers: {reason}", _first(module))


def _order_named(modules: Mapping[str, Module]) -> list[Module]:
    """Order of layers that are named by a word and a number, batch norms after the layer of the same number.

    The shapes must confirm it: a batch norm fits its layer, and one at least shows that norms follow their layer (the
    layer changes the width), since with equal widths the keys of a norm before the layer look the same.
    """
    layers: dict[str, dict[int, Module]] = {}
    norms: dict[int, Module] = {}
    last: list[Module] = []
    for path, module in modules.items():
        match = _NAMED.fullmatch(path)
        stem, number = (match["stem"].lower(), int(match["number"])) if match else (path.lower(), -1)
        if match and module.kind == "batchnorm" and stem in _NORM_STEMS and number not in norms:
            norms[number] = module
        elif match and module.kind != "batchnorm" and stem in _LAYER_STEMS:
            layers.setdefault(module.kind, {}).setdefault(number, module)
        elif path in _LAST and module.kind == "linear":
            last.append(module)
        else:
            raise SpecError(f"the name of module {module.key!r} does not tell its place in a chain", _first(module))
    total = sum(map(len, layers.values())) + len(norms) + len(last)
    numbers = [sorted(layers.get(kind, {})) for kind in ("conv", "linear")]
    for found in numbers:
        if found and found != list(range(found[0], found[0] + len(found))):
            raise SpecError(f"the layers are not numbered in one row but {found}")
    if total != len(modules) or len(last) > 1 or not any(numbers):
        raise SpecError("the names of the modules do not tell one order (two of a number, or two last layers)")
    ordered = [layers[kind][n] for kind, found in zip(("conv", "linear"), numbers, strict=True) for n in found]
    start = (numbers[0] or numbers[1])[0]
    return [*_with_norms(ordered, {number - start: norm for number, norm in norms.items()}), *last]


def _with_norms(layers: Sequence[Module], norms: Mapping[int, Module]) -> list[Module]:
    found: list[Module] = []
    evidence = not norms
    for place, layer in enumerate(layers):
        found.append(layer)
        if place in norms:
            norm = norms[place]
            if norm.outputs != layer.outputs:
                raise SpecError(f"batch norm {norm.key!r} does not fit the layer {layer.key!r}", _first(norm))
            evidence = evidence or layer.inputs != layer.outputs
            found.append(norm)
    unplaced = [norm for place, norm in norms.items() if not 0 <= place < len(layers)]
    if unplaced:
        raise SpecError(f"batch norm {unplaced[0].key!r} has no layer of its number", _first(unplaced[0]))
    if not evidence:
        raise SpecError("all widths are equal: the keys do not tell whether batch norms precede or follow the layers")
    return found
