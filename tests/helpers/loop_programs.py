"""Random loops over modules of one kind: routers, experts, ways in which turns come together, and ways to spoil it."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

TURNS = 3
WIDTH = 4


class Gated(nn.Module):
    """Two projections, one of which gates the other."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.gate, self.down = nn.Linear(WIDTH, 6), nn.Linear(WIDTH, 6, bias=False), nn.Linear(6, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.up(x) * torch.sigmoid(self.gate(x)))
        return y


class Normed(nn.Module):
    """Operators in place, a norm with statistics and a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(WIDTH, 5), nn.BatchNorm1d(5), nn.Linear(5, WIDTH, bias=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.norm(self.up(x)))
        y += 0.5
        return x + self.down(y)


class Heads(nn.Module):
    """A view that nests units in heads, and a choice by an index of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.scale = nn.Linear(WIDTH, 6), nn.Linear(6, WIDTH), nn.Parameter(torch.randn(2))

    def forward(self, x: Tensor) -> Tensor:
        heads = self.up(x).tanh().unflatten(-1, (2, 3)) * self.scale[:, None]
        best = heads.sum(-1).argmax(-1, keepdim=True)
        chosen = heads.gather(1, best.unsqueeze(-1).expand(-1, 1, 3)).expand(-1, 2, -1)
        y: Tensor = self.down((heads + chosen).flatten(-2))
        return y


class Nest(nn.Module):
    """A list in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(TURNS))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([part(x).relu() for part in self.parts]).sum(0)


EXPERTS = (Gated, Normed, Heads, Nest)
ROUTERS = ("softmax", "topk", "one_hot", "unbind", "chunk", "none")
TOGETHER = ("stack", "stack last", "cat", "sum", "add", "iadd", "from input", "pairs", "reverse", "einsum")
SPOILED = (*[""] * 8, "scaled", "first again", "partial", "written", "numbered", "swapped", "leaks", "ordered")


class Layer(nn.Module):
    """One loop. ``log``: what was drawn; ``spoiled``: what makes the turns differ, if anything."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        kind = draw.choice(EXPERTS)
        self.router = nn.Linear(WIDTH, TURNS)
        self.experts = nn.ModuleList(kind() for _ in range(TURNS))
        self.after = nn.Linear(TURNS * WIDTH, WIDTH)
        self.how, self.together, self.spoiled = draw.choice(ROUTERS), draw.choice(TOGETHER), draw.choice(SPOILED)
        self.log = f"{kind.__name__}, {self.how}, {self.together}, {self.spoiled or 'as it is'}"

    def shares(self, x: Tensor) -> list[Tensor]:
        scores = self.router(x)
        if self.how == "none":
            return [x.new_ones(())] * TURNS
        if self.how == "softmax":
            scores = scores.softmax(-1)
            return [scores[:, k, None] for k in range(TURNS)]
        if self.how == "unbind":
            return [share.unsqueeze(-1) for share in scores.sigmoid().unbind(1)]
        if self.how == "chunk":
            return list(scores.tanh().chunk(TURNS, -1))
        values, chosen = scores.softmax(-1).topk(2)
        if self.how == "topk":
            return [(values * (chosen == k)).sum(-1, keepdim=True) for k in range(TURNS)]
        mask = nn.functional.one_hot(chosen, TURNS).permute(2, 1, 0)
        return [(mask[k] * values.transpose(0, 1)).sum(0).unsqueeze(-1) for k in range(TURNS)]

    def turn(self, k: int, x: Tensor, share: Tensor) -> Tensor:
        if self.spoiled == "written":
            x.mul_(1.5)
        if self.spoiled == "numbered":
            x = x + k
        if self.spoiled == "swapped":
            k = (1, 0, 2)[k]
        y: Tensor = self.experts[k](x) * share
        return y * 2 if self.spoiled == "scaled" and k == 1 else y

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        turns = range(TURNS)
        shares = self.shares(x)
        if self.together in ("add", "iadd", "from input"):
            total = x if self.together == "from input" else torch.zeros_like(x)
            for k in turns:
                if self.together == "iadd":
                    total += self.turn(k, x, shares[k])
                else:
                    total = total + self.turn(k, x, shares[k])
                if self.spoiled == "partial" and k == 1:
                    x = x + total.relu()
            return total
        outs = [self.turn(k, x, shares[k]) for k in turns]
        if self.spoiled == "first again":
            x = x + self.experts[0](x)
        if self.spoiled == "leaks":
            x = x + outs[2].tanh()
        return x + self.joined(outs)

    def joined(self, outs: list[Tensor]) -> Tensor:
        if self.together == "sum":
            return sum(outs[1:], outs[0])
        if self.together == "pairs":
            return outs[1] + outs[0] + outs[2]
        if self.together == "cat":
            y: Tensor = self.after(torch.cat(outs, -1))
            return y
        if self.together == "reverse":
            return torch.stack(outs[::-1]).sum(0)
        stack = torch.stack(outs, -1 if self.together == "stack last" else 0)
        if self.together == "stack last":
            return stack.cumsum(-1).mean(-1) if self.spoiled == "ordered" else stack.amax(-1)
        if self.together == "einsum":
            return torch.einsum("ebc,ebd->bc", stack, stack)
        return stack[0] + stack.mean(0) if self.spoiled == "ordered" else stack.square().sum(0)


class LoopProgram(nn.Module):
    """Layers in a list that is as long as those in them, or shorter; or members of an ensemble."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        draw = random.Random(seed)
        self.enter = nn.Linear(3, WIDTH)
        self.layers = nn.ModuleList(Layer(draw) for _ in range(draw.choice((1, 2, TURNS))))
        if draw.random() < 0.3:
            again = random.Random(seed + 1).getstate()
            layers = []
            for _ in range(draw.choice((2, TURNS))):
                draw.setstate(again)
                layers.append(Layer(draw))
            self.layers = nn.ModuleList(layers)
        self.beside = draw.random() < 0.3
        self.leave = nn.Linear(WIDTH, 2)
        self.log = " | ".join(layer.log for layer in self.layers)  # type: ignore[misc]

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        if self.beside:
            return torch.stack([self.leave(layer(x)).softmax(-1) for layer in self.layers]).mean(0)
        for layer in self.layers:
            x = x + layer(x)
        y: Tensor = self.leave(x)
        return y

    def example(self) -> Tensor:
        return torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
