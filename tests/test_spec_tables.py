"""Tables: every one is proved on a real module, and what is not recognised completely is refused."""

from __future__ import annotations

import random

import pytest
import torch
from helpers import networks
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lmcfast.errors import InvalidParamsError, SpecError
from lmcfast.matching import weight_matching
from lmcfast.params import apply_permutations
from lmcfast.spec import (
    PermutationSpec,
    feed_forward_spec,
    format_layout,
    resnet_spec,
    spec_from_params,
    verify_spec,
    vgg_spec,
)

CASES = {name: (module, example) for name, module, example in networks.architectures()}


def text(spec: PermutationSpec, name: str) -> list[str]:
    return [str(format_layout(layout)) for layout in spec.axes[name]]


@pytest.mark.parametrize("name", CASES)
def test_table_is_proved_and_complete(name: str) -> None:
    module, example = CASES[name]
    params = networks.params_of(module)
    spec = spec_from_params(params)
    report = verify_spec(spec, module, example)
    assert report.insensitive == ()
    assert report.max_error < 1e-12
    floating = [key for key, tensor in params.items() if tensor.is_floating_point()]
    assert list(spec.axes) == floating, "entries in the order of the forward pass"
    # Nothing is left fixed that could move: only input, output and kernel positions have no group.
    reasons = {reason for why in spec.why_fixed.values() for reason in why}
    assert reasons <= {"input", "output", "position in the kernel"}
    open_axes = {(t, k) for t in spec.axes for k, layout in enumerate(text(spec, t)) if layout.startswith("_")}
    assert open_axes == set(spec.why_fixed)


@pytest.mark.parametrize("name", CASES)
def test_moved_state_dict_loads_and_agrees_in_float32(name: str) -> None:
    module, example = CASES[name]
    params = networks.params_of(module)
    spec = spec_from_params(params)
    with torch.no_grad():
        before = module(example)
        try:
            module.load_state_dict(apply_permutations(spec, spec.random_permutations(1), params))
            after = module(example)
        finally:
            module.load_state_dict(params)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prefix", ["module.", "net.", "_orig_mod.module."])
@pytest.mark.parametrize("name", ["mlp with batch norm", "vgg, norm True", "cifar resnet pad, norm True"])
def test_prefix_of_all_keys_does_not_matter(name: str, prefix: str) -> None:
    params = networks.params_of(CASES[name][0])
    spec = spec_from_params(params)
    other = spec_from_params({prefix + key: tensor for key, tensor in params.items()})
    assert other.groups == spec.groups
    assert other.axes == {prefix + key: layouts for key, layouts in spec.axes.items()}


