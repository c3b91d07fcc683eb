"""Rules for views, repeated and constant tensors, cuts and joins.

Each row gives what may move, as text: a rule that demands too much fails as well as one that demands too little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
import torch.nn.functional as F
from helpers.rules import Forward, Net, case, example, freedom
from torch import Tensor

IMAGE = example(2, 3, 5, 5)


def hidden(p: Net, x: Tensor) -> Tensor:
    return torch.tanh(x @ p.a)


def expanded_twice(p: Net, x: Tensor) -> Tensor:
    wide = hidden(p, x)[:, None].expand(2, 4, 3)
    return (wide * p.s).flatten(1) @ p.c + (wide * p.t).flatten(1) @ p.d


def even_shared(p: Net, x: Tensor) -> Tensor:
    """One tensor of zeros couples nothing, however often it is used."""
    zeros = torch.zeros(6)
    return (hidden(p, x) + zeros) @ p.c + (torch.tanh(x @ p.b) + zeros) @ p.d


def even_written(p: Net, x: Tensor) -> Tensor:
    """It is not constant once it has been written to."""
    zeros = torch.zeros(6)
    zeros.add_(p.s)
    return (hidden(p, x) + zeros) @ p.c + (torch.tanh(x @ p.b) + zeros) @ p.d


def buffer_written(p: Net, x: Tensor) -> Tensor:
    buffer = x.new_empty(2, 6)
    buffer.copy_(hidden(p, x))
    buffer[:, :2] = 0
    return buffer @ p.c


SHAPES = [
    case(
        "repeat",
        lambda p, x: hidden(p, x).repeat(1, 2) * p.s @ p.c,
        "a: _5, A3; s: B2 A3; c: B2 A3, _2; B2 in A3",
        a=(5, 3),
        s=(6,),
        c=(6, 2),
    ),
    case(
        "repeat_interleave",
        lambda p, x: hidden(p, x).repeat_interleave(2, 1) * p.s @ p.c,
        "a: _5, A3; s: A3 B2; c: A3 B2, _2; B2 in A3",
        a=(5, 3),
        s=(6,),
        c=(6, 2),
    ),
    case(
        "expand",
        lambda p, x: (hidden(p, x)[:, None].expand(2, 4, 3) * p.s).flatten(1) @ p.c,
        "a: _5, A3; s: B4, A3; c: B4 A3, _2",
        a=(5, 3),
        s=(4, 3),
        c=(12, 2),
    ),
    case(
        "expand twice apart",
        expanded_twice,
        "a: _5, A3; s: B4, A3; t: C4, A3; c: B4 A3, _2; d: C4 A3, _2",
        a=(5, 3),
        s=(4, 3),
        t=(4, 3),
        c=(12, 2),
        d=(12, 2),
    ),
    case(
        "permute",
        lambda p, x: hidden(p, x).view(2, 2, 3).permute(0, 2, 1).flatten(1) @ p.c,
        "a: _5, A2 B3; c: B3 A2, _2; B3 in A2",
        a=(5, 6),
        c=(6, 2),
    ),
    case(
        "movedim",
        lambda p, x: hidden(p, x).view(2, 2, 3).movedim(1, -1).flatten(1) @ p.c,
        "a: _5, A2 B3; c: B3 A2, _2; B3 in A2",
        a=(5, 6),
        c=(6, 2),
    ),
    case(
        "transposes",
        lambda p, x: (p.b @ hidden(p, x).t().mT.T).T @ p.c,
        "a: _5, A6; b: B4, A6; c: B4, _2",
        a=(5, 6),
        b=(4, 6),
        c=(4, 2),
    ),
    case(
        "view misfit",
        lambda p, x: hidden(p, x).view(2, 2, 3).transpose(1, 2).reshape(2, 2, 3).transpose(1, 2).flatten(1) @ p.c,
        "a: _5, _6; c: _6, _2",
        a=(5, 6),
        c=(6, 2),
    ),
    case(
        "diagonal",
        lambda p, x: hidden(p, x) * torch.diagonal(p.b) @ p.c,
        "a: _5, A6; b: A6, A6; c: A6, _2",
        a=(5, 6),
        b=(6, 6),
        c=(6, 2),
    ),
    case(
        "diag_embed",
        lambda p, x: (torch.diag_embed(hidden(p, x)) @ p.b).sum(2) @ p.c,
        "a: _5, A6; b: A6, B4; c: A6, _2",
        a=(5, 6),
        b=(6, 4),
        c=(6, 2),
    ),
    case(
        "complex rotary",
        lambda p, x: (
            torch.view_as_real(
                torch.view_as_complex(hidden(p, x).view(2, 2, 3, 2)) * torch.polar(torch.ones(3), torch.arange(3.0))
            ).flatten(1)
            @ p.c
        ),
        "a: _5, A2 _6; c: A2 _6, _2",
        a=(5, 12),
        c=(12, 2),
    ),
    case(
        "complex product",
        lambda p, x: (
            torch.view_as_real(torch.view_as_complex(hidden(p, x).view(2, 2, 3, 2)) * torch.complex(p.r, p.i)).flatten(
                1
            )
            @ p.c
        ),
        "a: _5, A2 B3 _2; r: B3; i: B3; c: A2 B3 _2, _2",
        a=(5, 12),
        r=(3,),
        i=(3,),
        c=(12, 2),
    ),
    case(
        "channel_shuffle",
        lambda p, x: F.channel_shuffle(F.conv2d(x, p.a), 2).mean((2, 3)) @ p.c,
        "a: A2 B3, _3, _3, _3; c: B3 A2, _2; B3 in A2",
        inputs=[IMAGE],
        a=(6, 3, 3, 3),
        c=(6, 2),
    ),
    case(
        "pixel_shuffle",
        lambda p, x: F.conv2d(F.pixel_shuffle(F.conv2d(x, p.a), 2), p.b).mean((2, 3)) @ p.c,
        "a: A2 _4, _3, _3, _3; b: B3, A2, _2, _2; c: B3, _2",
        inputs=[IMAGE],
        a=(8, 3, 3, 3),
        b=(3, 2, 2, 2),
        c=(3, 2),
    ),
    case(
        "pixel_unshuffle",
        lambda p, x: F.conv2d(F.pixel_unshuffle(F.conv2d(x, p.a), 2), p.b).mean((2, 3)) @ p.c,
        "a: A2, _3, _2, _2; b: B3, A2 _4, _1, _1; c: B3, _2",
        inputs=[IMAGE],
        a=(2, 3, 2, 2),
        b=(3, 8, 1, 1),
        c=(3, 2),
    ),
    case(
        "tied even",
        lambda p, x: (torch.zeros(6) + p.b + hidden(p, x)) @ p.c + (torch.zeros(6) + p.d) @ p.c,
        "a: _5, A6; b: A6; c: A6, _2; d: A6",
        a=(5, 6),
        b=(6,),
        c=(6, 2),
        d=(6,),
    ),
    case(
        "even shared", even_shared, "a: _5, A6; b: _5, B6; c: A6, _2; d: B6, _2", a=(5, 6), b=(5, 6), c=(6, 2), d=(6, 2)
    ),
    case(
        "even written",
        even_written,
        "a: _5, A6; b: _5, A6; s: A6; c: A6, _2; d: A6, _2",
        a=(5, 6),
        b=(5, 6),
        s=(6,),
        c=(6, 2),
        d=(6, 2),
    ),
    case("buffer written", buffer_written, "a: _5, A2 | B4; c: A2 | B4, _2", a=(5, 6), c=(6, 2)),
    case("arange", lambda p, x: hidden(p, x) * torch.arange(6) @ p.c, "a: _5, _6; c: _6, _2", a=(5, 6), c=(6, 2)),
]

CUTS = [
    case("chunk glu", lambda p, x: F.glu(x @ p.a) @ p.c, "a: _5, A3 | A3; c: A3, _2", a=(5, 6), c=(3, 2)),
    case(
        "cat",
        lambda p, x: torch.cat([hidden(p, x), torch.tanh(x @ p.b)], 1) @ p.c,
        "a: _5, A2; b: _5, B4; c: A2 | B4, _2",
        a=(5, 2),
        b=(5, 4),
        c=(6, 2),
    ),
    case(
        "cat case",
        lambda p, x: (torch.cat([hidden(p, x), torch.tanh(x @ p.b)]) @ p.c).sum(0),
        "a: _5, A4; b: _5, A4; c: A4, _2",
        a=(5, 4),
        b=(5, 4),
        c=(4, 2),
    ),
    case(
        "cat apart again",
        lambda p, x: (lambda u, v: u @ p.c + v @ p.d)(*torch.cat([hidden(p, x), torch.tanh(x @ p.b)]).chunk(2)),
        "a: _5, A4; b: _5, B4; c: A4, _2; d: B4, _2",
        a=(5, 4),
        b=(5, 4),
        c=(4, 2),
        d=(4, 2),
    ),
    case(
        "stack experts",
        lambda p, x: torch.stack([torch.tanh(x @ w) @ v for w, v in ((p.a, p.c), (p.b, p.d))]).sum(0) @ p.e,
        "a: _5, A4; b: _5, B4; c: A4, C3; d: B4, C3; e: C3, _2",
        a=(5, 4),
        b=(5, 4),
        c=(4, 3),
        d=(4, 3),
        e=(3, 2),
    ),
    case(
        "stack bmm",
        lambda p, x: torch.bmm(torch.tanh(torch.stack([x @ p.a, x @ p.b])), p.c).sum(0),
        "a: _5, A4; b: _5, B4; c: [s0 = _1 | _1], [s0 ? A4 | B4], _3",
        a=(5, 4),
        b=(5, 4),
        c=(2, 4, 3),
    ),
    case(
        "qkv chunks",
        lambda p, x: (lambda q, k, v: (q.transpose(0, 1) @ k @ v.T).T @ p.c)(*(x @ p.a).chunk(3, -1)),
        "a: _5, A3 | B3 | B3; c: A3, _2",
        a=(5, 9),
        c=(3, 2),
    ),
    case(
        "unbind",
        lambda p, x: (lambda u, v: u * v)(*hidden(p, x).view(2, 2, 3).unbind(1)) @ p.c,
        "a: _5, A3 | A3; c: A3, _2",
        a=(5, 6),
        c=(3, 2),
    ),
    case(
        "select",
        lambda p, x: hidden(p, x).view(2, 3, 2).select(1, 1) @ p.c + hidden(p, x).view(2, 3, 2).sum(1) @ p.d,
        "a: _5, A2 | A2 | A2; c: A2, _2; d: A2, _2",
        a=(5, 6),
        c=(2, 2),
        d=(2, 2),
    ),
    case(
        "slices",
        lambda p, x: hidden(p, x)[:, :2] @ p.c + hidden(p, x)[:, 3:] @ p.d,
        "a: _5, A2 | _1 | B3; c: A2, _2; d: B3, _2",
        a=(5, 6),
        c=(2, 2),
        d=(3, 2),
    ),
    case(
        "slice step",
        lambda p, x: hidden(p, x)[:, ::2] * torch.sin(hidden(p, x)[:, 1::2]) @ p.c,
        "a: _5, A3 _2; c: A3, _2",
        a=(5, 6),
        c=(3, 2),
    ),
    case(
        "slice uneven",
        lambda p, x: hidden(p, x)[:, ::2] @ p.c + hidden(p, x) @ p.d,
        "a: _5, _5; c: _3, _2; d: _5, _2",
        a=(5, 5),
        c=(3, 2),
        d=(5, 2),
    ),
    case(
        "pad",
        lambda p, x: (F.pad(hidden(p, x), (2, 1)) * p.s + p.b) @ p.c,
        "a: _5, A4; s: B2 | A4 | _1; b: B2 | A4 | _1; c: B2 | A4 | _1, _2",
        a=(5, 4),
        s=(7,),
        b=(7,),
        c=(7, 2),
    ),
    case(
        "pad crop",
        lambda p, x: F.pad(hidden(p, x), (-1, 2)) @ p.c,
        "a: _5, _1 | A3; c: A3 | B2, _2",
        a=(5, 4),
        c=(5, 2),
    ),
    case(
        "pad reflect",
        lambda p, x: F.pad(hidden(p, x), (2, 1), mode="reflect") @ p.c,
        "a: _5, _4; c: _7, _2",
        a=(5, 4),
        c=(7, 2),
    ),
    case(
        "slice_scatter",
        lambda p, x: torch.slice_scatter(hidden(p, x), torch.tanh(x @ p.b), 1, 2, 4) @ p.c,
        "a: _5, A2 | B2 | C2; b: _5, B2; c: A2 | B2 | C2, _2",
        a=(5, 6),
        b=(5, 2),
        c=(6, 2),
    ),
    case(
        "slice_scatter zeros",
        lambda p, x: torch.slice_scatter(torch.zeros(2, 6), torch.tanh(x @ p.b), 1, 2, 4) @ p.c,
        "b: _5, A2; c: B2 | A2 | C2, _2",
        b=(5, 2),
        c=(6, 2),
    ),
    case(
        "select_scatter",
        lambda p, x: torch.select_scatter(hidden(p, x).view(2, 3, 2), torch.tanh(x @ p.b), 1, 0).flatten(1) @ p.c,
        "a: _5, A2 | a:b a:c; b: _5, A2; c: A2 | a:b a:c, _2",
        a=(5, 6),
        b=(5, 2),
        c=(6, 2),
    ),
]


@pytest.mark.parametrize(("forward", "shapes", "inputs", "expected"), SHAPES)
def test_shape(
    forward: Forward, shapes: Mapping[str, Sequence[int]], inputs: tuple[Tensor, ...], expected: str
) -> None:
    assert freedom(forward, shapes, *inputs) == expected


@pytest.mark.parametrize(("forward", "shapes", "inputs", "expected"), CUTS)
def test_cut(forward: Forward, shapes: Mapping[str, Sequence[int]], inputs: tuple[Tensor, ...], expected: str) -> None:
    assert freedom(forward, shapes, *inputs) == expected
