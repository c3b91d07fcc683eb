"""Activation matching: against moments written out, hidden permutations, nested groups, places, bad input."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pytest
import torch
from helpers.networks import inputs, mlp, randomize
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import lmcfast
from lmcfast.matching.activation import KINDS


def altered(
    module: nn.Module, spec: lmcfast.PermutationSpec, seed: int, noise: float
) -> tuple[nn.Module, dict[str, Tensor]]:
    """A hidden permutation of the network with noise, and the setting that undoes it."""
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    hidden = spec.random_permutations(seed)
    moved = lmcfast.apply_permutations(spec, hidden, state)
    source = torch.Generator().manual_seed(seed)
    for name, tensor in moved.items():
        if tensor.is_floating_point() and tensor.numel() > 1:
            moved[name] = tensor + noise * tensor.std() * torch.randn(tensor.shape, generator=source).abs().sub(0.8)
    other = copy.deepcopy(module)
    other.load_state_dict(moved)
    return other, lmcfast.invert_permutations(spec, hidden)


class Attention(nn.Module):
    """Two blocks of attention with grouped key-value heads: 2 of them, 2 query heads each, 3 units, whose query and key
    units are taken to stay, as under a rotary embedding."""

    def __init__(self) -> None:
        super().__init__()
        for k in range(2):
            setattr(self, f"q{k}", nn.Linear(6, 12))
            setattr(self, f"k{k}", nn.Linear(6, 6))
            setattr(self, f"v{k}", nn.Linear(6, 6))
            setattr(self, f"o{k}", nn.Linear(12, 6))

    def forward(self, x: Tensor) -> Tensor:
        for k in range(2):
            q, key, v = (getattr(self, f"{name}{k}")(x) for name in "qkv")
            batch, length, _ = x.shape
            q, key, v = (t.view(batch, length, -1, 3).transpose(1, 2) for t in (q, key, v))
            mixed = scaled_dot_product_attention(q, key, v, enable_gqa=True)
            x = x + getattr(self, f"o{k}")(mixed.transpose(1, 2).flatten(2))
        return x


def attention_spec() -> lmcfast.PermutationSpec:
    axes: dict[str, Any] = {}
    groups = []
    for k in range(2):
        groups += [
            lmcfast.Group(f"kv{k}", 2), lmcfast.Group(f"q{k}", 2, (f"kv{k}",)), lmcfast.Group(f"v{k}", 3, (f"kv{k}",)),
        ]  # fmt: skip
        axes[f"q{k}.weight"], axes[f"q{k}.bias"] = (f"kv{k} q{k} _3", None), (f"kv{k} q{k} _3",)
        axes[f"k{k}.weight"], axes[f"k{k}.bias"] = (f"kv{k} _3", None), (f"kv{k} _3",)
        axes[f"v{k}.weight"], axes[f"v{k}.bias"] = (f"kv{k} v{k}", None), (f"kv{k} v{k}",)
        axes[f"o{k}.weight"], axes[f"o{k}.bias"] = (None, f"kv{k} q{k} v{k}"), (None,)
    return lmcfast.PermutationSpec.from_axes(axes, groups=groups)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_the_moments_written_out(kind: Any) -> None:
    """The permutation of each group is the best one of all, by the moments of its readers' inputs."""
    a, b = mlp((6, 5, 4, 3), seed=0), mlp((6, 5, 4, 3), seed=1)
    spec = lmcfast.spec_from_params(a.state_dict()).bind(a.state_dict())
    x = [inputs(9, 6, seed=1), inputs(4, 6, seed=2)]
    found = lmcfast.activation_matching(spec, a, b, [x[0], (x[1], None)], kind)
    whole = torch.cat(x)
    for group, layers in zip(spec.movable_groups, (2, 4), strict=True):
        with torch.no_grad():
            one, two = (model[:layers](whole).double().numpy() for model in (a, b))
        if kind == "correlation":
            one, two = ((t - t.mean(0)) / (t.std(0) + 1e-300) for t in (one, two))
        scores = one.T @ two

        def value(permutation: Any, scores: Any = scores) -> float:
            return float(sum(scores[i, p] for i, p in enumerate(permutation)))

        best = max(map(value, itertools.permutations(range(scores.shape[0]))))
        assert value(found.permutations[group].tolist()) == pytest.approx(best, rel=1e-6)
    aligned = found.apply(b.state_dict())
    assert found.distance_after == pytest.approx(lmcfast.distance(spec, a.state_dict(), aligned))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", [False, True])
