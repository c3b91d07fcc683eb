"""The barrier against closed forms, its three definitions, and what it leaves alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

import lmcfast
from lmcfast.analysis import Barrier, DistanceReduction, barrier, distance_reduction

Pairs = list[tuple[Tensor, Tensor]]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def filled(module: nn.Module, seed: int) -> dict[str, Tensor]:
    """A state dict of ``module`` with positive random values."""
    source = generator(seed)
    return {
        name: torch.rand(tensor.shape, generator=source, dtype=tensor.dtype) if tensor.is_floating_point() else tensor
        for name, tensor in module.state_dict().items()
    }


def classes(sizes: tuple[int, ...] = (4, 4, 3), features: int = 5, seed: int = 0) -> Pairs:
    source = generator(seed)
    return [
        (torch.randn(n, features, generator=source), torch.randint(0, 3, (n,), generator=source)) for n in sizes
    ]  # fmt: skip


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


def plain_loss(module: nn.Module, params: dict[str, Tensor], pairs: Pairs) -> float:
    inputs, targets = (torch.cat(part) for part in zip(*pairs, strict=True))
    with torch.no_grad():
        return float(cross_entropy(torch.func.functional_call(module.eval(), params, (inputs,)).double(), targets))


def hits(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.argmax(1).eq(targets).double().mean()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(2, 9))
def test_a_quadratic_loss_has_the_closed_form(seed: int, points: int) -> None:
    """A linear model under squared error: curve(lambda) = -lambda (1 - lambda) mean((x . d)^2)."""
    source = generator(seed)
    module = nn.Linear(4, 1, bias=False).double()
    a, b = ({"weight": torch.randn(1, 4, generator=source, dtype=torch.float64)} for _ in range(2))
    pairs = [
        (torch.randn(n, 4, generator=source, dtype=torch.float64), torch.randn(n, 1, generator=source).double())
        for n in (3, 5, 1)
    ]
    found = barrier(module, a, b, pairs, mse_loss, lambdas=points)
    moved = torch.cat([inputs for inputs, _ in pairs]) @ (b["weight"] - a["weight"]).T
    spread = float(moved.square().mean())
    np.testing.assert_allclose(
        found.curve, -found.lambdas * (1 - found.lambdas) * spread, rtol=0, atol=1e-12 + 1e-12 * spread
    )
    assert found.value == 0.0
    assert found.midpoint == pytest.approx(-spread / 4, rel=1e-9)


def test_the_definitions_on_a_hand_made_curve() -> None:
    lambdas = np.array([0, 0.25, 0.5, 0.75, 1])
    found = Barrier(lambdas, np.array([1.0, 1.5, 1.0, 3.5, 3.0]), {"accuracy": np.array([0.9, 0.8, 0.7, 0.6, 0.5])})
    assert found.curve.tolist() == [0.0, 0.0, -1.0, 1.0, 0.0]
    assert (found.value, found.midpoint, found.git_re_basin) == (1.0, -1.0, 1.5)
    assert found.at(0.75) == {"loss": 3.5, "accuracy": 0.6}
    assert found.series("accuracy")[1] == 0.8
    with pytest.raises(ValueError, match=r"'f1' was not measured; there are 'loss', 'accuracy'"):
        found.series("f1")
    with pytest.raises(ValueError, match=r"0\.3 is not a lambda"):
        found.at(0.3)


def test_the_figures_that_must_not_be_negative_are_zero_below_the_chord() -> None:
    found = Barrier(np.array([0, 0.5, 1]), np.array([2.0, 0.5, 1.0]))
    assert found.value == 0.0
    assert found.git_re_basin == 0.5  # the worse end is 0.5 above the mean of the ends
    assert found.midpoint == -1.0
    assert found.to_dict()["losses"] == [2.0, 0.5, 1.0]


def test_the_ends_equal_the_plain_evaluation_and_batches_are_weighted() -> None:
    module, pairs = network(), classes((1, 6, 4))
    a, b = filled(module, 1), filled(module, 2)
    found = barrier(module, a, b, pairs, cross_entropy, lambdas=5, metrics={"accuracy": hits})
    assert found.losses[0] == pytest.approx(plain_loss(module, a, pairs), rel=1e-6)
    assert found.losses[-1] == pytest.approx(plain_loss(module, b, pairs), rel=1e-6)
    middle = lmcfast.interpolate(a, b)
    assert found.at(0.5)["loss"] == pytest.approx(plain_loss(module, middle, pairs), rel=1e-6)
    assert all(round(11 * share) == pytest.approx(11 * share) for share in found.metrics["accuracy"])
    assert (found.lambdas.dtype, found.losses.dtype, found.metrics["accuracy"].dtype) == (np.float64,) * 3
    assert found.curve[[0, -1]].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("lambdas", "wanted"),
    [
        (2, [0, 0.5, 1]),
        (3, [0, 0.5, 1]),
        (4, [0, 1 / 3, 0.5, 2 / 3, 1]),
        ([0.7, 0.2, 0.7], [0, 0.2, 0.5, 0.7, 1]),
        ([], [0, 0.5, 1]),
        (np.linspace(0, 1, 5), [0, 0.25, 0.5, 0.75, 1]),
    ],
)
def test_the_grid_always_has_the_ends_and_the_middle(lambdas: Any, wanted: list[float]) -> None:
    module = network()
    found = barrier(module, filled(module, 1), filled(module, 2), classes((3,)), cross_entropy, lambdas)
    np.testing.assert_allclose(found.lambdas, wanted, rtol=1e-15)


def test_equal_networks_have_no_barrier() -> None:
    module = network()
    params = filled(module, 1)
    found = barrier(module, params, params, classes(), cross_entropy, 7)
    np.testing.assert_allclose(found.curve, 0, atol=1e-6)


def test_the_module_and_the_params_are_left_untouched() -> None:
    module = network().train()
    module[3].eval()
    module[0].weight.grad = torch.ones(8, 5)
    a, b = filled(module, 1), filled(module, 2)
    kept = [{name: tensor.clone() for name, tensor in params.items()} for params in (module.state_dict(), a, b)]
    random = torch.get_rng_state()

    def prepare(trial: nn.Module) -> None:
        assert trial is not module
        trial.train()  # must not stay on for the evaluation

    first = barrier(module, a, b, classes(), cross_entropy, 3, prepare=prepare)
    second = barrier(module, a, b, classes(), cross_entropy, 3)
    assert first.losses.tolist() == second.losses.tolist()
    for params, before in zip((module.state_dict(), a, b), kept, strict=True):
        assert all(torch.equal(params[name], before[name]) for name in before)
    assert [part.training for part in module] == [True, True, True, False]
    assert module[0].weight.grad.eq(1).all()
    assert module[3].weight.grad is None
    assert torch.equal(torch.get_rng_state(), random)


def test_batchnorm_statistics_are_interpolated_with_a_warning_or_prepared() -> None:
    module = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3))
    a, b, pairs = filled(module, 1), filled(module, 2), classes((8,))
    with pytest.warns(lmcfast.UnresetBatchNormWarning, match="reset_batchnorm"):
        found = barrier(module, a, b, pairs, cross_entropy, 3)
    assert found.at(0.5)["loss"] == pytest.approx(plain_loss(module, lmcfast.interpolate(a, b), pairs), rel=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen: list[int] = []
        ready = barrier(
            module, a, b, pairs, cross_entropy, 3, prepare=lambda m: seen.append(lmcfast.reset_batchnorm(m, pairs))
        )
    assert seen == [1, 1, 1]
    assert np.abs(ready.losses - found.losses).min() > 1e-6


def test_structured_batches_are_weighted_by_their_targets() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, inputs: dict[str, Tensor]) -> Tensor:
            return self.scale * (inputs["x"] + inputs["y"])

    one = {"scale": torch.ones(())}
    batches = [({"x": torch.ones(n), "y": torch.ones(n)}, [torch.full((n,), float(n))]) for n in (1, 3)]
    found = barrier(Sum(), one, one, batches, lambda outputs, targets: (outputs - targets[0]).abs().mean(), 2)
    assert found.losses.tolist() == [(1 * 1 + 3 * 1) / 4] * 3


def one_shot() -> Iterator[tuple[Tensor, Tensor]]:
    yield from classes()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"batches": torch.ones(4, 3)}, TypeError, "batches: a list or another iterable of batches is needed"),
        ({"batches": one_shot()}, TypeError, "batches: a generator can be gone through only once"),
        ({"batches": []}, ValueError, "batches: no examples at lambda = 0"),
        ({"batches": [torch.zeros(3, 5)]}, TypeError, "batches: each must be a pair"),
        ({"lambdas": 1}, ValueError, "lambdas: a grid has at least 2 points, not 1"),
        ({"lambdas": True}, ValueError, "lambdas"),
        ({"lambdas": [0.5, 1.5]}, ValueError, r"lambdas: 1\.5 is not in"),
        ({"lambdas": [float("nan")]}, ValueError, "lambdas: nan"),
        ({"metrics": {"loss": hits}}, ValueError, "metrics: the name 'loss'"),
        ({"loss": lambda o, t: o}, TypeError, r"loss: a scalar is needed, not a tensor of shape \(4, 3\)"),
        ({"params_a": {}}, lmcfast.InvalidParamsError, r"params_a lacks the module's tensor '0\.weight'"),
        (
            {"params_b": {**filled(network(), 0), "9.bias": torch.zeros(1)}},
            lmcfast.InvalidParamsError,
            r"params_b has a tensor '9\.bias'",
        ),
        (
            {"params_b": {**filled(network(), 0), "3.bias": torch.zeros(4)}},
            lmcfast.InvalidParamsError,
            r"params_b: tensor '3\.bias' has shape \(4,\), the module's has \(3,\)",
        ),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    module = network()
    arguments: dict[str, Any] = {
        "params_a": filled(module, 1), "params_b": filled(module, 2), "batches": classes(), "loss": cross_entropy,
    }  # fmt: skip
    with pytest.raises(error, match=words):
        barrier(module, **{**arguments, **changes})


def test_a_loss_that_is_not_finite_names_lambda() -> None:
    """1 / (w_a + w_b) has its pole where the weights cancel: in the middle."""
    module = nn.Linear(1, 1, bias=False)
    a, b = {"weight": torch.ones(1, 1)}, {"weight": -torch.ones(1, 1)}
    pairs = [(torch.ones(2, 1), torch.ones(2, 1))]
    with pytest.raises(lmcfast.InvalidParamsError, match=r"the loss is not finite at lambda = 0\.5"):
        barrier(module, a, b, pairs, lambda outputs, targets: (targets / outputs).mean(), lambdas=3)
    with pytest.raises(lmcfast.InvalidParamsError, match="the odds is not finite at lambda = 0"):
        barrier(module, a, b, pairs, mse_loss, metrics={"odds": lambda outputs, targets: float("nan")})


def test_distance_reduction_of_a_planted_permutation() -> None:
    module = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    a = filled(module, 3)
    spec = lmcfast.spec_from_params(a)
    planted = spec.random_permutations(1)
    b = lmcfast.apply_permutations(spec, planted, a)
    b["1.running_mean"] += 100.0  # a buffer: it does not count
    back = lmcfast.invert_permutations(spec, planted)
    found = distance_reduction(spec, a, b, back)
    weights = [name for name in a if a[name].is_floating_point() and "running" not in name]
    wanted = sum(float((a[name].double() - b[name].double()).square().sum()) for name in weights) ** 0.5
    assert found.before == pytest.approx(wanted, rel=1e-12)
    assert (found.after, found.rate) == (0.0, 1.0)
    assert distance_reduction(spec, a, b, spec.identity()).rate == 0.0
    assert DistanceReduction(4.0, 3.0).rate == 0.25
    assert DistanceReduction(0.0, 0.0).rate == 0.0
