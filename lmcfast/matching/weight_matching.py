"""Weight matching: permute the units of B until its weights lie as close to A's as coordinate descent brings them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from ..spec import PermutationSpec
from ..spec.stacks import stacked
from ..terms import full_precision
from .annealing import anneal
from .clock import Clock, Counts
from .descent import Callback, State, begin, descend
from .device import fits_device
from .device_descent import match_on_device
from .frank_wolfe import relax
from .nested_descent import match_nested
from .nested_problem import is_nested, make_nested_problem
from .objective import Alignment, distance_as_stored
from .problem import Params, Patterns, Problem, TensorWeights, make_problem
from .result import MatchResult
from .scores import ScoreTable
from .start import STARTS, Start, choose_start

Method = Literal["descent", "frank_wolfe", "annealing"]
METHODS: tuple[str, ...] = get_args(Method)


def weight_matching(
    spec: PermutationSpec,
    params_a: Params,
    params_b: Params,
    init: Mapping[str, torch.Tensor] | None = None,
    start: Start = "best",
    max_sweeps: int = 100,
    restarts: int = 1,
    seed: int = 0,
    device: str | torch.device | None = None,
    fix: Patterns = (),
    only: Patterns | None = None,
    tensor_weights: TensorWeights | None = None,
    deterministic: bool = False,
    callback: Callback | None = None,
    method: Method = "descent",
) -> MatchResult:
    """Find permutations pi that maximise the sum over tensors of <A, pi(B)>, which minimises the distance |A - pi(B)|.

    Coordinate descent: one group after the other gets its best permutation with all others held, a linear
    assignment problem that is solved exactly. A step counts only if the objective, in float64, rises by more
    than its rounding, so the objective never falls; the descent ends when a whole sweep finds nothing. The
    result is a local optimum: no group alone can be improved (up to the rounding of its float32 scores).

    A group that stands on two axes of one tensor (a recurrent weight) makes its own step quadratic: it is scored by a
    linearisation. Its steps count by the true objective too: where one loses, its cycles are tried one by one, then
    swaps of two units; but where it stops need not be its optimum.

    A group that is nested in others (attention heads, grouped key and value heads, experts: ``Group.within``) moves
    with them: "place i takes unit j" of an outer group is worth the optimum of the inner assignments of that pair.
    Where inner groups share a tensor (query and value heads in an output projection) that is a lower bound. The
    result says per group what its steps are (``exactness``).

    Args:
        spec: which tensor axes move together; bound to the sizes here.
        params_a, params_b: state dicts of the two networks, of the same shapes, finite; neither is changed. Any
            floating dtype: bfloat16 and float16 are multiplied exactly with float32 sums, float32 with float32
            accuracy, float64 stays float64.
        init: {group: permutation} to start from, and to hold the groups at that may not move; identity where missing.
        start: "best" descends from the best of the identity, ``init`` and the forward start, so the result is never
            below any of them; "identity" from ``init`` (identity where missing); "forward" from the forward start:
            level by level, each group scored only by what is matched already; "random" from random permutations;
            "spectra" from the forward start with the outer groups of a nest (heads, experts) placed first by the
            singular values of their weights, which do not depend on what is inside them nor on the residual stream.
        max_sweeps: stop after so many sweeps, converged or not; 0 gives the start.
        restarts: number of descents; those after the first start elsewhere, in random orders. The best is kept.
        seed: for the restarts and the random start. The same input and seed give the same result.
        device: "cpu" (default) or e.g. "cuda", where everything then runs: products, assignments, gains. Groups that
            share no tensor are visited together there. Specs with a group on two axes of one tensor, with
            concatenated axes or with nested groups form only their products there.
        fix: names of groups (fnmatch wildcards) that stay where ``init`` puts them; ``fix=["stream"]`` holds a
            transformer's residual stream, which moves by default.
        only: names of groups (wildcards) that may move; default all.
        tensor_weights: {tensor name or wildcard: weight >= 0} scales a tensor's share of the objective; where several
            match, the last counts. 0 leaves the tensor out. "normalized": each counts by its cosine, 1 / (|A| |B|).
        deterministic: on a GPU, use deterministic algorithms for products (torch then asks for the environment variable
            CUBLAS_WORKSPACE_CONFIG) and assignments (slow); the CPU always repeats.
        callback: called with each :class:`~lmcfast.matching.Step` as it is made.
        method: "descent"; "frank_wolfe" descends from the end of a relaxation of all groups at once as well
            (``frank_wolfe.py``) and keeps the better; "annealing" goes on from the best descent by sweeps with falling
            noise (``annealing.py``), for about as long as one run of the naive algorithm: the best of the three. No
            method is below the descent.

    Returns:
        A :class:`~lmcfast.matching.MatchResult`; ``result.apply(params_b)`` is the aligned B.

    Raises:
        InvalidParamsError: a tensor is missing, misshapen or not finite; names the argument and the tensor.
        InvalidPermutationError: ``init`` is not a permutation of the group that it names.
        SpecError: the spec does not fit, a pattern matches nothing, or a nested group is held by an ``init`` that
            differs between outer units that may move.
        ValueError: ``start``, ``method``, ``max_sweeps``, ``restarts`` or a weight is out of range, or ``method`` is
            not "descent" where nested groups may move.

    Source: Ainsworth, Hayase, Srinivasa, *Git Re-Basin* (arXiv:2209.04836), Algorithm 1, with the start, the
    order and the acceptance test changed.
    """
    if start not in STARTS:
        raise ValueError(f"start must be one of {', '.join(map(repr, STARTS))}, not {start!r}")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, not {method!r}")
    if max_sweeps < 0:
        raise ValueError(f"max_sweeps must be at least 0, not {max_sweeps}")
    if restarts < 1:
        raise ValueError(f"restarts must be at least 1, not {restarts}")
    if spec.stacks:
        whole_a, whole_b = stacked(spec, params_a), stacked(spec, params_b)
        found = weight_matching(
            replace(spec, stacks={}), whole_a, whole_b, init, start, max_sweeps, restarts, seed, device, fix, only,
            tensor_weights, deterministic, callback, method,
        )  # fmt: skip
        return replace(found, spec=replace(found.spec, stacks=spec.stacks))
    clock, counts = Clock(), Counts()
    with torch.no_grad(), full_precision(), _repeatable(deterministic):
        if is_nested(spec):
            nested = make_nested_problem(spec, params_a, params_b, init, fix, only, tensor_weights, device)
            if nested is not None:
                if method != "descent":
                    raise ValueError(f"method: {method!r} cannot move nested groups; hold them with fix=, or descend")
                clock.lap("setup")
                return match_nested(nested, start, max_sweeps, restarts, seed, clock, counts, callback)
        problem = make_problem(spec, params_a, params_b, init, fix, only, tensor_weights, device)
        if fits_device(problem) and method == "descent":
            clock.lap("setup")
            return match_on_device(problem, start, max_sweeps, restarts, seed, clock, counts, deterministic, callback)
        table = ScoreTable(problem)
        clock.lap("setup")
        tried = []
        for k in range(restarts):
            tried.append(_attempt(problem, table, start, max_sweeps, seed, k, clock, counts, callback))
        if method == "frank_wolfe":
            tried.append(_relaxed(problem, table, max_sweeps, clock, counts, callback))
        if method == "annealing":
            leading = max(tried, key=lambda attempt: attempt.state.objective)
            tried.append(_annealed(problem, table, leading, max_sweeps, seed))
        best = max(tried, key=lambda attempt: attempt.state.objective)  # max keeps the first of equals
        return _result(problem, best, tuple(attempt.state.objective for attempt in tried), clock, counts)


@dataclass(frozen=True)
class _Attempt:
    state: State
    starts: Mapping[str, float]
    sweeps: int
    converged: bool


def _attempt(
    problem: Problem,
    table: ScoreTable,
    start: Start,
    max_sweeps: int,
    seed: int,
    index: int,
    clock: Clock,
    counts: Counts,
    callback: Callback | None,
) -> _Attempt:
    """One descent. The first goes as asked. Later ones visit the groups in random order; for "best" they take the
    forward start, in random order too, and random permutations in turn: on deep networks the former find the
    better optima, on shallow ones it has only one order.
    """
    shuffle = random.Random(f"{seed}/{index}") if index else None
    if index and start == "best":
        start = "forward" if index % 2 else "random"
    state, starts = choose_start(problem, table, start, seed + index, clock, counts, shuffle, callback)
    sweeps, converged = descend(problem, table, state, max_sweeps, shuffle, callback)
    return _Attempt(state, starts, sweeps, converged)


def _relaxed(
    problem: Problem, table: ScoreTable, max_sweeps: int, clock: Clock, counts: Counts, callback: Callback | None
) -> _Attempt:
    """A descent from the end of a relaxation."""
    permutations = relax(problem, table, problem.start, counts, clock)
    state = begin(Alignment(problem, permutations, counts), clock)
    starts = {"frank_wolfe": state.objective}
    sweeps, converged = descend(problem, table, state, max_sweeps, callback=callback)
    return _Attempt(state, starts, sweeps, converged)


def _annealed(problem: Problem, table: ScoreTable, leading: _Attempt, max_sweeps: int, seed: int) -> _Attempt:
    state, sweeps, converged = anneal(problem, table, leading.state, seed, max_sweeps)
    if state is leading.state:
        return leading
    return _Attempt(state, leading.starts, leading.sweeps + sweeps, converged)


def _result(problem: Problem, best: _Attempt, attempts: tuple[float, ...], clock: Clock, counts: Counts) -> MatchResult:
    """The result, its figures computed afresh from the aligned tensors."""
    clock.lap("other")
    alignment = best.state.alignment
    value = alignment.objective()
    before, after = distance_as_stored(problem), alignment.distance(value)
    clock.lap("objective")
    return MatchResult(
        spec=problem.spec,
        permutations=alignment.permutations,
        objective=value,
        gap=max(best.state.gaps.values(), default=0.0),
        converged=best.converged,
        sweeps=best.sweeps,
        trace=best.state.trace,
        starts=best.starts,
        attempts=attempts,
        distance_before=before,
        distance_after=after,
        exactness={g: "linearised" if g in problem.quadratic else "exact" for g in problem.groups},
        counts=counts,
        seconds=clock.seconds,
    )


@contextmanager
def _repeatable(deterministic: bool) -> Iterator[None]:
    """Torch's deterministic algorithms inside the block, if asked for; the setting before is restored."""
    if not deterministic:  # setting it back would cost a second: torch then imports its compiler
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
