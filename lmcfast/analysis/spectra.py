"""Singular values of the layers of two or more networks, side by side (Ito et al., arXiv:2402.04051, figure 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..spec import PermutationSpec
from ..spec.checks import check_params
from .evaluation import Params
from .layers import as_matrix, weight_names


@dataclass(frozen=True, eq=False)
class Spectra:
    """``values``: {tensor: float64 (models, k)}, falling along k = min(out, in x kernel)."""

    values: dict[str, NDArray[np.float64]]

    def spread(self) -> dict[str, float]:
        """{tensor: largest distance of a model's spectrum from the mean one, as a share of the mean one's length}."""
        found = {}
        for name, values in self.values.items():
            mean = values.mean(0)
            length = float(np.linalg.norm(mean))
            distances = np.linalg.norm(values - mean, axis=1)
            found[name] = float(distances.max() / length) if length > 0 else 0.0
        return found


def spectra(spec: PermutationSpec, models: Sequence[Params], layers: Sequence[str] | None = None) -> Spectra:
    """Singular values of every weight of every model; a permutation changes none of them (theorem 4.1's premise).

    ``models``: state dicts that fit ``spec``. ``layers``: names or wildcards of tensors, default all of two axes and
    more. Convolutions are (out, in x kernel). Computed in float64 on the tensors' device. Raises
    ``InvalidParamsError`` naming a tensor, ``ValueError`` naming a pattern, or where there are no models.
    """
    if isinstance(models, dict) or not len(models):
        raise ValueError("models: a list of state dicts is needed, at least one")
    for index, params in enumerate(models):
        check_params(spec, params, f"models[{index}]", strict=False)
    values = {}
    for name in weight_names(spec, layers):
        rows = [
            torch.linalg.svdvals(as_matrix(name, params, f"models[{index}]")).cpu().numpy()
            for index, params in enumerate(models)
        ]
        values[name] = np.stack(rows)
    return Spectra(values)
