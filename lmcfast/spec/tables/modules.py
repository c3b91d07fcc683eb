"""What the keys and shapes of a state dict tell about its modules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from ...errors import SpecError
from ..layout import Fixed, Layout, format_layout
from ..spec import PermutationSpec

Kind = Literal["linear", "conv", "batchnorm"]

_LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
"""The tensors of a module, in the order in which torch lists them."""


@dataclass(frozen=True)
class Module:
    """A linear layer, a convolution (of any dimension) or a batch norm, as its tensors show it.

    ``path``: its name without the prefix that all keys share; ``key``: its full name. ``inputs`` is the second axis of
    the weight (``outputs`` for a batch norm); ``tensors`` are the names of its tensors without the path.
    """

    path: str
    key: str
    kind: Kind
    outputs: int
    inputs: int
    rank: int
    tensors: tuple[str, ...]

    def axes(self, out: Layout, into: Layout | None = None) -> dict[str, tuple[Layout, ...]]:
        """Layouts of all of the module's tensors; ``into`` is that of a weight's second axis."""
        layouts: dict[str, tuple[Layout, ...]] = {}
        for leaf in self.tensors:
            if leaf == "weight" and self.kind != "batchnorm":
                kernel = (Fixed(None),) * (self.rank - 2)
                layouts[f"{self.key}.{leaf}"] = (out, into or Fixed(None), *kernel)
            elif leaf != "num_batches_tracked":
                layouts[f"{self.key}.{leaf}"] = (out,)
        return layouts


def read_modules(params: Mapping[str, torch.Tensor]) -> dict[str, Module]:
    """The modules of a state dict by path. ``SpecError`` naming the first tensor that is none of the known kinds."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in params.items():
        path, dot, leaf = name.rpartition(".")
        if not dot or leaf not in _LEAVES:
            raise SpecError(f"tensor {name!r} belongs to no linear, convolution or batch norm layer", tensor=name)
        found.setdefault(path, {})[leaf] = tensor
    shared = _shared_prefix(found)
    return {path[shared:]: _module(path[shared:], path, tensors) for path, tensors in found.items()}


def _shared_prefix(paths: Iterable[str]) -> int:
    """Length of the dotted prefix that all paths share ("module.", "net."); at least one component is left."""
    split = [path.split(".") for path in paths]
    if not split:
        return 0
    depth = 0
    while all(len(parts) > depth + 1 and parts[depth] == split[0][depth] for parts in split):
        depth += 1
    return sum(len(part) + 1 for part in split[0][:depth])


def _module(path: str, key: str, tensors: Mapping[str, torch.Tensor]) -> Module:
    shapes = {leaf: tuple(tensor.shape) for leaf, tensor in tensors.items()}
    leaves = tuple(sorted(shapes, key=_LEAVES.index))
    counted = {leaf: shape for leaf, shape in shapes.items() if leaf != "num_batches_tracked"}
    if "running_mean" in shapes and "running_var" in shapes:
        sizes = set(counted.values())
        affine = ("weight" in shapes) == ("bias" in shapes)
        if len(sizes) == 1 and len(shapes["running_mean"]) == 1 and affine:
            width = shapes["running_mean"][0]
            return Module(path, key, "batchnorm", width, width, 1, leaves)
    elif set(shapes) <= {"weight", "bias"} and len(shapes.get("weight", ())) in (2, 3, 4, 5):
        weight = shapes["weight"]
        if shapes.get("bias", weight[:1]) == weight[:1]:
            kind: Kind = "linear" if len(weight) == 2 else "conv"
            return Module(path, key, kind, weight[0], weight[1], len(weight), leaves)
    elif set(shapes) <= {"weight", "bias"} and len(shapes.get("weight", ())) == 1:
        raise SpecError(
            f"module {key!r} looks like a norm without running statistics (layer or group norm) or a PReLU, "
            "which no table covers: its keys do not tell how it mixes units",
            tensor=f"{key}.weight",
        )
    described = ", ".join(f"{leaf} {shape}" for leaf, shape in shapes.items())
    raise SpecError(
        f"module {key!r} ({described}) is no linear, convolution or batch norm layer", tensor=f"{key}.{leaves[0]}"
    )


class Builder:
    """Collects layouts and reasons while a table walks through the modules in the order of the forward pass."""

    def __init__(self) -> None:
        self.axes: dict[str, tuple[Layout, ...]] = {}
        self.why: dict[tuple[str, int], tuple[str, ...]] = {}
        self.sizes: dict[str, int] = {}

    def add(self, module: Module, out: Layout, into: Layout | None = None, edge: str = "output") -> None:
        """Add a module with the layouts of its units and of what it takes.

        ``Fixed(None)`` says that these are units of the network's output (``edge`` "input": of its input), or of its
        input for ``into``.
        """
        for name, layouts in module.axes(out, into).items():
            self.axes[name] = layouts
            reasons = (edge, "input", *("position in the kernel",) * len(layouts))
            for axis, layout in enumerate(layouts):
                if layout == Fixed(None):
                    self.why[name, axis] = (reasons[axis],)

    def spec(self, params: Mapping[str, torch.Tensor]) -> PermutationSpec:
        """The spec, bound to ``params``. Its entries are in the order of the walk, whatever the order of the keys.

        Some files keep a network's order and others sort the names; what the spec says and what a matching finds must
        not depend on that.
        """
        axes = {name: [format_layout(layout) for layout in layouts] for name, layouts in self.axes.items()}
        return PermutationSpec.from_axes(axes, sizes=self.sizes, why_fixed=self.why).bind(params)


def natural(path: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts ``"2"`` before ``"10"`` in every component and digits before words."""
    parts = re.findall(r"\d+|[^\d.]+", path)
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)
