"""The faces of Git Re-Basin, PyTorch port and original: tables, what callers rely on, and what is found."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from naive_matching import naive_matching, objective

import lmcfast
from lmcfast.compat import git_re_basin, git_re_basin_jax

Spec = git_re_basin.PermutationSpec


def test_specs_are_named_tuples_of_both_ways():
    ps = git_re_basin.permutation_spec_from_axes_to_perm({"w": ("P", None), "b": ("P",), "v": (None, "P"), "n": ()})
    assert ps == ({"P": [("w", 0), ("b", 0), ("v", 1)]}, {"w": ("P", None), "b": ("P",), "v": (None, "P"), "n": ()})
    assert ps.perm_to_axes is ps[0]
    assert git_re_basin.mlp_permutation_spec(2).axes_to_perm == {
        "layer0.weight": ("P_0", None), "layer0.bias": ("P_0",),
        "layer1.weight": ("P_1", "P_0"), "layer1.bias": ("P_1",),
        "layer2.weight": (None, "P_1"), "layer2.bias": (None,),
    }  # fmt: skip
    assert git_re_basin_jax.mlp_permutation_spec(1).axes_to_perm == {
        "Dense_0/kernel": (None, "P_0"), "Dense_0/bias": ("P_0",),
        "Dense_1/kernel": ("P_0", None), "Dense_1/bias": (None,),
    }  # fmt: skip
    with pytest.raises(AssertionError, match="num_hidden_layers"):
        git_re_basin.mlp_permutation_spec(0)


class Block(torch.nn.Module):
    """Of the port's wide ResNet: norms before convolutions, GroupNorm of one group."""

    def __init__(self, width_in: int, width: int, first: bool) -> None:
        super().__init__()
        self.bn1, self.bn2 = torch.nn.GroupNorm(1, width_in), torch.nn.GroupNorm(1, width)
        self.conv1 = torch.nn.Conv2d(width_in, width, 3, padding=1, bias=False)
        self.conv2 = torch.nn.Conv2d(width, width, 3, padding=1, bias=False)
        shortcut = [torch.nn.Conv2d(width_in, width, 1, bias=False), torch.nn.GroupNorm(1, width)]
        self.shortcut = torch.nn.Sequential(*(shortcut if first else []))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.conv1(torch.relu(self.bn1(x)))
        return self.conv2(torch.relu(self.bn2(inner))) + self.shortcut(x)


