"""``lmcfast.compat.rebasin``: its own tests in kind, on small networks."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lmcfast.compat.rebasin import MergeMany, PermutationCoordinateDescent, interpolation


def mlp(seed: int, width: int = 10, depth: int = 6) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    layers = [layer for _ in range(depth) for layer in (torch.nn.Linear(width, width), torch.nn.ReLU())]
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, width))


def convolutional(seed: int) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Conv2d(8, 6, 3), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(6 * 16, 5),
    )  # fmt: skip
    for _ in range(3):
        network(torch.randn(16, 3, 8, 8))
    return network.eval()


def distance(a: torch.nn.Module, b: torch.nn.Module) -> float:
    return sum(float((p - q).detach().square().sum()) for p, q in zip(a.parameters(), b.parameters(), strict=True))


class TwoInputs(torch.nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = torch.nn.Linear(4, 8), torch.nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x + y)))


@pytest.mark.parametrize(
    ("make", "data"),
    [
        (mlp, torch.randn(10)),
        (mlp, torch.randn(4, 10)),
        (convolutional, torch.randn(1, 3, 8, 8)),
        (TwoInputs, [torch.randn(2, 4), torch.randn(2, 4)]),
        (TwoInputs, (torch.randn(2, 4), torch.randn(2, 4))),
        (TwoInputs, {"x": torch.randn(2, 4), "y": torch.randn(2, 4)}),
    ],
)
def test_rebasin_comes_nearer_and_keeps_the_output(make, data):
    a, b = make(0), make(1)
    before = copy.deepcopy(b)
    run = {dict: lambda m: m(**data), torch.Tensor: lambda m: m(data)}.get(type(data), lambda m: m(*data))
    expected = run(b)
    pcd = PermutationCoordinateDescent(a, b, data)
    assert pcd.rebasin() is None
    torch.testing.assert_close(run(b), expected)
    assert distance(a, b) < distance(a, before)
    assert pcd.result.objective > 0


def test_permutations_are_applied_only_when_asked_for(capsys):
    a, b = mlp(0), mlp(1)
    before = copy.deepcopy(b)
    pcd = PermutationCoordinateDescent(a, b, torch.randn(10), None, "cpu", "cpu", logging_level="INFO")
    pcd.apply_permutations()
    assert distance(b, before) == 0
    pcd.calculate_permutations(max_iterations=3)
    assert "objective" in capsys.readouterr().out
    assert distance(b, before) == 0
    pcd.apply_permutations()
    assert distance(b, before) > 0


def test_merge_many_merges_what_it_has_lined_up(tmp_path):
    models = [mlp(seed) for seed in range(3)]
    torch.save(models[2].state_dict(), tmp_path / "third.pt")
    x = torch.randn(4, 10)
    outputs = [model(x) for model in models]
    apart = distance(models[0], models[1])
    working = mlp(9)
    merge = MergeMany([*models[:2], tmp_path / "third.pt"], working, x)
    with pytest.raises(AttributeError, match="has not been calculated yet"):
        _ = merge.merged_model
    merged = merge.run()
    assert merged is merge.merged_model
    assert distance(merged, working) == 0
    models[2].load_state_dict(torch.load(tmp_path / "third.pt"))
    for model, output in zip(models, outputs, strict=True):
        torch.testing.assert_close(model(x), output)
    assert distance(models[0], models[1]) < apart
    for p, *parts in zip(merged.parameters(), *(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(p, sum(parts) / 3)


def test_merge_many_keeps_the_buffers_of_the_first():
    models = [convolutional(seed) for seed in range(3)]
    merged = MergeMany(models, convolutional(3), torch.randn(1, 3, 8, 8)).run(max_iterations=2)
    assert torch.equal(merged[1].running_mean, models[0][1].running_mean)


def loss(model: torch.nn.Module, device: object) -> float:
    torch.manual_seed(0)
    return float((model(torch.randn(32, 10)) - 1).detach().square().mean())


@pytest.mark.parametrize("mode", ["min", "max"])
def test_lerp_simple_evaluates_and_saves(mode, tmp_path):
    models = [mlp(seed) for seed in range(3)]
    lerp = interpolation.LerpSimple(models, loss, mode, savedir=tmp_path)
    lerp.interpolate(steps=4)
    assert len(lerp.metrics_interpolated) == 8
    assert lerp.best_metric == {"min": min, "max": max}[mode](lerp.metrics_interpolated)
    assert loss(lerp.best_model, None) == lerp.best_metric
    names = [f"interp_models_{i}_{i + 1}_perc_{(k + 1) / 6:.3f}.pt" for i in range(2) for k in range(4)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    half = torch.load(tmp_path / "interp_models_1_2_perc_0.500.pt")
    torch.testing.assert_close(half["0.weight"], (models[1][0].weight + models[2][0].weight) / 2)


def test_lerp_simple_recomputes_batchnorm():
    models = [convolutional(seed) for seed in range(2)]
    data = TensorDataset(torch.randn(32, 3, 8, 8) + 5, torch.zeros(32))
    lerp = interpolation.LerpSimple(
        models, lambda model, device: float(model[1].running_mean.sum()), train_dataloader=DataLoader(data, 8)
    )
    lerp.interpolate(steps=1)
    reset = lerp.best_model[1]
    inner = lerp.best_model[0](data.tensors[0])
    torch.testing.assert_close(reset.running_mean, inner.mean(dim=(0, 2, 3)))
    assert int(reset.num_batches_tracked) == 4
    few = interpolation.LerpSimple(
        models, train_dataloader=DataLoader(data, 8), dataset_iterations=2, input_indices=[0]
    )
    few.interpolate(1)
    assert int(few.best_model[1].num_batches_tracked) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"models": []},
        {"models": mlp(0)[0]},
        {"models": [mlp(0), "not a model"]},
        {"eval_fn": 0},
        {"eval_mode": "best"},
        {"train_dataloader": 0},
        {"dataset_percentage": 1.5},
        {"dataset_percentage": "not a float"},
        {"devices": ["cpu"] * 4},
        {"input_indices": 0.5},
        {"input_indices": [0.5]},
        {"input_indices": ["not", "an", "int"]},
        {"savedir": 0},
        {"logging_level": "lalalalala"},
        {"logging_level": -1},
    ],
)
def test_wrong_arguments(options):
    with pytest.raises(AssertionError):
        interpolation.LerpSimple(**{"models": [mlp(0), mlp(1)], **options})


def test_logging_levels():
    with pytest.raises(TypeError, match=r"logging_level: expected an int or a str, got 10\.2"):
        interpolation.parse_logging_level(10.2)
    assert interpolation.parse_logging_level("info") == interpolation.parse_logging_level(20) == logging.INFO
