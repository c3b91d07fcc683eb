"""Which axis of a spec is wrong, after a verification failed.

The groups are moved one by one; for one that changes the output, the spec is edited axis by axis (the group taken off
an axis that lists it, put on one that does not) until the output stays the same. The smallest edit that does it is the
message. Where one does not do, batch norm statistics of one module, or all that the group's modules lack, are tried at
once, then pairs of edits in one tensor, then whether two groups should be one, then other pairs.

Every trial is a forward pass, so the search has a budget of seconds; when it is spent, the error names the groups that
change the output when each moves alone, as far as they are known.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from ..errors import SpecError
from .gather import permute_tensor
from .layout import Atom, Fixed, Layout, atoms, format_layout, layout_size, rebuild
from .spec import PermutationSpec
from .trial import TOLERANCE, Setting, Trial

_PAIR_BUDGET = 300  # forward passes spent on pairs of edits, for each group
_SECONDS = 15.0
_MANY = 16  # of more groups than this, one that fails is sought by halving before each is moved alone


@dataclass(frozen=True)
class Edit:
    """Another layout for one axis, and what that says about the spec."""

    tensor: str
    axis: int
    layout: Layout
    meaning: str


class _Spent(Exception):
    """The budget is spent."""


class _Budget:
    """Seconds for forward passes."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.begin = time.monotonic()

    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.begin)

    def error(self, trial: Trial, params: Mapping[str, torch.Tensor]) -> float:
        """The trial's error, or ``_Spent`` where there is no time for it."""
        if self.left() <= 0:
            raise _Spent
        return trial.error(params)


def find_culprit(trial: Trial, setting: Setting, error: float, seconds: float = _SECONDS) -> SpecError:
    """The error to raise for a spec that changes the output by ``error`` under ``setting``.

    ``seconds``: after them no forward pass is begun any more.
    """
    budget = _Budget(seconds)
    searches, tried = _failing(trial, setting, budget)
    groups = trial.spec.movable_groups
    if not searches:
        head = f"the output changes (relative error {error:.1e}) when all groups move"
        if tried == len(groups):
            return SpecError(f"{head}, though not when each moves alone")
        return SpecError(
            f"{head}; in {seconds:g} s {tried} of the {len(groups)} were moved alone, which changed nothing"
        )
    try:
        return _verdict(trial, searches) or searches[0].no_verdict()
    except _Spent:
        return searches[0].unfinished([search.group for search in searches[1:]])


def _failing(trial: Trial, setting: Setting, budget: _Budget) -> tuple[list[_Search], int]:
    """The groups that change the output when each moves alone, and how many were tried.

    Half of the time is for this, unless none is found in it.
    """
    groups = trial.spec.movable_groups
    found: dict[str, _Search] = {}
    tried = 0
    try:
        likely = _by_halving(trial, setting, budget) if len(groups) > _MANY else groups[:0]
        for group in dict.fromkeys((*likely, *groups)):
            if found and budget.left() < budget.seconds / 2:
                break
            search = _Search(trial, group, setting, budget)
            tried += 1
            if search.error >= TOLERANCE:
                found[group] = search
    except _Spent:
        pass
    return [found[group] for group in groups if group in found], tried


