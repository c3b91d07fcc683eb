"""``repair`` and ``rescale``: the statistics are those asked for, in the network's own weights, and no others."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from helpers.networks import mlp, randomize
from torch import Tensor, nn

import lmcfast
from lmcfast.merging.channels import Moments, channel_layers, scale_rows, weight_rows

State = dict[str, Tensor]


def convolutions() -> nn.Module:
    """Grouped, transposed and strided convolutions; an in-place ReLU writes over what a layer gave."""
    layers = [nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(6, 6, 3, groups=3), nn.ReLU(inplace=True)]
    layers += [nn.ConvTranspose2d(6, 4, 2, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 25, 5)]
    return nn.Sequential(*layers)


def normed() -> nn.Module:
    """A layer before a BatchNorm, one with a bias before a ReLU, and one without a bias."""
    layers = [nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 5, bias=False)]
    return nn.Sequential(*layers)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: mlp((6, 9, 8, 5)), (6,)),
    "convolutions": (convolutions, (2, 6, 6)),
}


def case(name: str) -> tuple[nn.Module, nn.Module, nn.Module, list[Tensor]]:
    """Two unrelated networks, their mean, and four batches, the last smaller."""
    make, shape = NETWORKS[name]
    a, b = randomize(make(), 1), randomize(make(), 2)
    source = torch.Generator().manual_seed(5)
    batches = [torch.randn(size, *shape, generator=source) for size in (20, 20, 20, 7)]
    return merged(a, b), a, b, batches


def merged(a: nn.Module, b: nn.Module, weight: float = 0.5) -> nn.Module:
    module = copy.deepcopy(a)
    module.load_state_dict(lmcfast.interpolate(a.state_dict(), b.state_dict(), weight))
    return module.eval()


def statistics(module: nn.Module, batches: list[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and deviation of each channel of each layer over all examples at once, float64, by plain hooks."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    module = copy.deepcopy(module).double()

    def see(path: str, output: Tensor) -> None:
        channels = output.movedim(1, 0).flatten(1)
        found[path] = (channels.mean(1), channels.std(1, correction=0))

    for path, layer in module.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(lambda _, args, output, path=path: see(path, output))
    with torch.no_grad():
        module(torch.cat(batches).double())
    return found


def state(module: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(found: State, wanted: State) -> None:
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("weight", [0.5, 0.2])
def test_all_statistics_are_those_of_the_parents_interpolated(name: str, weight: float) -> None:
    _, a, b, batches = case(name)
    module = merged(a, b, weight)
    before = [state(parent) for parent in (a, b)]
    report = lmcfast.repair(module, a, b, batches, weight)
    found, *parents = (statistics(part, batches) for part in (module, a, b))
    assert report.layers == tuple(parents[0])
    for path, (mean, deviation) in found.items():
        wanted = [(1 - weight) * parents[0][path][k] + weight * parents[1][path][k] for k in (0, 1)]
        torch.testing.assert_close(mean, wanted[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(deviation, wanted[1], rtol=1e-4, atol=1e-5)
    for parent, old in zip((a, b), before, strict=True):
        assert_same(state(parent), old)


def test_rescaling_alone_sets_the_deviations() -> None:
    module, a, b, batches = case("mlp")
    assert lmcfast.repair(module, a, b, batches, shift=False).scaled_only == ()
    found, *parents = (statistics(part, batches) for part in (module, a, b))
    shifts = 0
    for path, (mean, deviation) in found.items():
        wanted = [(parents[0][path][k] + parents[1][path][k]) / 2 for k in (0, 1)]
        torch.testing.assert_close(deviation, wanted[1], rtol=1e-4, atol=1e-5)
        shifts += int((mean - wanted[0]).abs().max() > 0.01)
    assert shifts == len(found)


def test_identical_parents_are_left_as_they_are() -> None:
    for name in NETWORKS:
        _, a, _, batches = case(name)
        for module in (copy.deepcopy(a), merged(a, a)):
            lmcfast.repair(module, a, copy.deepcopy(a), batches)
            lmcfast.rescale(module, [a, a])
            for key, tensor in module.state_dict().items():
                torch.testing.assert_close(tensor, a.state_dict()[key], rtol=1e-5, atol=1e-6)


def test_with_batchnorm_it_is_reset_batchnorm() -> None:
    a, b = (randomize(mlp((6, 9, 8, 5), norm=True), seed) for seed in (1, 2))
    batches = [torch.randn(16, 6, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    module, twin = merged(a, b), merged(a, b)
    report = lmcfast.repair(module, a, b, batches, outputs=False)
    assert lmcfast.reset_batchnorm(twin, batches) == len(report.norms) == 2
    assert report.layers == ()
    assert_same(state(module), state(twin))
    assert set(report.left.values()) == {"a BatchNorm takes its output", "its output is the network's"}


def test_beside_batchnorm_other_layers_are_repaired_in_order() -> None:
    a, b = (randomize(normed(), seed) for seed in (1, 2))
    batches = [torch.randn(16, 6, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    module = merged(a, b)
    weight = state(module)["0.weight"]
    report = lmcfast.repair(module, a, b, batches)
    assert (report.layers, report.norms, report.scaled_only) == (("3", "5"), ("1",), ("5",))
    assert report.left == {"0": "a BatchNorm takes its output"}
    assert torch.equal(state(module)["0.weight"], weight)
    found, *parents = (statistics(part, batches) for part in (module, a, b))
    inputs = found["0"]
    torch.testing.assert_close(module[1].running_mean.double(), inputs[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(module[1].running_var.double(), inputs[1] ** 2 * 48 / 47, rtol=1e-5, atol=1e-5)
    for path in report.layers:
        torch.testing.assert_close(
            found[path][1], (parents[0][path][1] + parents[1][path][1]) / 2, rtol=1e-4, atol=1e-5
        )


def test_many_parents_and_state_dicts() -> None:
    parents = [randomize(mlp((6, 9, 5)), seed) for seed in range(4)]
    shares = [0.4, 0.3, 0.2, 0.1]
    states = [state(parent) for parent in parents]
    module = mlp((6, 9, 5))
    mean = {name: sum(s * one[name] for s, one in zip(shares, states, strict=True)) for name in states[0]}
    module.load_state_dict(mean)  # type: ignore[arg-type]
    batches = [torch.randn(30, 6, generator=torch.Generator().manual_seed(1))]
    lmcfast.repair_many(module, states, batches, shares)
    found, *of = (statistics(part, batches) for part in (module, *parents))
    for path in found:
        for k in (0, 1):
            wanted = sum(share * one[path][k] for share, one in zip(shares, of, strict=True))
            torch.testing.assert_close(found[path][k], wanted, rtol=1e-4, atol=1e-5)


def test_some_layers_alone_and_channels_that_do_not_vary() -> None:
    module, a, b, batches = case("mlp")
    with torch.no_grad():
        module[0].weight[3] = 0.0
    before = state(module)
    report = lmcfast.repair(module, a, b, batches, layers="0")
    assert report.layers == ("0",)
    assert set(report.left.values()) == {"not in layers"}
    assert_same(
        {k: v for k, v in state(module).items() if k[0] != "0"}, {k: v for k, v in before.items() if k[0] != "0"}
    )
    assert torch.equal(module[0].weight[3], before["0.weight"][3])
    mean = [statistics(part, batches)["0"][0][3] for part in (module, a, b)]
    torch.testing.assert_close(mean[0], (mean[1] + mean[2]) / 2, rtol=1e-4, atol=1e-5)


class Shared(nn.Module):
    """One layer called twice, two that share a weight, one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.one, self.other, self.idle = (nn.Linear(4, 4) for _ in range(4))
        self.other.weight = self.one.weight

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.relu(self.twice(torch.relu(self.twice(inputs))))
        output: Tensor = self.other(torch.relu(self.one(hidden)))
        return output


