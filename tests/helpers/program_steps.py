"""Random programs with more kinds of steps: indices, joined streams, strides, recurrences."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .programs import Program, program_step

__all__ = ["Program"]


@program_step()
def joined_streams(p: Program, x: Tensor, dim: int) -> Tensor | None:
    """Two maps of one tensor joined, a step on both, and taken apart again."""
    both = torch.cat([x @ p.weight(x.shape[-1], 6), torch.relu(x) @ p.weight(x.shape[-1], 6)], dim)
    if dim == x.ndim - 1 or p.chance.random() < 0.3:
        return both
    first, second = torch.tanh(both).chunk(2, dim)
    return first @ p.weight(6, 4) + second @ p.weight(6, 4)


@program_step()
def experts_by_slot(p: Program, x: Tensor, dim: int) -> Tensor:
    """Two tensors of indices into one stack, and scores of all experts beside the units of the chosen ones."""
    width = x.shape[-1]
    scores = functional.linear(x, p.weight(4, width), p.weight(4)).reshape(-1, 4)
    chosen = scores.topk(2, -1).indices
    rows, weight = x.reshape(-1, width, 1), p.weight(4, 6, width)
    units = [(torch.relu(weight[chosen[:, k]] @ rows)).squeeze(-1) for k in range(2)]
    if p.chance.random() < 0.5:
        mixed = torch.einsum("tu,te,euo->to", units[0], scores, p.weight(4, 6, 8))
    elif p.chance.random() < 0.5:
        mixed = (p.weight(4, 8, 6)[chosen[:, 1]] @ units[0].unsqueeze(-1)).squeeze(-1)
    else:
        mixed = units[0] @ p.weight(6, 8) + units[1] @ p.weight(6, 8)
    return mixed.reshape(*x.shape[:-1], 8)


@program_step()
def gathered(p: Program, x: Tensor, dim: int) -> Tensor | None:
    if x.shape[dim] < 3:
        return None
    scores = x + p.weight(x.shape[-1])
    return (
        x.gather(dim, scores.topk(2, dim).indices)
        if p.chance.random() < 0.7
        else x.take_along_dim(scores.argsort(dim), dim)
    )


@program_step()
def written_at_indices(p: Program, x: Tensor, dim: int) -> Tensor | None:
    if x.shape[0] < 2 or x.ndim < 2:
        return None
    places, values = torch.tensor([1, 0]), p.weight(2, *x.shape[1:])
    kind = p.chance.randrange(4)
    if kind == 0:
        return torch.index_add(x, 0, places, values)
    if kind == 1:
        return torch.index_put(x, (places,), values)
    if kind == 2:
        return torch.slice_scatter(torch.zeros_like(x), values[:1], 0, 1, 2) + x
    y = torch.zeros_like(x)
    y[..., 1:] = x[..., :-1]
    return y


@program_step()
def pairs(p: Program, x: Tensor, dim: int) -> Tensor | None:
    """Complex numbers turned by angles."""
    if x.shape[-1] % 2:
        return None
    turned = torch.view_as_complex(x.contiguous().reshape(*x.shape[:-1], -1, 2)) * torch.polar(
        torch.ones((), dtype=x.dtype), p.weight(x.shape[-1] // 2)
    )
    return torch.view_as_real(turned).flatten(-2)


@program_step()
def strided(p: Program, x: Tensor, dim: int) -> Tensor | None:
    rows = x.numel() // x.shape[-1]
    y = (x * 1.0).contiguous()
    if x.shape[-1] % 2 or p.chance.random() < 0.3:
        return y.as_strided((rows, x.shape[-1] - 1), (x.shape[-1], 1), 1)
    return y.as_strided((rows, x.shape[-1] // 2, 2), (x.shape[-1], 1, x.shape[-1] // 2))


@program_step()
def norms(p: Program, x: Tensor, dim: int) -> Tensor:
    kind = p.chance.randrange(4)
    if kind == 0:
        return x - x.logsumexp(dim, keepdim=True)
    if kind == 1:
        return x - x.median(dim, keepdim=True).values
    if kind == 2:
        return (x + p.weight(x.shape[-1])).sort(dim).values
    return x / (1.0 + torch.linalg.vector_norm(x, dim=dim, keepdim=True))


@program_step()
def inner_product(p: Program, x: Tensor, dim: int) -> Tensor | None:
    return torch.tensordot(x, p.weight(*x.shape[-2:], 5), 2) if x.ndim > 2 else None


@program_step()
def running(p: Program, x: Tensor, dim: int) -> Tensor:
    return x.cumsum(dim) if p.chance.random() < 0.5 else torch.fft.rfft(x, dim=dim).abs()


@program_step()
def recurrent(p: Program, x: Tensor, dim: int) -> Tensor | None:
    if x.ndim != 3:
        return None
    n, width = 3, x.shape[-1]
    state = x.new_zeros(1, x.shape[0], n)
    weights = [p.weight(3 * n, width), p.weight(3 * n, n), p.weight(3 * n), p.weight(3 * n)]
    return torch.gru(x, state, weights, True, 1, 0.0, False, False, True)[0]


@program_step()
def diagonal(p: Program, x: Tensor, dim: int) -> Tensor:
    return x * p.weight(x.shape[-1], x.shape[-1]).diagonal() + torch.einsum(
        "...i,ii->...i", x, p.weight(x.shape[-1], x.shape[-1])
    )
