"""The barrier that the remaining distance alone would explain (Ito et al., arXiv:2402.04051, theorem 3.1)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call

from ..batches import device_of, to_device
from ..errors import InvalidParamsError
from .evaluation import Measure, Params, batch_size, check_fits, pair_of, repeatable


@dataclass(frozen=True, eq=False)
class TaylorBarrier:
    """Terms of the estimate, with d = theta_b - theta_a.

    ``slope``: d . (g_a - g_b). ``curvature_a``, ``curvature_b``: d . H d at the two ends. All float64, from means over
    the data.
    """

    slope: float
    curvature_a: float
    curvature_b: float

    def at(self, weight: float) -> float:
        """lambda (1 - lambda) {slope + 1/2 [lambda curvature_a + (1 - lambda) curvature_b]}, signed."""
        mixed = weight * self.curvature_a + (1.0 - weight) * self.curvature_b
        return weight * (1.0 - weight) * (self.slope + 0.5 * mixed)

    @property
    def midpoint(self) -> float:
        """slope / 4 + (curvature_a + curvature_b) / 16: to be set beside ``Barrier.midpoint``."""
        return self.at(0.5)

    def curve(self, lambdas: NDArray[np.float64]) -> NDArray[np.float64]:
        """The estimate on a grid, e.g. ``Barrier.lambdas``."""
        return np.array([self.at(float(weight)) for weight in lambdas], dtype=np.float64)


def taylor_barrier(
    module: nn.Module,
    params_a: Params,
    params_b: Params,
    batches: Iterable[tuple[Any, Any]],
    loss: Measure,
    dtype: torch.dtype | None = None,
) -> TaylorBarrier:
    """Second-order estimate of the curve between two networks; the error falls with the cube of their distance.

    Args:
        module: gives the forward pass; a copy in evaluation mode is used, on its device. Buffers (BatchNorm statistics)
            stay those of each end and are no part of d.
        params_a, params_b: state dicts of ``module``; B should be aligned to A before.
        batches: (inputs, targets) pairs, gone through twice.
        loss: ``loss(outputs, targets)``, the mean over the batch; batches are weighted by their size.
        dtype: compute in it (torch.float64 for an oracle); default: the parameters' own.

    One gradient and one Hessian-vector product for each end and batch; H is never formed. Raises
    ``InvalidParamsError`` naming a tensor or where a figure is not finite, ``TypeError`` for a one-shot iterator.
    """
    repeatable(batches)
    state = module.state_dict()
    for argument, params in (("params_a", params_a), ("params_b", params_b)):
        check_fits(state, params, argument)
    trial = copy.deepcopy(module).eval()
    if dtype is not None:
        trial = trial.to(dtype)
    device = device_of(trial)
    names = [name for name, _ in trial.named_parameters()]
    ends = [
        {name: tensor.detach().to(device, _stored_dtype(trial, name, tensor)) for name, tensor in params.items()}
        for params in (params_a, params_b)
    ]
    direction = {name: ends[1][name] - ends[0][name] for name in names}
    slopes, curvatures = zip(*(_derivatives(trial, end, direction, batches, loss) for end in ends), strict=True)
    if not all(map(math.isfinite, (*slopes, *curvatures))):
        raise InvalidParamsError("the Taylor estimate is not finite: a gradient or Hessian-vector product overflows")
    return TaylorBarrier(slopes[0] - slopes[1], curvatures[0], curvatures[1])


def _stored_dtype(module: nn.Module, name: str, tensor: torch.Tensor) -> torch.dtype:
    """The dtype that the module keeps the named tensor in."""
    return module.state_dict(keep_vars=True)[name].dtype if tensor.is_floating_point() else tensor.dtype


def _derivatives(
    module: nn.Module,
    state: dict[str, torch.Tensor],
    direction: dict[str, torch.Tensor],
    batches: Iterable[tuple[Any, Any]],
    loss: Measure,
) -> tuple[float, float]:
    """(d . g, d . H d) at one end, means over the examples."""
    device = device_of(module)
    slopes, curvatures, examples = [], [], 0
    for batch in batches:
        inputs, targets = to_device(pair_of(batch), device)
        if isinstance(inputs, torch.Tensor) and inputs.is_floating_point():
            inputs = inputs.to(next(iter(direction.values())).dtype)
        params = {name: state[name].detach().requires_grad_() for name in direction}
        value = loss(functional_call(module, {**state, **params}, (inputs,)), targets)
        gradients = torch.autograd.grad(value, list(params.values()), create_graph=True, materialize_grads=True)
        slope = sum((g * direction[name]).sum(dtype=torch.float64) for g, name in zip(gradients, params, strict=True))
        assert isinstance(slope, torch.Tensor)
        if slope.requires_grad:
            products = torch.autograd.grad(slope, list(params.values()), materialize_grads=True)
        else:  # a loss that is linear in the parameters
            products = tuple(torch.zeros_like(tensor) for tensor in params.values())
        curvature = sum(
            float((h * direction[name]).sum(dtype=torch.float64)) for h, name in zip(products, params, strict=True)
        )
        size = batch_size(inputs, targets)
        examples += size
        slopes.append(size * float(slope.detach()))
        curvatures.append(size * curvature)
    if not examples:
        raise ValueError("batches: no examples")
    return math.fsum(slopes) / examples, math.fsum(curvatures) / examples
