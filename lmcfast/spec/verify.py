"""Proof of a spec on the real module: random settings leave the output unchanged, in float64.

Beside it stand a control, since a verification in which a tensor has no effect (a dead layer, constant statistics) says
nothing about that tensor: each tensor moved alone must change the output; and a probe of what the spec holds fixed:
if it moved alone and the output stayed, the spec would miss a symmetry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..errors import SpecError
from .gather import permute_tensor
from .layout import atoms
from .spec import PermutationSpec
from .trial import TOLERANCE, Trial

_SMALL = 4  # groups up to this size are moved alone too


@dataclasses.dataclass(frozen=True)
class VerifyReport:
    """What was proved.

    ``max_error``: largest relative difference of an output over all settings. ``seeds``: number of settings tried.
    ``groups``, ``tensors``: what was moved. ``insensitive``: tensors that, moved alone, left the output unchanged: the
    verification says nothing about them. ``probed``: number of fixed classes that were moved alone; ``missed``: those
    that left the output unchanged, as ``tensor[axis] (why it is fixed)``: the spec could be larger.
    """

    max_error: float
    seeds: int
    groups: tuple[str, ...]
    tensors: tuple[str, ...]
    insensitive: tuple[str, ...]
    probed: int = 0
    missed: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = (
            f"verified: {len(self.groups)} groups, {len(self.tensors)} tensors moved by {self.seeds} random settings, "
            f"largest relative output error {self.max_error:.1e}"
        )
        if self.insensitive:
            text += f"; not tested, since without effect on the output: {', '.join(self.insensitive)}"
        if self.missed:
            text += f"; fixed, though it could move: {', '.join(self.missed)}"
        return text


def verify_spec(
    spec: PermutationSpec,
    module: nn.Module,
    example_inputs: Any,
    kwargs: Mapping[str, Any] | None = None,
    outputs: Callable[[Any], Any] | None = None,
    seeds: int = 2,
    probe: Iterable[PermutationSpec] = (),
) -> VerifyReport:
    """Prove that the spec leaves the module's output unchanged.

    ``example_inputs``: a tensor, or a tuple of the positional arguments; ``kwargs``: the keyword arguments.
    ``outputs``: takes from the module's output what must not change (default: ``.logits`` if there is one, else all).
    ``seeds``: how many random settings of all groups are tried; small groups are moved alone besides.
    ``probe``: specs of which each moves one class of axes that the spec holds fixed, and should fail; those that do not
    are ``missed`` in the report.

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
    candidates = list(probe)
    return VerifyReport(
        max_error,
        seeds,
        trial.spec.movable_groups,
        tensors,
        insensitive_tensors(trial, tensors),
        len(candidates),
        tuple(_place(trial.spec, candidate) for candidate in candidates if _holds(trial, candidate)),
    )


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


def shifted(spec: PermutationSpec) -> dict[str, torch.Tensor]:
    """The setting that moves every unit of every group, by one place: a random one often leaves small groups alone."""
    return {name: index if spec.groups[name].fixed else index.roll(1, -1) for name, index in spec.identity().items()}


def _holds(trial: Trial, candidate: PermutationSpec) -> bool:
    """Whether the output stays when the candidate's groups move."""
    bound = candidate.bind(trial.params)
    return trial.error(trial.moved(bound, shifted(bound))) < TOLERANCE


def _place(spec: PermutationSpec, candidate: PermutationSpec) -> str:
    """The first place of what a candidate moves, and why the spec holds it fixed."""
    for tensor, layouts in candidate.axes.items():
        for axis, layout in enumerate(layouts):
            if any(not candidate.groups[name].fixed for name in atoms(layout)):
                why = ", ".join(spec.why_fixed.get((tensor, axis), ()))
                return f"{tensor}[{axis}]" + (f" ({why})" if why else "")
    raise SpecError("a spec to be probed moves nothing")


def insensitive_tensors(trial: Trial, tensors: Sequence[str]) -> tuple[str, ...]:
    """Tensors that, moved alone, do not change the output."""
    setting = shifted(trial.spec)
    found = []
    for name in tensors:
        if name in trial.spec.tied:
            continue
        family = [name, *(alias for alias, canonical in trial.spec.tied.items() if canonical == name)]
        params = dict(trial.params)
        for member in family:
            params[member] = permute_tensor(trial.spec, member, trial.params[member], setting)
        if trial.error(params) < TOLERANCE:
            found.append(name)
    return tuple(found)
