"""derive_spec end to end on small modules: what moves, what stays and why, names, and what it says of wrong input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lmcfast import InvalidInputsError, SpecError, derive_spec, verify_spec
from lmcfast.spec import PermutationSpec
from lmcfast.spec.derivation.naming import group_names


class Net(nn.Module):
    """A module with a forward pass given as a function of the module and its arguments."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._forward = forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._forward(self, *args, **kwargs)


def two_layers(middle: Callable[[torch.Tensor], torch.Tensor]) -> Net:
    return Net(lambda net, x: net.b(middle(net.a(x))), a=nn.Linear(4, 6), b=nn.Linear(6, 3))


def proved(module: nn.Module, *inputs: Any, **options: Any) -> PermutationSpec:
    spec = derive_spec(module, inputs, **options)
    verify_spec(spec, module, inputs, outputs=options.get("outputs"))
    return spec


def layouts(spec: PermutationSpec, tensor: str) -> list[str | None]:
    from lmcfast.spec import format_layout

    return [format_layout(layout) for layout in spec.axes[tensor]]


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def test_hidden_units_move_inputs_and_outputs_stay() -> None:
    spec = proved(mlp(), torch.randn(2, 4), strict=True)
    assert layouts(spec, "0.weight") == ["h.0", "_4"]
    assert layouts(spec, "2.weight") == ["h.2", "h.0"]
    assert layouts(spec, "4.bias") == ["_3"]
    assert spec.sizes == {"h.0": 6, "h.2": 5}
    assert spec.why_fixed["0.weight", 1] == ("an input",)
    assert spec.why_fixed["4.weight", 0] == ("an output of the network",)


def test_no_weights_are_needed() -> None:
    with torch.device("meta"):
        abstract = mlp()
    assert derive_spec(abstract, torch.zeros(2, 4)) == derive_spec(mlp(), torch.zeros(2, 4))


def test_the_module_stays_as_it_is() -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))
    module[1].eval()
    modes = [part.training for part in module.modules()]
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    derive_spec(module, torch.randn(2, 4))
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_statistics_move_and_counters_have_no_entry() -> None:
    spec = proved(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)), torch.randn(8, 4))
    assert spec.buffers == {"1.running_mean", "1.running_var"}
    assert layouts(spec, "1.running_var") == ["h.0"]
    assert "1.num_batches_tracked" not in spec.axes


def test_tied_tensors_are_one() -> None:
    module = Net(
        lambda net, x: net.b(torch.relu(net.a(x))), a=nn.Linear(6, 6, bias=False), b=nn.Linear(6, 6, bias=False)
    )
    module.b.weight = module.a.weight
    spec = proved(module, torch.randn(2, 6))
    assert spec.tied == {"b.weight": "a.weight"}
    assert spec.movable_groups == ()


def test_parameters_without_use_stay() -> None:
    module = Net(lambda net, x: net.a(x), a=nn.Linear(4, 3), idle=nn.Linear(5, 2))
    spec = proved(module, torch.randn(2, 4))
    assert layouts(spec, "idle.weight") == ["_2", "_5"]
    assert spec.why_fixed["idle.weight", 0] == ("not used",)


def test_outputs_choose_what_must_not_change() -> None:
    module = Net(lambda net, x: {"hidden": net.a(x), "scores": net.b(net.a(x))}, a=nn.Linear(4, 6), b=nn.Linear(6, 3))
    inputs = torch.randn(2, 4)
    assert proved(module, inputs).movable_groups == ()
    assert proved(module, inputs, outputs=lambda found: found["scores"]).movable_groups == ("a",)


def test_keyword_arguments_reach_the_module() -> None:
    module = Net(lambda net, x, scale: net.b(net.a(x) * scale), a=nn.Linear(4, 6), b=nn.Linear(6, 3))
    spec = derive_spec(module, torch.randn(2, 4), kwargs={"scale": torch.tensor(2.0)})
    assert spec.movable_groups == ("a",)


def test_heads_are_outer_groups_and_what_is_in_them_is_nested() -> None:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part(x).unflatten(-1, (2, 3)).transpose(1, 2) for part in (net.q, net.k, net.v))
        return net.o(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    parts = {name: nn.Linear(4, 6) for name in "qkv"}
    spec = proved(Net(forward, **parts, o=nn.Linear(6, 4)), torch.randn(2, 5, 4))
    assert layouts(spec, "q.weight") == ["q q:b", "_4"]
    assert layouts(spec, "k.weight") == ["q q:b", "_4"]
    assert layouts(spec, "o.weight") == ["_4", "q v"]
    assert spec.groups["q:b"].within == spec.groups["v"].within == ("q",)


@torch.library.custom_op("lmcfast_tests::halved", mutates_args=())
def halved(x: torch.Tensor) -> torch.Tensor:
    return x / 2


@halved.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def test_an_operator_without_a_rule_fixes_what_it_touches() -> None:
    module = two_layers(lambda h: halved(h))
    spec = proved(module, torch.randn(2, 4))
    assert spec.movable_groups == ()
    assert spec.why_fixed["b.weight", 1] == ("unsupported operator halved",)
    with pytest.raises(SpecError, match=r"does not understand: halved \(1x\)"):
        derive_spec(module, torch.randn(2, 4), strict=True)


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, lambda: torch.autocast("cpu", enabled=False)])
def test_blocks_under_a_context_are_walked(context: Callable[[], Any]) -> None:
    def middle(h: torch.Tensor) -> torch.Tensor:
        with context():
            return torch.relu(h) * 2

    assert proved(two_layers(middle), torch.randn(2, 4), strict=True).movable_groups == ("a",)


