"""The straight-through estimator for many networks: its gradients, its pair form, and what it finds."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import pytest
import torch
from helpers.networks import mlp
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, mse_loss

import lmcfast

WIDTHS = (6, 10, 9, 5)
State = dict[str, Tensor]


def case(count: int = 3) -> tuple[nn.Module, list[State], lmcfast.PermutationSpec, list[tuple[Tensor, Tensor]]]:
    models = [{name: t.double() for name, t in mlp(WIDTHS, seed=seed).state_dict().items()} for seed in range(count)]
    source = torch.Generator().manual_seed(0)
    inputs = [torch.randn(16, 6, generator=source, dtype=torch.float64) for _ in range(4)]
    batches = [(x, torch.randint(0, 5, (16,), generator=source)) for x in inputs]
    return mlp(WIDTHS).double(), models, lmcfast.spec_from_params(models[0]).bind(models[0]), batches


def test_each_gradient_is_that_of_the_mixture_times_the_share() -> None:
    """Checked by finite differences with the projections held."""
    module, models, spec, batches = case()
    shares = [0.5, 0.2, 0.3]
    seen: list[Tensor] = []

    class Recorder(torch.optim.SGD):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            seen.extend(p.grad.clone() for group in self.param_groups for p in group["params"])

    def optimizer(tensors: Iterable[Tensor]) -> Recorder:
        return Recorder(tensors, 1e-3)

    result = lmcfast.straight_through_many(
        spec, module, models, batches, cross_entropy, optimizer, steps=1, weights=shares
    )
    aligned = result.apply()

    def loss_at(index: int, name: str, position: int, shift: float) -> float:
        moved = [dict(one) for one in aligned]
        moved[index][name] = moved[index][name].clone()
        moved[index][name].view(-1)[position] += shift
        state = {n: sum(s * one[n] for s, one in zip(shares, moved, strict=True)) for n in moved[0]}
        return float(cross_entropy(functional_call(module, state, (batches[0][0],)), batches[0][1]))

    names = [(index, name) for index in (1, 2) for name, _ in module.named_parameters()]
    for (index, name), gradient in zip(names, seen, strict=True):
        for position in (0, gradient.numel() // 2):
            slope = (loss_at(index, name, position, 1e-6) - loss_at(index, name, position, -1e-6)) / 2e-6
            assert float(gradient.view(-1)[position]) == pytest.approx(slope, abs=1e-7)


def test_of_two_networks_it_is_the_pair_form() -> None:
    module, models, spec, batches = case(2)
    module.load_state_dict(models[0])
    many = lmcfast.straight_through_many(spec, module, models, batches, cross_entropy, steps=12, weights=[0.7, 0.3])
    pair = lmcfast.straight_through_matching(spec, module, models[1], batches, cross_entropy, steps=12, weight=0.3)
    assert [step.loss for step in many.steps] == pytest.approx([step.loss for step in pair.history], rel=1e-12)
    assert many.best_step == pair.best_step
    assert many.objective == pytest.approx(pair.objective, rel=1e-9)


def test_it_lowers_the_loss_of_the_merge_of_three() -> None:
    module, models, spec, batches = case()
    with torch.no_grad():
        pairs = [(x, functional_call(module, models[0], (x,))) for x, _ in batches]
    before = [{name: tensor.clone() for name, tensor in one.items()} for one in models]
    init = [spec.identity(), *(spec.random_permutations(seed) for seed in (1, 2))]
    result = lmcfast.straight_through_many(
        spec, module, models, pairs, mse_loss, lambda t: torch.optim.Adam(t, 0.02), 100, [1 / 3] * 3, init
    )
    for one, old in zip(models, before, strict=True):
        assert all(torch.equal(one[name], old[name]) for name in old)

    def loss(settings: list[State]) -> float:
        aligned = [lmcfast.apply_permutations(spec, s, one) for s, one in zip(settings, models, strict=True)]
        mean = {name: sum(one[name] for one in aligned) / 3 for name in aligned[0]}
        with torch.no_grad():
            return float(sum(mse_loss(functional_call(module, mean, (x,)), y) for x, y in pairs))

    assert loss(result.permutations) < loss(init)
    true = sum(float((one[n] * two[n]).sum()) for one, two in combinations(result.apply(), 2) for n in one)
    assert result.objective == pytest.approx(true, rel=1e-9)
    assert torch.equal(result.permutations[0][spec.movable_groups[0]], torch.arange(10))


def test_the_same_seed_repeats_and_bad_arguments_are_named() -> None:
    module, models, spec, batches = case()
    runs = [
        lmcfast.straight_through_many(
            spec, module, models, batches, cross_entropy, steps=4, start="random", seed=seed, init=[{}] * 3
        )
        for seed in (1, 1, 2)
    ]
    losses = [[step.loss for step in run.steps] for run in runs]
    assert losses[0] == losses[1] != losses[2]
    shares = torch.tensor([step.weights for step in runs[0].steps], dtype=torch.float64)
    torch.testing.assert_close(shares.sum(1), torch.ones(4, dtype=torch.float64))
    assert float(shares.min()) >= 0.0
    assert shares.unique(dim=0).shape[0] == 4

    def refused(**arguments: object) -> None:
        lmcfast.straight_through_many(spec, module, batches=batches, loss=cross_entropy, **arguments)  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=r"models: a list of at least two networks is needed, not 1"):
        refused(models=models[:1])
    with pytest.raises(ValueError, match=r"weights: 3 numbers >= 0 of sum 1 are needed, not \[0.5, 0.5\]"):
        refused(models=models, weights=[0.5, 0.5])
    with pytest.raises(ValueError, match=r"weights: must be numbers or 'random', not 'even'"):
        refused(models=models, weights="even")
    with pytest.raises(ValueError, match=r"init: the first network stays"):
        refused(models=models, init=[spec.random_permutations(1), {}, {}])
    with pytest.raises(ValueError, match=r"start: must be 'first' or 'random', not 'a'"):
        refused(models=models, start="a")
