"""The straight-through estimator: its gradient, its projection, what it finds and what it leaves alone."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
import torch
from helpers.networks import mlp
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, mse_loss

import lmcfast
from lmcfast.matching.straight_through import Projection

Pairs = list[tuple[Tensor, Tensor]]


def data(count: int = 4, size: int = 16, seed: int = 0) -> Pairs:
    source = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 6, generator=source), torch.randint(0, 5, (size,), generator=source)) for _ in range(count)
    ]


def networks(seed: int = 0) -> tuple[nn.Module, dict[str, Tensor], lmcfast.PermutationSpec]:
    a, b = mlp((6, 12, 10, 5), seed=seed), dict(mlp((6, 12, 10, 5), seed=seed + 1).state_dict())
    return a, b, lmcfast.spec_from_params(b).bind(b)


class Recorder(torch.optim.SGD):
    """Keeps the gradients of each step, by shape of the tensor in order."""

    seen: list[list[Tensor]]

    def __init__(self, tensors: Iterable[Tensor], rate: float) -> None:
        super().__init__(tensors, rate)
        self.seen = []

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.seen.append([p.grad.clone() for group in self.param_groups for p in group["params"]])
        super().step()


@pytest.mark.parametrize("weight", [0.5, 0.3])
def test_the_gradient_is_that_of_the_mixture_times_the_weight(weight: float) -> None:
    """Checked by finite differences with the projection held."""
    model, b, spec = networks()
    model, b = model.double(), {name: tensor.double() for name, tensor in b.items()}
    batches = [(x.double(), y) for x, y in data(1)]
    made: list[Recorder] = []

    def optimizer(tensors: Iterable[Tensor]) -> Recorder:
        made.append(Recorder(tensors, 1e-3))
        return made[0]

    setting = spec.random_permutations(1)
    fixed = lmcfast.weight_matching(spec, model.state_dict(), b, init=setting, start="identity").permutations
    lmcfast.straight_through_matching(
        spec, model, b, batches, cross_entropy, optimizer, steps=1, weight=weight, init=fixed
    )
    aligned = lmcfast.apply_permutations(spec, fixed, b)
    a = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    def loss_at(name: str, position: int, shift: float) -> float:
        moved = {n: t.clone() for n, t in aligned.items()}
        moved[name].view(-1)[position] += shift
        state = {n: (1 - weight) * a[n] + weight * moved[n] for n in a}
        return float(cross_entropy(functional_call(model, state, (batches[0][0],)), batches[0][1]))

    for (name, _), gradient in zip(model.named_parameters(), made[0].seen[0], strict=True):
        for position in (0, gradient.numel() // 2, gradient.numel() - 1):
            slope = (loss_at(name, position, 1e-6) - loss_at(name, position, -1e-6)) / 2e-6
            assert float(gradient.view(-1)[position]) == pytest.approx(slope, abs=1e-7)


def test_the_projection_is_weight_matching() -> None:
    _, b, spec = networks()
    projection = Projection(spec, b, spec.identity())
    for seed in range(4):
        target = dict(mlp((6, 12, 10, 5), seed=40 + seed).state_dict())
        before = {group: index.clone() for group, index in projection.permutations.items()}
        projection.to(target)
        plain = lmcfast.weight_matching(spec, target, b, init=before, start="identity", max_sweeps=20)
        aligned = projection.aligned()
        value = sum(float((target[name].double() * aligned[name].double()).sum()) for name in target)
        assert value == pytest.approx(plain.objective, rel=1e-6)


def test_it_lowers_the_loss_of_the_merge_and_leaves_the_networks_alone() -> None:
    model, b, spec = networks(3)
    with torch.no_grad():
        teacher = mlp((6, 12, 10, 5), seed=3)
        batches = [(x, teacher(x)) for x, _ in data(6, 32)]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    start = spec.random_permutations(0)
    result = lmcfast.straight_through_matching(
        spec, model, b, batches, mse_loss, lambda t: torch.optim.Adam(t, 0.02), steps=120, init=start
    )
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert model.training is False
    assert len(result.history) == 120
    assert 1 <= result.best_step <= 120

    def midpoint(setting: dict[str, Tensor]) -> float:
        merged = lmcfast.interpolate(before, lmcfast.apply_permutations(spec, setting, b))
        with torch.no_grad():
            return float(sum(mse_loss(functional_call(model, merged, (x,)), y) for x, y in batches))

    assert midpoint(result.permutations) < midpoint(start)
    aligned = result.apply(b)
    true = sum(float((before[name].double() * aligned[name].double()).sum()) for name in b)
    assert result.objective == pytest.approx(true, rel=1e-9)


def test_the_same_seed_gives_the_same_result_and_random_weights_differ() -> None:
    model, b, spec = networks()
    runs = [
        lmcfast.straight_through_matching(
            spec, model, b, data(), cross_entropy, steps=12, weight="random", start="random", seed=seed
        )
        for seed in (1, 1, 2)
    ]
    losses = [[step.loss for step in run.history] for run in runs]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    assert len({step.weight for step in runs[0].history}) == 12


def test_batchnorm_uses_the_batch_and_keeps_its_statistics() -> None:
    model = mlp((6, 12, 10, 5), norm=True)
    b = dict(mlp((6, 12, 10, 5), seed=1, norm=True).state_dict())
    spec = lmcfast.spec_from_params(b)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = lmcfast.straight_through_matching(spec, model, b, data(), cross_entropy, steps=5)
    assert all(math.isfinite(step.loss) for step in result.history)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_nested_groups_are_projected_too() -> None:
    """Two heads of two units each, written by one layer and read by the next."""
    module = mlp((6, 4, 5), seed=0)
    groups = [lmcfast.Group("head", 2), lmcfast.Group("unit", 2, within=("head",))]
    spec = lmcfast.PermutationSpec.from_axes(
        {"0.weight": ("head unit", None), "0.bias": ("head unit",), "2.weight": (None, "head unit"), "2.bias": (None,)},
        groups=groups,
    ).bind(module.state_dict())
    b = lmcfast.apply_permutations(spec, spec.random_permutations(3), module.state_dict())
    result = lmcfast.straight_through_matching(spec, module, b, data(), cross_entropy, steps=3, init=spec.identity())
    assert lmcfast.distance(spec, module.state_dict(), result.apply(b)) < 1e-6


def test_bad_input_is_named() -> None:
    model, b, spec = networks()
    for match, arguments in (
        (r"weight: must be in \(0, 1\] or 'random', not 1\.5", {"weight": 1.5}),
        ("weight: must be .* not 'half'", {"weight": "half"}),
        ("steps: at least 1 is needed, not 0", {"steps": 0}),
        ("start: must be 'a' or 'random', not 'b'", {"start": "b"}),
    ):
        with pytest.raises(ValueError, match=match):
            lmcfast.straight_through_matching(spec, model, b, data(), cross_entropy, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batches: 2 batches for 5 steps"):
        lmcfast.straight_through_matching(spec, model, b, iter(data(2)), cross_entropy, steps=5)
    with pytest.raises(lmcfast.InvalidParamsError, match="not finite in step 1"):
        lmcfast.straight_through_matching(spec, model, b, data(), lambda y, t: (y * math.inf).sum(), steps=2)
