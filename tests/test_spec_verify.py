"""verify_spec: right specs pass, wrong ones are refused by the name of the wrong tensor."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from helpers import networks
from torch import Tensor, nn

from lmcfast.errors import InvalidInputsError, SpecError
from lmcfast.spec import Group, PermutationSpec, format_layout, spec_from_params, verify_spec

Axes = dict[str, list[str | None]]


def axes_of(module: nn.Module) -> tuple[Axes, dict[str, Any]]:
    """The table's layouts as text, to be spoilt, and the other arguments of from_axes."""
    spec = spec_from_params(networks.params_of(module))
    axes = {name: [format_layout(layout) for layout in layouts] for name, layouts in spec.axes.items()}
    return axes, {"sizes": spec.sizes}


def spoilt(module: nn.Module, change: Callable[[Axes], Any]) -> PermutationSpec:
    axes, options = axes_of(module)
    change(axes)
    used = {word for layouts in axes.values() for layout in layouts for word in (layout or "").split()}
    sizes = {name: size for name, size in options["sizes"].items() if name in used}
    return PermutationSpec.from_axes(axes, sizes)


MLP = networks.mlp((6, 6, 6, 6), norm=True)  # 0 linear, 1 norm, 3 linear, 4 norm, 6 linear; all of one width
RESNET = networks.resnet((4, 4), blocks=2)
ATTENTION_GROUPS = [Group("q", within=("h",)), Group("v", within=("h",))]
ATTENTION = {
    "qkv.weight": ("h q | h q | h v", None),
    "qkv.bias": ("h q | h q | h v",),
    "out.weight": (None, "h v"),
    "out.bias": (None,),
}
ATTENTION_SIZES = {"h": 3, "q": 4, "v": 4}
EXPERTS = {"router": ("e", None), "up": ("e", "u", None), "down": ("e", None, "u")}


def put(tensor: str, axis: int, layout: str | None) -> Callable[[Axes], None]:
    def change(axes: Axes) -> None:
        axes[tensor][axis] = layout

    return change


def drop(*tensors: str) -> Callable[[Axes], None]:
    def change(axes: Axes) -> None:
        for tensor in tensors:
            del axes[tensor]

    return change


def everywhere(old: str, new: str | None, *tensors: str) -> Callable[[Axes], None]:
    def change(axes: Axes) -> None:
        for tensor in tensors or tuple(axes):
            axes[tensor] = [new if layout == old else layout for layout in axes[tensor]]

    return change


@pytest.mark.parametrize(
    ("module", "change", "tensor", "message"),
    [
        (MLP, put("3.weight", 1, None), "3.weight", "axis 1 of tensor '3.weight' is fixed but should have layout 'h0'"),
        (
            MLP,
            put("3.weight", 1, "h1"),
            "3.weight",
            "axis 1 of tensor '3.weight' has layout 'h1' but should have .*'h0'",
        ),
        (MLP, put("3.bias", 0, None), "3.bias", "axis 0 of tensor '3.bias' is fixed but should have layout 'h1'"),
        (MLP, put("6.bias", 0, "h1"), "6.bias", "axis 0 of tensor '6.bias' must not list it"),
        (MLP, put("0.weight", 1, "h0"), "0.weight", "axis 1 of tensor '0.weight' must not list it"),
        (MLP, drop("1.running_var"), "1.running_var", "'1.running_var' has no entry in the spec but moves with it"),
        (MLP, drop("1.running_mean", "1.running_var"), "1.running_mean", "1.running_mean.*1.running_var"),
        (MLP, drop("1.running_mean", "4.running_mean"), "1.running_mean", "'1.running_mean' has no entry"),
        (MLP, put("4.running_mean", 0, None), "4.running_mean", "'4.running_mean' is fixed but"),
        (RESNET, put("layer1.1.conv1.weight", 1, None), "layer1.1.conv1.weight", "axis 1 of .* should have"),
        (RESNET, put("layer2.0.downsample.0.weight", 1, None), "layer2.0.downsample.0.weight", "axis 1 .*'stream0'"),
        (RESNET, put("layer2.0.downsample.1.bias", 0, None), "layer2.0.downsample.1.bias", "axis 0"),
    ],
)
def test_culprit_is_named(module: nn.Module, change: Callable[[Axes], None], tensor: str, message: str) -> None:
    example = networks.inputs(4, 6) if module is MLP else networks.inputs(2, 3, 6, 6)
    verify_spec(spec_from_params(networks.params_of(module)), module, example)
    with pytest.raises(SpecError, match=message) as caught:
        verify_spec(spoilt(module, change), module, example)
    assert caught.value.tensor == tensor
    assert caught.value.group is not None
    assert "\n" not in str(caught.value)


