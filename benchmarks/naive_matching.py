"""The naive twin of weight matching: Git Re-Basin's algorithm as its paper states it, on numpy and scipy.

Ainsworth, Hayase, Srinivasa, *Git Re-Basin* (arXiv:2209.04836), Algorithm 1: visit the groups in random
order, build each group's scores from scratch in the stored dtype, solve with scipy, repeat until no visit
makes progress. It is the baseline of the benchmarks and a second opinion in the tests, so it shares no code
with lmcfast: its input is plain arrays and layout strings (products of groups and fixed runs; no
concatenations, no nested groups).

Run ``python benchmarks/naive_matching.py`` to see both side by side on an MLP.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Array = NDArray[np.floating]
Permutation = NDArray[np.int64]


@dataclass(frozen=True)
class NaiveResult:
    """What the naive twin found. ``objective`` is the sum over tensors of <A, pi(B)> in float64."""

    permutations: dict[str, Permutation]
    objective: float
    iterations: int
    visits: int
    seconds: float


def plain_axes(
    axes: Mapping[str, Sequence[str | None]], params: Mapping[str, Array]
) -> tuple[dict[str, tuple[str | None, ...]], dict[str, Array]]:
    """Reshape every tensor so that each of its axes is one group or None: ``"c5 _49"`` becomes two axes.

    The length of a group inside a product is what the axis leaves after its fixed runs; two groups in one
    axis need one of them on an axis of its own elsewhere.
    """
    sizes: dict[str, int] = {}
    for name, layouts in axes.items():
        for layout, length in zip(layouts, params[name].shape, strict=True):
            if layout is not None and " " not in layout and not layout.startswith("_"):
                sizes[layout] = length
    plain, arrays = {}, {}
    for name, layouts in axes.items():
        shape: list[int] = []
        groups: list[str | None] = []
        for layout, length in zip(layouts, params[name].shape, strict=True):
            parts = [None] if layout is None else layout.split()
            runs = [_run(part, length, sizes) for part in parts]
            if runs.count(-1) == 1:
                runs[runs.index(-1)] = length // -int(np.prod(runs))
            shape += runs
            groups += [None if part is None or part[0] == "_" else part for part in parts]
        plain[name], arrays[name] = tuple(groups), params[name].reshape(shape)
    return plain, arrays


def _run(part: str | None, length: int, sizes: Mapping[str, int]) -> int:
    """Length of a factor of an axis; -1 where it is not known yet."""
    if part is None:
        return length
    return int(part[1:]) if part[0] == "_" else sizes.get(part, -1)


def permuted(
    array: Array, groups: Sequence[str | None], permutations: Mapping[str, Permutation], skip: int = -1
) -> Array:
    """The array with every axis but ``skip`` permuted."""
    for axis, group in enumerate(groups):
        if group is not None and group in permutations and axis != skip:
            array = np.take(array, permutations[group], axis=axis)
    return array


def objective(
    axes: Mapping[str, Sequence[str | None]],
    params_a: Mapping[str, Array],
    params_b: Mapping[str, Array],
    permutations: Mapping[str, Permutation],
) -> float:
    """Sum over tensors of <A, pi(B)>, in float64; the axes are plain."""
    total = 0.0
    for name, groups in axes.items():
        a, b = params_a[name], permuted(params_b[name], groups, permutations)
        total += float(np.vdot(a.astype(np.float64), b.astype(np.float64)))
    return total


def naive_matching(
    axes: Mapping[str, Sequence[str | None]],
    params_a: Mapping[str, Array],
    params_b: Mapping[str, Array],
    seed: int = 0,
    max_iterations: int = 100,
) -> NaiveResult:
    """Match the units of B to those of A. ``axes`` holds layout strings of the scored tensors only (no buffers)."""
    start = time.perf_counter()
    plain, arrays_a = plain_axes(axes, params_a)
    _, arrays_b = plain_axes(axes, params_b)
    places: dict[str, list[tuple[str, int]]] = {}
    for name, groups in plain.items():
        for axis, group in enumerate(groups):
            if group is not None:
                places.setdefault(group, []).append((name, axis))
    sizes = {group: arrays_a[where[0][0]].shape[where[0][1]] for group, where in places.items()}
    permutations: dict[str, Permutation] = {group: np.arange(n) for group, n in sizes.items()}
    rng = np.random.default_rng(seed)
    names = list(places)
    iterations = visits = 0
    progress = True
    while progress and iterations < max_iterations:
        iterations += 1
        progress = False
        for group in (names[k] for k in rng.permutation(len(names))):
            n = sizes[group]
            scores = np.zeros((n, n), dtype=np.float32)
            for name, axis in places[group]:
                a = np.moveaxis(arrays_a[name], axis, 0).reshape(n, -1)
                b = np.moveaxis(permuted(arrays_b[name], plain[name], permutations, skip=axis), axis, 0).reshape(n, -1)
                scores += a @ b.T
            _, columns = linear_sum_assignment(scores, maximize=True)
            rows = np.arange(n)
            before = scores[rows, permutations[group]].sum()
            after = scores[rows, columns].sum()
            progress = progress or bool(after > before + 1e-12)
            permutations[group] = columns
            visits += 1
    seconds = time.perf_counter() - start
    return NaiveResult(permutations, objective(plain, arrays_a, arrays_b, permutations), iterations, visits, seconds)


def random_mlp(widths: Sequence[int], seed: int) -> dict[str, Array]:
    """Weights of a multilayer perceptron, normal with variance 1 / fan-in, keys as of ``torch.nn.Sequential``."""
    rng = np.random.default_rng(seed)
    params: dict[str, Array] = {}
    for k, (fan_in, fan_out) in enumerate(pairwise(widths)):
        params[f"{2 * k}.weight"] = (rng.standard_normal((fan_out, fan_in)) / np.sqrt(fan_in)).astype(np.float32)
        params[f"{2 * k}.bias"] = (rng.standard_normal(fan_out) / np.sqrt(fan_in)).astype(np.float32)
    return params


def mlp_axes(depth: int) -> dict[str, tuple[str | None, ...]]:
    """Layout strings of a multilayer perceptron with ``depth`` hidden layers h0, h1, ..."""
    axes: dict[str, tuple[str | None, ...]] = {}
    for k in range(depth + 1):
        out = f"h{k}" if k < depth else None
        axes[f"{2 * k}.weight"] = (out, f"h{k - 1}" if k else None)
        axes[f"{2 * k}.bias"] = (out,)
    return axes


def main() -> None:
    parser = argparse.ArgumentParser(description="Weight matching: lmcfast and the naive twin on a random MLP.")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()

    import torch

    import lmcfast

    axes = mlp_axes(options.depth)
    widths = [784, *[options.width] * options.depth, 10]
    params_a, params_b = random_mlp(widths, 1), random_mlp(widths, 2)
    spec = lmcfast.PermutationSpec.from_axes(axes)
    tensors_a, tensors_b = (
        {name: torch.from_numpy(array) for name, array in params.items()} for params in (params_a, params_b)
    )
    print(f"MLP {options.depth}x{options.width}, random weights, {torch.get_num_threads()} threads")
    for seed in range(options.seeds):
        naive = naive_matching(axes, params_a, params_b, seed=seed)
        print(
            f"naive seed {seed}: objective {naive.objective:.4f}, {naive.iterations} sweeps, "
            f"{naive.visits} visits, {naive.seconds:.3f} s"
        )
    start = time.perf_counter()
    match = lmcfast.weight_matching(spec, tensors_a, tensors_b)
    seconds = time.perf_counter() - start
    visits = sum(step.group != "" for step in match.trace)
    print(f"lmcfast: objective {match.objective:.4f}, {match.sweeps} sweeps, {visits} visits, {seconds:.3f} s")


if __name__ == "__main__":
    main()
