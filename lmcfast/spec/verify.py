"""Proof of a spec on the real module: random settings leave the output unchanged, in float64.

Beside it stands a control: each tensor moved alone must change the output, since a verification in which a tensor has
no effect (a dead layer, constant statistics) says nothing about that tensor.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ..errors import InvalidInputsError, SpecError
from .checks import may_lack_entry
from .gather import permute_tensor
from .spec import STATISTICS, PermutationSpec

TOLERANCE = 1e-10
"""Relative output error that float64 rounding cannot reach in a network of a few hundred layers."""

_SMALL = 4  # groups up to this size are moved alone too

Setting = Mapping[str, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class VerifyReport:
    """What was proved.

    ``max_error``: largest relative difference of an output over all settings. ``seeds``: number of settings tried.
    ``groups``, ``tensors``: what was moved. ``insensitive``: tensors that, moved alone, left the output unchanged: the
    verification says nothing about them.
    """

    max_error: float
    seeds: int
    groups: tuple[str, ...]
    tensors: tuple[str, ...]
    insensitive: tuple[str, ...]

    def __str__(self) -> str:
        text = (
            f"verified: {len(self.groups)} groups, {len(self.tensors)} tensors moved by {self.seeds} random settings, "
            f"largest relative output error {self.max_error:.1e}"
        )
        if self.insensitive:
            text += f"; not tested, since without effect on the output: {', '.join(self.insensitive)}"
        return text


def verify_spec(
    spec: PermutationSpec,
    module: nn.Module,
    example_inputs: Any,
    kwargs: Mapping[str, Any] | None = None,
    outputs: Callable[[Any], Any] | None = None,
    seeds: int = 2,
) -> VerifyReport:
    """Prove that the spec leaves the module's output unchanged.

    ``example_inputs``: a tensor, or a tuple of the positional arguments; ``kwargs``: the keyword arguments.
    ``outputs``: takes from the module's output what must not change (default: ``.logits`` if there is one, else all).
    ``seeds``: how many random settings of all groups are tried; small groups are moved alone besides.

    A copy of the module runs in float64 and eval mode; the module, its mode and torch's random state stay as they are.
    In the copy, tensors whose entries are all alike (a fresh bias, fresh statistics) get different ones, since it would
    not show whether they moved.

    ``InvalidInputsError``: the module cannot take the example inputs; its own error is the cause.
    ``SpecError`` names the culprit (``tensor``, ``group``): an axis that lists a group and should not, one that should
    and does not, a statistic that was forgotten; also a parameter without an entry, or an output with NaN.
    """
    if not isinstance(seeds, int) or seeds < 1:
        raise ValueError(f"seeds: at least 1 is needed, not {seeds!r}")
    trial = Trial(spec, module, example_inputs, kwargs, outputs)
    max_error = 0.0
    for seed in range(seeds):
        for setting in proof_settings(trial.spec, seed):
            error = trial.error(trial.moved(trial.spec, setting))
            if not error < TOLERANCE:
                from .culprit import find_culprit

                raise find_culprit(trial, setting, error)
            max_error = max(max_error, error)
    tensors = tuple(name for name in trial.spec.axes if any(not spec.groups[g].fixed for g in spec.groups_of(name)))
    return VerifyReport(max_error, seeds, trial.spec.movable_groups, tensors, _insensitive(trial, tensors))


def proof_settings(spec: PermutationSpec, seed: int) -> Iterator[dict[str, torch.Tensor]]:
    """Settings that together test every group: one that moves all at once, then each small group alone.

    Small groups need it: two groups of two units swap together half of the time, and what should be one group would
    pass as two. A nested one gets several settings, since its rows must differ in every way that the spec claims.
    """
    yield _moving(spec, seed)
    identity = spec.identity()
    for name in spec.movable_groups:
        size = spec.sizes[name]
        if 2 <= size <= _SMALL:
            for k in range(4 if spec.groups[name].within else 1):
                yield {**identity, name: _moving(spec, 1000 * seed + k + 1)[name]}


def _moving(spec: PermutationSpec, seed: int) -> dict[str, torch.Tensor]:
    """A random setting without a group that happens to stay, or whose rows happen to be all alike."""
    setting = spec.random_permutations(seed)
    for name in spec.movable_groups:
        size = spec.sizes[name]
        rows = setting[name].reshape(-1, size) if size > 1 else setting[name][:0]
        stays = len(rows) == 1 and torch.equal(rows[0], torch.arange(size))
        alike = len(rows) > 1 and bool((rows == rows[0]).all())
        if stays or alike:
            rows = rows.clone()
            rows[0] = rows[0].roll(1)
            setting[name] = rows.reshape(setting[name].shape)
    return setting


def _insensitive(trial: Trial, tensors: Sequence[str]) -> tuple[str, ...]:
    """Tensors that, moved alone, do not change the output."""
    shifted = {
        name: index if trial.spec.groups[name].fixed else index.roll(1, -1)
        for name, index in trial.spec.identity().items()
    }
    found = []
    for name in tensors:
        if name in trial.spec.tied:
            continue
        family = [name, *(alias for alias, canonical in trial.spec.tied.items() if canonical == name)]
        params = dict(trial.params)
        for member in family:
            params[member] = permute_tensor(trial.spec, member, trial.params[member], shifted)
        if trial.error(params) < TOLERANCE:
            found.append(name)
    return tuple(found)


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
        self.module = copy.deepcopy(module).eval().double()
        own = dict(self.module.named_parameters(remove_duplicate=False))
        buffers = dict(self.module.named_buffers(remove_duplicate=False))
        self.params = {name: tensor.detach() for name, tensor in {**own, **buffers}.items()}
        self._check_names(spec, own)
        for name, tensor in self.params.items():
            if name in spec.axes or name.rpartition(".")[2] in STATISTICS:
                _unlike(tensor, positive=name.endswith("running_var"))
        self.spec = spec.bind(self.params)
        args = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
        device = next(iter(self.params.values())).device if self.params else torch.device("cpu")
        self.args, self.kwargs = pytree.tree_map(lambda leaf: _widen(leaf, device), (args, dict(kwargs or {})))
        self.outputs = outputs or _default_outputs
        try:
            self.reference = self.run(self.params)
        except Exception as error:  # whatever the module raises: it is the caller's code
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in _tensors((self.args, self.kwargs)))
            raise InvalidInputsError(
                f"the example inputs (of shape {shapes or 'none'}) do not fit the module: {_first_line(error)}"
            ) from error
        if not self.reference:
            raise SpecError("the module's output holds no tensor that could be compared")
        if any(bool(tensor.isnan().any()) for tensor in self.reference):
            raise SpecError("the module's output on the example inputs holds NaN already without any permutation")

    @staticmethod
    def _check_names(spec: PermutationSpec, parameters: Mapping[str, torch.Tensor]) -> None:
        tied = {tensor.data_ptr() for name, tensor in parameters.items() if name in spec.axes}
        for name, tensor in parameters.items():
            if name in spec.axes or may_lack_entry(tensor):
                continue
            known = tensor.data_ptr() in tied and tensor.numel() > 0
            hint = "; it shares its storage with one that has: name it in `tied`" if known else ""
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
        with torch.random.fork_rng(devices=devices), torch.no_grad(), _float64_default(), _Float64():
            torch.manual_seed(0)
            # Names are given one by one: a spec that moves tied tensors differently must fail here, not be mended.
            output = functional_call(self.module, dict(params), self.args, self.kwargs, tie_weights=False)
            leaves = list(_tensors(self.outputs(output)))
        return [leaf.to(torch.complex128 if leaf.is_complex() else torch.float64) for leaf in leaves]

    def error(self, params: Mapping[str, torch.Tensor]) -> float:
        """Largest difference of an output from the reference, relative to the output's largest entry; NaN gives inf."""
        found = self.run(params)
        if [tensor.shape for tensor in found] != [tensor.shape for tensor in self.reference]:
            return math.inf
        return max(_relative(a, b) for a, b in zip(self.reference, found, strict=True))