def test_axes_swapped_in_one_tensor() -> None:
    def change(axes: Axes) -> None:
        axes["3.weight"] = axes["3.weight"][::-1]

    with pytest.raises(SpecError, match=r"3\.weight") as caught:
        verify_spec(spoilt(MLP, change), MLP, networks.inputs(4, 6))
    assert caught.value.tensor == "3.weight"


def test_all_statistics_of_a_stream_forgotten() -> None:
    spec = spec_from_params(networks.params_of(RESNET))
    stream = [name for name in spec.tensors_of("stream0") if "running" in name]
    assert len(stream) == 6
    with pytest.raises(SpecError, match="running") as caught:
        verify_spec(spoilt(RESNET, drop(*stream)), RESNET, networks.inputs(2, 3, 6, 6))
    assert all(name in str(caught.value) for name in stream)


def test_output_group_that_must_not_move() -> None:
    def change(axes: Axes) -> None:
        axes["6.weight"][0] = axes["6.bias"][0] = "out"

    axes, _ = axes_of(MLP)
    change(axes)
    with pytest.raises(SpecError, match="'out' moves") as caught:
        verify_spec(PermutationSpec.from_axes(axes), MLP, networks.inputs(4, 6))
    assert caught.value.group == "out"
    assert caught.value.tensor == "6.weight"
    assert "6.bias" in str(caught.value)


def test_two_groups_that_are_one() -> None:
    """A stream split in two: the second half of the blocks under another name."""
    late = [name for name in axes_of(RESNET)[0] if name.startswith("layer1.1")]
    with pytest.raises(SpecError, match="groups 'stream0' and 'other' must be one") as caught:
        verify_spec(spoilt(RESNET, everywhere("stream0", "other", *late)), RESNET, networks.inputs(2, 3, 6, 6))
    assert caught.value.tensor == "layer1.1.conv1.weight"


def test_nested_groups_are_proved() -> None:
    x = networks.inputs(2, 6, 5)
    spec = PermutationSpec.from_axes(ATTENTION, ATTENTION_SIZES, ATTENTION_GROUPS)
    report = verify_spec(spec, networks.attention(), x, seeds=3)
    assert report.groups == ("h", "q", "v")
    assert report.insensitive == ()
    spec = PermutationSpec.from_axes(EXPERTS, groups=[Group("u", within=("e",))])
    report = verify_spec(spec, networks.experts(), networks.inputs(4, 5))
    assert report.tensors == ("router", "up", "down")


@pytest.mark.parametrize("inner", [2, 4])
def test_nesting_that_is_not_there_is_refused(inner: int) -> None:
    """Values tied to the query dimensions of other heads, and one order of units for all experts claimed as nested."""
    axes = {**ATTENTION, "out.weight": (None, "h q")}
    spec = PermutationSpec.from_axes(axes, {"h": 3, "q": inner, "v": inner}, ATTENTION_GROUPS)
    with pytest.raises(SpecError, match="the output changes"):
        verify_spec(spec, networks.attention(inner=inner), networks.inputs(2, 6, 5))


