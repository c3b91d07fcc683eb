"""Beside the proof: the probe of what is fixed, the split of what moves together, and numbers that overflow."""

from __future__ import annotations

import pytest
import torch
from helpers import networks
from helpers.splits import splits
from torch import Tensor, nn
from torch.nn import functional

from lmcfast.errors import SpecError
from lmcfast.spec import PermutationSpec, derive_spec, verify_spec
from lmcfast.spec.derivation.assemble import fixed_classes
from lmcfast.spec.derivation.derivation import Derivation
from lmcfast.spec.derivation.tracing import trace
from lmcfast.spec.trial import Trial

FULL = {"0.weight": ("h", None), "0.bias": ("h",), "2.weight": (None, "h"), "2.bias": (None,)}
NAMED = {key.replace("0.", "enter.").replace("2.", "leave."): axes for key, axes in FULL.items()}


def two_layers() -> nn.Module:
    return networks.randomize(nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)), seed=1)


def test_probe_finds_a_symmetry_that_the_spec_misses() -> None:
    module, x = two_layers(), networks.inputs(4, 5)
    nothing = PermutationSpec.from_axes(
        {name: (None,) * tensor.ndim for name, tensor in module.named_parameters()},
        why_fixed={("0.weight", 0): ("for no reason",)},
    )
    report = verify_spec(nothing, module, x, probe=[PermutationSpec.from_axes(FULL)])
    assert (report.probed, report.missed) == (1, ("0.weight[0] (for no reason)",))
    assert "0.weight[0] (for no reason)" in str(report)


def test_probe_is_silent_where_nothing_is_missed() -> None:
    module, x = two_layers(), networks.inputs(4, 5)
    derivation = Derivation(trace(module, x))
    probe = [spec for _, spec in fixed_classes(derivation)]
    report = verify_spec(derive_spec(module, x), module, x, probe=probe)
    assert (report.probed, report.missed) == (2, ())  # the inputs and the outputs


def test_probe_that_moves_nothing_is_refused() -> None:
    module, x = two_layers(), networks.inputs(4, 5)
    with pytest.raises(SpecError, match="moves nothing"):
        verify_spec(derive_spec(module, x), module, x, probe=[PermutationSpec.from_axes({"0.bias": (None,)})])


class TwoBranches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
        self.right = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) + self.right(x)


def test_split_finds_two_groups_in_one() -> None:
    module, x = networks.randomize(TwoBranches(), 2), networks.inputs(4, 5)
    merged = PermutationSpec.from_axes(
        {f"{side}.{name}": axes for side in ("left", "right") for name, axes in FULL.items()}
    )
    verify_spec(merged, module, x)
    found = splits(Trial(merged, module, x, None, None))
    assert [split.group for split in found] == ["h"]
    assert {tensor.partition(".")[0] for tensor, _ in found[0].places} == {"left"}
    assert splits(Trial(derive_spec(module, x), module, x, None, None)) == []


def test_split_of_nested_groups() -> None:
    module, x = networks.attention(), networks.inputs(2, 6, 5)
    assert splits(Trial(derive_spec(module, x), module, x, None, None)) == []


class Masked(nn.Module):
    """Scores get the lowest number of their dtype twice; where float64 has it, the sum overflows and softmax is NaN."""

    def __init__(self, lowest: float | None) -> None:
        super().__init__()
        self.enter = nn.Linear(5, 6)
        self.leave = nn.Linear(6, 3)
        self.lowest = lowest

    def forward(self, x: Tensor) -> Tensor:
        lowest = torch.finfo(x.dtype).min if self.lowest is None else self.lowest
        scores = torch.full((x.shape[-2], x.shape[-2]), lowest) * 2.0
        return self.leave(torch.softmax(scores, -1) @ functional.relu(self.enter(x)))


def test_limits_of_float64_that_overflow() -> None:
    spec = PermutationSpec.from_axes(
        {key.replace("0.", "enter.").replace("2.", "leave."): v for key, v in FULL.items()}
    )
    module, x = networks.randomize(Masked(None), 3), networks.inputs(2, 4, 5)
    assert module(x).isnan().any(), "float32 overflows likewise: the wider range must mend it"
    report = verify_spec(spec, module, x)
    assert report.groups == ("h",)
    assert report.insensitive == ()
    with pytest.raises(SpecError, match="NaN already without any permutation"):
        verify_spec(spec, networks.randomize(Masked(float("-inf")), 3), x)


class Mixed(nn.Module):
    """Casts to narrow floats inside; has a plain attribute and numbers from numpy that ``double()`` does not reach."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(5, 6)
        self.leave = nn.Linear(6, 3)
        self.plain = torch.rand(5, 5, generator=torch.Generator().manual_seed(0))

    def forward(self, x: Tensor) -> Tensor:
        mixed = functional.linear(x, self.plain)
        table = torch.from_numpy(self.plain.detach().cpu().numpy().astype("float32"))
        hidden = functional.relu(self.enter(mixed @ table)).to(torch.float32)
        hidden = hidden.type(torch.bfloat16).float() + hidden.half()
        return self.leave(hidden.to(x.dtype))


def test_narrow_numbers_inside_are_widened() -> None:
    module, x = networks.randomize(Mixed(), 4), networks.inputs(4, 5)
    spec = PermutationSpec.from_axes(
        {key.replace("0.", "enter.").replace("2.", "leave."): v for key, v in FULL.items()}
    )
    assert verify_spec(spec, module, x).max_error < 1e-14
