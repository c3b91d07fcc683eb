"""Rules for norms, reductions, operators in which order matters, and recurrent layers.

Each row gives what may move, as text: a rule that demands too much fails as well as one that demands too little.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
import torch.nn.functional as F
from helpers.rules import Forward, Net, case, described, example, freedom, proved
from torch import Tensor, nn

from lmcfast.errors import SpecError
from lmcfast.spec import derive_spec

SEQUENCE = example(2, 4, 5)
IMAGE = example(2, 3, 5, 5)


def hidden(p: Net, x: Tensor) -> Tensor:
    return torch.tanh(x @ p.a)


NORMS = [
    case(
        "layer_norm",
        lambda p, x: F.layer_norm(x @ p.a, (6,), p.g, p.h) @ p.c,
        "a: _5, A6; g: A6; h: A6; c: A6, _2",
        a=(5, 6),
        g=(6,),
        h=(6,),
        c=(6, 2),
    ),
    case(
        "layer_norm joint",
        lambda p, x: F.layer_norm((x @ p.a).view(2, 2, 3), (2, 3)).flatten(1) @ p.c,
        "a: _5, A2 B3; c: A2 B3, _2; B3 in A2",
        a=(5, 6),
        c=(6, 2),
    ),
    case(
        "rms_norm",
        lambda p, x: F.rms_norm(x @ p.a, (6,), p.g) @ p.c,
        "a: _5, A6; g: A6; c: A6, _2",
        a=(5, 6),
        g=(6,),
        c=(6, 2),
    ),
    case(
        "group_norm",
        lambda p, x: F.group_norm(F.conv2d(x, p.a), 2, p.g, p.h).tanh().mean((2, 3)) @ p.c,
        "a: A2 B3, _3, _3, _3; g: A2 B3; h: A2 B3; c: A2 B3, _2; B3 in A2",
        inputs=[IMAGE],
        a=(6, 3, 3, 3),
        g=(6,),
        h=(6,),
        c=(6, 2),
    ),
    case(
        "instance_norm",
        lambda p, x: F.instance_norm(F.conv2d(x, p.a), weight=p.g, bias=p.h).tanh().mean((2, 3)) @ p.c,
        "a: A6, _3, _3, _3; g: A6; h: A6; c: A6, _2",
        inputs=[IMAGE],
        a=(6, 3, 3, 3),
        g=(6,),
        h=(6,),
        c=(6, 2),
    ),
    case(
        "batch_norm stats",
        lambda p, x: F.batch_norm(x @ p.a, None, None, p.g, p.h, training=True) @ p.c,
        "a: _5, A6; g: A6; h: A6; c: A6, _2",
        inputs=[example(7, 5)],
        a=(5, 6),
        g=(6,),
        h=(6,),
        c=(6, 2),
    ),
    case(
        "weight_norm",
        lambda p, x: torch.tanh(x @ torch._weight_norm(p.v, p.g, 0).T) @ p.c,
        "v: A6, _5; g: A6, _1; c: A6, _2",
        v=(6, 5),
        g=(6, 1),
        c=(6, 2),
    ),
]

REDUCTIONS = [
    case("softmax", lambda p, x: (x @ p.a).softmax(-1) @ p.c, "a: _5, A6; c: A6, _2", a=(5, 6), c=(6, 2)),
    case(
        "softmax nested",
        lambda p, x: (x @ p.a).view(2, 2, 3).softmax(1).flatten(1) @ p.c,
        "a: _5, A2 B3; c: A2 B3, _2",
        a=(5, 6),
        c=(6, 2),
    ),
    case(
        "sum outer", lambda p, x: hidden(p, x).view(2, 2, 3).sum(1) @ p.c, "a: _5, A2 B3; c: B3, _2", a=(5, 6), c=(3, 2)
    ),
    case(
        "sum inner",
        lambda p, x: (hidden(p, x) * p.s).view(2, 2, 3).sum(2) @ p.c,
        "a: _5, A2 B3; s: A2 B3; c: A2, _2; B3 in A2",
        a=(5, 6),
        s=(6,),
        c=(2, 2),
    ),
    case(
        "var std",
        lambda p, x: (lambda y: (y / y.std(-1, keepdim=True) + y.var(1, keepdim=True)) @ p.c)(hidden(p, x)),
        "a: _5, A6; c: A6, _2",
        a=(5, 6),
        c=(6, 2),
    ),
    case(
        "var_mean",
        lambda p, x: (lambda y: (lambda v, m: (y - m) / v)(*torch.var_mean(y, 1, keepdim=True)))(hidden(p, x)) @ p.c,
        "a: _5, A6; c: A6, _2",
        a=(5, 6),
        c=(6, 2),
    ),
    case(
        "vector_norm", lambda p, x: F.normalize(hidden(p, x), dim=-1) @ p.c, "a: _5, A6; c: A6, _2", a=(5, 6), c=(6, 2)
    ),
    case("norm all", lambda p, x: hidden(p, x) / hidden(p, x).norm() @ p.c, "a: _5, A6; c: A6, _2", a=(5, 6), c=(6, 2)),
    case(
        "amax logsumexp",
        lambda p, x: (lambda y: (y - y.amax(1, keepdim=True) - y.logsumexp(1, keepdim=True)) @ p.c)(hidden(p, x)),
        "a: _5, A6; c: A6, _2",
        a=(5, 6),
        c=(6, 2),
    ),
    case(
        "max dim",
        lambda p, x: (
            lambda y: (
                (y - y.max(1, keepdim=True)[0] - y.min(1, keepdim=True).values + y.median(1, keepdim=True)[0]) @ p.c
            )
        )(hidden(p, x)),
        "a: _5, A6; c: A6, _2",
        a=(5, 6),
        c=(6, 2),
    ),
    case(
        "max all",
        lambda p, x: (hidden(p, x) - hidden(p, x).max() + torch.max(hidden(p, x), hidden(p, x) * 2)) @ p.c,
        "a: _5, A6; c: A6, _2",
        a=(5, 6),
        c=(6, 2),
    ),
    case(
        "topk values",
        lambda p, x: (hidden(p, x) * p.s).topk(3)[0] @ p.c,
        "a: _5, A6; s: A6; c: _3, _2",
        a=(5, 6),
        s=(6,),
        c=(3, 2),
    ),
    case("kthvalue", lambda p, x: (hidden(p, x) * p.s).kthvalue(2)[0], "a: _5, A6; s: A6", a=(5, 6), s=(6,)),
    case(
        "sort values",
        lambda p, x: (hidden(p, x) * p.s).sort(-1)[0] @ p.c,
        "a: _5, A6; s: A6; c: _6, _2",
        a=(5, 6),
        s=(6,),
        c=(6, 2),
    ),
    case(
        "cosine",
        lambda p, x: F.cosine_similarity(hidden(p, x), torch.tanh(x @ p.b), dim=-1),
        "a: _5, A6; b: _5, A6",
        a=(5, 6),
        b=(5, 6),
    ),
]

ORDERED = [
    case("cumsum", lambda p, x: hidden(p, x).cumsum(-1) @ p.c, "a: _5, _6; c: _6, _2", a=(5, 6), c=(6, 2)),
    case(
        "cumsum outer",
        lambda p, x: hidden(p, x).view(2, 2, 3).cumsum(1).flatten(1) @ p.c,
        "a: _5, _2 A3; c: _2 A3, _2",
        a=(5, 6),
        c=(6, 2),
    ),
    case("flip", lambda p, x: hidden(p, x).flip(-1) @ p.c, "a: _5, _6; c: _6, _2", a=(5, 6), c=(6, 2)),
    case(
        "roll",
        lambda p, x: hidden(p, x).view(2, 2, 3).roll(1, 2).flatten(1) @ p.c,
        "a: _5, A2 _3; c: A2 _3, _2",
        a=(5, 6),
        c=(6, 2),
    ),
    case(
        "diff",
        lambda p, x: hidden(p, x).view(2, 2, 3).diff(dim=2).flatten(1) @ p.c,
        "a: _5, A2 _3; c: A2 _2, _2",
        a=(5, 6),
        c=(4, 2),
    ),
    case(
        "tril",
        lambda p, x: (torch.tril(p.w) @ hidden(p, x).T).T @ p.c,
        "a: _5, _6; w: _6, _6; c: _6, _2",
        a=(5, 6),
        w=(6, 6),
        c=(6, 2),
    ),
    case(
        "fft",
        lambda p, x: torch.fft.rfft(hidden(p, x).view(2, 6, 3), dim=1).abs().flatten(1) @ p.c,
        "a: _5, _6 A3; c: _4 A3, _2",
        a=(5, 18),
        c=(12, 2),
    ),
    case(
        "fft2",
        lambda p, x: torch.fft.fft2(hidden(p, x).view(2, 3, 2, 3)).real.flatten(1) @ p.c,
        "a: _5, A3 _6; c: A3 _6, _2",
        a=(5, 18),
        c=(18, 2),
    ),
    case(
        "bucketize",
        lambda p, x: torch.bucketize(hidden(p, x), torch.tensor([-0.5, 0.0, 0.5])).to(x.dtype) @ p.c,
        "a: _5, A6; c: A6, _2",
        a=(5, 6),
        c=(6, 2),
    ),
    case("prelu", lambda p, x: F.prelu(x @ p.a, p.s) @ p.c, "a: _5, A6; s: A6; c: A6, _2", a=(5, 6), s=(6,), c=(6, 2)),
    case(
        "where clamp",
        lambda p, x: torch.where(x @ p.a > p.t, x @ p.a, p.b).clamp(min=-1, max=2) @ p.c,
        "a: _5, A6; t: A6; b: A6; c: A6, _2",
        a=(5, 6),
        t=(6,),
        b=(6,),
        c=(6, 2),
    ),
    case("unsupported", lambda p, x: torch.linalg.pinv(x @ p.a).T @ p.c, "a: _5, _6; c: _6, _2", a=(5, 6), c=(6, 2)),
]


@pytest.mark.parametrize(("forward", "shapes", "inputs", "expected"), NORMS)
def test_norm(forward: Forward, shapes: Mapping[str, Sequence[int]], inputs: tuple[Tensor, ...], expected: str) -> None:
    assert freedom(forward, shapes, *inputs) == expected


@pytest.mark.parametrize(("forward", "shapes", "inputs", "expected"), REDUCTIONS)
def test_reduction(
    forward: Forward, shapes: Mapping[str, Sequence[int]], inputs: tuple[Tensor, ...], expected: str
) -> None:
    assert freedom(forward, shapes, *inputs) == expected


@pytest.mark.parametrize(("forward", "shapes", "inputs", "expected"), ORDERED)
def test_ordered_and_pointwise(
    forward: Forward, shapes: Mapping[str, Sequence[int]], inputs: tuple[Tensor, ...], expected: str
) -> None:
    assert freedom(forward, shapes, *inputs) == expected


class Recurrent(nn.Module):
    """A recurrent layer, and a head on a middle step (and last state, where asked for)."""

    def __init__(self, layer: nn.RNNBase, state: bool = False) -> None:
        super().__init__()
        self.layer, self.state = layer, state
        width = (layer.proj_size or layer.hidden_size) * (2 if layer.bidirectional else 1)
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        out, states = self.layer(x)
        middle = self.head(out[:, 2])
        return middle + self.head(states[-1]) if self.state else middle


class Cells(nn.Module):
    """Three steps of cells, written out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.LSTMCell(5, 4), nn.GRUCell(4, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(2, 4)
        g = x.new_zeros(2, 3)
        for step in range(3):
            h, c = self.first(x[:, step], (h, c))
            g = self.second(h, g)
        return self.head(g)


RECURRENT = [
    pytest.param(
        lambda: Recurrent(nn.LSTM(5, 4, 2, batch_first=True)),
        (
            "layer.weight_ih_l0: A4 | A4 | A4 | A4, _5; layer.weight_hh_l0: A4 | A4 | A4 | A4, A4; "
            "layer.bias_ih_l0: A4 | A4 | A4 | A4; layer.bias_hh_l0: A4 | A4 | A4 | A4; "
            "layer.weight_ih_l1: B4 | B4 | B4 | B4, A4; layer.weight_hh_l1: B4 | B4 | B4 | B4, B4; "
            "layer.bias_ih_l1: B4 | B4 | B4 | B4; layer.bias_hh_l1: B4 | B4 | B4 | B4; head.weight: _2, B4; "
            "head.bias: _2"
        ),
        id="lstm",
    ),
    pytest.param(
        lambda: Recurrent(nn.LSTM(5, 4, batch_first=True, bidirectional=True)),
        (
            "layer.weight_ih_l0: A4 | A4 | A4 | A4, _5; layer.weight_hh_l0: A4 | A4 | A4 | A4, A4; "
            "layer.bias_ih_l0: A4 | A4 | A4 | A4; layer.bias_hh_l0: A4 | A4 | A4 | A4; "
            "layer.weight_ih_l0_reverse: B4 | B4 | B4 | B4, _5; "
            "layer.weight_hh_l0_reverse: B4 | B4 | B4 | B4, B4; layer.bias_ih_l0_reverse: B4 | B4 | B4 | B4; "
            "layer.bias_hh_l0_reverse: B4 | B4 | B4 | B4; head.weight: _2, A4 | B4; head.bias: _2"
        ),
        id="bidirectional lstm",
    ),
    pytest.param(
        lambda: Recurrent(nn.LSTM(5, 4, batch_first=True, proj_size=3)),
        (
            "layer.weight_ih_l0: A4 | A4 | A4 | A4, _5; layer.weight_hh_l0: A4 | A4 | A4 | A4, B3; "
            "layer.bias_ih_l0: A4 | A4 | A4 | A4; layer.bias_hh_l0: A4 | A4 | A4 | A4; "
            "layer.weight_hr_l0: B3, A4; head.weight: _2, B3; head.bias: _2"
        ),
        id="projected lstm",
    ),
    pytest.param(
        lambda: Recurrent(nn.GRU(5, 4, batch_first=True), state=True),
        (
            "layer.weight_ih_l0: A4 | A4 | A4, _5; layer.weight_hh_l0: A4 | A4 | A4, A4; "
            "layer.bias_ih_l0: A4 | A4 | A4; layer.bias_hh_l0: A4 | A4 | A4; head.weight: _2, A4; "
            "head.bias: _2"
        ),
        id="gru",
    ),
    pytest.param(
        lambda: Recurrent(nn.GRU(5, 4, 2, batch_first=True, bidirectional=True)),
        (
            "layer.weight_ih_l0: A4 | A4 | A4, _5; layer.weight_hh_l0: A4 | A4 | A4, A4; "
            "layer.bias_ih_l0: A4 | A4 | A4; layer.bias_hh_l0: A4 | A4 | A4; "
            "layer.weight_ih_l0_reverse: B4 | B4 | B4, _5; layer.weight_hh_l0_reverse: B4 | B4 | B4, B4; "
            "layer.bias_ih_l0_reverse: B4 | B4 | B4; layer.bias_hh_l0_reverse: B4 | B4 | B4; "
            "layer.weight_ih_l1: C4 | C4 | C4, A4 | B4; layer.weight_hh_l1: C4 | C4 | C4, C4; "
            "layer.bias_ih_l1: C4 | C4 | C4; layer.bias_hh_l1: C4 | C4 | C4; "
            "layer.weight_ih_l1_reverse: D4 | D4 | D4, A4 | B4; layer.weight_hh_l1_reverse: D4 | D4 | D4, D4; "
            "layer.bias_ih_l1_reverse: D4 | D4 | D4; layer.bias_hh_l1_reverse: D4 | D4 | D4; "
            "head.weight: _2, C4 | D4; head.bias: _2"
        ),
        id="bidirectional gru",
    ),
    pytest.param(
        lambda: Recurrent(nn.RNN(5, 4, batch_first=True, bias=False)),
        "layer.weight_ih_l0: A4, _5; layer.weight_hh_l0: A4, A4; head.weight: _2, A4; head.bias: _2",
        id="rnn",
    ),
    pytest.param(
        Cells,
        (
            "first.weight_ih: A4 | A4 | A4 | A4, _5; first.weight_hh: A4 | A4 | A4 | A4, A4; "
            "first.bias_ih: A4 | A4 | A4 | A4; first.bias_hh: A4 | A4 | A4 | A4; "
            "second.weight_ih: B3 | B3 | B3, A4; second.weight_hh: B3 | B3 | B3, B3; "
            "second.bias_ih: B3 | B3 | B3; second.bias_hh: B3 | B3 | B3; head.weight: _2, B3; head.bias: _2"
        ),
        id="cells",
    ),
]


@pytest.mark.parametrize(("make", "expected"), RECURRENT)
def test_recurrent(make: Callable[[], nn.Module], expected: str) -> None:
    torch.manual_seed(0)
    assert proved(make().eval(), SEQUENCE) == expected


def test_an_operator_without_a_rule_fixes_what_it_touches() -> None:
    net = Net(lambda p, x: (x @ p.b) @ torch.linalg.inv(p.a) @ p.c, {"a": (6, 6), "b": (5, 6), "c": (6, 2)})
    spec = derive_spec(net, (example(2, 5),))
    assert described(spec) == "a: _6, _6; b: _5, _6; c: _6, _2"
    assert "linalg_inv" in str(spec.why_fixed)
    with pytest.raises(SpecError, match="linalg_inv"):
        derive_spec(net, (example(2, 5),), strict=True)
