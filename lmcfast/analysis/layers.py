"""The matrices that a spec's tensors are, for singular vectors: (out, in x kernel), wide enough to compute with."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import torch

from ..errors import InvalidParamsError
from ..spec import PermutationSpec
from .evaluation import Params


def weight_names(spec: PermutationSpec, layers: Sequence[str] | None = None) -> tuple[str, ...]:
    """The spec's tensors of two axes and more, tied ones once, buffers left out, in the spec's order.

    ``layers``: names or wildcards (``"features.*"``) that pick from them; ``ValueError`` for one that picks none.
    """
    names = [
        name
        for name, layouts in spec.axes.items()
        if len(layouts) >= 2 and name not in spec.tied and name not in spec.buffers
    ]
    if layers is None:
        return tuple(names)
    chosen: dict[str, None] = {}
    for pattern in [layers] if isinstance(layers, str) else layers:
        found = fnmatch.filter(names, pattern)
        if not found:
            raise ValueError(f"layers: {pattern!r} names none of the spec's {len(names)} weights")
        chosen.update(dict.fromkeys(found))
    return tuple(name for name in names if name in chosen)


def as_matrix(name: str, params: Params, argument: str = "params") -> torch.Tensor:
    """The tensor as a float64 matrix on its device: rows are its first axis, all others run along the columns."""
    if name not in params:
        raise InvalidParamsError(f"{argument} lacks the tensor {name!r}", name)
    tensor = params[name].detach()
    matrix = tensor.reshape(tensor.shape[0], -1).to(torch.float64)
    if not bool(torch.isfinite(matrix).all()):
        raise InvalidParamsError(f"{argument}: tensor {name!r} has a value that is not finite", name)
    return matrix


def rank_tolerance(tensor: torch.Tensor) -> float:
    """Singular values below this share of the largest one are rounding of the stored dtype: max(m, n) eps."""
    rows = tensor.shape[0]
    columns = tensor.numel() // max(1, rows)
    return max(rows, columns) * torch.finfo(tensor.dtype).eps
