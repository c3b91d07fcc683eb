"""Three and more networks: permutations that bring all of them into one frame."""

from __future__ import annotations

import glob
import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch

from ..params import apply_permutations, compose_permutations, invert_permutations
from ..spec import PermutationSpec, check_finite, check_params
from ..spec.stacks import stacked
from .problem import Params, Permutations, scored_weights
from .universe import relax_together
from .weight_matching import weight_matching

Method = Literal["anchor", "mean", "cycle"]
METHODS: tuple[str, ...] = get_args(Method)
MAX_ROUNDS = 50


@dataclass(frozen=True, eq=False)
class ManyResult:
    """Permutations of several networks into one frame, in the order of the networks.

    ``permutations``: one setting for each network. ``objective``: sum over all pairs of <pi_i(theta_i),
    pi_j(theta_j)>, float64. ``rounds``: how often all networks were gone through; ``history``: the objective after
    each, first that of the start. ``converged``: the last round gained no more than its rounding.
    """

    spec: PermutationSpec
    permutations: list[Permutations]
    objective: float
    method: str
    rounds: int
    converged: bool
    history: tuple[float, ...]
    models: Sequence[Params]

    def apply(self) -> list[dict[str, torch.Tensor]]:
        """The aligned networks."""
        return [
            apply_permutations(self.spec, setting, params)
            for setting, params in zip(self.permutations, self.models, strict=True)
        ]

    def merge(self, weights: Sequence[float] | None = None) -> dict[str, torch.Tensor]:
        """sum_i weights[i] pi_i(theta_i), default the mean; computed in float64, rounded once to the stored dtype.

        Integer and bool tensors are the first network's. ``ValueError`` for weights that are not one finite number
        for each network.
        """
        count = len(self.models)
        shares = [1.0 / count] * count if weights is None else [float(weight) for weight in weights]
        if len(shares) != count or not all(abs(share) < float("inf") for share in shares):
            raise ValueError(f"weights: {count} finite numbers are needed, one for each network, not {weights!r}")
        aligned = self.apply()
        merged = {}
        for name, first in aligned[0].items():
            merged[name] = first
            if first.is_floating_point() or first.is_complex():
                wide = torch.complex128 if first.is_complex() else torch.float64
                total = sum(share * one[name].to(wide) for share, one in zip(shares, aligned, strict=True))
                merged[name] = total.to(first.dtype)  # type: ignore[union-attr]
        return merged

    def between(self, target: int, source: int) -> dict[str, torch.Tensor]:
        """The setting that brings network ``source`` into the frame of network ``target`` as it was given:
        P_target^-1 P_source, so that between(i, j) then between(k, i) is between(k, j)."""
        back = invert_permutations(self.spec, self.permutations[target])
        return compose_permutations(self.spec, self.permutations[source], back)

    def __str__(self) -> str:
        state = "converged" if self.converged else "stopped early"
        return f"ManyResult({len(self.models)} networks, {self.method}, objective {self.objective:.8g}, {state})"

    __repr__ = __str__


