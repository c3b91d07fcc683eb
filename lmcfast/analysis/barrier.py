"""The loss on the straight line between two networks.

With L the loss and theta(lambda) = (1 - lambda) theta_a + lambda theta_b, the curve is
L(theta(lambda)) - ((1 - lambda) L(theta_a) + lambda L(theta_b)): Frankle et al. (arXiv:1912.05671), Entezari et al.
(arXiv:2110.06296), Ito et al. (arXiv:2402.04051).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..merging.batchnorm import UnresetBatchNormWarning, batchnorm_layers
from ..params import interpolate
from .evaluation import Measure, Params, check_fits, evaluate, repeatable

LOSS = "loss"


@dataclass(frozen=True, eq=False)
class Barrier:
    """Loss and metrics on the line from A (lambda = 0) to B (lambda = 1).

    ``lambdas``: float64 (k,), rising, with 0, 1/2 and 1. ``losses``: float64 (k,). ``metrics``: {name: float64 (k,)}.
    Three figures are in use under the name barrier; a table should say which one it gives.
    """

    lambdas: NDArray[np.float64]
    losses: NDArray[np.float64]
    metrics: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def curve(self) -> NDArray[np.float64]:
        """float64 (k,), signed: the loss minus the ends' losses interpolated linearly; exactly 0 at both ends."""
        ends: NDArray[np.float64] = (1.0 - self.lambdas) * self.losses[0] + self.lambdas * self.losses[-1]
        return self.losses - ends

    @property
    def value(self) -> float:
        """Largest value of the curve on the grid, >= 0 since the ends belong to it."""
        return float(self.curve.max())

    @property
    def midpoint(self) -> float:
        """The curve at lambda = 1/2; negative where the merged network is better than the mean of the two."""
        return float(self.curve[self.index(0.5)])

    @property
    def git_re_basin(self) -> float:
        """Largest loss on the path minus the plain mean of the ends' losses, >= 0 (arXiv:2209.04836)."""
        return float(self.losses.max() - (self.losses[0] + self.losses[-1]) / 2)

    def at(self, weight: float) -> dict[str, float]:
        """{"loss": ..., metric: ...} at a lambda of the grid; ValueError for others."""
        index = self.index(weight)
        return {LOSS: float(self.losses[index]), **{name: float(v[index]) for name, v in self.metrics.items()}}

    def series(self, name: str = LOSS) -> NDArray[np.float64]:
        """The losses ("loss") or a metric by its name; ValueError naming what there is."""
        if name == LOSS:
            return self.losses
        if name not in self.metrics:
            known = ", ".join(map(repr, (LOSS, *self.metrics)))
            raise ValueError(f"metric: {name!r} was not measured; there are {known}")
        return self.metrics[name]

    def to_dict(self) -> dict[str, Any]:
        """All figures as plain numbers and lists, for JSON."""
        return {
            "value": self.value,
            "midpoint": self.midpoint,
            "git_re_basin": self.git_re_basin,
            "lambdas": self.lambdas.tolist(),
            "losses": self.losses.tolist(),
            "curve": self.curve.tolist(),
            "metrics": {name: values.tolist() for name, values in self.metrics.items()},
        }

    def __str__(self) -> str:
        return (
            f"Barrier(midpoint {self.midpoint:+.4g}, value {self.value:.4g}, git_re_basin {self.git_re_basin:.4g}, "
            f"losses {self.losses[0]:.4g} and {self.losses[-1]:.4g} at the ends, {len(self.lambdas)} points)"
        )

    __repr__ = __str__

    def index(self, weight: float) -> int:
        """Where a lambda stands in the grid; ValueError where it does not."""
        found = np.flatnonzero(self.lambdas == weight)
        if not len(found):
            raise ValueError(f"weight: {weight!r} is not a lambda of the grid")
        return int(found[0])


