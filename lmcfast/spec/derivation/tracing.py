"""The graph of a module's forward pass, by ``torch.export``; no values are computed.

The training graph (no decompositions) keeps linear layers, norms and attention as one operator each.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from ...errors import InvalidInputsError, SpecError
from ..copies import shared_copy
from ..experts import one_graph_for_experts
from ..outputs import default_outputs, first_line, tensors_in

_PREFIX = "inner."
_PLACE = re.compile(r'File "([^"]+)", line ([0-9]+), in ')


@dataclass(frozen=True)
class Trace:
    """An exported module.

    ``names``: placeholder -> name of the parameter or buffer, all its aliases being ``canonical[name]``. ``tensors``:
    by canonical name. ``buffers``: which names are buffers; ``permanent``: which are in the state dict. ``constants``:
    placeholder -> a tensor that the forward pass makes from a literal.
    """

    program: torch.export.ExportedProgram
    names: dict[str, str]
    canonical: dict[str, str]
    tensors: dict[str, torch.Tensor]
    buffers: frozenset[str]
    permanent: frozenset[str]
    constants: dict[str, torch.Tensor]

    @cached_property
    def _placeholders(self) -> dict[str, list[fx.Node]]:
        found: dict[str, list[fx.Node]] = {}
        for node in self.program.graph.nodes:
            if node.op == "placeholder" and node.name in self.names:
                found.setdefault(self.canonical[self.names[node.name]], []).append(node)
        return found

    def placeholders_of(self, name: str) -> list[fx.Node]:
        """The placeholders of a tensor: several where it is tied."""
        return self._placeholders.get(name, [])


class _Selected(nn.Module):
    """A module with the outputs that count, as a flat list of tensors."""

    def __init__(self, inner: nn.Module, outputs: Callable[[Any], Any]) -> None:
        super().__init__()
        self.inner = inner
        self._outputs = outputs

    def forward(self, *args: Any, **kwargs: Any) -> list[torch.Tensor]:
        return list(tensors_in(self._outputs(self.inner(*args, **kwargs))))


def trace(
    module: nn.Module,
    example_inputs: Any,
    kwargs: Mapping[str, Any] | None = None,
    outputs: Callable[[Any], Any] | None = None,
) -> Trace:
    """Export the module in eval mode; arguments as in :func:`lmcfast.derive_spec`.

    ``InvalidInputsError``: the module doesn't take the inputs. ``SpecError``: it can't be exported, and why.
    """
    if not isinstance(module, nn.Module):
        raise InvalidInputsError(f"module: a torch.nn.Module is needed, not {type(module).__name__}")
    args = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    device = _device(module)
    args, named = pytree.tree_map(lambda leaf: _moved(leaf, device), (args, dict(kwargs or {})))
    traced = _traced(module)
    selected = _Selected(traced, outputs or default_outputs)
    with _eval_mode(traced), one_graph_for_experts(traced), torch.no_grad(), _quiet():
        program = _export(selected, args, named)
    _check(program)
    return _trace_of(program, module)


def _traced(module: nn.Module) -> nn.Module:
    """A copy, since tensors without values would stay in a module that keeps some; itself where it has no copy."""
    try:
        return shared_copy(module)
    except Exception:  # whatever a module holds beside tensors (locks, files, tensors with a history)
        return module


def _trace_of(program: torch.export.ExportedProgram, module: nn.Module) -> Trace:
    parameters = dict(module.named_parameters(remove_duplicate=False))
    buffers = dict(module.named_buffers(remove_duplicate=False))
    first: dict[int, str] = {}
    canonical = {name: first.setdefault(id(tensor), name) for name, tensor in {**parameters, **buffers}.items()}
    signature = program.graph_signature
    names = {
        placeholder: name.removeprefix(_PREFIX)
        for placeholder, name in {**signature.inputs_to_parameters, **signature.inputs_to_buffers}.items()
    }
    constants = {
        placeholder: program.constants[name]
        for placeholder, name in signature.inputs_to_lifted_tensor_constants.items()
        if isinstance(program.constants.get(name), torch.Tensor)
    }
    tensors = {name: tensor for name, tensor in {**parameters, **buffers}.items() if canonical[name] == name}
    permanent = frozenset(module.state_dict(keep_vars=True))
    return Trace(program, names, canonical, tensors, frozenset(buffers), permanent, constants)


def _export(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.export.ExportedProgram:
    """Without the bytecode tracer, which is slower; with it where that fails."""
    try:
        return torch.export.export(module, args, kwargs, strict=False)
    except Exception as error:  # whatever the module or the tracer raises
        failure = error
    if _depends_on_data(failure):
        raise SpecError(
            f"the module cannot be traced: which operators run depends on the values of tensors{_line(failure)}; "
            "derive from a variant without this branch, or write the spec by hand"
        ) from failure
    try:
        module(*args, **kwargs)
    except Exception as error:  # the caller's code
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in((args, kwargs))) or "none"
        raise InvalidInputsError(
            f"the example inputs (of shape {shapes}) do not fit the module: {first_line(error)}"
        ) from error
    try:
        return torch.export.export(module, args, kwargs, strict=True)
    except Exception:
        raise SpecError(f"the module runs, but torch.export cannot follow it: {first_line(failure)}") from failure


def _depends_on_data(error: Exception) -> bool:
    return "DataDependent" in type(error).__name__ or "data-dependent" in str(error)


def _line(error: Exception) -> str:
    """The last line of the module's own code that an error of the tracer names, if it names one."""
    own = [place for place in _PLACE.findall(str(error)) if f"{os.sep}torch{os.sep}" not in place[0]]
    return f" ({Path(own[-1][0]).name}, line {own[-1][1]})" if own else ""


def _check(program: torch.export.ExportedProgram) -> None:
    """There is an output, and all shapes are numbers."""
    for node in program.graph.nodes:
        for value in tensors_in(node.meta.get("val")):
            if not all(isinstance(size, int) for size in value.shape):
                raise SpecError(
                    f"the module cannot be traced: the shape of {node.name!r} depends on the values of tensors, as "
                    "where a loop picks the tokens of each expert; derive from a variant without it, or write the spec "
                    "by hand"
                )
        if node.op == "output" and not any(isinstance(leaf, fx.Node) for leaf in pytree.tree_leaves(node.args)):
            raise SpecError("the module's output holds no tensor that could stay as it is; see `outputs`")


def _device(module: nn.Module) -> torch.device | None:
    return next((tensor.device for tensor in (*module.parameters(), *module.buffers())), None)


def _moved(leaf: Any, device: torch.device | None) -> Any:
    return leaf.detach().to(device) if isinstance(leaf, torch.Tensor) and device is not None else leaf


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch prints and logs on the way to an error (whole graphs): the error says it."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