def written_through_a_view(h: torch.Tensor) -> torch.Tensor:
    table = torch.zeros(6)
    table.view(2, 3)[0].add_(torch.arange(3.0))
    return h * table


def written_after_a_look(h: torch.Tensor) -> torch.Tensor:
    table = torch.ones(6)
    alias = table.fill_(2.0)
    table.add_(torch.arange(6.0))
    return h * alias


def written_by_position(h: torch.Tensor) -> torch.Tensor:
    h[:, 0] = 0
    return h


@pytest.mark.parametrize("middle", [written_through_a_view, written_after_a_look, written_by_position])
def test_what_is_written_in_place_couples_through_every_alias(middle: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """The written entries differ from each other, so the units are no longer alike."""
    spec = proved(two_layers(middle), torch.randn(2, 4))
    assert layouts(spec, "b.weight")[1] != "a"


def test_a_constant_along_a_dimension_couples_nothing() -> None:
    module = two_layers(lambda h: h + torch.ones(6))
    assert proved(module, torch.randn(2, 4)).movable_groups == ("a",)


def test_a_table_made_with_the_module_counts_as_the_constant_that_it_is() -> None:
    module = Net(lambda net, x: net.b(net.a(x) + net.even + net.odd), a=nn.Linear(4, 6), b=nn.Linear(6, 3))
    module.register_buffer("even", torch.zeros(6), persistent=False)
    module.register_buffer("odd", torch.zeros(6), persistent=False)
    assert proved(module, torch.randn(2, 4)).movable_groups == ("a",)
    module.odd = torch.arange(6.0)
    assert proved(module, torch.randn(2, 4)).movable_groups == ()


def test_what_the_traced_pass_keeps_does_not_stay_in_the_module() -> None:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        if "bias" not in net.kept:
            net.kept["bias"] = net.a.bias * 2
        return net.b(torch.relu(nn.functional.linear(x, net.a.weight, net.kept["bias"])))

    module = Net(forward, a=nn.Linear(4, 6), b=nn.Linear(6, 3))
    module.kept = {}
    assert proved(module, torch.randn(2, 4)).movable_groups == ("a",)
    assert module.kept == {}


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.a(x)
        return y * 2 if y.sum() > 0 else y


def test_control_flow_that_depends_on_values_is_an_error_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SpecError, match="which operators run depends on the values of tensors") as caught:
        derive_spec(Branch(), torch.randn(2, 4))
    assert "\n" not in str(caught.value)
    assert "(test_derivation.py, line " in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_wrong_inputs_are_an_error_with_the_modules_own_words() -> None:
    with pytest.raises(
        InvalidInputsError, match=r"of shape \(2, 5\)\) do not fit the module: RuntimeError: mat1 and mat2"
    ):
        derive_spec(mlp(), torch.randn(2, 5))
    with pytest.raises(InvalidInputsError, match=r"module: a torch\.nn\.Module is needed, not int"):
        derive_spec(3, torch.randn(2, 5))  # type: ignore[arg-type]


def test_an_output_without_tensors_is_an_error() -> None:
    module = Net(lambda net, x: str(net.a(x).shape), a=nn.Linear(4, 3))
    with pytest.raises(SpecError, match="output holds no tensor"):
        derive_spec(module, torch.randn(2, 4))


def test_names_come_from_the_first_tensor_and_its_numbers() -> None:
    uses = {
        0: [("model.embed.weight", 1, 2), ("model.layers.0.q.weight", 1, 2), ("model.layers.1.q.weight", 1, 2)],
        1: [("model.layers.0.q.weight", 0, 2), ("model.layers.0.o.weight", 1, 2)],
        2: [("model.layers.0.q.weight", 0, 2)],
        3: [("model.layers.0.fc.weight", 0, 2)],
        4: [("model.layers.1.q.weight", 0, 2), ("model.layers.1.o.weight", 1, 2)],
        5: [("head.fc.weight", 0, 2)],
    }
    names = group_names(uses, nests={1, 2, 4})
    assert list(names.values()) == ["stream", "q.0", "q:b.0", "layers.fc.0", "q.1", "head.fc"]
