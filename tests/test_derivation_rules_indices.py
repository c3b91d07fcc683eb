"""Rules for reading and writing at indices.

Each row gives what may move, as text: a rule that demands too much fails as well as one that demands too little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
import torch.nn.functional as F
from helpers.rules import Forward, Net, case, described, example, freedom, proved
from torch import Tensor, nn
from torch.func import functional_call

from lmcfast import apply_permutations
from lmcfast.spec import derive_spec

IDS = torch.tensor([[1, 3, 0], [2, 2, 1]])
MANY = example(9, 5)


def hidden(p: Net, x: Tensor) -> Tensor:
    return torch.tanh(x @ p.a)


def run_experts(p: Net, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    h = torch.tanh(torch.einsum("ti,tkij->tkj", x, p.a[first]))
    return torch.einsum("tkj,tkjo->tko", h, p.b[second])


def experts(p: Net, x: Tensor) -> Tensor:
    scores, chosen = (x @ p.r).softmax(-1).topk(2)
    return (run_experts(p, x, chosen, chosen) * scores[..., None]).sum(1) @ p.c


def experts_by_argmax(p: Net, x: Tensor) -> Tensor:
    chosen = (x @ p.r).argmax(-1)
    h = torch.tanh(torch.bmm(x[:, None], p.a[chosen]))
    return torch.bmm(h, p.b.index_select(0, chosen))[:, 0] @ p.c


def experts_swapped(p: Net, x: Tensor) -> Tensor:
    """The second layer is another expert's than the first: units cannot move within one expert alone."""
    chosen = (x @ p.r).topk(2)[1]
    return run_experts(p, x, chosen, chosen.flip(-1)).sum(1) @ p.c


def experts_by_slot(p: Net, x: Tensor) -> Tensor:
    """Two tensors of indices into one stack: which of them a unit belongs to is not followed."""
    chosen = (x @ p.r).topk(2)[1]
    out = [run_experts(p, x, chosen[:, k, None], chosen[:, k, None]) for k in range(2)]
    return (out[0] + out[1])[:, 0] @ p.c


def dense_experts(p: Net, x: Tensor) -> Tensor:
    scores = x @ p.r
    best, chosen = scores.topk(2)
    gates = torch.zeros_like(scores).scatter(1, chosen, best.sigmoid())
    h = torch.tanh(torch.einsum("ti,eij->tej", x, p.a))
    return (torch.einsum("tej,ejo->teo", h, p.b) * gates[..., None]).sum(1) @ p.c


def tag_beside_stack(p: Net, x: Tensor) -> Tensor:
    """Units of the chosen expert beside all experts: the visible dimension is not the one that they vary with."""
    scores = x @ p.r
    h = torch.tanh(torch.bmm(x[:, None], p.a[scores.argmax(-1)]))[:, 0]
    return torch.einsum("tj,te,ejo->to", h, scores, p.b) @ p.c


def chosen_by_one_hot(p: Net, x: Tensor) -> Tensor:
    chosen = F.one_hot((x @ p.r).argmax(-1), 4).to(x.dtype)
    return torch.einsum("te,eio,ti->to", chosen, p.a, x) @ p.c


def gathered_scores(p: Net, x: Tensor) -> Tensor:
    scores = x @ p.r
    return scores.gather(1, scores.topk(2)[1]) @ p.c + torch.tanh(scores) @ p.d


def values_used(p: Net, x: Tensor) -> Tensor:
    chosen = (x @ p.r).argmax(-1)
    return torch.bmm(x[:, None], p.a[chosen])[:, 0] + chosen[:, None]


def masked(p: Net, x: Tensor) -> Tensor:
    y = hidden(p, x).clone()
    y[y < 0] = 0.0
    return y @ p.c


def slice_assigned(p: Net, x: Tensor) -> Tensor:
    y = torch.zeros(2, 6)
    y[:, 2:] = hidden(p, x)
    return (y + p.b) @ p.c


def list_assigned(p: Net, x: Tensor) -> Tensor:
    y = torch.zeros(2, 6)
    y[:, [0, 3]] = hidden(p, x)
    return (y + p.b) @ p.c