def test_layers_that_cannot_be_set_are_left_with_the_reason() -> None:
    a, b = randomize(Shared(), 1), randomize(Shared(), 2)
    module = merged(a, b)
    before = state(module)
    report = lmcfast.repair(module, a, b, [torch.randn(8, 4, generator=torch.Generator().manual_seed(0))])
    assert report.left == {
        "twice": "called 2 times in one pass", "one": "its weight is shared or computed",
        "other": "its weight is shared or computed", "idle": "never called",
    }  # fmt: skip
    assert_same(state(module), before)


def test_everything_is_as_before_after_an_error() -> None:
    module, a, b, batches = case("mlp")
    module.train()
    before = state(module)
    with pytest.raises(lmcfast.InvalidParamsError, match=r"module: the outputs of layer '0' are not finite"):
        lmcfast.repair(module, a, b, Changing([batches] * 4 + [[batches[0] / 0.0]]))
    assert_same(state(module), before)
    assert module.training
    with pytest.raises(TypeError, match=r"batches: a list_iterator can be gone through only once"):
        lmcfast.repair(module, a, b, iter(batches))
    with pytest.raises(ValueError, match=r"batches: at least one batch"):
        lmcfast.repair(module, a, b, [])
    with pytest.raises(ValueError, match=r"weight: must be in \[0, 1\], not 1.5"):
        lmcfast.repair(module, a, b, batches, weight=1.5)
    with pytest.raises(ValueError, match=r"layers: 'conv\*' matches no layer; there are: 0, 2, 4"):
        lmcfast.repair(module, a, b, batches, layers=["conv*"])
    with pytest.raises(lmcfast.InvalidParamsError, match=r"module_b: tensor '0.weight' has shape \(7, 6\)"):
        lmcfast.repair(module, a, mlp((6, 7, 8, 5)), batches)
    with pytest.raises(ValueError, match=r"weights: 2 finite numbers >= 0 are needed"):
        lmcfast.rescale(module, [a, b], [1.0])
    with pytest.raises(ValueError, match=r"inputs: must be 'weights' or 'white', not 'grey'"):
        lmcfast.rescale(module, [a, b], inputs="grey")  # type: ignore[arg-type]
    assert_same(state(module), before)


