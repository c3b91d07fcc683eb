"""What a matching on a device keeps, updates, launches and waits for, and that it is as exact for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import networks
from helpers.device import ON_GPU, kernels, needs_kernels
from helpers.matching import Params, mlp_params, random_like

import lmcfast
from lmcfast import PermutationSpec, weight_matching
from lmcfast.matching import Counts, MatchResult, device_scores, scores
from lmcfast.matching.clock import Clock
from lmcfast.matching.device import DeviceState, colours
from lmcfast.matching.device_placing import Placing
from lmcfast.matching.device_scores import DeviceTable
from lmcfast.matching.problem import Problem, make_problem
from lmcfast.spec import spec_from_params
from lmcfast.terms import plan

pytestmark = needs_kernels

DEVICE = "cuda" if ON_GPU else "cpu"
NAMES = ["mlp", "deep mlp without bias", "cnn", "cifar vgg, norm True", "bottleneck resnet, norm True"]
ARCHITECTURES = {name: module for name, module, _ in networks.architectures()}


@pytest.fixture
def everything_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks are treated as large ones are."""
    for name in ("WORTH_KEEPING", "WORTH_UPDATING", "SHALLOW"):
        monkeypatch.setattr(scores, name, 0)


@pytest.fixture(params=["grouped kernel", "torch"])
def multiplied_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "torch":
        monkeypatch.setattr(plan, "LARGE", dict.fromkeys(plan.LARGE, 0))
        monkeypatch.setattr(plan, "NARROW", 0)


def match(a: Params, b: Params, **options: Any) -> MatchResult:
    with kernels():
        return weight_matching(spec_from_params(a), a, b, device=DEVICE, **options)


def independent(width: int = 150) -> tuple[Params, Params]:
    first, second = (mlp_params((40, width, width, width, 10), seed) for seed in (1, 2))
    return first, second


def noisy_copy(params: Params, noise: float = 0.3) -> Params:
    """The network with its units in another order, and noise: its best match is plain, from wherever one starts."""
    spec = spec_from_params(params).bind(params)
    moved = lmcfast.apply_permutations(spec, spec.random_permutations(3), params)
    generator = torch.Generator().manual_seed(4)
    return {
        name: tensor + noise * tensor.std().nan_to_num() * torch.randn(tensor.shape, generator=generator)
        if tensor.is_floating_point() and tensor.numel() > 1
        else tensor
        for name, tensor in moved.items()
    }


