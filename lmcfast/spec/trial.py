"""A float64 copy of a module on its example inputs, and the error that moved tensors make in its output."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from ..errors import InvalidInputsError, SpecError
from .binding import and_more
from .checks import may_lack_entry
from .consistency import some
from .copies import shared_copy
from .experts import one_graph_for_experts
from .float64 import in_float64, widen
from .gather import permute_tensor
from .outputs import default_outputs, first_line, tensors_in
from .spec import STATISTICS, PermutationSpec
from .stacks import members, stacked, unstacked

TOLERANCE = 1e-10
"""Relative output error that float64 rounding cannot reach in a network of a few hundred layers."""

Setting = Mapping[str, torch.Tensor]


class Trial:
    """A float64 copy of a module with its inputs, and the error that a state dict makes in its output."""

    def __init__(
        self,
        spec: PermutationSpec,
        module: nn.Module,
        example_inputs: Any,
        kwargs: Mapping[str, Any] | None,
        outputs: Callable[[Any], Any] | None,
    ) -> None:
        self.module = _copy(module).eval().double()
        own = dict(self.module.named_parameters(remove_duplicate=False))
        buffers = dict(self.module.named_buffers(remove_duplicate=False))
        self.params = {name: tensor.detach() for name, tensor in {**own, **buffers}.items()}
        single = {part for name, number in spec.stacks.items() for part in members(name, number)}
        self._check_names(spec, stacked(spec, own))
        for name, tensor in self.params.items():
            if name in spec.axes or name in single or name.rpartition(".")[2] in STATISTICS:
                _unlike(tensor, positive=name.endswith("running_var"))
        self.params = stacked(spec, self.params)
        self.spec = spec.bind(self.params)
        args = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
        device = next(iter(self.params.values())).device if self.params else torch.device("cpu")
        self.args, self.kwargs = pytree.tree_map(lambda leaf: _to_module(leaf, device), (args, dict(kwargs or {})))
        self.outputs = outputs or default_outputs
        self.float32_limits = False
        try:
            self.reference = self.run(self.params)
            if _has_nan(self.reference):
                self.float32_limits = True
                self.reference = self.run(self.params)
        except Exception as error:  # whatever the module raises: it is the caller's code
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in((self.args, self.kwargs)))
            raise InvalidInputsError(
                f"the example inputs (of shape {shapes or 'none'}) do not fit the module: {first_line(error)}"
            ) from error
        if not self.reference:
            raise SpecError("the module's output holds no tensor that could be compared")
        if _has_nan(self.reference):
            raise SpecError("the module's output on the example inputs holds NaN already without any permutation")

    @staticmethod
    def _check_names(spec: PermutationSpec, parameters: Mapping[str, torch.Tensor]) -> None:
        tied = {tensor.data_ptr() for name, tensor in parameters.items() if name in spec.axes}
        lacking = [name for name, tensor in parameters.items() if name not in spec.axes and not may_lack_entry(tensor)]
        if not lacking:
            return
        name, tensor = lacking[0], parameters[lacking[0]]
        hint = and_more(lacking)
        if tensor.data_ptr() in tied and tensor.numel() > 0:
            hint = "; it shares its storage with one that has: name it in `tied`"
        elif not any(other in parameters for other in spec.axes):
            hint += f"; the spec is of a network with {some(spec.axes)}"
        raise SpecError(f"parameter {name!r} of the module has no entry in the spec{hint}", tensor=name)

    def moved(self, spec: PermutationSpec, setting: Setting) -> dict[str, torch.Tensor]:
        """The module's tensors moved by a setting of ``spec`` (the trial's, or a variation of it)."""
        return {
            name: permute_tensor(spec, name, tensor, setting) if name in spec.axes else tensor
            for name, tensor in self.params.items()
        }

    def run(self, params: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """The outputs to compare, as float64 (complex128). Every run starts from the same random state."""
        devices = sorted({tensor.device.index or 0 for tensor in params.values() if tensor.is_cuda})
        with torch.random.fork_rng(devices=devices), torch.no_grad(), self._float64():
            torch.manual_seed(0)
            # Names are given one by one: a spec that moves tied tensors differently must fail here, not be mended.
            tensors = unstacked(self.spec, params)
            output = functional_call(shared_copy(self.module), tensors, self.args, self.kwargs, tie_weights=False)
            leaves = list(tensors_in(self.outputs(output)))
        return [leaf.to(torch.complex128 if leaf.is_complex() else torch.float64) for leaf in leaves]

    @contextmanager
    def _float64(self) -> Iterator[None]:
        with in_float64(self.float32_limits), one_graph_for_experts(self.module):
            yield

    def error(self, params: Mapping[str, torch.Tensor]) -> float:
        """Largest difference of an output from the reference, relative to the output's largest entry; NaN gives inf."""
        found = self.run(params)
        if [tensor.shape for tensor in found] != [tensor.shape for tensor in self.reference]:
            return math.inf
        return max(_relative(a, b) for a, b in zip(self.reference, found, strict=True))


def _unlike(tensor: torch.Tensor, positive: bool) -> None:
    """Give a tensor whose entries are all alike different ones, in place and so for all its names.

    Biases and running statistics of a fresh module are all zero or one: whether they were moved would not show. The new
    entries are up to twice as large with the same sign, and around zero for zeros (``positive``: above zero).
    """
    if tensor.numel() < 2 or not tensor.is_floating_point():
        return
    first = float(tensor.flatten()[0])
    if math.isfinite(first) and bool((tensor == first).all()):
        noise = torch.rand(tensor.shape, generator=torch.Generator().manual_seed(tensor.numel()), dtype=tensor.dtype)
        tensor.copy_(first * (1 + noise) if first else 0.5 * (noise if positive else noise - 0.5))


def _has_nan(tensors: Sequence[torch.Tensor]) -> bool:
    return any(bool(tensor.isnan().any()) for tensor in tensors)


def _relative(a: torch.Tensor, b: torch.Tensor) -> float:
    if a.numel() == 0:
        return 0.0
    if bool(b.isnan().any()):
        return math.inf
    finite = a.isfinite()
    if not torch.equal(finite, b.isfinite()) or not torch.equal(a[~finite], b[~finite]):
        return math.inf
    if not bool(finite.any()):
        return 0.0
    scale = float(a[finite].abs().max())
    difference = float((a[finite] - b[finite]).abs().max())
    return difference / scale if scale > 0 else (0.0 if difference == 0 else math.inf)


def _to_module(leaf: Any, device: torch.device) -> Any:
    return widen(leaf.detach().to(device)) if isinstance(leaf, torch.Tensor) else leaf


def _copy(module: nn.Module) -> nn.Module:
    """A deep copy; tensors that a module has computed and kept (weight norm as a hook) are copied as values."""
    kept = [value for part in module.modules() for value in vars(part).values() if isinstance(value, torch.Tensor)]
    return copy.deepcopy(module, {id(value): value.detach().clone() for value in kept if not value.is_leaf})
