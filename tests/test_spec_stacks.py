"""Stacks: the order of modules that a state dict holds one by one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lmcfast
from lmcfast import analysis
from lmcfast.errors import InvalidParamsError, SpecError
from lmcfast.matching.weight_matching import weight_matching
from lmcfast.params import apply_permutations, distance, invert_permutations
from lmcfast.spec import Group, PermutationSpec, derive_spec, stacked, unstacked, verify_spec


class Experts(nn.Module):
    """A soft mixture of experts that are modules of their own."""

    def __init__(self, number: int = 5) -> None:
        super().__init__()
        self.gate = nn.Linear(4, number)
        self.up = nn.ModuleList(nn.Linear(4, 6) for _ in range(number))
        self.down = nn.ModuleList(nn.Linear(6, 3) for _ in range(number))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shares = self.gate(x).softmax(-1)
        each = torch.stack([down(up(x).tanh()) for up, down in zip(self.up, self.down, strict=True)], dim=-1)
        out: torch.Tensor = (each * shares.unsqueeze(-2)).sum(-1)
        return out


def spec() -> PermutationSpec:
    return PermutationSpec.from_axes(
        {
            "gate.weight": ("expert", None),
            "gate.bias": ("expert",),
            "up.*.weight": ("expert", "unit", None),
            "up.*.bias": ("expert", "unit"),
            "down.*.weight": ("expert", None, "unit"),
            "down.*.bias": ("expert", None),
        },
        groups=[Group("unit", within=("expert",))],
        stacks=dict.fromkeys(("up.*.weight", "up.*.bias", "down.*.weight", "down.*.bias"), 5),
    )


@pytest.fixture
def module() -> Experts:
    torch.manual_seed(0)
    return Experts()


def test_the_order_of_experts_is_proved(module: Experts) -> None:
    report = verify_spec(spec(), module, torch.randn(7, 4))
    assert report.max_error < 1e-12
    assert not report.insensitive
    axes = {name: layouts for name, layouts in spec().axes.items() if name != "gate.bias"}
    wrong = PermutationSpec.from_axes({**axes, "gate.bias": (None,)}, groups=spec().groups, stacks=spec().stacks)
    with pytest.raises(SpecError, match=r"gate\.bias"):
        verify_spec(wrong, module, torch.randn(7, 4))


def test_state_dicts_move_one_by_one(module: Experts) -> None:
    params = module.state_dict()
    bound = spec().bind(stacked(spec(), params))
    setting = bound.random_permutations(1)
    moved = apply_permutations(spec(), setting, params)
    assert list(moved) == list(params)
    old = int(setting["expert"][0])
    assert torch.equal(moved["up.0.weight"], params[f"up.{old}.weight"][setting["unit"][0]])
    back = apply_permutations(bound, invert_permutations(bound, setting), moved)
    assert all(torch.equal(back[name], params[name]) for name in params)
    assert distance(bound, params, back) == 0
    assert distance(bound, params, moved) > 0
    x = torch.randn(3, 4)
    before = module(x)
    module.load_state_dict(moved)
    assert torch.allclose(module(x), before, atol=1e-6)


def test_matching_finds_the_order_of_experts_and_their_units(module: Experts) -> None:
    params = module.state_dict()
    hidden = spec().bind(stacked(spec(), params)).random_permutations(3)
    moved = apply_permutations(spec(), hidden, params)
    result = weight_matching(spec(), params, moved)
    aligned = result.apply(moved)
    assert list(aligned) == list(params)
    assert all(torch.equal(aligned[name], params[name]) for name in params)
    assert result.spec.stacks == spec().stacks


def test_the_derivation_finds_the_same(module: Experts) -> None:
    x = torch.randn(7, 4)
    derived = derive_spec(module, x)
    assert derived.same(spec().bind(stacked(spec(), module.state_dict())))


def test_who_takes_the_tensors_one_by_one(module: Experts) -> None:
    params = module.state_dict()
    bound = spec().bind(stacked(spec(), params))
    moved = [apply_permutations(bound, bound.random_permutations(seed), params) for seed in (1, 2)]
    many = lmcfast.match_many(spec(), [params, *moved], "anchor")
    assert all(torch.equal(found[name], params[name]) for found in many.apply() for name in params)
    scores = lmcfast.similarity(spec(), "expert", params, params)
    assert torch.allclose(scores, lmcfast.similarity(spec(), "expert", stacked(spec(), params), params))
    with pytest.raises(InvalidParamsError, match=r"up\.\*\.weight.* one by one .*stacked"):
        analysis.singular_alignment(spec(), params, params)


def test_there_and_back(module: Experts) -> None:
    params = module.state_dict()
    whole = stacked(spec(), params)
    assert whole["up.*.weight"].shape == (5, 6, 4)
    back = unstacked(spec(), whole)
    assert back.keys() == params.keys()
    assert all(torch.equal(back[name], params[name]) for name in params)


@pytest.mark.parametrize(
    ("stacks", "reason"),
    [
        ({"a.weight": 2}, "one part"),
        ({"b.*.weight": 2}, "not a tensor with an entry"),
        ({"c.*.weight": 2}, "first axis 3"),
    ],
)
def test_stacks_that_do_not_fit(stacks: dict[str, int], reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        PermutationSpec.from_axes({"a.weight": ("h",), "c.*.weight": ("_3", "h")}, stacks=stacks)
