"""Loops over modules in a list: the order of the modules moves where that is sound, and stays where it is not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
import torch
from helpers import loop_programs
from helpers.loop_programs import EXPERTS, ROUTERS, TOGETHER, TURNS, WIDTH, Layer, LoopProgram
from torch import nn

from lmcfast.errors import SpecError
from lmcfast.spec import PermutationSpec, derive_spec, verify_spec
from lmcfast.spec.layout import atoms, format_layout

COUNT = int(os.environ.get("LMCFAST_LOOP_PROGRAMS", "24"))
ORDERED = {"reverse"}
"""Ways to put turns together in which their order is not followed."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class One(nn.Module):
    """One loop, chosen."""

    def __init__(self, kind: Callable[[], nn.Module], how: str, together: str, spoiled: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 2)
        self.layer = Layer(loop_programs.random.Random(0))
        self.layer.experts = nn.ModuleList(kind() for _ in range(TURNS))
        self.layer.how, self.layer.together, self.layer.spoiled = how, together, spoiled

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        y: torch.Tensor = self.leave(x + self.layer(x))
        return y


def proved(module: nn.Module) -> PermutationSpec:
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    spec = derive_spec(module, x)
    verify_spec(spec, module, x)
    return spec


def order_moves(spec: PermutationSpec) -> bool:
    return any(name.startswith("layer.experts.*") for name in spec.stacks)


@pytest.mark.parametrize("how", ROUTERS)
def test_routers(how: str) -> None:
    spec = proved(One(EXPERTS[0], how, "sum"))
    assert order_moves(spec)
    order, units, _ = map(format_layout, spec.axes["layer.experts.*.up.weight"])
    assert order is not None
    assert units is not None
    assert spec.groups[units].within == (order,)
    if how != "none":
        assert format_layout(spec.axes["layer.router.weight"][0]) == order


@pytest.mark.parametrize("together", TOGETHER)
def test_where_turns_come_together(together: str) -> None:
    assert order_moves(proved(One(EXPERTS[0], "softmax", together))) == (together not in ORDERED)


@pytest.mark.parametrize("kind", EXPERTS[1:3])
def test_experts(kind: type[nn.Module]) -> None:
    assert order_moves(proved(One(kind, "chunk", "iadd")))


def test_of_lists_in_lists_the_inner_ones_move() -> None:
    assert set(proved(One(EXPERTS[3], "chunk", "iadd")).stacks.values()) == {TURNS}


@pytest.mark.parametrize(
    ("together", "spoiled"),
    [
        ("sum", "scaled"),
        ("stack", "first again"),
        ("add", "partial"),
        ("iadd", "partial"),
        ("stack", "written"),
        ("iadd", "numbered"),
        ("cat", "swapped"),
        ("sum", "leaks"),
        ("stack last", "ordered"),
    ],
)
def test_turns_that_differ_keep_their_places(together: str, spoiled: str) -> None:
    module = One(EXPERTS[0], "softmax", together, spoiled)
    spec = proved(module)
    assert not order_moves(spec)
    assert any(name.startswith("layer.experts.1.up") for name in spec.axes)


def test_the_others_may_change_places_where_one_is_special() -> None:
    spec = proved(One(EXPERTS[0], "softmax", "stack", "ordered"))
    order = spec.axes["layer.experts.*.up.weight"][0]
    assert [spec.groups[name].size for name in atoms(order)] == [TURNS - 1]


class Parallel(nn.Module):
    """Projections in lists beside each other, in a network that is an ensemble."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.ups = nn.ModuleList(nn.Linear(3, 5) for _ in range(2))
        self.downs = nn.ParameterList(torch.randn(5, 2) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.ups[0](x).relu() @ self.downs[0]).softmax(-1) + (self.ups[1](x).relu() @ self.downs[1]).softmax(-1)


def test_the_members_of_an_ensemble_may_change_places() -> None:
    spec = proved(Parallel())
    assert spec.stacks == {"ups.*.weight": 2, "ups.*.bias": 2, "downs.*": 2}
    assert sorted(len(spec.groups[name].within) for name in spec.movable_groups) == [0, 1]


class Picking(Layer):
    """Each expert sees only its own tokens."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shares, chosen = self.router(x).softmax(-1).topk(2)
        out = torch.zeros_like(x)
        for k, expert in enumerate(self.experts):
            token, slot = torch.where(chosen == k)
            out.index_add_(0, token, expert(x[token]) * shares[token, slot, None])
        return out


def test_loops_over_the_tokens_of_each_expert_are_an_error() -> None:
    module = Picking(loop_programs.random.Random(0))
    module.experts = nn.ModuleList(EXPERTS[0]() for _ in range(TURNS))
    with pytest.raises(SpecError, match="where a loop picks the tokens of each expert"):
        derive_spec(module, torch.randn(7, WIDTH))


def test_layers_one_after_the_other_keep_their_places() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    assert proved(nn.Sequential(*(module[k] for k in (0, 2, 4)))).stacks == {}
    assert proved(module).stacks == {}


def test_the_spec_of_a_loop_is_written_and_read() -> None:
    spec = proved(One(EXPERTS[1], "topk", "iadd"))
    assert spec.same(PermutationSpec.from_toml(spec.to_toml()))
    assert "layer.experts.*.norm.running_mean" in spec.buffers


def check(seed: int) -> int:
    program = LoopProgram(seed)
    try:
        return len(proved(program).stacks)
    except Exception as error:
        raise AssertionError(f"program {seed}: {program.log}: {error}") from error


def test_random_loops() -> None:
    assert sum(check(seed) > 0 for seed in range(COUNT)) > COUNT // 8


@pytest.mark.long
def test_many_random_loops() -> None:
    for seed in range(COUNT, 1000):
        check(seed)
