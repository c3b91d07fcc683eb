"""Random programs: modules whose forward pass is a random sequence of operators on random parts of what is there.

Whatever the sequence, a derived spec must leave the output unchanged. A program is a function of its seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

INPUT = (2, 6, 8)
_LARGEST = 6000  # elements of one tensor

Step = Callable[["Program", Tensor, int], Tensor | None]
_STEPS: list[Step] = []


def program_step(weight: int = 1) -> Callable[[Step], Step]:
    def declare(step: Step) -> Step:
        _STEPS.extend([step] * weight)
        return step

    return declare


class Program(nn.Module):
    """``steps`` operators, each on the last tensor or an earlier one; the output is three numbers.

    ``log``: the operators' names and the shapes they gave.
    """

    def __init__(self, seed: int, steps: int) -> None:
        super().__init__()
        self.seed, self.steps = seed, steps
        self.weights = nn.ParameterList()
        self.log: list[str] = []
        self.chance = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.taken = 0
        self.pool: list[Tensor] = []
        self.building = True
        with torch.no_grad():
            self(self.example())
        self.building = False

    def example(self) -> Tensor:
        return torch.randn(INPUT, generator=torch.Generator().manual_seed(self.seed + 1), dtype=torch.float64)

    def weight(self, *shape: int) -> Tensor:
        """The next parameter; made when the program runs for the first time."""
        if self.building:
            drawn = torch.randn(shape, generator=self.generator, dtype=torch.float64)
            self.weights.append(nn.Parameter(0.5 * drawn))
        self.taken += 1
        return self.weights[self.taken - 1]

    def forward(self, x: Tensor) -> Tensor:
        self.chance, self.taken = random.Random(self.seed), 0
        self.pool = [functional.linear(x, self.weight(12, 8), self.weight(12))]
        for _ in range(self.steps):
            self.take_step()
        last = [self.pool[-1]]
        if len(self.pool) > 2:
            last.append(self.chance.choice(self.pool[1:]))
        found = [functional.linear(torch.tanh(t).reshape(-1), self.weight(3, t.numel())) for t in last]
        self.pool = []
        return torch.stack(found).sum(0)

    def take_step(self) -> None:
        x = self.pool[-1] if self.chance.random() < 0.7 else self.chance.choice(self.pool)
        dim = self.chance.randrange(x.ndim)
        step = self.chance.choice(_STEPS)
        y = step(self, x, dim)
        if y is not None and 4 < y.numel() < _LARGEST and y.ndim <= 6:
            self.pool.append(y)
            if self.building:
                self.log.append(f"{step.__name__}[{dim}] {tuple(y.shape)}")


@program_step(2)
def linear(p: Program, x: Tensor, dim: int) -> Tensor:
    return functional.linear(x, p.weight(p.chance.choice([4, 6, 8, 12]), x.shape[-1]))


@program_step()
def bias(p: Program, x: Tensor, dim: int) -> Tensor:
    return x + p.weight(x.shape[-1])


@program_step()
def scale(p: Program, x: Tensor, dim: int) -> Tensor:
    return x * p.weight(x.shape[dim], *[1] * (x.ndim - 1 - dim))


@program_step()
def residual(p: Program, x: Tensor, dim: int) -> Tensor | None:
    alike = [t for t in p.pool if t.shape == x.shape and t is not x]
    return x + p.chance.choice(alike) if alike else None


@program_step()
def activation(p: Program, x: Tensor, dim: int) -> Tensor:
    return torch.relu(x) + 0.1 * x


@program_step()
def softmax(p: Program, x: Tensor, dim: int) -> Tensor:
    return x.softmax(dim)


@program_step()
def layer_norm(p: Program, x: Tensor, dim: int) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], p.weight(x.shape[-1]))


@program_step()
def group_norm(p: Program, x: Tensor, dim: int) -> Tensor | None:
    if x.ndim < 3 or x.shape[1] % 2:
        return None
    return functional.group_norm(x, 2, p.weight(x.shape[1]))


@program_step(2)
def split_dimension(p: Program, x: Tensor, dim: int) -> Tensor | None:
    size = x.shape[dim]
    factors = [k for k in range(2, size) if size % k == 0]
    if not factors:
        return None
    factor = p.chance.choice(factors)
    return x.reshape(*x.shape[:dim], factor, size // factor, *x.shape[dim + 1 :])


@program_step()
def merge_dimensions(p: Program, x: Tensor, dim: int) -> Tensor | None:
    return x.flatten(dim, dim + 1) if dim + 1 < x.ndim else None


@program_step(2)
def permute(p: Program, x: Tensor, dim: int) -> Tensor:
    return x.permute(p.chance.sample(range(x.ndim), x.ndim))


@program_step()
def chunk(p: Program, x: Tensor, dim: int) -> Tensor | None:
    return p.chance.choice(x.chunk(2, dim)) if x.shape[dim] > 1 else None


@program_step()
def gate(p: Program, x: Tensor, dim: int) -> Tensor | None:
    if x.shape[dim] % 2:
        return None
    a, b = x.chunk(2, dim)
    return a * b.sigmoid()


@program_step()
def swap_parts(p: Program, x: Tensor, dim: int) -> Tensor | None:
    third = x.shape[dim] // 3
    if not third:
        return None
    a, b = x.split([third, x.shape[dim] - third], dim)
    return torch.cat(p.chance.choice([(b, a), (a, -a, b), (-b, a)]), dim)


@program_step()
def cut(p: Program, x: Tensor, dim: int) -> Tensor | None:
    half = x.shape[dim] // 2
    if not half:
        return None
    if p.chance.random() < 0.6:
        return x.narrow(dim, p.chance.randrange(half), half)
    return x[(slice(None),) * dim + (slice(p.chance.randrange(2), None, 2),)]


@program_step()
def select(p: Program, x: Tensor, dim: int) -> Tensor | None:
    return x.select(dim, p.chance.randrange(x.shape[dim])) if x.ndim > 2 else None


@program_step()
def unbind(p: Program, x: Tensor, dim: int) -> Tensor | None:
    if x.shape[dim] > 6 or x.ndim < 3:
        return None
    parts = x.unbind(dim)
    return parts[0] * parts[-1]


@program_step()
def stack(p: Program, x: Tensor, dim: int) -> Tensor:
    return torch.stack([x, torch.relu(x)], dim)


@program_step()
def stack_others(p: Program, x: Tensor, dim: int) -> Tensor | None:
    alike = [t for t in p.pool if t.shape == x.shape and t is not x]
    return torch.stack([x, p.chance.choice(alike)], dim) if alike else None


@program_step()
def attention(p: Program, x: Tensor, dim: int) -> Tensor | None:
    return (x @ x.transpose(-1, -2)).softmax(-1) @ x if x.ndim > 1 else None


@program_step()
def heads(p: Program, x: Tensor, dim: int) -> Tensor | None:
    if x.ndim != 3 or x.shape[-1] % 2:
        return None
    width = x.shape[-1]
    q, k, v = functional.linear(x, p.weight(3 * width, width)).chunk(3, -1)
    q, k, v = (t.unflatten(-1, (2, width // 2)).transpose(1, 2) for t in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


@program_step()
def total(p: Program, x: Tensor, dim: int) -> Tensor | None:
    return x.sum(dim) if x.ndim > 2 else None


@program_step()
def joint_mean(p: Program, x: Tensor, dim: int) -> Tensor | None:
    return x.mean((dim, -1), keepdim=p.chance.random() < 0.5) if x.ndim > 3 and dim < x.ndim - 1 else None


@program_step()
def expand(p: Program, x: Tensor, dim: int) -> Tensor:
    shape = (*x.shape[:dim], p.chance.choice([2, 3]), *x.shape[dim:])
    return x.unsqueeze(dim).expand(shape) * p.chance.choice([1.0, 2.0])


@program_step()
def repeat(p: Program, x: Tensor, dim: int) -> Tensor:
    return x.repeat_interleave(2, dim)


@program_step()
def order(p: Program, x: Tensor, dim: int) -> Tensor:
    return p.chance.choice([lambda: x.flip(dim), lambda: x.roll(1, dim), lambda: x.cumsum(dim)])()


@program_step()
def pad(p: Program, x: Tensor, dim: int) -> Tensor:
    return functional.pad(x, [0, 0] * (x.ndim - 1 - dim) + [1, 2])


@program_step()
def convolution(p: Program, x: Tensor, dim: int) -> Tensor | None:
    if x.ndim != 3:
        return None
    channels = x.shape[1]
    groups = p.chance.choice([1, 2, channels]) if channels % 2 == 0 else 1
    kernel = p.weight(channels if groups > 1 else 8, channels // groups, 3)
    return functional.conv1d(x, kernel, padding=1, groups=groups)


@program_step()
def weighted_product(p: Program, x: Tensor, dim: int) -> Tensor:
    outer: Sequence[int] = [x.shape[0], *[1] * (x.ndim - 3)] if x.ndim > 2 else []
    return torch.matmul(x, p.weight(*outer, x.shape[-1], 6)) if x.ndim > 1 else x * 2.0


@program_step()
def route(p: Program, x: Tensor, dim: int) -> Tensor | None:
    if x.shape[-1] < 2:
        return None
    # The bias breaks exact ties, on which topk follows the order of the indices.
    best = (x + p.weight(x.shape[-1])).softmax(-1).topk(2, -1)
    return torch.zeros_like(x).scatter(-1, best.indices, best.values)


@program_step()
def scale_halves(p: Program, x: Tensor, dim: int) -> Tensor | None:
    if x.shape[-1] % 2 or x.ndim < 2:
        return None
    halves = x.reshape(*x.shape[:-1], 2, x.shape[-1] // 2)
    return (halves.transpose(0, -2) * p.weight(x.shape[-1] // 2)).transpose(0, -2).reshape(x.shape)


@program_step()
def pick(p: Program, x: Tensor, dim: int) -> Tensor | None:
    return x.index_select(dim, torch.tensor([1, 0, 1])) if x.shape[dim] > 1 else None


@program_step()
def experts(p: Program, x: Tensor, dim: int) -> Tensor:
    width = x.shape[-1]
    best = functional.linear(x, p.weight(4, width), p.weight(4)).softmax(-1).topk(2, -1)
    chosen = best.indices.reshape(-1)
    rows = x.reshape(-1, width).repeat_interleave(2, 0).unsqueeze(-1)
    hidden = torch.relu(p.weight(4, 6, width)[chosen] @ rows)
    mixed = (p.weight(4, 8, 6)[chosen] @ hidden).squeeze(-1) * best.values.reshape(-1, 1)
    return mixed.reshape(*x.shape[:-1], 2, 8).sum(-2)


@program_step()
def write(p: Program, x: Tensor, dim: int) -> Tensor:
    """In place, into a copy and through a view of it."""
    y = x.clone()
    y.select(dim, 0).mul_(2.0)
    return y.add_(p.weight(x.shape[-1]))


@program_step()
def windows(p: Program, x: Tensor, dim: int) -> Tensor | None:
    return x.unfold(dim, 2, 1) if x.shape[dim] > 2 else None


@program_step()
def join(p: Program, x: Tensor, dim: int) -> Tensor:
    alike = [t for t in p.pool if t.ndim == x.ndim and _without(t, dim) == _without(x, dim)]
    return torch.cat([x, p.chance.choice(alike)], dim)


def _without(x: Tensor, dim: int) -> tuple[int, ...]:
    return (*x.shape[:dim], *x.shape[dim + 1 :])


@program_step()
def where(p: Program, x: Tensor, dim: int) -> Tensor:
    return torch.where(x > 0, x, p.weight(x.shape[-1]))


@program_step()
def outer_square(p: Program, x: Tensor, dim: int) -> Tensor | None:
    return torch.einsum("...i,...j->...ij", x, x).sum(dim) if x.ndim <= 3 and x.shape[-1] <= 8 else None