INDICES = [
    case(
        "embedding",
        lambda p, i: F.embedding(i, p.w).sum(1) @ p.c,
        "w: _5, A6; c: A6, _2",
        inputs=[IDS],
        w=(5, 6),
        c=(6, 2),
    ),
    case(
        "index list",
        lambda p, x: hidden(p, x)[:, [1, 2]] @ p.c + hidden(p, x) @ p.d,
        "a: _5, _1 | A2 | B3; c: A2, _2; d: _1 | A2 | B3, _2",
        a=(5, 6),
        c=(2, 2),
        d=(6, 2),
    ),
    case(
        "index list runs",
        lambda p, x: hidden(p, x)[:, [4, 0, 1, 4]] @ p.c,
        "a: _5, A2 | B2 | _2; c: _1 | A2 | _1, _2",
        a=(5, 6),
        c=(4, 2),
    ),
    case(
        "multi index",
        lambda p, i: torch.tanh(p.w)[i[:, 0], i[:, 1]] @ p.c,
        "w: _5, _4, A6; c: A6, _2",
        inputs=[IDS],
        w=(5, 4, 6),
        c=(6, 2),
    ),
    case(
        "experts",
        experts,
        "r: _5, A4; a: A4, _5, B3; b: A4, B3, C6; c: C6, _2; B3 in A4",
        inputs=[MANY],
        r=(5, 4),
        a=(4, 5, 3),
        b=(4, 3, 6),
        c=(6, 2),
    ),
    case(
        "experts argmax",
        experts_by_argmax,
        "r: _5, A4; a: A4, _5, B3; b: A4, B3, C6; c: C6, _2; B3 in A4",
        inputs=[MANY],
        r=(5, 4),
        a=(4, 5, 3),
        b=(4, 3, 6),
        c=(6, 2),
    ),
    case(
        "experts swapped",
        experts_swapped,
        "r: _5, _4; a: _4, _5, A3; b: _4, A3, B6; c: B6, _2",
        inputs=[MANY],
        r=(5, 4),
        a=(4, 5, 3),
        b=(4, 3, 6),
        c=(6, 2),
    ),
    case(
        "experts by slot",
        experts_by_slot,
        "r: _5, A4; a: A4, _5, B3; b: A4, B3, C6; c: C6, _2",
        inputs=[MANY],
        r=(5, 4),
        a=(4, 5, 3),
        b=(4, 3, 6),
        c=(6, 2),
    ),
    case(
        "experts dense scatter",
        dense_experts,
        "r: _5, A4; a: A4, _5, B3; b: A4, B3, C6; c: C6, _2; B3 in A4",
        inputs=[MANY],
        r=(5, 4),
        a=(4, 5, 3),
        b=(4, 3, 6),
        c=(6, 2),
    ),
    case(
        "chosen beside all",
        tag_beside_stack,
        "r: _5, A4; a: A4, _5, B3; b: A4, B3, C6; c: C6, _2",
        inputs=[MANY],
        r=(5, 4),
        a=(4, 5, 3),
        b=(4, 3, 6),
        c=(6, 2),
    ),
    case(
        "one_hot",
        chosen_by_one_hot,
        "r: _5, A4; a: A4, _5, B6; c: B6, _2",
        inputs=[MANY],
        r=(5, 4),
        a=(4, 5, 6),
        c=(6, 2),
    ),
    case(
        "gather scores", gathered_scores, "r: _5, A4; d: A4, _2; c: _2, _2", inputs=[MANY], r=(5, 4), d=(4, 2), c=(2, 2)
    ),
    case("index values used", values_used, "r: _5, _4; a: _4, _5, _3", inputs=[MANY], r=(5, 4), a=(4, 5, 3)),
    case(
        "gather data",
        lambda p, i: torch.tanh(p.w).gather(0, i) @ p.c,
        "w: _5, _3; c: _3, _2",
        inputs=[IDS],
        w=(5, 3),
        c=(3, 2),
    ),
    case(
        "index_add",
        lambda p, i: torch.index_add(torch.tanh(p.w), 0, i[0], p.s) @ p.c,
        "w: _5, A6; s: _3, A6; c: A6, _2",
        inputs=[IDS],
        w=(5, 6),
        s=(3, 6),
        c=(6, 2),
    ),
    case(
        "index_copy",
        lambda p, i: torch.index_copy(torch.tanh(p.w), 0, i[0], p.s) @ p.c,
        "w: _5, A6; s: _3, A6; c: A6, _2",
        inputs=[IDS],
        w=(5, 6),
        s=(3, 6),
        c=(6, 2),
    ),
    case(
        "index_fill",
        lambda p, i: torch.index_fill(torch.tanh(p.w), 0, i[0], 0.5) @ p.c,
        "w: _5, A6; c: A6, _2",
        inputs=[IDS],
        w=(5, 6),
        c=(6, 2),
    ),
    case(
        "index_put",
        lambda p, i: torch.index_put(torch.tanh(p.w), (i[0],), p.s) @ p.c,
        "w: _5, A6; s: _3, A6; c: A6, _2",
        inputs=[IDS],
        w=(5, 6),
        s=(3, 6),
        c=(6, 2),
    ),
    case(
        "index_put add two",
        lambda p, i: torch.index_put(torch.tanh(p.w), (i[0], i[1]), p.s, accumulate=True) @ p.c,
        "w: _5, _4, A6; s: _3, A6; c: A6, _2",
        inputs=[IDS],
        w=(5, 4, 6),
        s=(3, 6),
        c=(6, 2),
    ),
    case("mask assign", masked, "a: _5, A6; c: A6, _2", a=(5, 6), c=(6, 2)),
    case("slice assign", slice_assigned, "a: _5, A4; b: B2 | A4; c: B2 | A4, _2", a=(5, 4), b=(6,), c=(6, 2)),
    case("list assign", list_assigned, "a: _5, _2; b: _6; c: _6, _2", a=(5, 2), b=(6,), c=(6, 2)),
    case(
        "scatter_add",
        lambda p, i: torch.scatter_add(torch.tanh(p.w), 0, i, p.s) @ p.c,
        "w: _5, _3; s: _2, _3; c: _3, _2",
        inputs=[IDS],
        w=(5, 3),
        s=(2, 3),
        c=(3, 2),
    ),
    case(
        "take_along_dim",
        lambda p, x: (lambda y: torch.take_along_dim(y, y.argsort(-1), -1) @ p.c)(hidden(p, x) * p.s),
        "a: _5, A6; s: A6; c: _6, _2",
        a=(5, 6),
        s=(6,),
        c=(6, 2),
    ),
]