def barrier(
    module: nn.Module,
    params_a: Params,
    params_b: Params,
    batches: Iterable[tuple[Any, Any]],
    loss: Measure,
    lambdas: int | Sequence[float] = 25,
    metrics: Mapping[str, Measure] | None = None,
    prepare: Callable[[nn.Module], object] | None = None,
) -> Barrier:
    """Measure loss and metrics on the straight line between two state dicts of one module.

    Args:
        module: gives the forward pass. A deep copy of it is used, in evaluation mode, on its device; the module itself
            (weights, statistics, ``training`` flags, gradients) stays as it is.
        params_a, params_b: state dicts of ``module``, on any device. B should be aligned to A before.
        batches: (inputs, targets) pairs, gone through once for every lambda, so a list or DataLoader and not an
            iterator. The module is called with the inputs as its one argument. Tensors go to the module's device.
        loss: ``loss(outputs, targets)``, the mean over the batch, a scalar; batches are weighted by their size: the
            first axis of the first tensor in the targets (or, if they hold none, in the inputs).
        lambdas: the size of a uniform grid from 0 to 1, ends included, or the values, in [0, 1]. 0, 1/2 and 1 are
            always measured too.
        metrics: {name: callable as ``loss``}, e.g. an accuracy.
        prepare: called with the copy after each state is loaded, at the ends too, e.g.
            ``lambda m: reset_batchnorm(m, train_batches)``.

    Returns:
        A :class:`Barrier`. All states, running statistics included, come from ``lmcfast.interpolate``; the ends are
        exactly A and B. Sums are float64.

    Raises:
        InvalidParamsError: a tensor is missing, unknown or misshapen (named), or the loss or a metric is not finite
            (the message names lambda).
        ValueError, TypeError: an argument is not as above; ``batches`` is a one-shot iterator or empty.

    Warns with ``UnresetBatchNormWarning`` where the module has BatchNorm statistics and there is no ``prepare``.
    """
    grid = _grid(lambdas)
    measures = {LOSS: loss, **_checked_metrics(metrics)}
    repeatable(batches)
    state = module.state_dict()
    for argument, params in (("params_a", params_a), ("params_b", params_b)):
        check_fits(state, params, argument)
    if prepare is None and batchnorm_layers(module):
        warnings.warn(
            "the module has BatchNorm running statistics, which do not fit interpolated weights; give "
            "prepare=lambda module: reset_batchnorm(module, batches)",
            UnresetBatchNormWarning,
            stacklevel=2,
        )
    trial = copy.deepcopy(module)
    measured: dict[str, list[float]] = {name: [] for name in measures}
    for weight in grid:
        trial.load_state_dict(interpolate(params_a, params_b, weight))
        if prepare is not None:
            prepare(trial)
        trial.eval()
        for name, value in evaluate(trial, batches, measures, f"at lambda = {weight:g}").items():
            measured[name].append(value)
    series = {name: np.array(values, dtype=np.float64) for name, values in measured.items()}
    return Barrier(np.array(grid, dtype=np.float64), series.pop(LOSS), series)


def _grid(lambdas: int | Sequence[float]) -> list[float]:
    if isinstance(lambdas, int | np.integer):
        if isinstance(lambdas, bool) or lambdas < 2:
            raise ValueError(f"lambdas: a grid has at least 2 points, not {lambdas!r}")
        values = [index / (int(lambdas) - 1) for index in range(lambdas)]
    else:
        values = [float(value) for value in lambdas]
    for value in values:
        if not 0.0 <= value <= 1.0:  # refuses NaN too
            raise ValueError(f"lambdas: {value!r} is not in [0, 1]")
    return sorted({0.0, 0.5, 1.0, *values})


def _checked_metrics(metrics: Mapping[str, Measure] | None) -> Mapping[str, Measure]:
    if metrics is not None and LOSS in metrics:
        raise ValueError(f"metrics: the name {LOSS!r} is taken by the loss")
    return metrics or {}
