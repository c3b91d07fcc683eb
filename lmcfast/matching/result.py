"""What a matching returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Literal

import torch

from ..io.permutations import read_permutations, write_permutations
from ..params import apply_permutations
from ..spec import PermutationSpec
from .clock import Counts
from .trace import Step as Step
from .trace import Sweep, frame_of, sweeps_of

if TYPE_CHECKING:
    from pandas import DataFrame

Exactness = Literal["exact", "lower bound", "linearised"]


@dataclass(frozen=True)
class MatchResult:
    """Permutations that line up B with A, and how they were found.

    Attributes:
        spec: the spec, bound to the sizes of the networks.
        permutations: {group: int64 CPU tensor (*sizes of within, size)}; unit i of the aligned B is unit p[i] of B.
        objective: sum over tensors of <A, pi(B)> in float64; tied tensors once, buffers left out, with
            ``tensor_weights`` each tensor's share scaled.
        gap: largest certificate gap of the groups' last assignments.
        converged: the last sweep took no step: no group alone can be improved. None when read from a file.
        sweeps: sweeps of the descent, the last one (which only proves convergence) included.
        trace: every step, in order.
        starts: the objective of every start that was tried, by name; the one descended from comes first.
        attempts: the objective that each restart reached; ``objective`` is the best of them.
        counts: the work done, over all descents (:class:`~lmcfast.matching.Counts`). None when read from a file.
        seconds: wall time by phase: "setup", "products" (scores), "assignment", "steps" (their gathers and gains),
            "objective" (figures computed afresh) and "other" (order, trace, callbacks).
        distance_before, distance_after: Euclidean distance of A to B and to the aligned B, over the tensors
            that count in the objective (squares scaled by ``tensor_weights``). None when read from a file.
        exactness: for each group that could move, what a step of it and of all that is nested in it is: "exact" (the
            best one, by its scores), "lower bound" (groups inside share a tensor: the best that was found; its gap
            says how much better one may be, NaN that it is not known), "linearised" (the group stands on two axes of
            one tensor). Empty when read from a file.
    """

    spec: PermutationSpec
    permutations: dict[str, torch.Tensor]
    objective: float
    gap: float
    converged: bool | None = None
    sweeps: int = 0
    trace: Sequence[Step] = field(default=(), repr=False)
    starts: Mapping[str, float] = field(default_factory=dict)
    attempts: tuple[float, ...] = ()
    distance_before: float | None = None
    distance_after: float | None = None
    exactness: Mapping[str, Exactness] = field(default_factory=dict, repr=False)
    counts: Counts | None = field(default=None, repr=False)
    seconds: Mapping[str, float] = field(default_factory=dict, repr=False)

    def apply(self, params_b: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The aligned B: every tensor of ``params_b`` with its units moved. Errors as of ``apply_permutations``."""
        return apply_permutations(self.spec, self.permutations, params_b)

    def save(self, path: str | PathLike[str], sources: Mapping[str, str] | None = None) -> None:
        """Write the permutations with spec, objective and gap (format: ``lmcfast.io.permutations``).

        ``sources``: {"a": SHA-256, "b": SHA-256} of the checkpoint files, where they are known.
        """
        write_permutations(path, self.permutations, self.spec.to_json(), self.objective, self.gap, sources)

    def sweep_trace(self) -> tuple[Sweep, ...]:
        """What the steps add up to in each sweep, the start first; ``dataclasses.asdict`` gives plain values."""
        return sweeps_of(self.trace)

    def trace_frame(self, by: Literal["step", "sweep"] = "step") -> DataFrame:
        """The trace as a pandas DataFrame, a row for each step or each sweep, a column for each attribute.

        Raises ``UnavailableError`` where pandas is not installed; ``ValueError`` for another ``by``.
        """
        if by not in ("step", "sweep"):
            raise ValueError(f"by: must be 'step' or 'sweep', not {by!r}")
        return frame_of(self.trace if by == "step" else self.sweep_trace())

    def trace_table(self) -> str:
        """The trace as a table for the eye, one line a step."""
        names = ("sweep", "group", "kind", "changed", "gain", "objective", "gap", "ms")
        head = "{:>5}  {:<24} {:<5} {:>7} {:>13} {:>16} {:>9} {:>9}".format(*names)
        rows = [
            f"{step.sweep:>5}  {step.group or '(start)':<24} {step.kind:<5} {step.changed:>7} {step.gain:>13.6g} "
            f"{step.objective:>16.10g} {step.gap:>9.2g} {1e3 * step.seconds:>9.2f}"
            for step in self.trace
        ]
        return "\n".join([head, *rows])

    def __str__(self) -> str:
        state = {True: "converged", False: "stopped early", None: "from a file"}[self.converged]
        parts = [f"{len(self.permutations)} groups", f"objective {self.objective:.8g}"]
        if self.distance_before is not None and self.distance_after is not None:
            parts.append(f"distance {self.distance_before:.6g} -> {self.distance_after:.6g}")
        if self.converged is not None:
            state += f" after {self.sweeps} sweep{'s' if self.sweeps != 1 else ''}"
        return f"MatchResult({', '.join([*parts, state, f'gap {self.gap:.2g}'])})"

    __repr__ = __str__


def load_permutations(path: str | PathLike[str]) -> MatchResult:
    """Read what :meth:`MatchResult.save` wrote; what a file does not hold (trace, sweeps, distances) is empty.

    Raises ``CheckpointError`` naming the file.
    """
    file = read_permutations(path)
    return MatchResult(PermutationSpec.from_json(file.spec_text), file.permutations, file.objective, file.gap)
