"""The matrices that a spec's tensors are, (out, in x kernel), and their singular vectors, in float64."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..errors import InvalidParamsError
from ..params import check_permutations
from ..spec import PermutationSpec
from ..spec.gather import permute_tensor
from .evaluation import Params

Setting = Mapping[str, torch.Tensor]
Settings = Setting | Sequence[Setting] | None


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


@dataclass(frozen=True, eq=False)
class KeptVectors:
    """The kept singular vectors of one layer: ``left`` (m, k), ``values`` (k,), ``right`` (n, k), float64.

    ``gap``: (s_k - s_{k+1}) / s_1 at the cut, 1 where nothing is cut off.
    """

    left: torch.Tensor
    values: torch.Tensor
    right: torch.Tensor
    gap: float

    @classmethod
    def of(cls, name: str, params: Params, argument: str, gamma: float, device: torch.device) -> KeptVectors:
        """Those of values of at least ``gamma`` times the largest, without those that are rounding."""
        left, values, right = torch.linalg.svd(as_matrix(name, params, argument).to(device), full_matrices=False)
        largest = float(values[0]) if len(values) else 0.0
        least = max(gamma, rank_tolerance(params[name])) * largest
        kept = int((values >= least).sum()) if largest > 0 else 0
        whole = kept == len(values) or kept == 0
        gap = 1.0 if whole else float(values[kept - 1] - values[kept]) / largest
        return cls(left[:, :kept], values[:kept], right[:kept].T, gap)

    @property
    def kept(self) -> int:
        return self.left.shape[1]

    @property
    def polar(self) -> torch.Tensor:
        """U V^T, the layer with all kept singular values set to 1."""
        return self.left @ self.right.T

    @property
    def truncated(self) -> torch.Tensor:
        """U S V^T."""
        return (self.left * self.values) @ self.right.T


def check_gamma(gamma: float) -> None:
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma: a number in [0, 1] is needed, not {gamma!r}")


def settings_of(spec: PermutationSpec, permutations: Settings) -> tuple[list[Setting | None], bool]:
    """The settings, checked, in a list, None for the identity; and whether several were given."""
    if permutations is None:
        return [None], False
    if isinstance(permutations, Mapping):
        return [check_permutations(spec, permutations)], False
    return [check_permutations(spec, one) for one in permutations], True


def moved_matrix(
    spec: PermutationSpec, name: str, matrix: torch.Tensor, shape: Sequence[int], setting: Setting | None
) -> torch.Tensor:
    """A matrix that stands for the tensor of this name and shape, with its units moved as the tensor's are."""
    if setting is None:
        return matrix
    return permute_tensor(spec, name, matrix.reshape(tuple(shape)), setting).reshape(matrix.shape)