def shuffled(params: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    names = sorted(params)
    random.Random(seed).shuffle(names)
    return {name: params[name] for name in names}


@pytest.mark.parametrize("name", CASES)
def test_order_of_keys_does_not_matter(name: str) -> None:
    params = networks.params_of(CASES[name][0])
    spec = spec_from_params(params)
    for other in (dict(sorted(params.items())), shuffled(params, 0), shuffled(params, 1)):
        found = spec_from_params(other)
        assert found == spec
        assert found.to_json() == spec.to_json()
        assert found.fingerprint == spec.fingerprint
        assert str(found.report()) == str(spec.report())
        assert list(found.groups) == list(spec.groups)
        assert found.movable_groups == spec.movable_groups


@pytest.mark.parametrize("name", ["deep mlp without bias", "vgg, norm True", "resnet, norm True", "cnn"])
def test_matching_does_not_depend_on_the_order_of_keys(name: str) -> None:
    a = networks.params_of(CASES[name][0])
    generator = torch.Generator().manual_seed(5)
    b = {
        key: tensor + torch.randn(tensor.shape, generator=generator).abs() if tensor.is_floating_point() else tensor
        for key, tensor in a.items()
    }
    results = [
        weight_matching(spec_from_params(one), one, other, restarts=3, seed=7)
        for one, other in ((a, b), (dict(sorted(a.items())), dict(sorted(b.items()))), (shuffled(a, 2), shuffled(b, 3)))
    ]
    first = results[0]
    for result in results[1:]:
        assert list(result.permutations) == list(first.permutations)
        assert all(result.permutations[group].equal(index) for group, index in first.permutations.items())
        assert result.objective == first.objective
        assert result.attempts == first.attempts
        assert [(step.group, step.gain) for step in result.trace] == [(step.group, step.gain) for step in first.trace]


def test_groups_read_like_the_network() -> None:
    spec = spec_from_params(dict(sorted(networks.params_of(networks.vgg()).items())))
    assert list(spec.groups) == ["c0", "c1", "c2", "c3", "h0", "h1"]
    spec = spec_from_params(dict(sorted(networks.params_of(networks.resnet(blocks=1)).items())))
    assert list(spec.groups) == ["stream0", "layer1.0.1", "layer2.0.1", "stream1"]
    modules = dict.fromkeys(name.rpartition(".")[0] for name in spec.axes)
    block = ["conv1", "bn1", "conv2", "bn2"]
    second = [*block, "downsample.0", "downsample.1"]
    ordered = ["conv1", "bn1", *(f"layer1.0.{part}" for part in block), *(f"layer2.0.{part}" for part in second), "fc"]
    assert list(modules) == ordered


def test_layouts_of_flattened_and_padded_channels() -> None:
    assert text(spec_from_params(networks.params_of(networks.vgg())), "classifier.0.weight") == ["h0", "c3 _4"]
    spec = spec_from_params(networks.params_of(networks.cnn()))
    assert text(spec, "9.running_mean") == ["c1 _4"]
    assert text(spec, "10.weight") == ["h0", "c1 _4"]
    spec = spec_from_params(networks.params_of(networks.cifar_resnet("pad")))
    assert text(spec, "layer2.0.conv2.weight")[0] == "layer2.0.low | stream0 | layer2.0.high"
    assert len(text(spec, "linear.weight")[1].split("|")) == 5


def test_deep_networks_sort_layers_by_number() -> None:
    params = networks.params_of(networks.mlp([5, *range(6, 18), 4]))
    spec = feed_forward_spec(dict(sorted(params.items())))
    assert text(spec, "20.weight") == ["h10", "h9"]
    assert len(spec.movable_groups) == 12


def test_conv_network_with_names() -> None:
    shapes = {
        "conv1.weight": (5, 2, 3, 3),
        "bn1.weight": (5,),
        "bn1.bias": (5,),
        "bn1.running_mean": (5,),
        "bn1.running_var": (5,),
        "conv2.weight": (6, 5, 3, 3),
        "fc1.weight": (7, 24),
        "fc2.weight": (4, 7),
    }
    spec = spec_from_params({name: torch.zeros(shape) for name, shape in shapes.items()})
    assert text(spec, "fc1.weight") == ["h0", "c1 _4"]
    assert text(spec, "bn1.running_var") == ["c0"]


@st.composite
def sequentials(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A random nn.Sequential of convolutions, a flatten and linear layers, with norms, pools and biases in places."""
    widths = st.integers(1, 5)
    layers: list[nn.Module] = []
    width, side = draw(widths), 4
    example = networks.inputs(3, width, side, side) if draw(st.booleans()) else networks.inputs(3, width)
    if example.ndim == 4:
        for _ in range(draw(st.integers(1, 3))):
            out = draw(widths)
            layers.append(
                nn.Conv2d(width, out, draw(st.sampled_from([1, 3])), padding="same", bias=draw(st.booleans()))
            )
            layers += [nn.BatchNorm2d(out)] if draw(st.booleans()) else []
            layers.append(draw(st.sampled_from([nn.ReLU(), nn.GELU(), nn.Tanh()])))
            width = out
            if side > 1 and draw(st.booleans()):
                layers.append(nn.AvgPool2d(2))
                side //= 2
        layers.append(nn.Flatten())
        width *= side * side
    for _ in range(draw(st.integers(0, 3))):
        layers += [nn.BatchNorm1d(width, affine=draw(st.booleans()))] if draw(st.booleans()) else []
        out = draw(widths)
        layers += [nn.Linear(width, out, bias=draw(st.booleans())), nn.SiLU()]
        width = out
    layers.append(nn.Linear(width, 3))
    return networks.randomize(nn.Sequential(*layers), draw(st.integers(0, 99))), example


@given(sequentials())
@settings(max_examples=60, deadline=None)
def test_random_chains_are_proved(case: tuple[nn.Module, Tensor]) -> None:
    module, example = case
    spec = feed_forward_spec(networks.params_of(module))
    layers = [part for part in module.children() if isinstance(part, nn.Linear | nn.Conv2d)]
    assert len(spec.movable_groups) == len(layers) - 1
    verify_spec(spec, module, example, seeds=1)


class PreNorm(nn.Module):
    """Batch norm before each layer, equal widths: the keys of ``named_mlp`` with norms, another forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.bn1, self.fc1 = nn.BatchNorm1d(6), nn.Linear(6, 6)
        self.bn2, self.fc2 = nn.BatchNorm1d(6), nn.Linear(6, 6)
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.fc2(torch.relu(self.bn2(self.fc1(self.bn1(x))))))
        return y


def shapes(**entries: tuple[int, ...]) -> dict[str, Tensor]:
    return {name.replace("__", "."): torch.zeros(shape) for name, shape in entries.items()}


def without(params: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in params.items() if name not in names}


def refused() -> dict[str, tuple[dict[str, Tensor], str, str | None]]:
    mlp = networks.params_of(networks.mlp(norm=True))
    resnet = networks.params_of(networks.resnet())
    pad = networks.params_of(networks.cifar_resnet("pad"))
    vgg = networks.params_of(networks.vgg())
    return {
        "empty": ({}, "empty", None),
        "group norm": (
            networks.params_of(networks.group_norm_resnet()),
            "norm without running statistics",
            "bn1.weight",
        ),
        "layer norm": ({**mlp, "3.weight": torch.ones(8)}, "no linear|norm without", None),
        "attention": (networks.params_of(networks.attention()), "does not tell its place", "qkv.weight"),
        "bare parameter": (networks.params_of(networks.experts()), "'router' belongs to no", "router"),
        "extra scale": ({**mlp, "6.scale": torch.ones(3)}, "'6.scale' belongs to no", "6.scale"),
        "width does not chain": ({**mlp, "6.weight": torch.zeros(5, 9)}, "module '6' does not continue", "6.weight"),
        "norm does not fit": (
            shapes(**{"0__weight": (4, 3), "1__running_mean": (5,), "1__running_var": (5,)}),
            "'1'",
            None,
        ),
        "missing layer": (without(mlp, "3.weight", "3.bias"), "'4'|'6'|does not continue", None),
        "bias does not fit": ({**mlp, "0.bias": torch.zeros(9)}, "'0' .*is no linear", "0.weight"),
        "conv after linear": (shapes(**{"0__weight": (4, 3), "1__weight": (4, 4, 3, 3)}), "after a linear", "1.weight"),
        "grouped convolution": (shapes(**{"0__weight": (4, 3, 3, 3), "1__weight": (4, 2, 3, 3)}), "'1'", "1.weight"),
        "no layers": (shapes(**{"0__running_mean": (3,), "0__running_var": (3,)}), "no linear layer", None),
        "pre-norm of equal widths": (networks.params_of(PreNorm()), "precede or follow", None),
        "two rows of numbers": (shapes(fc1__weight=(4, 3), fc21__weight=(4, 4), fc22__weight=(4, 4)), "one row", None),
        "unknown name": (shapes(fc1__weight=(4, 3), mixer__weight=(4, 4)), "'mixer' does not tell", "mixer.weight"),
        "vgg with other parts": ({**vgg, "extra.weight": torch.zeros(3, 3)}, "'extra' is not part of a VGG", None),
        "vgg without classifier": (
            {k: v for k, v in vgg.items() if k.startswith("features")},
            "not part of a VGG",
            None,
        ),
        "resnext": ({**resnet, "layer1.0.conv2.weight": torch.zeros(4, 2, 3, 3)}, "is it grouped", None),
        "squeeze": ({**resnet, "layer1.0.se.weight": torch.zeros(2, 4)}, "'layer1.0.se'", "layer1.0.se.weight"),
        "norm missing": (
            without(resnet, *(k for k in resnet if k.startswith("layer1.0.bn2"))),
            "has a batch norm",
            None,
        ),
        "conv missing": (without(resnet, "layer1.0.conv1.weight"), "lacks a convolution", None),
        "no head": (without(resnet, "fc.weight", "fc.bias"), "one linear layer fc", None),
        "head does not fit": ({**resnet, "fc.weight": torch.zeros(5, 7)}, "module 'fc'", "fc.weight"),
        "width tripled by padding": ({**pad, **_widened(pad)}, "without a shortcut", None),
    }


def _widened(pad: dict[str, Tensor]) -> dict[str, Tensor]:
    wide = {"layer3.0.conv2.weight": torch.zeros(24, 16, 3, 3), "linear.weight": torch.zeros(5, 24)}
    return wide | {k: torch.zeros(24) for k in pad if k.startswith("layer3.0.bn2") and pad[k].ndim}


REFUSED = refused()


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_recognised_is_refused(case: str) -> None:
    params, message, tensor = REFUSED[case]
    with pytest.raises(SpecError, match=message) as caught:
        spec_from_params(params)
    if params:
        assert "Known: feed-forward" in str(caught.value)
    if tensor is not None:
        assert caught.value.tensor == tensor


def test_a_module_in_place_of_its_state_dict() -> None:
    with pytest.raises(InvalidParamsError, match=r"not Sequential; pass module\.state_dict\(\)"):
        spec_from_params(networks.mlp())  # type: ignore[arg-type]


def test_a_table_asked_by_name_says_why_it_refuses() -> None:
    params = networks.params_of(networks.mlp())
    with pytest.raises(SpecError, match="not part of a VGG"):
        vgg_spec(params)
    with pytest.raises(SpecError, match="not a residual network"):
        resnet_spec(params)


def test_verification_catches_what_keys_cannot_show() -> None:
    """The keys of a chain, but a skip connection in the forward pass: the table is wrong, and the proof says so."""

    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.fc1(x))
            y: Tensor = self.out(x + torch.relu(self.fc2(x)))
            return y

    module = networks.randomize(Skip(), 0)
    with pytest.raises(SpecError, match="the output changes") as caught:
        verify_spec(spec_from_params(networks.params_of(module)), module, networks.inputs(4, 6))
    assert caught.value.group in ("h0", "h1")
