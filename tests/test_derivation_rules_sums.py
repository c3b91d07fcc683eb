"""Rules for sums of products, convolutions and windows.

Each row gives what may move, as text: a rule that demands too much fails as well as one that demands too little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
import torch.nn.functional as F
from helpers.rules import Forward, Net, case, example, freedom
from torch import Tensor

SEQUENCE = example(2, 4, 5)
IMAGE = example(2, 3, 5, 5)


def hidden(p: Net, x: Tensor) -> Tensor:
    return torch.tanh(x @ p.a)


def attend(p: Net, x: Tensor, mask: Tensor | None = None, gqa: bool = False) -> Tensor:
    """Attention with heads of 3 for queries and keys, as many for the values as there are for the keys."""
    q = (x @ p.q).view(2, 4, -1, 3).transpose(1, 2)
    k = (x @ p.k).view(2, 4, -1, 3).transpose(1, 2)
    v = (x @ p.v).view(2, 4, k.shape[1], -1).transpose(1, 2)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=gqa)
    return y.transpose(1, 2).flatten(2) @ p.o


def sampled(p: Net, x: Tensor) -> Tensor:
    y = F.grid_sample(torch.relu(F.conv2d(x, p.a)), torch.tanh(p.g), align_corners=False)
    return (y.flatten(2) @ p.h).flatten(1) @ p.i


CONTRACTIONS = [
    case(
        "linear",
        lambda p, x: F.linear(torch.relu(F.linear(x, p.a, p.c)), p.b),
        "a: A6, _5; b: _3, A6; c: A6",
        a=(6, 5),
        b=(3, 6),
        c=(6,),
    ),
    case(
        "matmul nested",
        lambda p, x: (torch.tanh(x @ p.a).view(2, 2, 3) * p.s @ p.b).flatten(1) @ p.c,
        "a: _5, A2 B3; s: B3; b: B3, C4; c: A2 C4, _3",
        a=(5, 6),
        s=(3,),
        b=(3, 4),
        c=(8, 3),
    ),
    case(
        "addmm",
        lambda p, x: torch.addmm(p.c, torch.tanh(x @ p.a), p.b) @ p.d,
        "a: _5, A6; b: A6, B4; c: B4; d: B4, _3",
        a=(5, 6),
        b=(6, 4),
        c=(4,),
        d=(4, 3),
    ),
    case(
        "addbmm",
        lambda p, x: torch.addbmm(p.c, p.b, torch.tanh(p.e @ x.T)) @ x @ p.f,
        "b: A4, _3, B6; e: A4, B6, _5; c: _3, _2; f: _5, _2; B6 in A4",
        b=(4, 3, 6),
        e=(4, 6, 5),
        c=(3, 2),
        f=(5, 2),
    ),
    case(
        "baddbmm",
        lambda p, x: torch.baddbmm(p.c, p.b, torch.tanh(p.e @ x.T)).permute(1, 2, 0) @ p.d,
        "b: A4, _3, B6; e: A4, B6, _5; c: A4, _3, _2; d: A4, _2; B6 in A4",
        b=(4, 3, 6),
        e=(4, 6, 5),
        c=(4, 3, 2),
        d=(4, 2),
    ),
    case(
        "outer",
        lambda p, x: torch.outer(torch.tanh(p.a @ x[0]), torch.tanh(p.b @ x[1])).flatten() @ p.c,
        "a: A4, _5; b: B6, _5; c: A4 B6, _3",
        a=(4, 5),
        b=(6, 5),
        c=(24, 3),
    ),
    case(
        "inner",
        lambda p, x: torch.inner(torch.tanh(x @ p.a), p.b) @ p.c,
        "a: _5, A6; b: B4, A6; c: B4, _3",
        a=(5, 6),
        b=(4, 6),
        c=(4, 3),
    ),
    case(
        "tensordot",
        lambda p, x: torch.tensordot(torch.tanh(x @ p.a).view(2, 2, 3), p.b, 2) @ p.c,
        "a: _5, A2 B3; b: A2, B3, C4; c: C4, _3; B3 in A2",
        a=(5, 6),
        b=(2, 3, 4),
        c=(4, 3),
    ),
    case(
        "bilinear",
        lambda p, x: F.bilinear(torch.tanh(x @ p.a), torch.tanh(x @ p.b), p.w, p.c) @ p.d,
        "a: _5, A6; b: _5, B4; w: C7, A6, B4; c: C7; d: C7, _3",
        a=(5, 6),
        b=(5, 4),
        w=(7, 6, 4),
        c=(7,),
        d=(7, 3),
    ),
    case(
        "cdist",
        lambda p, x: torch.cdist(torch.tanh(x @ p.a), p.b) @ p.c,
        "a: _5, A6; b: B4, A6; c: B4, _3",
        a=(5, 6),
        b=(4, 6),
        c=(4, 3),
    ),
    case(
        "einsum joint",
        lambda p, x: torch.einsum("bhd,hdo->bo", torch.tanh(x @ p.a).view(2, 2, 3), p.b) @ p.c,
        "a: _5, A2 B3; b: A2, B3, C4; c: C4, _3; B3 in A2",
        a=(5, 6),
        b=(2, 3, 4),
        c=(4, 3),
    ),
    case(
        "einsum ellipsis",
        lambda p, x: torch.einsum("...i,ij->...j", torch.tanh(x @ p.a).view(2, 2, 3), p.b).flatten(1) @ p.c,
        "a: _5, A2 B3; b: B3, C4; c: A2 C4, _3",
        a=(5, 6),
        b=(3, 4),
        c=(8, 3),
    ),
    case(
        "einsum ellipsis both",
        lambda p, x: torch.einsum("...i,...i", torch.tanh(x @ p.a).view(2, 2, 3), p.b) @ p.c,
        "a: _5, A2 B3; b: A2, B3; c: A2, _3; B3 in A2",
        a=(5, 6),
        b=(2, 3),
        c=(2, 3),
    ),
    case(
        "einsum diagonal",
        lambda p, x: torch.tanh(x @ p.a) * torch.einsum("ii->i", p.b) @ p.c,
        "a: _5, A6; b: A6, A6; c: A6, _3",
        a=(5, 6),
        b=(6, 6),
        c=(6, 3),
    ),
    case(
        "einsum three",
        lambda p, x: torch.einsum("bi,ij,jk->bk", x, p.a, p.b) @ p.c,
        "a: _5, A6; b: A6, B4; c: B4, _3",
        a=(5, 6),
        b=(6, 4),
        c=(4, 3),
    ),
    case(
        "attention",
        attend,
        "q: _5, A2 B3; k: _5, A2 B3; v: _5, A2 C4; o: A2 C4, _3; B3 in A2; C4 in A2",
        inputs=[SEQUENCE],
        q=(5, 6),
        k=(5, 6),
        v=(5, 8),
        o=(8, 3),
    ),
    case(
        "attention gqa",
        lambda p, x: attend(p, x, gqa=True),
        "q: _5, A2 B2 C3; k: _5, A2 C3; v: _5, A2 D4; o: A2 B2 D4, _3; B2 in A2; C3 in A2; D4 in A2",
        inputs=[SEQUENCE],
        q=(5, 12),
        k=(5, 6),
        v=(5, 8),
        o=(16, 3),
    ),
    case(
        "attention causal mask",
        lambda p, x: attend(p, x, mask=p.m.tril()),
        "q: _5, A2 B3; k: _5, A2 B3; v: _5, A2 C4; o: A2 C4, _3; m: _4, _4; B3 in A2; C4 in A2",
        inputs=[SEQUENCE],
        q=(5, 6),
        k=(5, 6),
        v=(5, 8),
        o=(8, 3),
        m=(4, 4),
    ),
    case(
        "attention bias heads",
        lambda p, x: attend(p, x, mask=p.m),
        "q: _5, A2 B3; k: _5, A2 B3; v: _5, A2 C4; o: A2 C4, _3; m: A2, _4, _4; B3 in A2; C4 in A2",
        inputs=[SEQUENCE],
        q=(5, 6),
        k=(5, 6),
        v=(5, 8),
        o=(8, 3),
        m=(2, 4, 4),
    ),
]

WINDOWS = [
    case(
        "conv",
        lambda p, x: F.conv2d(torch.relu(F.conv2d(x, p.a, p.ab, padding=1)), p.b).mean((2, 3)),
        "a: A4, _3, _3, _3; ab: A4; b: _3, A4, _3, _3",
        inputs=[IMAGE],
        a=(4, 3, 3, 3),
        ab=(4,),
        b=(3, 4, 3, 3),
    ),
    case(
        "conv groups",
        lambda p, x: F.conv2d(torch.relu(F.conv2d(x, p.a)), p.b, groups=2).mean((2, 3)) @ p.c,
        "a: A2 B2, _3, _3, _3; b: A2 C3, B2, _3, _3; c: A2 C3, _2; B2 in A2; C3 in A2",
        inputs=[IMAGE],
        a=(4, 3, 3, 3),
        b=(6, 2, 3, 3),
        c=(6, 2),
    ),
    case(
        "conv depthwise",
        lambda p, x: F.conv2d(torch.relu(F.conv2d(x, p.a)), p.b, groups=4).mean((2, 3)) @ p.c,
        "a: A4, _3, _3, _3; b: A4 B2, _1, _3, _3; c: A4 B2, _2; B2 in A4",
        inputs=[IMAGE],
        a=(4, 3, 3, 3),
        b=(8, 1, 3, 3),
        c=(8, 2),
    ),
    case(
        "conv transpose",
        lambda p, x: F.conv_transpose2d(torch.relu(F.conv2d(x, p.a)), p.b, p.bb, groups=2, stride=2).mean((2, 3)) @ p.c,
        "a: A2 B2, _3, _3, _3; b: A2 B2, C3, _2, _2; bb: A2 C3; c: A2 C3, _2; B2 in A2; C3 in A2",
        inputs=[IMAGE],
        a=(4, 3, 3, 3),
        b=(4, 3, 2, 2),
        bb=(6,),
        c=(6, 2),
    ),
    case(
        "conv 1x1 positions",
        lambda p, x: F.conv1d(F.conv1d(torch.tanh(x @ p.t), p.a), p.b) @ p.u,
        "t: _5, A6; a: B7, _4, _1; b: _3, B7, _1; u: A6, _2",
        inputs=[SEQUENCE],
        t=(5, 6),
        a=(7, 4, 1),
        b=(3, 7, 1),
        u=(6, 2),
    ),
    case(
        "pool flatten",
        lambda p, x: F.max_pool2d(torch.relu(F.conv2d(x, p.a, padding=1)), 2).flatten(1) @ p.c,
        "a: A4, _3, _3, _3; c: A4 _4, _2",
        inputs=[IMAGE],
        a=(4, 3, 3, 3),
        c=(16, 2),
    ),
    case(
        "adaptive one",
        lambda p, x: F.adaptive_avg_pool1d((hidden(p, x) * p.s)[None], 1).squeeze(-1),
        "a: _5, A6; s: A6",
        a=(5, 6),
        s=(6,),
    ),
    case(
        "adaptive two",
        lambda p, x: F.adaptive_avg_pool1d(torch.tanh(x @ p.t), 2).flatten(1) @ p.b,
        "t: _5, _6; b: _8, _3",
        inputs=[SEQUENCE],
        t=(5, 6),
        b=(8, 3),
    ),
    case(
        "interpolate",
        lambda p, x: F.interpolate(torch.relu(F.conv2d(x, p.a)), scale_factor=2).flatten(1) @ p.c,
        "a: A4, _3, _3, _3; c: A4 _36, _2",
        inputs=[IMAGE],
        a=(4, 3, 3, 3),
        c=(144, 2),
    ),
    case(
        "grid_sample",
        sampled,
        "a: A4, _3, _3, _3; g: _2, B2, C3, _2; h: B2 C3, D7; i: A4 D7, _2; C3 in B2",
        inputs=[IMAGE],
        a=(4, 3, 3, 3),
        g=(2, 2, 3, 2),
        h=(6, 7),
        i=(28, 2),
    ),
    case(
        "im2col",
        lambda p, x: (F.unfold(torch.relu(F.conv2d(x, p.a)), 2).transpose(1, 2) @ p.c).sum(1),
        "a: A4, _3, _3, _3; c: A4 _4, _2",
        inputs=[IMAGE],
        a=(4, 3, 3, 3),
        c=(16, 2),
    ),
    case(
        "col2im",
        lambda p, x: F.fold(p.c @ F.unfold(x, 2), (5, 5), 2).sum((2, 3)) @ p.d,
        "c: A4 _4, _12; d: A4, _2",
        inputs=[IMAGE],
        c=(16, 12),
        d=(4, 2),
    ),
    case(
        "unfold tiles",
        lambda p, x: (torch.tanh(x @ p.a).unfold(1, 3, 3) @ p.b).flatten(1) @ p.c,
        "a: _5, A2 B3; b: B3, C4; c: A2 C4, _3",
        a=(5, 6),
        b=(3, 4),
        c=(8, 3),
    ),
    case(
        "unfold slides",
        lambda p, x: (torch.tanh(x @ p.a).unfold(1, 3, 2) @ p.b).flatten(1) @ p.c,
        "a: _5, _7; b: _3, A4; c: _3 A4, _3",
        a=(5, 7),
        b=(3, 4),
        c=(12, 3),
    ),
    case(
        "as_strided transpose",
        lambda p, x: torch.tanh(x @ p.a).as_strided((2, 3, 2), (6, 1, 3)).flatten(1) @ p.c,
        "a: _5, A2 B3; c: B3 A2, _3; B3 in A2",
        a=(5, 6),
        c=(6, 3),
    ),
    case(
        "as_strided part",
        lambda p, x: (
            torch.tanh(x @ p.a).as_strided((2, 3), (6, 1), 3) @ p.c
            + torch.tanh(x @ p.a).as_strided((2, 3), (6, 1), 0) @ p.d
        ),
        "a: _5, A3 | B3; c: B3, _3; d: A3, _3",
        a=(5, 6),
        c=(3, 3),
        d=(3, 3),
    ),
    case(
        "as_strided slides",
        lambda p, x: torch.tanh(x @ p.a).as_strided((2, 3, 4), (6, 1, 1)).flatten(1) @ p.c,
        "a: _5, _6; c: _12, _3",
        a=(5, 6),
        c=(12, 3),
    ),
]


@pytest.mark.parametrize(("forward", "shapes", "inputs", "expected"), CONTRACTIONS)
def test_contraction(
    forward: Forward, shapes: Mapping[str, Sequence[int]], inputs: tuple[Tensor, ...], expected: str
) -> None:
    assert freedom(forward, shapes, *inputs) == expected


@pytest.mark.parametrize(("forward", "shapes", "inputs", "expected"), WINDOWS)
def test_window(
    forward: Forward, shapes: Mapping[str, Sequence[int]], inputs: tuple[Tensor, ...], expected: str
) -> None:
    assert freedom(forward, shapes, *inputs) == expected