def match_many(
    spec: PermutationSpec,
    models: Sequence[Params],
    method: Method = "mean",
    anchor: int = 0,
    max_rounds: int = MAX_ROUNDS,
    seed: int = 0,
    **options: Any,
) -> ManyResult:
    """Align three and more networks (two work too) with each other.

    Args:
        models: state dicts that fit ``spec``; none is changed.
        method: "anchor": each network is matched to network ``anchor``, which stays. "mean": each in turn to the mean
            of the others, until the sum of all pairwise inner products rises no more (MergeMany, Ainsworth et al.,
            arXiv:2209.04836, Algorithm 2, with that sum as the stopping rule: matching to the mean of the others is
            coordinate ascent on it). "cycle": the same sum, started from a relaxation of all networks at once through
            a common frame (Frank-Wolfe, after Crisostomi et al., *C2M3*, arXiv:2405.17897).
        anchor: index of the network whose frame stays; with "mean" and "cycle" the frame at the end is its frame.
        max_rounds: of "mean" and "cycle".
        seed: order of the networks within a round.
        options: passed to :func:`~lmcfast.weight_matching` (``fix``, ``only``, ``tensor_weights``, ``device``, ...).

    All pairwise permutations are cycle-consistent by construction, and do not depend on the order of the networks:
    inside, they are ordered by their content.

    Raises ``ValueError`` naming the argument, ``InvalidParamsError`` naming network and tensor, and what
    ``weight_matching`` raises.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, not {method!r}")
    if isinstance(models, Mapping) or len(models) < 2:
        raise ValueError(f"models: a list of at least two state dicts is needed, not {len(models)}")
    if not (isinstance(anchor, int) and 0 <= anchor < len(models)):
        raise ValueError(f"anchor: must be an index of the {len(models)} networks, not {anchor!r}")
    if max_rounds < 1:
        raise ValueError(f"max_rounds must be at least 1, not {max_rounds}")
    if spec.stacks:
        whole = [stacked(spec, params) for params in models]
        found = match_many(replace(spec, stacks={}), whole, method, anchor, max_rounds, seed, **options)
        return replace(found, spec=replace(found.spec, stacks=spec.stacks), models=list(models))
    bound = check_params(spec, models[0], "models[0]")
    for index, params in enumerate(models[1:], 1):
        check_params(bound, params, f"models[{index}]")
    order = sorted(range(len(models)), key=lambda index: _content(models[index]))
    for index, params in enumerate(models):
        check_finite(params, f"models[{index}]")
    work = _Together(bound, [models[index] for index in order], options)
    if method == "anchor":
        center = order.index(anchor)
        history = [work.match_to(center)]
        rounds, converged = 1, True
    else:
        work.begin(seed) if method == "mean" else work.relax()
        history, converged = work.ascend(max_rounds, seed)
        rounds = len(history) - 1
    settings = work.in_frame_of(order.index(anchor))
    permutations = [settings[order.index(index)] for index in range(len(models))]
    return ManyResult(bound, permutations, history[-1], method, rounds, converged, tuple(history), list(models))


def _content(params: Params) -> bytes:
    """A key by which networks are ordered, the same whatever place they were given in."""
    digest = hashlib.sha256()
    for name in sorted(params):
        tensor = params[name].detach()
        if tensor.is_floating_point():
            digest.update(repr(float(tensor.double().square().sum())).encode())
    return digest.digest()


def _normalized(spec: PermutationSpec, models: Sequence[Params]) -> dict[str, float]:
    """One weight for all pairs: 1 / the mean squared norm of the tensor."""
    squares = [scored_weights(spec, params, params, "normalized") for params in models]
    names = set.intersection(*(set(weights) for weights in squares))
    mean = {name: sum(1.0 / weights[name] for weights in squares) / len(models) for name in names}
    return {"*": 0.0, **{glob.escape(name): 1.0 / square for name, square in mean.items()}}


class _Together:
    """Networks on their way into one frame: settings, the aligned tensors, and the sum of those that count."""

    def __init__(self, spec: PermutationSpec, models: list[Params], options: Mapping[str, Any]) -> None:
        self.spec, self.models, self.options = spec, models, dict(options)
        if self.options.get("tensor_weights") == "normalized":
            self.options["tensor_weights"] = _normalized(spec, models)
        self.weights = scored_weights(spec, models[0], models[0], self.options.get("tensor_weights"))
        self.settings: list[Permutations] = [spec.identity() for _ in models]
        self.aligned = [self._scored(params) for params in models]
        self.total = self._sum(range(len(models)))

    def _scored(self, params: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: params[name].detach().double() for name in self.weights}

    def _place(self, index: int, setting: Permutations) -> None:
        self.settings[index] = setting
        before = self.aligned[index]
        self.aligned[index] = self._scored(apply_permutations(self.spec, setting, self.models[index]))
        for name, tensor in self.aligned[index].items():
            self.total[name].add_(tensor).sub_(before[name])

    def _sum(self, members: Iterable[int]) -> dict[str, torch.Tensor]:
        chosen = list(members)
        return {name: torch.stack([self.aligned[i][name] for i in chosen]).sum(0) for name in self.weights}

    def objective(self) -> float:
        """Sum over the pairs, from |sum|^2 - sum | |^2, float64; the sum, which is kept up to date, is taken anew."""
        total = self.total = self._sum(range(len(self.models)))
        value = 0.0
        for name, weight in self.weights.items():
            squares = sum(float(one[name].square().sum()) for one in self.aligned)
            value += weight * (float(total[name].square().sum()) - squares) / 2.0
        return value

    def _match(self, index: int, others: Mapping[str, torch.Tensor], count: int, start: str) -> None:
        """Match a network to the mean of others, given their sum and number, from where it stands."""
        mean = {name: total / count for name, total in others.items()}
        target = {
            name: mean[name].to(tensor.dtype) if name in mean else tensor for name, tensor in self.models[index].items()
        }
        for alias, canonical in self.spec.tied.items():
            if canonical in target:
                target[alias] = target[canonical]
        result = weight_matching(
            self.spec, target, self.models[index], init=self.settings[index], start=start, **self.options  # type: ignore[arg-type]
        )  # fmt: skip
        self._place(index, result.permutations)

    def match_to(self, center: int) -> float:
        for index in range(len(self.models)):
            if index != center:
                self._match(index, self.aligned[center], 1, "best")
        return self.objective()

    def begin(self, seed: int) -> None:
        """Each network after the first to the mean of those before it."""
        for index in range(1, len(self.models)):
            self._match(index, self._sum(range(index)), index, "best")

    def relax(self) -> None:
        """Permutations of all networks at once from the relaxation, where that is better than one after the other."""
        self.begin(0)
        before, settings = self.objective(), list(self.settings)
        for index, setting in enumerate(relax_together(self.spec, self.models, self.settings, self.weights)):
            self._place(index, setting)
        if self.objective() < before:
            for index, setting in enumerate(settings):
                self._place(index, setting)

    def ascend(self, max_rounds: int, seed: int) -> tuple[list[float], bool]:
        """Match each network to the mean of the others, round after round."""
        shuffle = random.Random(seed)
        count = len(self.models)
        history = [self.objective()]
        for _ in range(max_rounds):
            for index in shuffle.sample(range(count), count):
                others = {name: total - self.aligned[index][name] for name, total in self.total.items()}
                self._match(index, others, count - 1, "identity")
            history.append(self.objective())
            scale = sum(float(one[name].square().sum()) for one in self.aligned for name in self.weights)
            if history[-1] - history[-2] <= 1e-9 * scale:
                return history, True
        return history, False

    def in_frame_of(self, center: int) -> list[Permutations]:
        """The settings, all followed by what brings the center back to where it was."""
        back = invert_permutations(self.spec, self.settings[center])
        return [compose_permutations(self.spec, setting, back) for setting in self.settings]
