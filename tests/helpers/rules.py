"""Small modules that show what an operator's rule lets move."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmcfast.spec import PermutationSpec, derive_spec, verify_spec
from lmcfast.spec.layout import Atom, Case, Concat, Layout, format_layout, rebuild

Forward = Callable[..., Any]


class Net(nn.Module):
    """``forward(net, *inputs)`` over parameters of the given shapes, which are its attributes."""

    def __init__(self, forward: Forward, shapes: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.body = forward
        generator = torch.Generator().manual_seed(0)
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(*shape, generator=generator)))

    def forward(self, *inputs: Tensor) -> Any:
        return self.body(self, *inputs)


def example(*shape: int) -> Tensor:
    """A random input."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def freedom(forward: Forward, shapes: Mapping[str, Sequence[int]], *inputs: Tensor) -> str:
    """Derives and proves the spec of a :class:`Net`; returns what moves, as :func:`described`."""
    return proved(Net(forward, shapes).eval(), *inputs)


def proved(module: nn.Module, *inputs: Tensor) -> str:
    """Derives and proves a module's spec; every tensor must matter. Returns what moves, as :func:`described`."""
    spec = derive_spec(module, inputs)
    report = verify_spec(spec, module, inputs)
    assert not report.insensitive, f"without effect: {report.insensitive}"
    return described(spec)


def described(spec: PermutationSpec) -> str:
    """``"a: A6, _5; b: _3, A6"``: groups are letters in order of appearance, with sizes; then who is within whom."""
    letters: dict[str, str] = {}
    selectors: dict[str, str] = {}

    def rename(layout: Layout) -> Layout:
        if isinstance(layout, Atom):
            if layout.name not in letters.values():  # seen already, as a part of a composite
                letters.setdefault(layout.name, f"{chr(65 + len(letters))}{spec.groups[layout.name].size}")
            return Atom(letters.get(layout.name, layout.name))
        if isinstance(layout, Concat | Case) and layout.selector is not None:
            name = selectors.setdefault(layout.selector, f"s{len(selectors)}")
            return type(layout)(**{**{k: getattr(layout, k) for k in layout.__slots__}, "selector": name})
        return layout

    lines = []
    for name, axes in spec.axes.items():
        lines.append(f"{name}: " + ", ".join(str(format_layout(rename(rebuild(axis, rename)))) for axis in axes))
    nests = []
    for name, letter in letters.items():
        group = spec.groups[name]
        for outer in group.within:
            letters.setdefault(outer, f"?{spec.groups[outer].size}")
        if group.within:
            nests.append(f"{letter} in {' '.join(sorted(letters[outer] for outer in group.within))}")
        if group.fixed:
            nests.append(f"{letter} stays")
    return "; ".join(lines + nests)


def case(name: str, forward: Forward, expected: str, inputs: Sequence[Tensor] = (), **shapes: Sequence[int]) -> Any:
    """A row of a table of rules: a :class:`Net` on ``inputs`` (default: two rows of five), and what may move."""
    return pytest.param(forward, shapes, tuple(inputs) or (example(2, 5),), expected, id=name)
