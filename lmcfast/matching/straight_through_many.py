"""The straight-through estimator for three and more networks: one theta~ for each but the first, all trained at once.

Each step mixes the first network and the projections pi_i(theta_i) of the others in random convex shares, so that the
whole simplex between them is to have a low loss; the gradient of the loss goes to each theta~_i, times its share
(``straight_through.py``, of which this is the general case).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

import torch
from torch import nn

from ..batches import device_of
from ..params import apply_permutations, inner_product
from ..spec import check_params, check_permutations
from ..spec.spec import PermutationSpec
from .many import ManyResult, match_many
from .problem import Params
from .straight_through import (
    Estimator,
    Loss,
    MakeOptimizer,
    Projection,
    adam,
    check_arguments,
    endless,
    moving_tensors,
    prepared,
)


@dataclass(frozen=True, slots=True)
class StraightThroughManyStep:
    """One step: the loss of the mixture, the networks' shares in it, how many units the projections moved, seconds."""

    loss: float
    weights: tuple[float, ...]
    changed: int
    seconds: float


@dataclass(frozen=True, eq=False, repr=False)
class StraightThroughManyResult(ManyResult):
    """A :class:`ManyResult` with the record of each step; ``best_step`` says after which the permutations were found.

    ``objective`` is measured at them; ``rounds`` counts the steps.
    """

    steps: Sequence[StraightThroughManyStep] = field(default=(), repr=False)
    best_step: int = 0


def straight_through_many(
    spec: PermutationSpec,
    module: nn.Module,
    models: Sequence[Params | nn.Module],
    batches: Iterable[tuple[Any, Any]],
    loss: Loss,
    optimizer: MakeOptimizer | None = None,
    steps: int = 1000,
    weights: Sequence[float] | Literal["random"] = "random",
    init: Sequence[Mapping[str, torch.Tensor]] | None = None,
    start: Literal["first", "random"] = "first",
    seed: int = 0,
    callback: Callable[[int, StraightThroughManyStep], object] | None = None,
) -> StraightThroughManyResult:
    """Find permutations of several networks into the frame of the first by descending the loss of their mixtures.

    Args:
        module: gives the forward pass; a copy is used, in evaluation mode but for BatchNorm layers.
        models: networks or state dicts of ``module``, two or more; the first stays. None is changed.
        batches, loss, optimizer, steps, callback: as of :func:`~lmcfast.straight_through_matching`.
        weights: the networks' shares in the mixture, or "random": for each step a new point, uniform on the simplex.
        init: settings of all networks to project to first, the first network's at the identity; default those of
            ``match_many`` with the first network as anchor.
        start: each theta~ begins at the first network's weights, or at random ones of their tensor-wise deviation.
        seed: for the random shares and weights.

    Returns the permutations with the lowest running mean of the loss. Raises as ``straight_through_matching`` does.
    """
    check_arguments(batches, steps)
    shares = _fixed_shares(weights, len(models))
    if start not in ("first", "random"):
        raise ValueError(f"start: must be 'first' or 'random', not {start!r}")
    states = [one.state_dict() if isinstance(one, nn.Module) else one for one in models]
    bound = check_params(spec, states[0], "models[0]", strict=False)
    for index, params in enumerate(states[1:], 1):
        check_params(bound, params, f"models[{index}]", strict=False)
    trial = prepared(module)
    first = {name: tensor.detach().to(device_of(trial)) for name, tensor in states[0].items()}
    generator = torch.Generator().manual_seed(seed)
    settings = _settings(bound, states, init)
    projections = [Projection(bound, params, one) for params, one in zip(states[1:], settings[1:], strict=True)]
    moving = [moving_tensors(trial, first, "a" if start == "first" else start, generator) for _ in projections]
    descent = (optimizer or adam)([tensor for tensors in moving for tensor in tensors.values()])

    def draw() -> list[float]:
        if shares is not None:
            return shares
        drawn = torch.empty(len(states), dtype=torch.float64).exponential_(generator=generator)
        found: list[float] = (drawn / drawn.sum()).tolist()
        return found

    estimator = Estimator(bound, trial, first, projections, moving, descent, draw)
    history, best, best_step = estimator.run(endless(batches, steps, device_of(trial)), loss, _record, callback)
    permutations = [bound.identity(), *best]
    aligned = [apply_permutations(bound, one, params) for one, params in zip(permutations, states, strict=True)]
    objective = sum(inner_product(bound, one, two) for one, two in combinations(aligned, 2))
    return StraightThroughManyResult(
        bound, permutations, objective, "straight_through", len(history), True, (), states, history, best_step
    )


def _record(value: float, shares: Sequence[float], changed: int, seconds: float) -> StraightThroughManyStep:
    return StraightThroughManyStep(value, tuple(shares), changed, seconds)


def _fixed_shares(weights: Sequence[float] | str, count: int) -> list[float] | None:
    if count < 2:
        raise ValueError(f"models: a list of at least two networks is needed, not {count}")
    if isinstance(weights, str):
        if weights != "random":
            raise ValueError(f"weights: must be numbers or 'random', not {weights!r}")
        return None
    shares = [float(weight) for weight in weights]
    if len(shares) != count or min(shares) < 0.0 or not abs(sum(shares) - 1.0) < 1e-6:
        raise ValueError(f"weights: {count} numbers >= 0 of sum 1 are needed, not {list(weights)!r}")
    return shares


def _settings(
    spec: PermutationSpec, states: Sequence[Params], init: Sequence[Mapping[str, torch.Tensor]] | None
) -> list[dict[str, torch.Tensor]]:
    if init is None:
        return match_many(spec, states, method="anchor", anchor=0).permutations
    if len(init) != len(states):
        raise ValueError(f"init: {len(states)} settings are needed, one for each network, not {len(init)}")
    identity = spec.identity()
    settings = [dict(check_permutations(spec, {**identity, **one}, f"init[{index}]")) for index, one in enumerate(init)]
    if any(not torch.equal(settings[0][group], permutation) for group, permutation in identity.items()):
        raise ValueError("init: the first network stays, so its setting must be the identity")
    return settings
