"""What the layers of a network are fed: inputs against singular directions (Ito et al., figures 4 and 9), and how far
apart two layers' outputs are on them (theorem 4.2)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import pad, unfold

from ..batches import check_batches, device_of, inputs_of, to_device
from ..spec import PermutationSpec
from ..spec.checks import check_params
from .evaluation import Params, check_fits
from .layers import Setting, Settings, as_matrix, moved_matrix, settings_of, weight_names

_ROWS = 4096  # inputs z that are multiplied at a time


@dataclass(frozen=True, eq=False)
class InputEnergy:
    """Of one layer, for each singular index: ``values`` s_i and ``energy`` E_z (v_i . z)^2, float64 (k,).

    ``total``: E_z |z|^2, of which the energies are parts.
    """

    values: NDArray[np.float64]
    energy: NDArray[np.float64]
    total: float


@dataclass(frozen=True)
class LayerDifference:
    """E_z over the inputs of a layer in A: ``difference`` |(W_a - P W_b Q^T) z|^2, ``norm_a`` |W_a z|^2, ``norm_b``
    |P W_b Q^T z|^2. Their terms in singular vectors are theorem 4.2."""

    difference: float
    norm_a: float
    norm_b: float

    @property
    def relative(self) -> float:
        """difference / (norm_a + norm_b): 1 for unrelated layers, 0 for equal ones."""
        total = self.norm_a + self.norm_b
        return self.difference / total if total > 0 else 0.0


def input_energy(
    spec: PermutationSpec,
    module: nn.Module,
    params: Params,
    batches: Iterable[Any],
    layers: Sequence[str] | None = None,
) -> dict[str, InputEnergy]:
    """How much of each layer's input lies along each right singular vector of its weight, {tensor: InputEnergy}.

    ``batches``: inputs, or pairs that begin with them. ``layers``: names or wildcards of tensors. Weights of nn.Linear
    and of convolutions without groups are taken, others (embeddings, fused weights) are left out; a convolution's
    inputs are its patches (in x kernel). Float64 on the module's device, chunked; nothing per example is kept.
    """
    weights = {name: as_matrix(name, params) for name in weight_names(spec, layers)}
    device = device_of(module)
    vectors: dict[str, torch.Tensor] = {}
    values: dict[str, torch.Tensor] = {}
    for name, matrix in weights.items():
        _, values[name], right = torch.linalg.svd(matrix, full_matrices=False)
        vectors[name] = right.T.to(device)
    sums: dict[str, list[torch.Tensor]] = {}
    counts: dict[str, int] = {}

    def take(name: str, z: torch.Tensor) -> None:
        projected = (z @ vectors[name]).square().sum(0)
        total = z.square().sum()
        before = sums.get(name)
        sums[name] = [projected, total] if before is None else [before[0] + projected, before[1] + total]
        counts[name] = counts.get(name, 0) + len(z)

    _feed(module, params, batches, list(weights), take)
    return {
        name: InputEnergy(
            values[name].cpu().numpy(), (found[0] / counts[name]).cpu().numpy(), float(found[1]) / counts[name]
        )
        for name, found in sums.items()
    }


@overload
def layer_difference(
    spec: PermutationSpec,
    module: nn.Module,
    params_a: Params,
    params_b: Params,
    batches: Iterable[Any],
    permutations: Setting | None = None,
    layers: Sequence[str] | None = None,
) -> dict[str, LayerDifference]: ...
@overload
def layer_difference(
    spec: PermutationSpec,
    module: nn.Module,
    params_a: Params,
    params_b: Params,
    batches: Iterable[Any],
    permutations: Sequence[Setting],
    layers: Sequence[str] | None = None,
) -> list[dict[str, LayerDifference]]: ...
def layer_difference(
    spec: PermutationSpec,
    module: nn.Module,
    params_a: Params,
    params_b: Params,
    batches: Iterable[Any],
    permutations: Settings = None,
    layers: Sequence[str] | None = None,
) -> dict[str, LayerDifference] | list[dict[str, LayerDifference]]:
    """How far apart the layers of A and of the permuted B are on the inputs that they get in A, {tensor: ...}.

    Biases are left out (theorem 4.2 is about the products). Arguments as in :func:`input_energy`;
    ``permutations``: a setting of ``spec``, None for B as it is, or several for one result each, in one pass.
    """
    bound = check_params(spec, params_a, "params_a", strict=False)
    check_params(spec, params_b, "params_b", strict=False)
    settings, several = settings_of(bound, permutations)
    device = device_of(module)
    pairs = {}
    for name in weight_names(bound, layers):
        one, two = (
            as_matrix(name, params, which) for params, which in ((params_a, "params_a"), (params_b, "params_b"))
        )
        moved = [moved_matrix(bound, name, two, params_b[name].shape, setting).to(device) for setting in settings]
        pairs[name] = (one.to(device), moved)
    sums: dict[str, list[list[float]]] = {}
    counts: dict[str, int] = {}

    def take(name: str, z: torch.Tensor) -> None:
        one = z @ pairs[name][0].T
        norm = float(one.square().sum())
        found = sums.setdefault(name, [[0.0] * 3 for _ in settings])
        for total, matrix in zip(found, pairs[name][1], strict=True):
            two = z @ matrix.T
            squares = (float((one - two).square().sum()), norm, float(two.square().sum()))
            total[:] = [a + b for a, b in zip(total, squares, strict=True)]
        counts[name] = counts.get(name, 0) + len(z)

    _feed(module, params_a, batches, list(pairs), take)
    results = [
        {name: LayerDifference(*(value / counts[name] for value in found[index])) for name, found in sums.items()}
        for index in range(len(settings))
    ]
    return results if several else results[0]


def _feed(
    module: nn.Module, params: Params, batches: Iterable[Any], names: Sequence[str], take: Callable[..., None]
) -> None:
    """Run the batches through the module with ``params``; ``take(tensor name, z)`` gets inputs (rows, in x kernel)."""
    check_batches(batches)
    check_fits(module.state_dict(), params, "params")
    trial = copy.deepcopy(module).eval()
    trial.load_state_dict(dict(params))
    device = device_of(trial)
    seen = False
    with torch.no_grad(), _watched(trial, names, take):
        for batch in batches:
            trial(to_device(inputs_of(batch), device))
            seen = True
    if not seen:
        raise ValueError("batches: no examples")


@contextmanager
def _watched(module: nn.Module, names: Sequence[str], take: Callable[..., None]) -> Iterator[None]:
    owners = {id(tensor): name for name, tensor in module.named_parameters() if name in set(names)}
    handles = []
    for layer in module.modules():
        weight = getattr(layer, "weight", None)
        rows_of = _reader(layer)
        if rows_of is None or id(weight) not in owners:
            continue

        def hook(
            _: nn.Module, args: tuple[Any, ...], *, name: str = owners[id(weight)], rows_of: Any = rows_of
        ) -> None:
            for rows in rows_of(args[0].detach()):
                for chunk in rows.split(_ROWS):
                    take(name, chunk.to(torch.float64))

        handles.append(layer.register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _reader(layer: nn.Module) -> Callable[[torch.Tensor], Iterator[torch.Tensor]] | None:
    """What turns a layer's input into rows z, such that its output is W z; None for layers of another kind."""
    if isinstance(layer, nn.Linear):
        return lambda x: iter([x.reshape(-1, x.shape[-1])])
    if isinstance(layer, nn.Conv1d | nn.Conv2d) and layer.groups == 1:
        return lambda x: _patches(layer, x)
    return None


def _patches(layer: nn.Conv1d | nn.Conv2d, x: torch.Tensor) -> Iterator[torch.Tensor]:
    """The patches of one image at a time: (positions, in x kernel)."""
    if layer.padding_mode != "zeros" or any(layer._reversed_padding_repeated_twice):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x = pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    flat = isinstance(layer, nn.Conv1d)
    kernel, dilation, stride = (
        (1, *size) if flat else size for size in (layer.kernel_size, layer.dilation, layer.stride)
    )
    for image in x.unsqueeze(-2) if flat else x:
        yield unfold(image.unsqueeze(0), kernel, dilation=dilation, stride=stride)[0].T


def energy_share(energy: InputEnergy, count: int) -> float:
    """Share of the input's energy along the ``count`` largest singular directions, in [0, 1]."""
    if not 0 <= count <= len(energy.energy):
        raise ValueError(f"count: must be from 0 to {len(energy.energy)}, not {count!r}")
    return math.fsum(energy.energy[:count]) / energy.total if energy.total > 0 else 0.0
