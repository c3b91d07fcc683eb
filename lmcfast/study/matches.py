"""The methods of matching as the study runs them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..matching.activation import activation_matching
from ..matching.result import MatchResult
from ..matching.straight_through import straight_through_matching
from ..matching.weight_matching import weight_matching
from .data import Dataset
from .measures import Bench, Shuffled
from .settings import StudySettings

Params = Mapping[str, Tensor]


def match_settings(method: str, settings: StudySettings, data: Dataset, data_key: str) -> dict[str, Any]:
    """What a method's permutations depend on beside the two networks."""
    if method == "wm":
        return {}
    if method == "am":
        return {"data": data_key, "images": settings.images}
    return {"data": data_key, "steps": settings.ste_steps(data), "batch": settings.ste_batch}


def find_match(
    method: str,
    bench: Bench,
    params_a: Params,
    params_b: Params,
    seed: int,
    progress: Callable[[int, int], object],
) -> MatchResult:
    """Match B to A.

    "wm": coordinate descent. "am": correlations of activations on training images. "ste": theta~ from A's weights, Adam
    with rate 1e-3, the loss at the midpoint; "ste-random": theta~ from random weights. ``seed``: order of the images
    and random weights of the straight-through estimator. ``progress(done, total)``: in its steps, else one in all.
    """
    if method.startswith("ste"):
        return _straight_through(method, bench, params_a, params_b, seed, progress)
    progress(0, 1)
    if method == "wm":
        result: MatchResult = weight_matching(bench.spec, params_a, params_b)
    else:
        model_a, model_b = (copy.deepcopy(bench.with_params(params)) for params in (params_a, params_b))
        result = activation_matching(bench.spec, model_a, model_b, bench.train)
    progress(1, 1)
    return result


def _straight_through(
    method: str,
    bench: Bench,
    params_a: Params,
    params_b: Params,
    seed: int,
    progress: Callable[[int, int], object],
) -> MatchResult:
    data, settings = bench.data, bench.settings
    steps = settings.ste_steps(data)
    progress(0, steps)
    generator = torch.Generator().manual_seed(seed)
    batches = Shuffled(data.train_inputs, data.train_targets, settings.ste_batch, generator)
    return straight_through_matching(
        bench.spec, bench.with_params(params_a), params_b, batches, cross_entropy, steps=steps, seed=seed,
        start="random" if method == "ste-random" else "a", callback=lambda step, _: progress(step, steps),
    )  # fmt: skip