def _by_halving(trial: Trial, setting: Setting, budget: _Budget) -> tuple[str, ...]:
    """One group that is likely to fail, in as many passes as the number of groups has bits."""
    groups = trial.spec.movable_groups
    identity = trial.spec.identity()
    while len(groups) > 1:
        half = groups[: len(groups) // 2]
        moved = trial.moved(trial.spec, {**identity, **{group: setting[group] for group in half}})
        groups = half if budget.error(trial, moved) >= TOLERANCE else groups[len(half) :]
    return groups


def _verdict(trial: Trial, searches: Sequence[_Search]) -> SpecError | None:
    """What mends the spec, the likely and quick things first."""
    for step in (_Search.single, _Search.bundle, _Search.pair_in_one_tensor):
        for search in searches:
            if edits := step(search):
                return search.verdict(edits)
    for search, other in itertools.combinations(searches, 2):
        if search.is_one_with(other.group):
            return SpecError(
                f"{search.head()}: groups {search.group!r} and {other.group!r} must be one",
                trial.spec.tensors_of(other.group)[0],
                other.group,
            )
    for search in searches:
        if edits := search.pair_over_two_tensors():
            return search.verdict(edits)
    return None


class _Search:
    """One group moved alone, and the edits that could mend it."""

    def __init__(self, trial: Trial, group: str, setting: Setting, budget: _Budget) -> None:
        self.trial = trial
        self.budget = budget
        self.spec = trial.spec
        self.group = group
        self.setting = {**trial.spec.identity(), group: setting[group]}
        self.moved = trial.moved(trial.spec, self.setting)
        self.error = budget.error(trial, self.moved)

    def layouts(self, tensor: str) -> tuple[Layout, ...]:
        shape = self.trial.params[tensor].shape
        return self.spec.axes.get(tensor, tuple(Fixed(length) for length in shape))

    def candidates(self) -> Iterator[Edit]:
        """Every axis of a fitting length with the group, then every axis that lists it without it.

        Of the former, tensors of modules where it stands come first: they are the likely ones. Taking it off comes
        last, since that can seem to mend a tensor that has little effect on the output.
        """
        own: dict[int, list[Layout]] = {}
        listed = [
            (tensor, axis, layout)
            for tensor in self.spec.tensors_of(self.group)
            for axis, layout in enumerate(self.spec.axes[tensor])
            if self.group in atoms(layout) and tensor not in self.spec.tied
        ]
        for _, _, layout in listed:
            layouts = own.setdefault(layout_size(layout, self.spec.sizes), [])
            if layout not in layouts:
                layouts.append(layout)
        modules = {tensor.rpartition(".")[0] for tensor, _, _ in listed}
        nearest = sorted(self.trial.params, key=lambda tensor: tensor.rpartition(".")[0] not in modules)
        for tensor in nearest:
            value = self.trial.params[tensor]
            if not value.is_floating_point() or tensor in self.spec.tied:
                continue
            for axis, layout in enumerate(self.layouts(tensor)):
                for other in own.get(value.shape[axis], ()):
                    if self.group not in atoms(layout):
                        yield Edit(tensor, axis, other, self.lack(tensor, axis, layout, other))
        for tensor, axis, layout in listed:
            yield Edit(tensor, axis, self.without(layout), f"axis {axis} of tensor {tensor!r} must not list it")

    def lack(self, tensor: str, axis: int, layout: Layout, other: Layout) -> str:
        if tensor not in self.spec.axes:
            return f"tensor {tensor!r} has no entry in the spec but moves with it"
        have = "is fixed" if not any(atoms(layout)) else f"has layout {format_layout(layout)!r}"
        return f"axis {axis} of tensor {tensor!r} {have} but should have layout {format_layout(other)!r}"

    def without(self, layout: Layout) -> Layout:
        """The layout with a fixed run in the group's place."""
        if isinstance(layout, Atom):
            return Fixed(self.spec.sizes[self.group]) if layout.name == self.group else layout
        return rebuild(layout, self.without)

    def mends(self, edits: Sequence[Edit]) -> bool:
        """Whether the output stays the same with these edits."""
        layouts: dict[str, list[Layout]] = {}
        for edit in edits:
            layouts.setdefault(edit.tensor, list(self.layouts(edit.tensor)))[edit.axis] = edit.layout
        params = dict(self.moved)
        for tensor, axes in layouts.items():
            moved = self.move(tensor, axes)
            if moved is None:
                return False
            for name in (tensor, *(a for a, canonical in self.spec.tied.items() if canonical == tensor)):
                params[name] = moved
        return self.budget.error(self.trial, params) < TOLERANCE

    def move(self, tensor: str, layouts: Sequence[Layout]) -> torch.Tensor | None:
        """The tensor moved under other layouts; None where they nest wrongly."""
        names = {name for layout in layouts for name in atoms(layout)}
        groups = {name: self.spec.groups[name] for name in names}
        if not groups:
            return self.trial.params[tensor]
        try:
            alone = PermutationSpec(groups, {tensor: tuple(layouts)})
        except SpecError:
            return None
        return permute_tensor(alone, tensor, self.trial.params[tensor], self.setting)

    def single(self) -> list[Edit]:
        return next(([edit] for edit in self.candidates() if self.mends([edit])), [])

    def bundle(self) -> list[Edit]:
        """One-axis tensors of modules: all those that a module of the group lacks, then those of each module."""
        lacking = [
            edit
            for edit in self.candidates()
            if self.trial.params[edit.tensor].ndim == 1 and self.group in atoms(edit.layout)
        ]
        modules: dict[str, list[Edit]] = {}
        for edit in lacking:
            modules.setdefault(edit.tensor.rpartition(".")[0], []).append(edit)
        listed = {name.rpartition(".")[0] for name in self.spec.tensors_of(self.group)}
        siblings = [edit for path, edits in modules.items() if path in listed for edit in edits]
        for edits in (siblings, *modules.values()):
            if len(edits) > 1 and self.mends(edits):
                return self.minimal(edits)
        return []

    def is_one_with(self, other: str) -> bool:
        """Whether the output stays the same when the other group makes the same moves."""
        if self.spec.shape_of(other) != self.spec.shape_of(self.group):
            return False
        setting = {**self.setting, other: self.setting[self.group]}
        return self.budget.error(self.trial, self.trial.moved(self.spec, setting)) < TOLERANCE

    def minimal(self, edits: list[Edit]) -> list[Edit]:
        for edit in list(edits):
            fewer = [other for other in edits if other is not edit]
            if self.mends(fewer):
                edits = fewer
        return edits

    def pair_in_one_tensor(self) -> list[Edit]:
        """Two edits of one tensor: taking the group off one axis and putting it on another."""
        return self.pair(lambda a, b: a.tensor == b.tensor and a.axis != b.axis)

    def pair_over_two_tensors(self) -> list[Edit]:
        return self.pair(lambda a, b: a.tensor != b.tensor)

    def pair(self, wanted: Callable[[Edit, Edit], bool]) -> list[Edit]:
        pairs = (list(pair) for pair in itertools.combinations(self.candidates(), 2) if wanted(*pair))
        return next((pair for pair in itertools.islice(pairs, _PAIR_BUDGET) if self.mends(pair)), [])

    def verdict(self, edits: Sequence[Edit]) -> SpecError:
        meanings = "; ".join(edit.meaning for edit in edits)
        return SpecError(f"{self.head()}: {meanings}", edits[0].tensor, self.group)

    def no_verdict(self) -> SpecError:
        return self._at_its_places("it must not move, or several of its axes are wrong or missing")

    def unfinished(self, others: Sequence[str]) -> SpecError:
        """The verdict of a search that ran out of time: this group fails, and so do the others."""
        seconds = f"which axis is wrong was not found in {self.budget.seconds:g} s"
        also = f"; so do {', '.join(map(repr, others[:6]))}{' ..' * (len(others) > 6)}" if others else ""
        return self._at_its_places(seconds + also)

    def _at_its_places(self, what: str) -> SpecError:
        places: Mapping[str, None] = dict.fromkeys(
            f"{tensor}[{axis}]"
            for tensor in self.spec.tensors_of(self.group)
            for axis, layout in enumerate(self.spec.axes[tensor])
            if self.group in atoms(layout)
        )
        shown = ", ".join(itertools.islice(places, 6)) + (" .." if len(places) > 6 else "")
        return SpecError(
            f"{self.head()}: {what} ({self.group!r} stands at {shown})",
            self.spec.tensors_of(self.group)[0],
            self.group,
        )

    def head(self) -> str:
        return f"the output changes (relative error {self.error:.1e}) when group {self.group!r} moves"
