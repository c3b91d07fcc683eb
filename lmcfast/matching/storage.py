"""How a matching holds the tensors that count: in an order of axes in which no product needs a copy.

A tensor whose axes are groups, fixed runs, or products of them is *regular*: each group gets an axis of its own, the
first group comes first, the fixed positions together in the middle, a further group last. A convolution (O, I, 3, 3) is
held as (O, 9, I): the rows of O are views of it, the rows of I are views of its transpose.

Regular tensors of the same groups and weight stand side by side, joined along the middle: the two convolutions of a
residual block make one tensor (inner, 18, stream), and so do the biases, norm parameters and thin matrices of one
group. It saves operations where tensors are small, and half of the kept products. Tensors with a concatenation, with
one group on two axes, or with more than two groups are held by themselves; the irregular ones as they are, moved by
the general gather.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from ..spec import PermutationSpec
from ..spec.layout import Atom, Fixed, Layout, Product, layout_size

JOINED_DEPTH = 64  # numbers that a unit may own in a tensor of one group that is joined with others
JOINED_NUMBERS = 1 << 20  # a larger tensor of two groups is not joined, if that would copy it


Params = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Member:
    """A tensor of the state dict in a :class:`Storage`.

    ``split``: its shape with products of layouts taken apart; ``order``: the axes of that in the order held;
    ``depth``: how many positions it takes in the middle.
    """

    name: str
    split: tuple[int, ...]
    order: tuple[int, ...]
    depth: int

    def view(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.reshape(self.split).permute(self.order)


@dataclass(frozen=True)
class Storage:
    """One tensor as held.

    ``shape``, ``layouts``: of the axes as held. ``axis_of``: the axis of each group that can move; None: irregular.
    ``is_matrix``: whether a unit owns more than one number of some member.
    """

    name: str
    members: tuple[Member, ...]
    shape: tuple[int, ...]
    layouts: tuple[Layout, ...]
    axis_of: Mapping[str, int] | None
    weight: float
    is_matrix: bool

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """Of the tensor as held, in numbers."""
        return tuple(math.prod(self.shape[k + 1 :]) for k in range(len(self.shape)))

    def hold(self, params: Params, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """The tensor of ``params`` as held; its own memory where nothing has to change."""
        if len(self.members) == 1:
            (member,) = self.members
            tensor = params[member.name].detach()
            if self.axis_of is None:
                return tensor.to(device, dtype)
            tensor = member.view(tensor)
            if tensor.is_contiguous():
                return tensor.to(device, dtype).view(self.shape)
            return torch.empty(tensor.shape, dtype=dtype, device=device).copy_(tensor).view(self.shape)
        if len(self.shape) == 2:
            tensors = [(params[member.name].detach().to(device, dtype), member) for member in self.members]
            columns = [t.reshape(-1, 1) if m.depth == 1 else m.view(t).reshape(-1, m.depth) for t, m in tensors]
            return torch.cat(columns, dim=1)
        whole = torch.empty(self.shape, dtype=dtype, device=device)
        start = 0
        for member in self.members:
            tensor = member.view(params[member.name])
            whole.narrow(1, start, member.depth).view(tensor.shape).copy_(tensor)
            start += member.depth
        return whole


def storages(spec: PermutationSpec, weights: Mapping[str, float]) -> tuple[Storage, ...]:
    """How the tensors in ``weights`` ({name: weight in the objective}) of a bound spec are held."""
    together: dict[object, list[Storage]] = {}
    first: dict[frozenset[str], str] = {}  # of two groups, the one that comes first
    for name, weight in weights.items():
        storage = _storage(spec, name, weight, first)
        groups = frozenset(storage.axis_of or ())
        numbers = math.prod(storage.shape)
        if len(groups) == 1:
            joins = numbers // storage.shape[0] <= JOINED_DEPTH if storage.shape[0] else False
        else:
            joins = len(groups) == 2 and numbers <= JOINED_NUMBERS
        together.setdefault((groups, weight) if joins else name, []).append(storage)
    return tuple(_side_by_side(same) for same in together.values())


def _storage(spec: PermutationSpec, name: str, weight: float, first: dict[frozenset[str], str]) -> Storage:
    """One tensor by itself."""
    still = {group for group, entry in spec.groups.items() if entry.fixed or entry.within}
    flat: list[Layout] = []
    for layout in spec.axes[name]:
        flat += layout.parts if isinstance(layout, Product) else (layout,)
    split = tuple(layout_size(layout, spec.sizes) for layout in flat)
    moving = [k for k, layout in enumerate(flat) if isinstance(layout, Atom) and layout.name not in still]
    names = [flat[k].name for k in moving]  # type: ignore[union-attr]
    plain = all(isinstance(layout, Atom | Fixed) for layout in flat)
    if not plain or len(set(names)) < len(names):
        member = Member(name, split, (), 0)
        return Storage(name, (member,), split, spec.axes[name], None, weight, math.prod(split) > 1)
    if len(names) == 2 and first.setdefault(frozenset(names), names[0]) != names[0]:
        moving.reverse()
    fixed = [k for k in range(len(flat)) if k not in moving]
    depth = math.prod(split[k] for k in fixed)
    middle: tuple[Layout, ...] = (Fixed(depth),) if fixed or len(moving) < 3 else ()
    layouts = (*(flat[k] for k in moving[:1]), *middle, *(flat[k] for k in moving[1:]))
    return Storage(
        name=name,
        members=(Member(name, split, (*moving[:1], *fixed, *moving[1:]), depth),),
        shape=tuple(layout_size(layout, spec.sizes) for layout in layouts),
        layouts=layouts,
        axis_of={layout.name: k for k, layout in enumerate(layouts) if isinstance(layout, Atom)},
        weight=weight,
        is_matrix=bool(moving) and math.prod(split) > split[moving[0]],
    )


def _side_by_side(parts: Sequence[Storage]) -> Storage:
    """Tensors of the same groups and weight in one, joined along the middle axis."""
    first = parts[0]
    if len(parts) == 1:
        return first
    members = tuple(member for part in parts for member in part.members)
    depth = sum(member.depth for member in members)
    return Storage(
        name=f"{first.name} and {len(members) - 1} more",
        members=members,
        shape=(first.shape[0], depth, *first.shape[2:]),
        layouts=(first.layouts[0], Fixed(depth), *first.layouts[2:]),
        axis_of=first.axis_of,
        weight=first.weight,
        is_matrix=any(part.is_matrix for part in parts),
    )