@pytest.mark.parametrize(("forward", "shapes", "inputs", "expected"), INDICES)
def test_index(
    forward: Forward, shapes: Mapping[str, Sequence[int]], inputs: tuple[Tensor, ...], expected: str
) -> None:
    assert freedom(forward, shapes, *inputs) == expected


class Router(nn.Module):
    """Experts chosen by scores plus a buffer that training balances."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(5, 4, bias=False)
        self.experts = nn.Parameter(torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0)))
        self.head = nn.Linear(6, 2)
        self.register_buffer("e_score_correction_bias", 0.1 * torch.arange(4.0))

    def forward(self, x: Tensor) -> Tensor:
        chosen = (self.scores(x).sigmoid() + self.e_score_correction_bias).argmax(-1)
        return self.head(torch.bmm(x[:, None], self.experts[chosen])[:, 0])


def test_learned_buffer_moves_with_the_experts() -> None:
    torch.manual_seed(0)
    assert proved(nn.Sequential(Router()), example(60, 5)) == (
        "0.experts: A4, _5, B6; 0.scores.weight: A4, _5; 0.head.weight: _2, B6; 0.head.bias: _2; "
        "0.e_score_correction_bias: A4"
    )


def grouped_product(p: Net, x: Tensor) -> Tensor:
    ends = torch.tensor([2, 5, 9], dtype=torch.int32)
    h = torch._grouped_mm(hidden(p, x).bfloat16(), p.b.bfloat16(), offs=ends)
    return torch._grouped_mm(torch.tanh(h), p.c.bfloat16(), offs=ends).float() @ p.e


def test_product_of_rows_in_groups() -> None:
    """Its kernel can be traced with bfloat16 only, so that this is proved to that precision."""
    net = Net(grouped_product, {"a": (5, 8), "b": (3, 8, 16), "c": (3, 16, 8), "e": (8, 2)})
    spec = derive_spec(net, (MANY,))
    assert described(spec) == "a: _5, A8; b: B3, A8, C16; c: B3, C16, D8; e: D8, _2; B3 stays; C16 in B3"
    params = {name: tensor.detach() for name, tensor in net.named_parameters()}
    moved = apply_permutations(spec, spec.random_permutations(0), params)
    torch.testing.assert_close(functional_call(net, moved, MANY), net(MANY), rtol=0, atol=0.1)
    alone = functional_call(net, {**params, "b": moved["b"]}, MANY)
    assert float((alone - net(MANY)).detach().abs().max()) > 1.0
