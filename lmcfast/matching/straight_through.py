"""Matching by the straight-through estimator: permutations found by descending the loss of the merged network.

Weights theta~ are trained so that the permutations that bring B closest to them give a good merge. The projection
pi(theta_b) is weight matching of B to theta~; the loss is that of the mixture of A and pi(theta_b), and its gradient
goes to theta~ as if theta~ stood in the place of pi(theta_b) (Ainsworth et al., *Git Re-Basin*, arXiv:2209.04836,
Algorithm 3; Bengio et al., arXiv:1308.3432).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from ..batches import check_batches, device_of, to_device
from ..errors import InvalidParamsError
from ..params import apply_permutations
from ..spec import PermutationSpec, check_params, check_permutations
from ..terms import full_precision
from .clock import Clock, Counts
from .descent import begin, descend
from .nested_problem import is_nested
from .objective import Alignment
from .problem import Params, Permutations, make_problem
from .result import MatchResult
from .scores import ScoreTable
from .weight_matching import weight_matching

Loss = Callable[[Any, Any], torch.Tensor]
MakeOptimizer = Callable[[Iterable[torch.Tensor]], torch.optim.Optimizer]
LEARNING_RATE = 1e-3
SMOOTHING = 0.9  # of the running mean of the loss by which the best permutation is chosen
PROJECTION_SWEEPS = 20


@dataclass(frozen=True, slots=True)
class StraightThroughStep:
    """One step: the loss of the mixture that it trained on, how many units the projection moved, wall seconds."""

    loss: float
    weight: float
    changed: int
    seconds: float


@dataclass(frozen=True)
class StraightThroughResult(MatchResult):
    """A matching with its ``history``; ``best_step`` says after which step its permutations were found."""

    history: Sequence[StraightThroughStep] = field(default=(), repr=False)
    best_step: int = 0

    def __str__(self) -> str:
        parts = [f"{len(self.permutations)} groups", f"objective {self.objective:.8g}"]
        parts.append(f"best of {len(self.history)} steps: {self.best_step}")
        return f"StraightThroughResult({', '.join(parts)})"

    __repr__ = __str__


def straight_through_matching(
    spec: PermutationSpec,
    model_a: nn.Module,
    params_b: Params | nn.Module,
    batches: Iterable[tuple[Any, Any]],
    loss: Loss,
    optimizer: MakeOptimizer | None = None,
    steps: int = 1000,
    weight: float | Literal["random"] = 0.5,
    init: Mapping[str, torch.Tensor] | None = None,
    start: Literal["a", "random"] = "a",
    seed: int = 0,
    callback: Callable[[int, StraightThroughStep], object] | None = None,
) -> StraightThroughResult:
    """Find permutations of B by gradient descent on the loss between A and the permuted B.

    Args:
        model_a: the network A; it gives the forward pass too. A copy is used, on its device, in evaluation mode, except
            BatchNorm layers, which take the batch's own statistics (those of A and B fit no mixture).
        params_b: the network B or its state dict.
        batches: (inputs, targets) pairs, gone through again and again until ``steps`` are done.
        loss: ``loss(outputs, targets)``, a scalar.
        optimizer: makes the optimiser of theta~ from its tensors; default Adam with rate 1e-3.
        steps: number of batches.
        weight: share of the permuted B in the mixture, 0.5 or another number in (0, 1]; "random": a new uniform one for
            each step.
        init: permutations to project to first; default those of weight matching.
        start: theta~ begins at A ("a") or at random weights of A's tensor-wise deviation ("random").
        seed: for ``weight="random"`` and ``start="random"``.
        callback: called with the step's number, from 1, and its record.

    Returns:
        The permutations with the lowest running mean of the loss (weight 0.9 on the past), and the history of all
        steps.

    Raises:
        InvalidParamsError: a tensor does not fit, or the loss is not finite (the message names the step).
        ValueError, TypeError: an argument is not as above.
    """
    if (isinstance(weight, str) and weight != "random") or (not isinstance(weight, str) and not 0.0 < weight <= 1.0):
        raise ValueError(f"weight: must be in (0, 1] or 'random', not {weight!r}")
    if start not in ("a", "random"):
        raise ValueError(f"start: must be 'a' or 'random', not {start!r}")
    check_arguments(batches, steps)
    trial = prepared(model_a)
    params_a = {name: tensor.detach() for name, tensor in trial.state_dict().items()}
    params_b = params_b.state_dict() if isinstance(params_b, nn.Module) else params_b
    bound = check_params(spec, params_a, "model_a", strict=False)
    check_params(bound, params_b, "params_b", strict=False)
    generator = torch.Generator().manual_seed(seed)
    if init is None:
        first = weight_matching(bound, params_a, params_b).permutations
    else:
        first = check_permutations(bound, {**bound.identity(), **init}, "init")
    projection = Projection(bound, params_b, first)
    moving = moving_tensors(trial, params_a, start, generator)
    descent = (optimizer or adam)(list(moving.values()))

    def draw() -> list[float]:
        share = float(torch.rand((), generator=generator)) if weight == "random" else float(weight)
        return [1.0 - share, share]

    def record(value: float, shares: Sequence[float], changed: int, seconds: float) -> StraightThroughStep:
        return StraightThroughStep(value, shares[1], changed, seconds)

    estimator = Estimator(bound, trial, params_a, [projection], [moving], descent, draw)
    history, (best,), best_step = estimator.run(endless(batches, steps, device_of(trial)), loss, record, callback)
    return _result(bound, params_a, params_b, best, history, best_step)


Record = TypeVar("Record")


@dataclass
class Estimator:
    """The descent: networks beside the first are projected to their theta~, mixed, and the loss goes down.

    ``draw`` gives the shares of all networks, the first one's first.
    """

    spec: PermutationSpec
    trial: nn.Module
    first: Params
    projections: Sequence[Projection]
    moving: Sequence[Mapping[str, torch.Tensor]]
    descent: torch.optim.Optimizer
    draw: Callable[[], list[float]]

    def run(
        self,
        batches: Iterable[tuple[Any, Any]],
        loss: Loss,
        record: Callable[[float, Sequence[float], int, float], Record],
        callback: Callable[[int, Record], object] | None,
    ) -> tuple[list[Record], list[Permutations], int]:
        """A record of each step, the permutations with the lowest running mean of the loss, and their step."""
        history: list[Record] = []
        best, best_mean, best_step, mean = [dict(one.permutations) for one in self.projections], math.inf, 0, math.nan
        for step, (inputs, targets) in enumerate(batches, 1):
            began = time.perf_counter()
            changed = sum(
                one.to({**self.first, **{name: tensor.detach() for name, tensor in moving.items()}})
                for one, moving in zip(self.projections, self.moving, strict=True)
            )
            shares = self.draw()
            value = loss(functional_call(self.trial, self._mixture(shares), (inputs,)), targets)
            now = float(value.detach())
            if not math.isfinite(now):
                raise InvalidParamsError(f"the loss is not finite in step {step}")
            mean = now if step == 1 else SMOOTHING * mean + (1.0 - SMOOTHING) * now
            if mean < best_mean:
                best, best_mean, best_step = [dict(one.permutations) for one in self.projections], mean, step
            self.descent.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            self.descent.step()
            history.append(record(now, shares, changed, time.perf_counter() - began))
            if callback is not None:
                callback(step, history[-1])
        return history, best, best_step

    def _mixture(self, shares: Sequence[float]) -> dict[str, torch.Tensor]:
        """The networks in these shares, each pi(B) sending its gradient to its theta~; buffers are the first's."""
        names = self.moving[0].keys()
        state = {name: tensor.clone() for name, tensor in self.first.items() if name not in names}
        aligned = [one.aligned() for one in self.projections]
        for name in names:
            mixed = shares[0] * self.first[name]
            for share, moving, placed in zip(shares[1:], self.moving, aligned, strict=True):
                tensor = moving[name]
                mixed = mixed + share * (placed[name].to(tensor.device, tensor.dtype) + (tensor - tensor.detach()))
            state[name] = mixed
        for alias, canonical in self.spec.tied.items():
            if canonical in names and alias in state:
                state[alias] = state[canonical]
        return state


