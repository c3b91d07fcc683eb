"""What matching reaches by chance: B against a stand-in that has its singular values and nothing else of it."""

from __future__ import annotations

import torch

from ...spec import PermutationSpec
from ...spec.checks import check_params
from ..evaluation import Params
from ..layers import as_matrix, weight_names


def stand_in(spec: PermutationSpec, params: Params, seed: int = 0) -> dict[str, torch.Tensor]:
    """A network with the singular values of ``params``' layers along random singular vectors.

    The values of the other tensors (biases, scales) are shuffled; buffers and tensors without an entry stay. Same seed,
    same network. Errors as of ``singular_alignment``.
    """
    check_params(spec, params, strict=False)
    source = torch.Generator().manual_seed(seed)
    made = dict(params)
    weights = set(weight_names(spec))
    for name in spec.axes:
        if name in spec.tied or name in spec.buffers or not params[name].is_floating_point():
            continue
        tensor = params[name].detach()
        if name in weights:
            matrix = as_matrix(name, params)
            noise = torch.randn(matrix.shape, generator=source, dtype=torch.float64).to(matrix.device)
            left, _, right = torch.linalg.svd(noise, full_matrices=False)
            values = torch.linalg.svdvals(matrix)
            made[name] = ((left * values) @ right).reshape(tensor.shape).to(tensor.dtype)
        else:
            order = torch.randperm(tensor.numel(), generator=source).to(tensor.device)
            made[name] = tensor.flatten()[order].reshape(tensor.shape)
    made |= {alias: made[canonical] for alias, canonical in spec.tied.items() if canonical in made}
    return made