def _first_line(error: Exception) -> str:
    """The type of an error and the first line of its text."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


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


def _default_outputs(output: Any) -> Any:
    logits = getattr(output, "logits", None)
    return output if logits is None else logits


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in tuples, lists, mappings, dataclasses and registered pytrees, in a fixed order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for key in value:
            yield from _tensors(value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for entry in dataclasses.fields(value):
            yield from _tensors(getattr(value, entry.name))
    else:
        leaves = pytree.tree_leaves(value)
        if not (len(leaves) == 1 and leaves[0] is value):
            yield from _tensors(leaves)


def _widen(leaf: Any, device: torch.device) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    return leaf.detach().to(device, torch.float64 if leaf.is_floating_point() else leaf.dtype)


@contextmanager
def _float64_default() -> Iterator[None]:
    """Tensors that a forward pass makes without a dtype are float64 meanwhile."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class _Float64(TorchFunctionMode):
    """Keeps modules that cast to a narrower float inside (norms, softmax, rotary tables) in float64."""

    _NARROW = (torch.float32, torch.float16, torch.bfloat16)
    _CASTS = (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in self._CASTS:
            return args[0].double()
        args = tuple(torch.float64 if any(arg is narrow for narrow in self._NARROW) else arg for arg in args)
        named = {
            key: torch.float64 if any(value is narrow for narrow in self._NARROW) else value
            for key, value in (kwargs or {}).items()
        }
        return func(*args, **named)
