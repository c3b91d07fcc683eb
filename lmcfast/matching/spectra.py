"""Which heads correspond, by singular values: whatever happens inside a head or in the residual stream.

A head's share of a tensor, seen as a matrix (its own dimensions by the rest), keeps its singular values when its own
dimensions or the rest are permuted, or rotated. So the spectra of two networks' heads can be compared before anything
is matched. Nearest spectra in the Euclidean distance, over all tensors, are an assignment problem: with
|x - y|^2 = |x|^2 + |y|^2 - 2 <x, y> its scores are the inner products.
"""

from __future__ import annotations

import math

import torch

from ..assignment import solve_assignment
from .nested_alignment import NestedAlignment
from .nested_plan import Plan
from .problem import Permutations


def match_by_spectra(alignment: NestedAlignment, plan: Plan) -> Permutations:
    """A step of a group with members: its units by their spectra, the members inside as they are."""
    spec, problem = alignment.problem.spec, alignment.problem
    n = spec.sizes[plan.group]
    scores = torch.zeros((n, n), dtype=torch.float64)
    for k in plan.pieces:
        held = problem.pieces[k]
        for index, block in enumerate(held.piece.blocks):
            if plan.group not in block.groups:
                continue
            axes = held.piece.split_axes(index)
            inner = [axes[name] for name in plan.members[1:] if name in axes]
            order = (axes[plan.group], *inner)
            spectra = []
            for tensor in (held.a, alignment.tensor(k)):
                tensor = tensor.view(held.piece.split_shape)
                rows = math.prod(tensor.shape[axis] for axis in inner)
                tensor = tensor.permute(*order, *(axis for axis in range(tensor.ndim) if axis not in order))
                spectra.append(singular_values(tensor.reshape(n, rows, -1)).cpu())
            scores += held.weight * spectra[0].double() @ spectra[1].double().T
    return {plan.group: solve_assignment(scores).columns}


def singular_values(matrices: torch.Tensor) -> torch.Tensor:
    """Of (n, rows, columns) matrices, (n, min(rows, columns)), ascending: roots of the eigenvalues of the smaller Gram
    matrices. Half of the digits are lost, which a comparison of heads can spare, and most of the time is saved."""
    other = matrices.transpose(1, 2)
    gram = matrices @ other if matrices.shape[1] <= matrices.shape[2] else other @ matrices
    eigenvalues: torch.Tensor = torch.linalg.eigvalsh(gram)
    return eigenvalues.clamp_min(0.0).sqrt()