def test_nested_groups_of_two_differ_between_outer_indices() -> None:
    """A swap in every head alike would be right for a module whose heads share one order of inner units."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Linear(4, 6)
            self.mix = nn.Linear(2, 2)
            self.out = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.out(self.mix(torch.relu(self.up(x)).reshape(-1, 3, 2)).relu().reshape(-1, 6))
            return y

    module = networks.randomize(Shared(), 1)
    axes = {"up.weight": ("h u", None), "up.bias": ("h u",), "mix.weight": ("o", "u"), "mix.bias": ("o",)}
    axes |= {"out.weight": (None, "h o"), "out.bias": (None,)}
    right = PermutationSpec.from_axes(axes, {"h": 3, "u": 2, "o": 2})
    assert verify_spec(right, module, networks.inputs(4, 4)).insensitive == ()
    nested = {**axes, "mix.weight": (None, None), "mix.bias": (None,), "out.weight": (None, "h _2")}
    spec = PermutationSpec.from_axes(nested, {"h": 3, "u": 2}, [Group("u", within=("h",))])
    with pytest.raises(SpecError, match="group 'u' moves"):
        verify_spec(spec, module, networks.inputs(4, 4), seeds=1)


def test_two_small_groups_that_are_one() -> None:
    """Two units swap together half of the time; a layer whose two sides have different groups must not pass by that."""
    module = networks.mlp((6, 2, 2, 5), seed=1)
    axes, _ = axes_of(module)
    axes["2.weight"][1] = "other"
    for seed in range(4):
        with pytest.raises(SpecError, match=r"axis 1 of tensor '2\.weight'"):
            verify_spec(PermutationSpec.from_axes(axes), module, networks.inputs(4, 6, seed=seed))


def test_tied_tensors() -> None:
    module, arguments = networks.tied_autoencoder()
    report = verify_spec(PermutationSpec.from_axes(**arguments), module, networks.inputs(4, 6))
    assert report.insensitive == ()
    with pytest.raises(SpecError, match=r"'again.weight'.*no entry.*shares its storage.*`tied`") as caught:
        verify_spec(PermutationSpec.from_axes(arguments["axes"]), module, networks.inputs(4, 6))
    assert caught.value.tensor == "again.weight"


def test_parameter_without_entry_and_entry_without_parameter() -> None:
    with pytest.raises(SpecError, match=r"parameter '3\.bias' of the module has no entry") as caught:
        verify_spec(spoilt(MLP, drop("3.bias")), MLP, networks.inputs(4, 6))
    assert caught.value.tensor == "3.bias"
    axes, _ = axes_of(MLP)
    spec = PermutationSpec.from_axes({**axes, "9.weight": ["h0"]})
    with pytest.raises(ValueError, match=r"'9\.weight' is missing") as other:
        verify_spec(spec, MLP, networks.inputs(4, 6))
    assert other.value.tensor == "9.weight"  # type: ignore[attr-defined]


def test_a_spec_of_another_network_is_named() -> None:
    other = PermutationSpec.from_axes({"up.weight": ("h", None), "down.weight": (None, "h")})
    with pytest.raises(
        SpecError, match=r"'0\.weight' of the .* \(and [0-9]+ more\).* with 'up\.weight', 'down\.weight'"
    ):
        verify_spec(other, MLP, networks.inputs(4, 6))


def test_inputs_that_the_module_cannot_take() -> None:
    module = networks.mlp((6, 8, 7, 5))
    spec = spec_from_params(networks.params_of(module))
    message = r"the example inputs \(of shape \(4, 9\)\) do not fit the module: RuntimeError: mat1 and mat2"
    with pytest.raises(InvalidInputsError, match=message) as caught:
        verify_spec(spec, module, networks.inputs(4, 9))
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(InvalidInputsError, match="do not fit the module: TypeError"):
        verify_spec(spec, module, (networks.inputs(4, 6), networks.inputs(4, 6)))


def test_control_lists_what_has_no_effect() -> None:
    module = networks.mlp((6, 8, 7, 5))
    spec = spec_from_params(networks.params_of(module))
    assert verify_spec(spec, module, networks.inputs(4, 6)).insensitive == ()
    module.state_dict()["2.bias"].sub_(1000.0)  # the second layer's units are dead
    report = verify_spec(spec, module, networks.inputs(4, 6))
    assert report.insensitive == ("0.weight", "0.bias", "2.weight", "2.bias", "4.weight")
    assert "without effect on the output: 0.weight, 0.bias" in str(report)
    assert (report.seeds, report.groups, report.tensors) == (2, ("h0", "h1"), report.insensitive)


def test_fresh_modules_prove_their_statistics_and_biases_too() -> None:
    """Zero means, unit variances and zero biases look the same moved and not moved."""
    module = networks.mlp((6, 6, 6, 6), norm=True)
    for name, tensor in module.state_dict().items():
        if tensor.ndim == 1:
            tensor.fill_(1.0 if name.endswith(("var", "1.weight", "4.weight")) else 0.0)
    before = networks.params_of(module)
    spec = spec_from_params(before)
    assert verify_spec(spec, module, networks.inputs(4, 6)).insensitive == ()
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    for tensor in ("1.running_mean", "4.running_var", "1.weight", "3.bias"):
        with pytest.raises(SpecError, match=f"'{tensor}' is fixed but") as caught:
            verify_spec(spoilt(module, put(tensor, 0, None)), module, networks.inputs(4, 6))
        assert caught.value.tensor == tensor
    with pytest.raises(SpecError, match=r"'4\.running_mean' has no entry"):
        verify_spec(spoilt(module, drop("4.running_mean")), module, networks.inputs(4, 6))


def test_module_and_random_states_stay_as_they_are() -> None:
    module = nn.Sequential(nn.Dropout(0.5), *networks.mlp((6, 8, 7, 5), norm=True).children()).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    x = networks.inputs(4, 6)
    states = torch.random.get_rng_state(), random.getstate()
    verify_spec(spec_from_params(before), module, x)
    assert torch.equal(states[0], torch.random.get_rng_state())
    assert states[1] == random.getstate()
    assert module.training
    assert all(part.training for part in module.children())
    assert torch.get_default_dtype() == torch.float32
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert x.dtype == torch.float32


@dataclass
class Result:
    hidden: Tensor
    logits: Tensor


@dataclass
class Pair:
    first: Tensor
    second: tuple[Tensor, ...]


class Shaped(nn.Module):
    """An MLP whose output comes in a given shape; ``hidden`` shows its units, which move."""

    def __init__(self, shape: str) -> None:
        super().__init__()
        self.up, self.out = nn.Linear(6, 8), nn.Linear(8, 3)
        self.shape = shape

    def forward(self, x: Tensor, scale: Tensor, flag: str = "no") -> Any:
        hidden = torch.relu(self.up(x))
        y = self.out(hidden) * scale
        shapes: dict[str, Any] = {
            "tuple": (y, [y + 1, None]),
            "dict": {"y": y, "note": "text"},
            "dataclass": Pair(y, (2 * y,)),
            "logits": Result(hidden, y),
            "hidden": (y, hidden),
            "mask": y.masked_fill(y > 1, -torch.inf),
            "label": y.argmax(-1),
            "text": "no tensor",
            "nan": y / y.new_zeros(()) * 0,
            "noise": y + torch.randn(y.shape),
            "float32": (y.float() * torch.ones(3, dtype=torch.float32)).to(torch.float32),
            "half": torch.softmax(y.to(dtype=torch.bfloat16), -1, dtype=torch.float32),
        }
        return shapes[self.shape]


SHAPED = {"up.weight": ("h", None), "up.bias": ("h",), "out.weight": (None, "h"), "out.bias": (None,)}


@pytest.mark.parametrize("shape", ["tuple", "dict", "dataclass", "logits", "mask", "label", "noise", "float32", "half"])
def test_outputs_of_every_shape(shape: str) -> None:
    module = networks.randomize(Shaped(shape), 1)
    arguments = (networks.inputs(4, 6), torch.tensor(0.5))
    report = verify_spec(PermutationSpec.from_axes(SHAPED), module, arguments, {"flag": "yes"})
    assert report.max_error < 1e-12
    wrong = {**SHAPED, "up.bias": (None,)}
    if shape != "label":
        with pytest.raises(SpecError, match=r"up\.bias"):
            verify_spec(PermutationSpec.from_axes(wrong), module, arguments)


def test_outputs_can_be_chosen() -> None:
    module = networks.randomize(Shaped("hidden"), 1)
    arguments = (networks.inputs(4, 6),)
    spec = PermutationSpec.from_axes(SHAPED)
    kwargs = {"scale": torch.tensor(0.5)}
    assert verify_spec(spec, module, arguments, kwargs, outputs=lambda output: output[0]).max_error < 1e-12
    with pytest.raises(SpecError, match="the output changes"):
        verify_spec(spec, module, arguments, kwargs)
    with pytest.raises(SpecError, match="no tensor"):
        verify_spec(spec, networks.randomize(Shaped("text"), 1), arguments, kwargs)
    with pytest.raises(SpecError, match="NaN already"):
        verify_spec(spec, networks.randomize(Shaped("nan"), 1), arguments, kwargs)


def test_nan_in_the_moved_output_is_a_failure() -> None:
    """A module that turns any move of its units into NaN: Python's max() would let it pass."""

    class Brittle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.out = nn.Linear(6, 8), nn.Linear(8, 3)
            self.register_buffer("seen", torch.zeros(()), persistent=False)
            self.first = self.up.weight.detach().clone()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.out(torch.relu(self.up(x)))
            return y if torch.equal(self.up.weight, self.first.to(self.up.weight)) else y * torch.nan

    with pytest.raises(SpecError, match="relative error inf"):
        verify_spec(PermutationSpec.from_axes(SHAPED), Brittle(), networks.inputs(4, 6))


def test_seeds_are_checked() -> None:
    with pytest.raises(ValueError, match="seeds: at least 1 is needed, not 0"):
        verify_spec(PermutationSpec.from_axes(SHAPED), MLP, networks.inputs(4, 6), seeds=0)


class Keeping(nn.Module):
    """Makes a table of its weights in the first run and keeps it for the next ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)
        self.kept: dict[str, torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if "bias" not in self.kept:
            self.kept["bias"] = self.first.bias * 2
        y: torch.Tensor = self.second(nn.functional.linear(x, self.first.weight, self.kept["bias"]).relu())
        return y


def test_what_a_run_keeps_in_the_module_does_not_reach_the_next_run() -> None:
    spec = PermutationSpec.from_axes(
        {"first.weight": ("h", None), "first.bias": ("h",), "second.weight": (None, "h"), "second.bias": (None,)}
    )
    module = Keeping()
    assert verify_spec(spec, module, torch.randn(2, 4)).insensitive == ()
    assert module.kept == {}