class Changing:
    """Batches that are others each time they are gone through."""

    def __init__(self, passes: list[list[Tensor]]) -> None:
        self.passes = passes

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.passes.pop(0))


@pytest.mark.parametrize("name", NETWORKS)
def test_rescaling_without_data_is_exact_for_the_inputs_that_it_assumes(name: str) -> None:
    """Against dense matrices: each group's covariance formed, rows taken one by one."""
    for inputs in ("white", "weights"):
        module, a, b, _ = case(name)
        before = copy.deepcopy(module)
        assert lmcfast.rescale(module, [a, b], inputs=inputs) == tuple(channel_layers(module))  # type: ignore[arg-type]
        for path, layer in channel_layers(module).items():
            rows = [weight_rows(layer, channel_layers(m)[path].get_parameter("weight")) for m in (a, b, before, module)]
            for one, two, old, new in zip(*rows, strict=True):
                covariance = (
                    (one.T @ one + two.T @ two) / 2 if inputs == "weights" else torch.eye(one.shape[1]).double()
                )
                deviation = [torch.stack([(w @ covariance @ w).sqrt() for w in part]) for part in (one, two, old, new)]
                torch.testing.assert_close(deviation[3], (deviation[0] + deviation[1]) / 2, rtol=1e-5, atol=1e-6)
                cosine = nn.functional.cosine_similarity(old, new)
                torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=1e-6, atol=1e-6)
            bias = layer.get_parameter("bias")
            assert torch.equal(bias, channel_layers(before)[path].get_parameter("bias"))


def test_white_inputs_give_the_deviations_of_repair() -> None:
    """With inputs that are white on the sample, the closed form of the first layer is what the data say."""
    _, a, b, _ = case("mlp")
    inputs = torch.linalg.qr(torch.randn(60, 7, generator=torch.Generator().manual_seed(0)).double())[0]
    inputs = torch.linalg.qr(torch.cat([torch.ones(60, 1).double(), inputs], 1))[0][:, 1:7].float() * 60**0.5
    one, two = merged(a, b), merged(a, b)
    lmcfast.repair(one, a, b, [inputs], shift=False, layers="0")
    lmcfast.rescale(two, [a, b], inputs="white", layers="0")
    torch.testing.assert_close(one[0].weight, two[0].weight, rtol=1e-4, atol=1e-5)


def test_moments_of_pieces_are_those_of_the_whole() -> None:
    values = 1e4 + torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moments = Moments()
    for begin, end in ((0, 1), (1, 20), (20, 20), (20, 50)):
        moments.add(values[begin:end], -1)
    torch.testing.assert_close(moments.mean, values.mean(0))
    torch.testing.assert_close(moments.deviation, values.std(0, correction=0), rtol=1e-9, atol=0)


def test_rows_are_scaled_where_the_channels_lie() -> None:
    for layer in (nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(4, 6, 3, groups=2), nn.Linear(4, 6)):
        twin = copy.deepcopy(layer)
        factor = torch.arange(1.0, 7.0)
        scale_rows(twin, factor)
        inputs = torch.randn(2, 4, *[5] * (layer.weight.ndim - 2), generator=torch.Generator().manual_seed(0))
        shape = (1, 6, *[1] * (layer.weight.ndim - 2))
        with torch.no_grad():
            bias = layer.bias.reshape(shape)
            torch.testing.assert_close(twin(inputs) - bias, (layer(inputs) - bias) * factor.reshape(shape))