def check_arguments(batches: Any, steps: int) -> None:
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps: at least 1 is needed, not {steps!r}")
    check_batches(batches)


class Projection:
    """The permutations of B that weight matching finds for ever new targets, each from the last ones and their prices.

    ``permutations``: the last ones. A target that moves little costs one or two sweeps whose assignments are nearly
    solved.
    """

    def __init__(self, spec: PermutationSpec, params_b: Params, permutations: Permutations) -> None:
        self.spec, self.params_b = spec, params_b
        self.permutations = dict(permutations)
        self._prices: dict[str, torch.Tensor] = {}
        self._aligned: dict[str, torch.Tensor] | None = None

    def to(self, target: Params) -> int:
        """Project anew; how many units moved."""
        if is_nested(self.spec):
            found = weight_matching(
                self.spec, target, self.params_b, self.permutations, "identity", PROJECTION_SWEEPS
            ).permutations
        else:
            found = self._descend(target)
        moved = sum(int((found[group] != before).sum()) for group, before in self.permutations.items())
        if moved:
            self._aligned = None
        self.permutations = dict(found)
        return moved

    def _descend(self, target: Params) -> Permutations:
        with torch.no_grad(), full_precision():
            problem = make_problem(self.spec, target, self.params_b, self.permutations)
            state = begin(Alignment(problem, problem.start, Counts()), Clock())
            state.prices = self._prices
            descend(problem, ScoreTable(problem), state, PROJECTION_SWEEPS)
        self._prices = state.prices
        return state.permutations

    def aligned(self) -> dict[str, torch.Tensor]:
        """B as the last permutations place it."""
        if self._aligned is None:
            self._aligned = apply_permutations(self.spec, self.permutations, self.params_b, strict=False)
        return self._aligned