def swapped(permutation: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """The permutation with ``count`` of its entries moved round by one."""
    chosen = torch.randperm(permutation.shape[0], generator=torch.Generator().manual_seed(seed))[:count]
    chosen = chosen.to(permutation.device)
    moved = permutation.clone()
    moved[chosen] = permutation[chosen.roll(1)]
    return moved


def move(table: DeviceTable, placing: Placing, group: str, permutation: torch.Tensor) -> None:
    stands = table.stands(group)
    placing.move(group, permutation)
    table.moved(group, stands, [int((stand.permutation != permutation).sum()) for stand in stands])


def check_scores(problem: Problem, table: DeviceTable, placing: Placing, a: Params, b: Params) -> None:
    setting = {group: p.cpu() for group, p in placing.permutations.items()}
    for colour in colours(problem):
        for group, found in zip(colour, table.scores(colour, placing, None), strict=True):
            exact = lmcfast.similarity(problem.spec, group, a, b, setting, precision="float64")
            scale = float(exact.abs().max())
            torch.testing.assert_close(found.double().cpu(), exact, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.usefixtures("everything_is_kept", "multiplied_by")
@pytest.mark.parametrize("name", NAMES)
def test_kept_scores_are_those_of_the_weights(name: str) -> None:
    """After moves of few units and of many, forth and back, of groups on any axis of their tensors."""
    a = networks.params_of(ARCHITECTURES[name])
    b = random_like(a, 3)
    counts = Counts()
    with kernels():
        problem = make_problem(spec_from_params(a), a, b, device=DEVICE)
        table, placing = DeviceTable(problem, counts), Placing.at(problem, problem.start)
        check_scores(problem, table, placing, a, b)
        for step, share in enumerate((0.2, 0.9, 0.3)):
            before = dict(placing.permutations)
            for group in problem.groups:
                count = max(2, round(share * problem.size(group)))
                move(table, placing, group, swapped(placing.permutations[group], count, step))
            check_scores(problem, table, placing, a, b)
        for group in problem.groups:
            move(table, placing, group, before[group])
        check_scores(problem, table, placing, a, b)
        check_scores(problem, table, Placing.at(problem, problem.start), a, b)  # another descent, the same table
    assert counts.updated > 0
    assert counts.kept > 0


def test_updated_products_do_not_drift() -> None:
    a, b = (mlp_params((40, 150, 150, 10), seed) for seed in (1, 2))
    counts = Counts()
    with kernels():
        problem = make_problem(spec_from_params(a), a, b, device=DEVICE)
        table, placing = DeviceTable(problem, counts), Placing.at(problem, problem.start)
        for step in range(20):
            for group in problem.groups:
                table.scores([group], placing, None)
                move(table, placing, group, swapped(placing.permutations[group], 9, step))
        assert counts.updated >= 25
        fresh = DeviceTable(problem, Counts(), budget=0)
        setting = {group: p.cpu() for group, p in placing.permutations.items()}
        for group in problem.groups:
            exact = lmcfast.similarity(problem.spec, group, a, b, setting, precision="float64")
            errors = [(t.scores([group], placing, None)[0].cpu() - exact).abs().max() for t in (table, fresh)]
            assert errors[0] <= 4 * errors[1]
        assert table.refresh_drifted(placing) == set()
    assert counts.rechecked > 0


def test_a_product_that_is_off_is_found_and_made_anew() -> None:
    a, b = independent()
    with kernels():
        problem = make_problem(spec_from_params(a), a, b, device=DEVICE)
        table, placing = DeviceTable(problem, Counts()), Placing.at(problem, problem.start)
        group = problem.groups[0]
        right = table.scores([group], placing, None)[0].clone()
        kept = [entry for (name, _), entry in table._kept.items() if name == group and entry is not None]
        assert kept
        kept[0].matrix[3, 5] += 1e-3 * float(right.abs().max())
        kept[0].columns = 1
        assert table.refresh_drifted(placing) == {group}
        assert torch.equal(table.scores([group], placing, None)[0], right)


def test_a_descent_ends_only_on_products_that_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = independent()
    monkeypatch.setattr(scores, "PROBE_TOLERANCE", 0.0)
    strict = match(a, b, start="identity")
    assert strict.converged
    assert strict.counts is not None
    assert strict.counts.updated > 0
    assert strict.counts.rechecked > 0
    again = match(a, b, init=strict.permutations, start="identity")
    assert not any(step.changed for step in again.trace)


@pytest.mark.parametrize("name", ["mlp", "residual"])
def test_the_objective_is_the_cpus(name: str) -> None:
    a = mlp_params((40, 130, 130, 130, 10), 5) if name == "mlp" else networks.params_of(networks.resnet((40, 48)))
    b = noisy_copy(a)
    for start in ("best", "identity"):
        found, expected = match(a, b, start=start), weight_matching(spec_from_params(a), a, b, start=start)
        assert found.objective == pytest.approx(expected.objective, rel=1e-12)


@pytest.mark.parametrize("start", ["best", "identity"])
def test_the_work_is_bounded(start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = independent()
    spec = spec_from_params(a)
    found, expected = match(a, b, start=start), weight_matching(spec, a, b, start=start).counts
    counts = found.counts
    assert counts is not None
    assert expected is not None
    assert counts.updated >= 3
    assert counts.gathered == 0
    assert counts.multiplied <= 1.3 * expected.multiplied
    one_visit = (40 + 10 + 4 * 150) * 150 * 150 / 3
    assert counts.multiplied <= 0.8 * counts.visits * one_visit
    assert counts.waits <= counts.visits + 4  # the objective of the start and of the end, the probe, another start
    assert counts.launches <= 4 * counts.waits  # products, assignments, and two for the inner products
    assert match(a, b, start=start).counts == counts
    monkeypatch.setattr(device_scores, "kept_bytes", lambda _: 0)
    plain = match(a, b, start=start)
    assert plain.counts is not None
    assert plain.counts.updated == plain.counts.kept == 0
    assert plain.objective == pytest.approx(found.objective, rel=1e-12)
    assert counts.multiplied <= 0.7 * plain.counts.multiplied


def test_nothing_is_multiplied_to_prove_convergence() -> None:
    a, b = independent()
    found = match(a, b)
    again = match(a, b, init=found.permutations, start="identity")
    assert again.sweeps == 1
    assert again.counts is not None
    assert again.counts.visits == 3
    assert again.counts.moves == again.counts.updated == 0
    assert again.counts.waits <= 4


def test_what_is_kept_fits_the_budget() -> None:
    a, b = independent()
    with kernels():
        problem = make_problem(spec_from_params(a), a, b, device=DEVICE)
        one = 4 * 150 * 150
        for budget, kept in ((0, 0), (one - 1, 0), (one, 1), (3 * one, 3)):
            assert len(DeviceTable(problem, Counts(), budget)._kept) == kept


@pytest.mark.usefixtures("everything_is_kept")
def test_tensors_of_three_groups() -> None:
    spec = PermutationSpec.from_axes({"t": ("g", "h", "k"), "u": ("g", None), "v": ("k", None)})
    generator = torch.Generator().manual_seed(8)
    shapes = {"t": (5, 6, 7), "u": (5, 3), "v": (7, 2)}
    a, b = ({name: torch.randn(shape, generator=generator) for name, shape in shapes.items()} for _ in range(2))
    with kernels():
        problem = make_problem(spec, a, b, device=DEVICE)
        setting = problem.spec.random_permutations(6)
        counts = Counts()
        table = DeviceTable(problem, counts)
        check_scores(problem, table, Placing.at(problem, setting), a, b)
        state = DeviceState.at(problem, setting, table, Clock(), counts)
        assert state.objective == pytest.approx(
            sum(float((a[n] * t).sum()) for n, t in lmcfast.apply_permutations(spec, setting, b).items()), rel=1e-6
        )
        found = weight_matching(spec, a, b, device=DEVICE)
    assert found.converged
