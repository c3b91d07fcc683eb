"""Scores of really trained layers: two networks of one architecture trained from different seeds, kept in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from families import Array

LARGE = 1024  # above it fewer examples are seen, or training takes longer than measuring


def trained_scores(name: str, n: int, seed: int, cache: Path, mnist: Path | None = None) -> Array:
    """(n, n) float32 similarities of the second hidden layers of two trained MLPs with n units in both hidden layers.

    "trained_start": before any matching, as in the first step of weight matching; "trained_end": with the first hidden
    layer matched, as in the last. ``mnist``: an .npz file with x_train, y_train, x_test, y_test; without it
    scikit-learn's digits. Both are written to ``cache`` and read from there the next time.
    """
    data = mnist.stem if mnist else "digits"
    path = cache / f"{name}-{data}-{n}-{seed}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        for kind, scores in _train(n, seed, mnist).items():
            np.save(cache / f"{kind}-{data}-{n}-{seed}.npy", scores)
    return np.load(path)


def _train(n: int, seed: int, mnist: Path | None) -> dict[str, Array]:
    from dataclasses import replace

    import lmcfast
    from lmcfast.study import MLP_RECIPE, Mlp, load_digits, load_npz, train

    data = load_npz(mnist) if mnist else load_digits()
    if mnist and n > LARGE:
        data = replace(data, train_inputs=data.train_inputs[:20000], train_targets=data.train_targets[:20000])
    recipe = replace(MLP_RECIPE, epochs=2 if mnist else 20, batch_size=500 if mnist else 100)

    def network() -> Mlp:
        return Mlp(data.input_size, (n, n), data.classes)

    params_a, params_b = (train(network, data, recipe, 1000 * seed + k).state_dict() for k in (1, 2))
    spec = lmcfast.spec_from_params(params_a)
    group = spec.movable_groups[1]
    start = lmcfast.similarity(spec, group, params_a, params_b)
    match = lmcfast.weight_matching(spec, params_a, params_b)
    end = lmcfast.similarity(spec, group, params_a, params_b, match.permutations)
    return {"trained_start": start.numpy(), "trained_end": end.numpy()}