def test_a_hidden_permutation_is_found(kind: Any, norm: bool) -> None:
    a = mlp((6, 14, 12, 3), seed=2, norm=norm)
    spec = lmcfast.spec_from_params(a.state_dict()).bind(a.state_dict())
    b, undo = altered(a, spec, seed=3, noise=0.02)
    found = lmcfast.activation_matching(spec, a, b, [inputs(64, 6, seed=k) for k in range(3)], kind)
    for group, index in undo.items():
        assert torch.equal(found.permutations[group], index)
    if kind == "correlation":
        assert min(found.likeness.values()) > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_channels_of_convolutions(kind: Any) -> None:
    with torch.random.fork_rng(devices=[]):
        a = randomize(
            nn.Sequential(
                nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten(),
                nn.Linear(24, 3),
            ), 5,
        )  # fmt: skip
    spec = lmcfast.PermutationSpec.from_axes(
        {
            "0.weight": ("c", None, None, None), "0.bias": ("c",), "1.weight": ("c",), "1.bias": ("c",),
            "1.running_mean": ("c",), "1.running_var": ("c",), "3.weight": ("e", "c", None, None), "3.bias": ("e",),
            "6.weight": (None, "e _4"), "6.bias": (None,),
        }
    ).bind(a.state_dict())  # fmt: skip
    b, undo = altered(a, spec, seed=1, noise=0.01)
    found = lmcfast.activation_matching(spec, a, b, [inputs(20, 2, 6, 6, seed=4)], kind)
    for group, index in undo.items():
        assert torch.equal(found.permutations[group], index)
    named = lmcfast.activation_matching(spec, a, b, [inputs(20, 2, 6, 6, seed=4)], kind, sites={"c": ["2"], "e": ["4"]})
    for group, index in undo.items():
        assert torch.equal(named.permutations[group], index)


@pytest.mark.parametrize("kind", KINDS)
def test_nested_groups_of_attention(kind: Any) -> None:
    a = randomize(Attention(), 7)
    spec = attention_spec().bind(a.state_dict())
    x = inputs(12, 5, 6, seed=3)
    for seed in range(4):
        b, undo = altered(a, spec, seed, noise=0.0)
        with torch.no_grad():
            torch.testing.assert_close(a(x), b(x), rtol=1e-4, atol=1e-4)
        found = lmcfast.activation_matching(spec, a, b, [x[:7], x[7:]], kind)
        for group, index in undo.items():
            assert torch.equal(found.permutations[group], index), group
    held = lmcfast.activation_matching(spec, a, b, [x], kind, fix="kv0", init={"kv0": undo["kv0"]})
    for group, index in undo.items():
        assert torch.equal(held.permutations[group], index), group


def test_groups_that_show_nowhere_and_bad_input_are_named() -> None:
    a, b = mlp((6, 5, 4, 3), seed=0), mlp((6, 5, 4, 3), seed=1)
    spec = lmcfast.spec_from_params(a.state_dict()).bind(a.state_dict())
    x = [inputs(4, 6)]
    with pytest.raises(ValueError, match=r"kind must be one of .* not 'cosine'"):
        lmcfast.activation_matching(spec, a, b, x, "cosine")  # type: ignore[arg-type]
    with pytest.raises(lmcfast.InvalidInputsError, match="cannot take the inputs"):
        lmcfast.activation_matching(spec, a, b, [inputs(4, 7)])
    with pytest.raises(lmcfast.SpecError, match="no part 'nowhere'"):
        lmcfast.activation_matching(spec, a, b, x, sites={spec.movable_groups[0]: ["nowhere"]})
    with pytest.raises(lmcfast.InvalidParamsError, match="is not finite"):
        lmcfast.activation_matching(spec, a, b, [inputs(4, 6) * math.inf])
    with pytest.raises(TypeError, match="batches"):
        lmcfast.activation_matching(spec, a, b, inputs(4, 6))
    table = nn.Sequential(nn.Embedding(4, 5), nn.LayerNorm(5))
    odd = lmcfast.PermutationSpec.from_axes({"0.weight": (None, "e"), "1.weight": ("e",), "1.bias": ("e",)})
    with pytest.raises(lmcfast.SpecError, match="group 'e' shows at no linear layer"):
        lmcfast.activation_matching(odd, table, table, [torch.arange(4)])
    found = lmcfast.activation_matching(odd, table, table, [torch.arange(4)], sites={"e": ["1"]})
    assert found.likeness["e"] > 0.99
