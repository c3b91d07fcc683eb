"""The loss on the plane through three networks (Ito et al., arXiv:2402.04051, figure 6)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..errors import InvalidParamsError
from ..spec.spec import STATISTICS
from .evaluation import Measure, Params, check_fits, evaluate, repeatable


@dataclass(frozen=True, eq=False)
class Plane:
    """Losses on a grid of the plane through three networks.

    ``x`` (nx,), ``y`` (ny,): coordinates in L2 distance; A is the origin, B lies on the x axis. ``losses`` (ny, nx).
    ``points`` (3, 2): where A, B and C are. All float64.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    losses: NDArray[np.float64]
    points: NDArray[np.float64]


def plane(
    module: nn.Module,
    params: Sequence[Params],
    batches: Iterable[tuple[Any, Any]],
    loss: Measure,
    resolution: int = 21,
    margin: float = 0.25,
    prepare: Callable[[nn.Module], object] | None = None,
) -> Plane:
    """Measure the loss on the plane through three networks, which should be aligned to each other before.

    Args:
        params: three state dicts of ``module``, A, B and C.
        batches: (inputs, targets) pairs, gone through ``resolution`` squared times.
        loss: ``loss(outputs, targets)``, the mean over the batch.
        resolution: points along each axis, at least 2.
        margin: how far the grid goes beyond the triangle, as a share of its extent.
        prepare: called with a copy of the module after each state is loaded, e.g. to reset BatchNorm statistics, which
            are otherwise mixed like the weights.

    A point is theta_a + u (theta_b - theta_a) + v (theta_c - theta_a), mixed in float64 and rounded once. Raises
    ``InvalidParamsError`` naming a tensor, also where the three lie on one line; ``ValueError`` naming an argument.
    """
    if len(params) != 3:
        raise ValueError(f"params: three state dicts are needed, not {len(params)}")
    if not isinstance(resolution, int) or resolution < 2:
        raise ValueError(f"resolution: at least 2 points are needed, not {resolution!r}")
    if not margin >= 0:
        raise ValueError(f"margin: a number of at least 0 is needed, not {margin!r}")
    repeatable(batches)
    state = module.state_dict()
    for which, one in zip("abc", params, strict=True):
        check_fits(state, one, f"params of {which.upper()}")
    points = _coordinates(params)
    low, high = points.min(0), points.max(0)
    space = margin * (high - low)
    x, y = (np.linspace(low[k] - space[k], high[k] + space[k], resolution) for k in range(2))
    trial = copy.deepcopy(module)
    losses = np.empty((resolution, resolution))
    for row, column in np.ndindex(losses.shape):
        v = y[row] / points[2, 1]
        u = (x[column] - v * points[2, 0]) / points[1, 0]
        trial.load_state_dict(_mix(params, u, v))
        if prepare is not None:
            prepare(trial)
        trial.eval()
        where = f"at x = {x[column]:.4g}, y = {y[row]:.4g}"
        losses[row, column] = evaluate(trial, batches, {"loss": loss}, where)["loss"]
    return Plane(x, y, losses, points)


def _coordinates(params: Sequence[Params]) -> NDArray[np.float64]:
    """(3, 2): the three networks in the plane, by Gram and Schmidt from A."""
    products = np.zeros((2, 2))
    for name, tensor in params[0].items():
        if not tensor.is_floating_point() or name.rpartition(".")[2] in STATISTICS:
            continue
        a = tensor.detach().double()
        edges = [other[name].detach().to(a.device).double() - a for other in params[1:]]
        products += [[float((one * two).sum()) for two in edges] for one in edges]
    length = np.sqrt(products[0, 0])
    along = products[0, 1] / length if length > 0 else 0.0
    height = np.sqrt(max(0.0, products[1, 1] - along**2))
    if not (length > 0 and height > 1e-7 * np.sqrt(products[1, 1])):
        raise InvalidParamsError("params: the three networks lie on one line (or two are equal); they span no plane")
    return np.array([[0.0, 0.0], [length, 0.0], [along, height]])


def _mix(params: Sequence[Params], u: float, v: float) -> dict[str, torch.Tensor]:
    mixed = {}
    for name, a in params[0].items():
        mixed[name] = a
        if a.is_floating_point():
            b, c = (other[name].to(a.device).double() for other in params[1:])
            mixed[name] = ((1 - u - v) * a.double() + u * b + v * c).to(a.dtype)
    return mixed
