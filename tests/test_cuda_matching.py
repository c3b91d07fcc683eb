"""Weight matching with everything on a device: the CPU's objective, the same promises, one wait for each colour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from helpers import networks
from helpers.device import ON_GPU, kernels, needs_kernels, to_device
from helpers.matching import CASES, Params, mlp_params, naive, plain_objective
from torch.utils._python_dispatch import TorchDispatchMode

import lmcfast
from lmcfast import PermutationSpec, weight_matching
from lmcfast.assignment import device as assignment_device
from lmcfast.matching import Counts, MatchResult
from lmcfast.matching.clock import Clock
from lmcfast.matching.device import DeviceState, colours, fits_device
from lmcfast.matching.device_scores import DeviceTable
from lmcfast.matching.problem import make_problem
from lmcfast.spec import spec_from_params

pytestmark = needs_kernels

ARCHITECTURES = {name: module for name, module, _ in networks.architectures()}
DEVICE = "cuda" if ON_GPU else "cpu"


def match(spec: PermutationSpec, a: Params, b: Params, **options: Any) -> MatchResult:
    with kernels():
        return weight_matching(spec, a, b, device=DEVICE, **options)


def chain(depth: int = 5, width: int = 12) -> tuple[PermutationSpec, Params, Params]:
    spec = PermutationSpec.from_axes(naive.mlp_axes(depth))
    a, b = (mlp_params((6, *[width] * depth, 5), seed) for seed in (1, 2))
    return spec.bind(a), a, b


@pytest.mark.parametrize("case", CASES)
def test_the_objective_is_the_cpus(case):
    spec, a, b = CASES[case]()
    found, expected = match(spec, a, b), weight_matching(spec, a, b)
    assert found.converged
    assert found.objective == pytest.approx(plain_objective(spec, found.permutations, a, b), rel=1e-12)
    assert found.objective >= expected.objective * (1 - 0.02)  # another order of visits can end in another optimum
    assert found.distance_before == pytest.approx(expected.distance_before)
    assert found.distance_after == pytest.approx(lmcfast.distance(spec, a, found.apply(b)))


@pytest.mark.parametrize("case", CASES)
def test_no_group_alone_can_be_improved(case):
    spec, a, b = CASES[case]()
    found = match(spec, a, b)
    for group in make_problem(spec, a, b).groups:
        scores = lmcfast.similarity(spec, group, a, b, found.permutations, precision="float64")
        taken = float(scores.gather(1, found.permutations[group][:, None]).sum())
        assert lmcfast.solve_assignment(scores).objective <= taken + 1e-4 * float(scores.abs().max())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_planted_permutation_is_recovered(name):
    params = networks.params_of(ARCHITECTURES[name])
    spec = spec_from_params(params).bind(params)
    planted = spec.random_permutations(7)
    found = match(spec, params, lmcfast.apply_permutations(spec, planted, params))
    inverse = lmcfast.invert_permutations(spec, planted)
    assert all(torch.equal(found.permutations[group].cpu(), inverse[group]) for group in spec.groups)
    assert found.distance_after == 0.0


def test_groups_of_one_colour_share_no_tensor():
    problem = make_problem(*chain())
    found = colours(problem)
    assert sorted(group for colour in found for group in colour) == sorted(problem.groups)
    assert len(found) == 2
    for colour in found:
        assert all(set(problem.neighbours[group]).isdisjoint(colour) for group in colour)


def test_the_objective_is_monotone_and_the_trace_adds_up():
    spec, a, b = chain()
    found = match(spec, a, b, start="identity")
    values = [step.objective for step in found.trace]
    assert values == sorted(values)
    assert values[0] + sum(step.gain for step in found.trace) == pytest.approx(found.objective, rel=1e-12)
    assert {step.kind for step in found.trace[1:]} == {"step"}


def test_permutations_come_back_on_the_cpu():
    spec, a, b = chain(2)
    assert all(p.is_cpu and p.dtype == torch.int64 for p in match(spec, a, b).permutations.values())


def test_options_mean_the_same():
    spec, a, b = chain(3)
    start = spec.random_permutations(5)
    group, *_ = spec.movable_groups
    held = match(spec, a, b, init=start, fix=group, start="identity", deterministic=True)
    assert torch.equal(held.permutations[group], start[group])
    assert held.starts.keys() == {"init"}
    seen = []
    many = match(spec, a, b, restarts=3, seed=4, callback=seen.append)
    assert len(many.attempts) == 3
    assert many.objective == pytest.approx(max(many.attempts))
    assert len(seen) >= len(many.trace) - 1
    unmoved = match(spec, a, b, max_sweeps=0, start="identity")
    assert (unmoved.converged, unmoved.sweeps, len(unmoved.trace)) == (False, 0, 1)


def test_float64_stays_float64():
    spec, a, b = chain(2)
    first = next(iter(a))
    mixed = [{name: t.double() if name == first else t for name, t in params.items()} for params in (a, b)]
    with kernels():
        problem = make_problem(spec, *mixed, device=DEVICE)
    assert set(problem.precision.values()) == {"float32", "float64"}
    assert match(spec, *mixed).objective == pytest.approx(weight_matching(spec, *mixed).objective, rel=1e-9)


def test_what_the_device_gives_up_is_solved_on_the_cpu(monkeypatch):
    spec, a, b = chain(2)
    expected = match(spec, a, b).objective
    usual = assignment_device.DeviceReports.decode

    def unfinished(self, host):
        reports = usual(self, host)
        reports["status"][:-1] |= assignment_device.UNFINISHED
        return reports

    monkeypatch.setattr(assignment_device.DeviceReports, "decode", unfinished)
    assert match(spec, a, b).objective == pytest.approx(expected, rel=1e-12)


def test_specs_that_do_not_fit_form_their_products_on_the_device():
    spec = PermutationSpec.from_axes({"w": ("h", "h"), "v": ("h", None)}, sizes={"h": 6})
    a, b = ({"w": torch.randn(6, 6), "v": torch.randn(6, 3)} for _ in range(2))
    with kernels():
        assert not fits_device(make_problem(spec, a, b, device=DEVICE))
    found = match(spec, a, b)
    assert found.objective == pytest.approx(plain_objective(spec, found.permutations, a, b), rel=1e-9)


def test_weights_whose_products_overflow_are_named():
    spec, a, b = chain(2)
    huge = [{name: 1e25 * tensor for name, tensor in params.items()} for params in (a, b)]
    with pytest.raises(lmcfast.InvalidParamsError, match="the scores of group"):
        match(spec, *huge)


class Waits(TorchDispatchMode):
    """Counts the operations by which a number of a tensor reaches the host."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        self.count += func._schema.name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal")
        return func(*args, **(kwargs or {}))


def test_a_colour_waits_once(monkeypatch):
    copies = []
    usual = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: copies.append(1) or usual(tensor))
    with kernels(), torch.no_grad():
        problem = make_problem(*chain(), device=DEVICE)
        counts = Counts()
        state = DeviceState.at(problem, problem.start, DeviceTable(problem, counts), Clock(), counts)
        colour = colours(problem)[0]
        assert len(colour) > 1
        copies.clear()
        with Waits() as waits:
            state.visit(colour, 1)
    assert len(copies) == 1
    assert waits.count == 0


def test_params_may_lie_on_the_device():
    spec, a, b = chain(2)
    found = match(spec, *({name: to_device(tensor) for name, tensor in params.items()} for params in (a, b)))
    assert found.objective == pytest.approx(match(spec, a, b).objective, rel=1e-12)