class WideResNet(torch.nn.Module):
    def __init__(self, blocks: int) -> None:
        super().__init__()
        widths = (4, 6, 8, 10)
        self.conv1 = torch.nn.Conv2d(3, 4, 3, padding=1, bias=False)
        for stage in (1, 2, 3):
            before = [widths[stage - 1], *[widths[stage]] * (blocks - 1)]
            made = [Block(width, widths[stage], k == 0) for k, width in enumerate(before)]
            setattr(self, f"layer{stage}", torch.nn.Sequential(*made))
        self.bn1, self.linear = torch.nn.GroupNorm(1, 10), torch.nn.Linear(10, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.linear(torch.relu(self.bn1(x)).mean(dim=(2, 3)))


def vgg16(width: int = 3) -> torch.nn.Module:
    layers: list[torch.nn.Module] = []
    channels = 3
    for size in [1, 1, "M", 2, 2, "M", 3, 3, 3, "M", 4, 4, 4, "M", 4, 4, 4, "M"]:
        if isinstance(size, int):
            layers += [torch.nn.Conv2d(channels, width * size, 3, padding=1), torch.nn.BatchNorm2d(width * size)]
            channels = width * size
        layers.append(torch.nn.MaxPool2d(2) if size == "M" else torch.nn.ReLU())
    network = torch.nn.Module()
    network.features, network.classifier = torch.nn.Sequential(*layers), torch.nn.Linear(channels, 5)
    network.forward = lambda x: network.classifier(network.features(x).flatten(1))
    return network


def randomised(network: torch.nn.Module, seed: int) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    return network.eval()


@pytest.mark.parametrize(
    ("make", "table"),
    [
        (lambda: WideResNet(3), git_re_basin.resnet20_permutation_spec),
        (lambda: WideResNet(8), git_re_basin.resnet50_permutation_spec),
        (vgg16, git_re_basin.vgg16_permutation_spec),
    ],
)
def test_tables_leave_the_output_alone(make, table):
    network, ps, x = randomised(make(), 0).double(), table(), torch.rand(2, 3, 32, 32, dtype=torch.float64)
    assert set(ps.axes_to_perm) == set(network.state_dict())
    before = network(x)
    generator = torch.Generator().manual_seed(1)
    sizes = {p: network.state_dict()[axes[0][0]].shape[axes[0][1]] for p, axes in ps.perm_to_axes.items()}
    perm = {p: torch.randperm(n, generator=generator).float() for p, n in sizes.items()}
    moved = git_re_basin.apply_permutation(ps, perm, network.state_dict())
    assert any(not torch.equal(moved[name], tensor) for name, tensor in network.state_dict().items())
    network.load_state_dict(moved)
    torch.testing.assert_close(network(x), before)


def mlp_params(seed: int, sizes: tuple[int, ...] = (6, 20, 16, 4)) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    params = {}
    for i, (n, m) in enumerate(pairwise(sizes)):
        params[f"layer{i}.weight"] = torch.randn(m, n, generator=generator)
        params[f"layer{i}.bias"] = torch.randn(m, generator=generator)
    return params


def value(axes, a, b, perm) -> float:
    arrays = [{key: tensor.numpy() for key, tensor in params.items()} for params in (a, b)]
    return objective(axes, *arrays, {p: np.asarray(index).astype(np.int64) for p, index in perm.items()})


def test_weight_matching_finds_a_planted_permutation(capsys):
    ps, b = git_re_basin.mlp_permutation_spec(2), mlp_params(0)
    planted = {"P_0": torch.randperm(20), "P_1": torch.randperm(16)}
    a = git_re_basin.apply_permutation(ps, planted, b)
    perm = git_re_basin.weight_matching(ps, a, b)
    assert list(perm) == ["P_0", "P_1"]
    for p, index in planted.items():
        assert perm[p].dtype == torch.float32
        assert torch.equal(perm[p].long(), index)
    for name, tensor in git_re_basin.apply_permutation(ps, perm, b).items():
        assert torch.equal(tensor, a[name])
    assert "/P_0: " in capsys.readouterr().out


def test_weight_matching_is_no_worse_than_the_algorithm(capsys):
    ps, a, b = git_re_basin.mlp_permutation_spec(2), mlp_params(1), mlp_params(2)
    arrays = [{key: tensor.numpy() for key, tensor in params.items()} for params in (a, b)]
    theirs = max(naive_matching(ps.axes_to_perm, *arrays, seed=seed).objective for seed in range(3))
    found = git_re_basin.weight_matching(ps, a, b)
    assert value(ps.axes_to_perm, a, b, found) >= theirs * (1 - 1e-3)
    start = {p: torch.randperm(len(index)).float() for p, index in found.items()}
    copies = {p: index.clone() for p, index in start.items()}
    assert {p: index.tolist() for p, index in git_re_basin.weight_matching(ps, a, b, 0, start).items()} != {}
    again = git_re_basin.weight_matching(ps, a, b, max_iter=5, init_perm=start)
    assert value(ps.axes_to_perm, a, b, again) >= value(ps.axes_to_perm, a, b, start)
    assert all(torch.equal(start[p], copies[p]) for p in start)


def test_names_of_permutations_may_be_anything():
    a, b = mlp_params(1, (3, 5, 2)), mlp_params(2, (3, 5, 2))
    found = []
    for name in ("P_0", "two words", "_49", 7):
        ps = git_re_basin.permutation_spec_from_axes_to_perm(
            {"layer0.weight": (name, None), "layer0.bias": (name,), "layer1.weight": (None, name)}
        )
        found.append(git_re_basin.weight_matching(ps, a, b)[name].tolist())
    assert found == [found[0]] * 4


def test_axes_beyond_the_rank_and_statistics_without_entry():
    ps = git_re_basin.permutation_spec_from_axes_to_perm(
        {"bn.weight": ("P", None), "conv.weight": ("P",), "bn.num_batches_tracked": (), "fc.weight": (None, "P")}
    )
    generator = torch.Generator().manual_seed(0)
    b = {
        "bn.weight": torch.rand(6, generator=generator),
        "conv.weight": torch.rand(6, 3, 2, 2, generator=generator),
        "bn.num_batches_tracked": torch.tensor(3),
        "fc.weight": torch.rand(4, 6, generator=generator),
        "bn.running_mean": torch.rand(6, generator=generator),
        "bn.running_var": torch.rand(6, generator=generator),
    }
    perm = {"P": torch.tensor([3, 1, 2, 0, 5, 4]).float()}
    a = git_re_basin.apply_permutation(ps, perm, b)
    assert torch.equal(a["bn.running_mean"], b["bn.running_mean"][[3, 1, 2, 0, 5, 4]])
    assert torch.equal(a["bn.num_batches_tracked"], torch.tensor(3))
    assert torch.equal(git_re_basin.weight_matching(ps, a, b)["P"], perm["P"])
    assert torch.equal(git_re_basin.get_permuted_param(ps, perm, "fc.weight", b, except_axis=1), b["fc.weight"])
    with pytest.raises(KeyError, match="other"):
        git_re_basin.apply_permutation(ps, perm, {"other.weight": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"'bn.weight' has 1 axes, got \('P', 'P'\)"):
        git_re_basin.weight_matching(ps._replace(axes_to_perm={**ps.axes_to_perm, "bn.weight": ("P", "P")}), a, b)


def jax_params(params: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The MLP's tensors as the original names and turns them."""
    names = {"weight": "kernel", "bias": "bias"}
    return {
        f"Dense_{key[5]}/{names[key.rpartition('.')[2]]}": tensor.numpy().T.copy() for key, tensor in params.items()
    }


def test_the_original_on_numpy_finds_the_same(capsys):
    ps = git_re_basin_jax.mlp_permutation_spec(2)
    a, b = mlp_params(1), mlp_params(2)
    port = git_re_basin.weight_matching(git_re_basin.mlp_permutation_spec(2), a, b)
    capsys.readouterr()
    found = git_re_basin_jax.weight_matching(None, ps, jax_params(a), jax_params(b), silent=True)
    assert capsys.readouterr().out == ""
    for p, index in found.items():
        assert isinstance(index, np.ndarray)
        assert index.tolist() == port[p].tolist()
    moved = git_re_basin_jax.apply_permutation(ps, found, jax_params(b))
    expected = jax_params(git_re_basin.apply_permutation(git_re_basin.mlp_permutation_spec(2), port, b))
    assert all(np.array_equal(moved[key], expected[key]) for key in expected)
    git_re_basin_jax.weight_matching(0, ps, jax_params(a), jax_params(b), init_perm=found)
    assert "/P_" in capsys.readouterr().out


def test_the_original_on_jax_arrays():
    jnp = pytest.importorskip("jax.numpy", reason="JAX is not installed")
    ps = git_re_basin_jax.mlp_permutation_spec(2)
    a, b = ({key: jnp.asarray(x) for key, x in jax_params(mlp_params(seed)).items()} for seed in (1, 2))
    found = git_re_basin_jax.weight_matching(None, ps, a, b, silent=True)
    on_numpy = git_re_basin_jax.weight_matching(
        None, ps, jax_params(mlp_params(1)), jax_params(mlp_params(2)), silent=True
    )
    assert all(isinstance(index, jnp.ndarray) for index in found.values())
    assert all(np.array_equal(found[p], on_numpy[p]) for p in found)
    assert isinstance(git_re_basin_jax.apply_permutation(ps, found, b)["Dense_0/kernel"], jnp.ndarray)


@pytest.mark.parametrize(
    ("table", "groups", "tensors"),
    [
        (git_re_basin_jax.vgg16_permutation_spec, 15, 58),
        (git_re_basin_jax.resnet20_permutation_spec, 12, 65),
        (git_re_basin_jax.resnet50_permutation_spec, 37, 161),
    ],
)
def test_tables_of_the_original(table, groups, tensors):
    """Every permutation has one axis that makes its units and one that takes them."""
    ps = table()
    assert (len(ps.perm_to_axes), len(ps.axes_to_perm)) == (groups, tensors)
    for axes in ps.perm_to_axes.values():
        kernels = [(name, len(ps.axes_to_perm[name]) - axis) for name, axis in axes if name.endswith("kernel")]
        assert {place for _, place in kernels} == {1, 2}


def test_jax_is_not_imported():
    code = "import sys, lmcfast.compat.git_re_basin_jax\nprint('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_errors_keep_their_names():
    ps, a = git_re_basin.mlp_permutation_spec(2), mlp_params(1)
    with pytest.raises(lmcfast.InvalidParamsError, match="params_b"):
        git_re_basin.weight_matching(ps, a, mlp_params(1, (6, 20, 15, 4)))
    with pytest.raises(KeyError, match=r"layer2\.weight"):
        git_re_basin.weight_matching(ps, {key: x for key, x in a.items() if key != "layer2.weight"}, a)