def prepared(model: nn.Module) -> nn.Module:
    trial = copy.deepcopy(model).eval()
    for module in trial.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            module.train()
            module.momentum = 0.0  # the batch's statistics are used and none is kept
    return trial.requires_grad_(False)


def moving_tensors(
    trial: nn.Module, params_a: Params, start: str, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """theta~: the floating parameters, tied ones once."""
    moving = {}
    for name, parameter in trial.named_parameters():
        if parameter.is_floating_point():
            tensor = params_a[name].clone()
            if start == "random":
                noise = torch.randn(tensor.shape, generator=generator).to(tensor)
                tensor = noise * tensor.float().std(correction=0).to(tensor)
            moving[name] = tensor.requires_grad_()
    return moving


def adam(tensors: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
    return torch.optim.Adam(tensors, LEARNING_RATE)


def endless(batches: Iterable[tuple[Any, Any]], steps: int, device: torch.device) -> Iterator[tuple[Any, Any]]:
    """``steps`` batches on the device; ``ValueError`` where the batches end before and cannot be gone through again."""
    done = 0
    while done < steps:
        before = done
        for inputs, targets in batches:
            if done == steps:
                return
            done += 1
            yield to_device(inputs, device), to_device(targets, device)
        if done == before:
            raise ValueError(f"batches: {done} batches for {steps} steps, and they can be gone through only once")


def _result(
    spec: PermutationSpec,
    params_a: Params,
    params_b: Params,
    permutations: Permutations,
    history: Sequence[StraightThroughStep],
    best_step: int,
) -> StraightThroughResult:
    """The result, its figures those of weight matching's objective at these permutations."""
    measured = weight_matching(spec, params_a, params_b, init=permutations, start="identity", max_sweeps=0)
    return StraightThroughResult(
        spec=measured.spec,
        permutations=permutations,
        objective=measured.objective,
        gap=math.inf,  # no assignment was solved for this objective
        converged=None,
        sweeps=0,
        starts=measured.starts,
        distance_before=measured.distance_before,
        distance_after=measured.distance_after,
        seconds={"steps": sum(step.seconds for step in history)},
        history=tuple(history),
        best_step=best_step,
    )
