"""Ways to better optima that are not in the library: block moves, a start from truncated weights, other orders.

Each is ``way(spec, params_a, params_b, seed)`` and returns a ``MatchResult`` of plain weight matching's objective.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Literal

import torch

import lmcfast
from lmcfast.matching.clock import Clock, Counts
from lmcfast.matching.descent import descend
from lmcfast.matching.problem import make_problem
from lmcfast.matching.scores import ScoreTable
from lmcfast.matching.start import choose_start
from lmcfast.terms import full_precision

Params = Mapping[str, torch.Tensor]
MAX_ROUNDS = 5


def block_moves(
    spec: lmcfast.PermutationSpec,
    params_a: Params,
    params_b: Params,
    seed: int,
    method: Literal["descent", "frank_wolfe", "annealing"] = "frank_wolfe",
) -> lmcfast.MatchResult:
    """From the default descent: two neighbouring groups at once by ``method``, all others held, until no pair gains."""
    found = lmcfast.weight_matching(spec, params_a, params_b)
    spec = found.spec
    pairs = [pair for pair in combinations(spec.movable_groups, 2) if set(spec.uses[pair[0]]) & set(spec.uses[pair[1]])]
    for _ in range(MAX_ROUNDS):
        before = found.objective
        for pair in pairs:
            tried = lmcfast.weight_matching(
                spec, params_a, params_b, init=found.permutations, start="identity", only=pair, method=method, seed=seed
            )
            if tried.objective > found.objective:
                found = tried
        if found.objective <= before * (1 + 1e-9):
            break
    return lmcfast.weight_matching(spec, params_a, params_b, init=found.permutations, start="identity")


def truncated_start(
    spec: lmcfast.PermutationSpec, params_a: Params, params_b: Params, seed: int, gamma: float = 0.3
) -> lmcfast.MatchResult:
    """Matching of the weights with their singular values below ``gamma`` times the largest dropped, then of the whole:
    the leading singular vectors are what aligned networks share (Ito et al., arXiv:2402.04051, section 4)."""
    first = lmcfast.weight_matching(spec, truncated(params_a, gamma), truncated(params_b, gamma))
    return lmcfast.weight_matching(spec, params_a, params_b, init=first.permutations, start="identity")


def truncated(params: Params, gamma: float) -> dict[str, torch.Tensor]:
    """Every matrix with its small singular values dropped."""
    found = dict(params)
    for name, tensor in params.items():
        if tensor.ndim == 2:
            left, values, right = torch.linalg.svd(tensor, full_matrices=False)
            kept = values > gamma * values[0]
            found[name] = (left[:, kept] * values[kept]) @ right[kept]
    return found


def random_order(
    spec: lmcfast.PermutationSpec, params_a: Params, params_b: Params, seed: int, start: str = "identity"
) -> lmcfast.MatchResult:
    """The descent with the groups in a new random order in each sweep."""
    with torch.no_grad(), full_precision():
        problem = make_problem(spec, params_a, params_b)
        table, clock, counts, shuffle = ScoreTable(problem), Clock(), Counts(), random.Random(seed)
        state, starts = choose_start(problem, table, start, seed, clock, counts, shuffle)
        sweeps, converged = descend(problem, table, state, 100, shuffle)
    held = lmcfast.weight_matching(spec, params_a, params_b, init=state.permutations, start="identity", max_sweeps=0)
    return replace(held, sweeps=sweeps, converged=converged, starts=starts)
