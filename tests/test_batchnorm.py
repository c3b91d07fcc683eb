"""``reset_batchnorm``: the statistics equal those computed by hand, and nothing else changes."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import lmcfast


def network(seed: int = 0) -> nn.Sequential:
    """Two BatchNorm layers with a dropout between them; weights from a seed."""
    generator = torch.Generator().manual_seed(seed)
    features = (nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten())
    module = nn.Sequential(*features, nn.Dropout(0.5), nn.Linear(48, 4), nn.BatchNorm1d(4))
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return module


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, msg=name)


def by_hand(module: nn.Sequential, batches: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Mean and variance at both BatchNorm layers, averaged over the batches, in float64 and without BatchNorm code."""
    module = copy.deepcopy(module).double()
    conv, norm, _, _, _, linear, _ = module
    sums = [[torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)] for _ in range(2)]
    for batch in batches:
        hidden = conv(batch.double()).detach()
        channels = hidden.movedim(1, 0).flatten(1)
        mean, var = channels.mean(1), channels.var(1, correction=0)
        normed = (hidden - mean[:, None, None]) / torch.sqrt(var[:, None, None] + norm.eps)
        hidden = linear(torch.relu(normed * norm.weight[:, None, None] + norm.bias[:, None, None]).flatten(1)).detach()
        for place, values in enumerate((channels, hidden.T)):
            sums[place][0] = sums[place][0] + values.mean(1) / len(batches)
            sums[place][1] = sums[place][1] + values.var(1, correction=1) / len(batches)
    return [(mean.float(), var.float()) for mean, var in sums]


@pytest.mark.parametrize("form", ["inputs", "pairs", "lists", "generator"])
def test_the_statistics_are_those_of_the_data(form: str) -> None:
    module, batches = network(), [images(5, 1), images(7, 2), images(5, 3)]
    wanted = by_hand(module, batches)
    given = {
        "inputs": batches,
        "pairs": [(batch, torch.zeros(len(batch))) for batch in batches],
        "lists": [[batch] for batch in batches],
        "generator": iter(batches),
    }[form]
    assert lmcfast.reset_batchnorm(module, given) == 2
    for layer, (mean, var) in zip((module[1], module[6]), wanted, strict=True):
        torch.testing.assert_close(layer.running_mean, mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(layer.running_var, var, rtol=1e-5, atol=1e-6)
        assert layer.num_batches_tracked.item() == 3


def test_only_the_statistics_change() -> None:
    module = network()
    module.train()
    module[1].eval()
    module[1].momentum, module[6].momentum = 0.3, None
    module[0].weight.grad = torch.ones_like(module[0].weight)
    before = state(module)
    flags = [part.training for part in module.modules()]
    assert lmcfast.reset_batchnorm(module, [images(4)]) == 2
    assert [part.training for part in module.modules()] == flags
    assert (module[1].momentum, module[6].momentum) == (0.3, None)
    assert module[0].weight.grad.eq(1).all()
    after = state(module)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{n}.{s}" for n in (1, 6) for s in ("running_mean", "running_var", "num_batches_tracked")}


def test_dropout_is_off() -> None:
    first, second = network(), network()
    for module, seed in ((first, 0), (second, 1)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            lmcfast.reset_batchnorm(module.train(), [images(8)])
    assert_same(state(first), state(second))


def failing(kind: str) -> Iterator[Tensor]:
    yield images(4)
    if kind == "shape":
        yield torch.zeros(4, 3, 6, 6)
    elif kind == "interrupt":
        raise KeyboardInterrupt("by hand")
    else:
        yield torch.full((4, 2, 6, 6), torch.nan)


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("shape", RuntimeError, "channels"),
        ("interrupt", KeyboardInterrupt, "by hand"),
        ("nan", lmcfast.InvalidParamsError, "'1.running_mean'"),
        ("none", ValueError, "at least one batch"),
        ("empty tuple", ValueError, "empty tuple"),
    ],
)
def test_the_old_statistics_come_back_after_an_error(kind: str, error: type[BaseException], words: str) -> None:
    module = network().train()
    before, flags = state(module), [part.training for part in module.modules()]
    batches = {"none": [], "empty tuple": [images(4), ()]}.get(kind)
    with pytest.raises(error, match=words):
        lmcfast.reset_batchnorm(module, failing(kind) if batches is None else batches)
    assert_same(state(module), before)
    assert [part.training for part in module.modules()] == flags
    assert module[1].momentum == 0.1


def test_layers_without_statistics_are_skipped() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False), nn.LayerNorm(3))
    assert lmcfast.reset_batchnorm(module, []) == 0
    module.append(nn.BatchNorm1d(3, affine=False))
    assert lmcfast.reset_batchnorm(module, [torch.randn(4, 3, generator=torch.Generator().manual_seed(0))]) == 1


def test_subclasses_count_and_frozen_modes_do_not_hide_a_layer() -> None:
    class Frozen(nn.BatchNorm1d):
        def train(self, mode: bool = True) -> Frozen:
            return super().train(False)

    data = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    module = nn.Sequential(nn.SyncBatchNorm(3), Frozen(3)).train()
    assert lmcfast.reset_batchnorm(module, [data]) == 2
    torch.testing.assert_close(module[0].running_mean, data.mean(0))
    torch.testing.assert_close(module[0].running_var, data.var(0))
    torch.testing.assert_close(module[1].running_mean, torch.zeros(3), rtol=0, atol=1e-6)
    assert not module[1].training


def test_a_layer_that_no_batch_reaches_keeps_its_statistics() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.BatchNorm1d(2), nn.BatchNorm1d(2)

        def forward(self, inputs: Tensor) -> Tensor:
            output: Tensor = self.used(inputs)
            return output

    module = Branch()
    module.spare.running_mean.fill_(7)
    assert lmcfast.reset_batchnorm(module, [torch.arange(8.0).reshape(4, 2)]) == 1
    assert module.spare.running_mean.eq(7).all()
    assert module.used.running_mean.tolist() == [3.0, 4.0]


def test_one_tensor_in_place_of_batches() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    with pytest.raises(TypeError, match=r"batches: a list or another iterable of batches .*\(8, 3\).*give \[batch\]"):
        lmcfast.reset_batchnorm(module, torch.ones(8, 3))
    with pytest.raises(TypeError, match="batches: a list or another iterable of batches is needed, not int"):
        lmcfast.reset_batchnorm(module, 8)  # type: ignore[arg-type]
