"""A tool for whoever writes rules: which node of a traced module has a label that does not hold?

The exported graph runs twice, with its parameters as they are and permuted at random. Every tensor of the second run
must be the first one's, permuted as its labels say. The first node where it is not names the rule that is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from ...errors import SpecError
from ..float64 import in_float64, widen
from ..gather import permute_tensor
from ..layout import Layout, atoms, format_layout
from ..spec import Group, PermutationSpec
from .assemble import node_layouts
from .derivation import Derivation

_RELATIVE = 1e-9


@dataclass(frozen=True)
class WrongNode:
    """A node whose value did not follow its labels. ``error``: largest difference, relative to its largest entry."""

    name: str
    operator: str
    layouts: tuple[str | None, ...]
    inputs: tuple[str, ...]
    error: float


def wrong_nodes(
    derivation: Derivation,
    module: nn.Module,
    example_inputs: Any,
    kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> list[WrongNode]:
    """The nodes whose labels do not hold, in the order of the graph; empty for a sound derivation.

    ``module`` and the inputs are those of the trace, with values. Nodes without floating values, and those whose units
    depend on indices that their tensor does not show, are not compared.
    """
    layouts, groups = node_layouts(derivation)
    setting = _random_setting(groups, seed)
    inputs = pytree.tree_leaves((example_inputs if isinstance(example_inputs, tuple) else (example_inputs,), kwargs))
    specs = {node: _alone(axes, groups) for node, axes in layouts.items()}
    runs = []
    for moves in (False, True):
        runs.append(_run(derivation, module, inputs, {**specs} if moves else {}, setting))
    return [
        WrongNode(node.name, str(node.target), tuple(map(format_layout, layouts[node])), _names(node), error)
        for node, spec in specs.items()
        if spec is not None and (error := _error(spec, runs[0].get(node), runs[1].get(node), setting)) > _RELATIVE
    ]


def _names(node: fx.Node) -> tuple[str, ...]:
    return tuple(source.name for source in node.all_input_nodes)


def _random_setting(groups: Mapping[str, Group], seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    setting = {}
    for name, group in groups.items():
        shape = [groups[outer].size or 0 for outer in group.within]
        size = group.size or 0
        index = torch.arange(size).expand(*shape, size).clone()
        if not group.fixed:
            index = torch.rand(*shape, size, generator=generator, dtype=torch.float64).argsort(-1)
        setting[name] = index
    return setting


def _alone(layouts: tuple[Layout, ...], groups: Mapping[str, Group]) -> PermutationSpec | None:
    """One tensor as a spec; None where its units depend on indices that it does not show."""
    names = dict.fromkeys(name for layout in layouts for name in atoms(layout))
    try:
        return PermutationSpec({name: groups[name] for name in names}, {"value": layouts})
    except SpecError:
        return None


def _run(
    derivation: Derivation,
    module: nn.Module,
    inputs: list[Any],
    moved: Mapping[fx.Node, PermutationSpec | None],
    setting: Mapping[str, torch.Tensor],
) -> dict[fx.Node, torch.Tensor]:
    """The values of all tensors of the graph, each as it was when it was made."""
    trace = derivation.trace
    state = {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers())}
    given = iter(inputs)
    values = []
    for node in trace.program.graph.nodes:
        if node.op != "placeholder":
            continue
        if node.name in trace.names:
            value = widen(state[trace.canonical[trace.names[node.name]]].detach())
            spec = moved.get(node)
            values.append(value if spec is None else permute_tensor(spec, "value", value, setting))
        elif node.name in trace.constants:
            values.append(widen(trace.constants[node.name]))
        else:
            values.append(widen(next(given)))
    recorder = _Recorder(trace.program.graph_module)
    with torch.no_grad(), in_float64():
        recorder.run(*values)
    return recorder.values


class _Recorder(fx.Interpreter):
    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module, garbage_collect_values=False)
        self.values: dict[fx.Node, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            self.values[n] = value.clone()
        return value


def _error(
    spec: PermutationSpec,
    before: torch.Tensor | None,
    after: torch.Tensor | None,
    setting: Mapping[str, torch.Tensor],
) -> float:
    if before is None or after is None or not (before.is_floating_point() or before.is_complex()):
        return 0.0
    expected = permute_tensor(spec, "value", before, setting)
    finite = expected.isfinite()
    if not torch.equal(finite, after.isfinite()):
        return float("inf")
    if not bool(finite.any()):
        return 0.0
    difference = (expected[finite] - after[finite]).abs().max()
    return float(difference / expected[finite].abs().max().clamp(min=1e-300))
