"""What every analysis does with data: go through the batches in evaluation mode and take means over the examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..batches import device_of, to_device
from ..batches import repeatable as repeatable
from ..errors import InvalidParamsError

Params = Mapping[str, torch.Tensor]
Measure = Callable[[Any, Any], Any]


def check_fits(state: Params, params: Params, argument: str) -> None:
    """``InvalidParamsError`` where ``params`` is no state dict of the module whose state is ``state``."""
    for name, tensor in state.items():
        if name not in params:
            raise InvalidParamsError(f"{argument} lacks the module's tensor {name!r}", name)
        if params[name].shape != tensor.shape:
            found, wanted = tuple(params[name].shape), tuple(tensor.shape)
            raise InvalidParamsError(f"{argument}: tensor {name!r} has shape {found}, the module's has {wanted}", name)
    for name in params:
        if name not in state:
            raise InvalidParamsError(f"{argument} has a tensor {name!r} that the module does not have", name)


def evaluate(
    module: nn.Module, batches: Iterable[tuple[Any, Any]], measures: Mapping[str, Measure], where: str
) -> dict[str, float]:
    """Means over all examples of the batches; ``where`` completes the errors: "at lambda = 0.5"."""
    device = device_of(module)
    terms: dict[str, list[float]] = {name: [] for name in measures}
    examples = 0
    with torch.no_grad():
        for batch in batches:
            inputs, targets = to_device(pair_of(batch), device)
            outputs = module(inputs)
            size = batch_size(inputs, targets)
            examples += size
            for name, measure in measures.items():
                terms[name].append(size * _scalar(measure(outputs, targets), name))
    if examples == 0:
        raise ValueError(f"batches: no examples {where}")
    means = {name: math.fsum(values) / examples if _finite(values) else math.nan for name, values in terms.items()}
    for name, value in means.items():
        if not math.isfinite(value):
            raise InvalidParamsError(f"the {name} is not finite {where}")
    return means


def _finite(values: Sequence[float]) -> bool:
    return all(map(math.isfinite, values))


def pair_of(batch: Any) -> tuple[Any, Any]:
    """The (inputs, targets) of a batch."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise TypeError(f"batches: each must be a pair (inputs, targets), not {type(batch).__name__}")
    return batch[0], batch[1]


def batch_size(inputs: Any, targets: Any) -> int:
    """Length of the first axis of the first tensor in the targets or, if they hold none, in the inputs."""
    for value in (targets, inputs):
        size = _first_axis(value)
        if size is not None:
            return size
    raise TypeError("batches: neither targets nor inputs hold a tensor with a batch axis")


def _first_axis(value: Any) -> int | None:
    if isinstance(value, torch.Tensor):
        return value.shape[0] if value.ndim else None
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    return next((size for size in map(_first_axis, parts) if size is not None), None)


def _scalar(value: Any, name: str) -> float:
    if isinstance(value, torch.Tensor) and value.numel() != 1:
        raise TypeError(f"{name}: a scalar is needed, not a tensor of shape {tuple(value.shape)}")
    return float(value)
