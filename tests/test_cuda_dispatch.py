"""`solve_assignment` on device tensors: the objective and proof of the CPU solver, beside the scores; same errors."""

from __future__ import annotations

import ast
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.device import ON_GPU, emulated_only, kernels, needs_kernels, to_device

import lmcfast
from lmcfast import _native
from lmcfast.assignment import device, solve_assignment_deferred
from lmcfast.assignment.device_inputs import MOST_LONGER, MOST_SHORTER
from lmcfast.terms import GroupedProducts, Inner, ScoreSum, Term, View, inner, inner_products, magnitudes
from lmcfast.terms import device as terms_device

pytestmark = needs_kernels


def scores(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def solve(given, **options):
    with kernels():
        return lmcfast.solve_assignment(to_device(given), **options)


def assert_solved(solved, given, maximize=True):
    """Objective of the CPU solver, the sum of the assigned scores; prices that prove it."""
    exact = given.double().cpu()
    expected = lmcfast.solve_assignment(exact, maximize=maximize)
    columns = solved.columns.cpu()
    taken = torch.where(columns >= 0, exact.gather(-1, columns.clamp_min(0)[..., None])[..., 0], 0.0).sum(-1)
    size = max(*given.shape[-2:], 1) * max(float(exact[exact.isfinite()].abs().max()) if exact.numel() else 0, 1e-300)
    objective, gap = (torch.as_tensor(x, dtype=torch.float64).cpu() for x in (solved.objective, solved.gap))
    torch.testing.assert_close(objective, taken, rtol=0, atol=2.0**-50 * size)
    best = torch.as_tensor(expected.objective, dtype=torch.float64)
    torch.testing.assert_close(taken, best, rtol=0, atol=2.0**-48 * size)
    assert (gap.abs() <= 2.0**-48 * size).all()
    sign = 1.0 if maximize else -1.0
    prices = sign * solved.prices.cpu()
    profits = (sign * exact - prices[..., None, :]).amax(-1)
    if given.shape[-2] > given.shape[-1]:
        profits = profits.clamp_min(0)
    bound = profits.sum(-1) + prices.sum(-1)
    torch.testing.assert_close(bound, sign * taken, rtol=0, atol=2.0**-46 * size)


@pytest.fixture(params=["one block", "whole device"])
def by(request, monkeypatch):
    """Both ways to solve: a block for each problem, or all blocks for one problem after the other."""
    monkeypatch.setattr(device, "MOST_BATCHED", 1024 if request.param == "one block" else 0)
    return request.param


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 1), (33, 33), (20, 45), (45, 20), (3, 17, 17), (2, 9, 14)])
def test_the_objective_is_the_optimum(by, dtype, shape):
    given = scores(*shape).to(dtype)
    assert_solved(solve(given), given)


@pytest.mark.parametrize("shape", [(24, 24), (2, 10, 15)])
def test_the_smallest_sum(by, shape):
    given = scores(*shape)
    assert_solved(solve(given, maximize=False), given, maximize=False)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64])
def test_integers_are_exact(dtype):
    given = (scores(12, 12) * 3).to(dtype)
    assert_solved(solve(given), given)


def test_results_are_where_the_scores_are():
    given = to_device(scores(12, 12))
    one = solve(given)
    assert (one.columns.dtype, one.prices.dtype) == (torch.int64, torch.float64)
    assert one.columns.device == one.prices.device == given.device
    assert isinstance(one.objective, float)
    assert isinstance(one.gap, float)
    many = solve(given.expand(2, 12, 12))
    assert many.columns.shape == many.prices.shape == (2, 12)
    assert many.objective.shape == many.gap.shape == (2,)
    assert many.objective.device == given.device


def test_any_strides(by):
    base = scores(4, 40, 40)
    for given in (base[0].T, base[0, ::2, ::3], base[:, :10, 5:25], base.transpose(0, 2)[:3, :9], base[1].flip(0)):
        assert_solved(solve(given), given)


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (4, 0), (0, 3, 3), (2, 0, 5), (2, 5, 0)])
def test_nothing_to_assign(shape):
    solved = solve(torch.zeros(shape))
    assert (solved.columns == -1).all()
    assert solved.columns.shape == shape[:-1]
    assert solved.prices.shape == (*shape[:-2], shape[-1])
    assert torch.as_tensor(solved.objective).sum() == 0
    assert solved.stats.problems == (shape[0] if len(shape) == 3 else 1)


def test_start_prices_are_used(by):
    given = scores(40, 40)
    cold = solve(given)
    warm = solve(given, prices=cold.prices)
    assert_solved(warm, given)
    assert warm.stats.warm
    assert not cold.stats.warm
    assert warm.stats.bids < cold.stats.bids


def test_no_certificate_no_gap():
    assert np.isnan(solve(scores(8, 8), certify="none").gap)
    assert torch.isnan(solve(scores(2, 8, 8), certify="none").gap).all()


def test_forbidden_pairs(by):
    given = scores(20, 20)
    given[scores(20, 20, seed=4) > 0.5] = -torch.inf
    given.diagonal().copy_(torch.zeros(20))
    solved = solve(given)
    assert solved.objective == pytest.approx(lmcfast.solve_assignment(given).objective)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_cannot_be_are_named(by, value):
    given = scores(2, 20, 20)
    given[1, 7, 3] = value
    with pytest.raises(lmcfast.InvalidScoresError, match=r"scores\[1, 7, 3\] is (nan|inf)") as caught:
        solve(given)
    assert (caught.value.problem, caught.value.row, caught.value.column) == (1, 7, 3)
    with pytest.raises(lmcfast.InvalidScoresError, match=r"scores\[7, 3\] is (nan|inf)"):
        solve(given[1])


def test_infeasible_problems_are_named(by):
    given = scores(2, 9, 9)
    given[1, 4] = -torch.inf
    with pytest.raises(lmcfast.InfeasibleError, match=r"scores\[1\]: forbidden pairs") as caught:
        solve(given)
    assert caught.value.problem == 1


def test_faulty_start_prices_are_named():
    prices = torch.zeros(2, 6)
    prices[1, 4] = torch.inf
    with pytest.raises(lmcfast.InvalidScoresError, match=r"prices\[1, 4\] is inf: start prices must be finite"):
        solve(scores(2, 6, 6), prices=prices)


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        (torch.zeros(3), {}, lmcfast.ScoresShapeError, "expected 2 dimensions"),
        (torch.zeros(3, 3, dtype=torch.complex64), {}, TypeError, "expected real numbers"),
        (torch.zeros(3, 3).to_sparse(), {}, TypeError, "expected a dense tensor"),
        (torch.zeros(3, 3), {"prices": torch.zeros(2)}, lmcfast.ScoresShapeError, "prices: expected shape"),
        (torch.full((2, 2), 2**53 + 1), {}, lmcfast.InvalidScoresError, "integers above 2"),
        (torch.zeros(1).expand(131071, 131071), {}, lmcfast.ScoresShapeError, "the shorter side is at most 131070"),
    ],
)
def test_wrong_arguments(given, options, error, message):
    with pytest.raises(error, match=message):
        solve(given, **options)


def test_a_deferred_solve_is_read_later():
    given = to_device(scores(3, 14, 14))
    with kernels():
        deferred = solve_assignment_deferred(given, deterministic=True)
        solved = deferred.result()
    assert_solved(solved, given)
    assert solved.columns is deferred.columns


def test_a_deferred_failure_is_raised_when_it_is_read():
    with kernels():
        deferred = solve_assignment_deferred(to_device(torch.full((3, 3), torch.nan)))
        with pytest.raises(lmcfast.InvalidScoresError):
            deferred.result()


@pytest.mark.parametrize("shape", [(12, 12), (2, 9, 14)])
def test_a_report_that_nobody_wrote_is_not_a_result(monkeypatch, shape):
    monkeypatch.setattr(device, "MOST_BATCHED", 0)
    with kernels():
        stopped, launched = device.enqueue(to_device(scores(*shape)), launches=1)
        assert launched == (shape[0] if len(shape) == 3 else 1)
        with pytest.raises(lmcfast.UnavailableError, match="cannot be read before the solve has run"):
            stopped.result()


@pytest.mark.skipif(not ON_GPU, reason="needs streams")
@pytest.mark.parametrize("n", [40, 2000])
def test_a_result_is_read_from_any_stream(n):
    given = to_device(scores(n, n))
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(100_000_000)
        deferred = solve_assignment_deferred(given)
    assert_solved(deferred.result(), given)


def test_only_device_tensors_are_deferred():
    with pytest.raises(TypeError, match="expected a CUDA tensor, got one on cpu"):
        solve_assignment_deferred(torch.zeros(3, 3))


def test_problems_of_different_shapes_in_one_launch(monkeypatch):
    monkeypatch.setattr(device, "MOST_BATCHED", 24)
    problems = [scores(*shape) for shape in ((5, 7), (30, 30), (20, 11), (0, 3), (24, 24))]
    start = [None, None, None, None, torch.zeros(24)]
    with kernels():
        found = device.solve_ragged([to_device(p) for p in problems], prices=start)
        host = found[0].reports.read()
        solved = [one.judge(host) for one in found]
    for one, given in zip(solved, problems, strict=True):
        assert_solved(one, given)
    assert [one.stats.warm for one in solved] == [False, False, False, False, True]


def test_a_faulty_start_price_is_that_of_its_own_problem():
    problems = [scores(5, 5), scores(6, 6), scores(7, 7)]
    start = [torch.zeros(5), torch.zeros(6), None]
    start[1][4] = torch.nan
    with kernels():
        first, second, third = device.solve_ragged([to_device(p) for p in problems], prices=start)
        with pytest.raises(lmcfast.InvalidScoresError, match=r"prices\[4\] is nan: start prices must be finite"):
            second.result()
        assert_solved(first.result(), problems[0])
        assert_solved(third.result(), problems[2])


def test_no_problems_at_all():
    with kernels():
        assert device.solve_ragged([]) == []


def test_ragged_problems_share_a_dtype():
    with kernels(), pytest.raises(lmcfast.ScoresShapeError, match="one dtype on one device"):
        device.solve_ragged([to_device(scores(3, 3)), to_device(scores(3, 3).double())])


class Hurried:
    """The kernels, with a limit on the steps of shortest paths that no problem keeps."""

    def __init__(self, module):
        self._module = module

    def __getattr__(self, name):
        call = getattr(self._module, name)
        if name.startswith("solve_assignment"):
            return lambda **arguments: call(**arguments, step_limit=1, bid_limit=1)
        return call


@pytest.fixture
def hurried(monkeypatch):
    usual = _native.device_module

    @contextmanager
    def hurried_module(at):
        with usual(at) as (module, stream):
            yield Hurried(module), stream

    monkeypatch.setattr(_native, "device_module", hurried_module)


def test_figures_of_a_batch_stay_on_the_device(monkeypatch, by):
    brought, usual = [], torch.from_numpy
    given = scores(3, 14, 14)
    with kernels():
        deferred = solve_assignment_deferred(to_device(given))
        with monkeypatch.context() as patched:
            patched.setattr(torch, "from_numpy", lambda array: brought.append(array) or usual(array))
            solved = deferred.result()
        deferred.reports.rows.zero_()  # as the next replay of a graph would
    assert not brought
    assert_solved(solved, given)


def test_what_the_device_gives_up_is_solved_on_the_cpu(by, hurried):
    given = scores(3, 50, 1) * scores(3, 1, 50, seed=4)
    solved = solve(given)
    assert solved.stats.fallbacks == 3
    assert_solved(solved, given)


def everything_that_is_enqueued():
    """Solves, scores and inner products of tensors that are on the device; nothing in it needs a value from there."""
    given, index = to_device(scores(12, 12)), to_device(torch.arange(11, -1, -1))
    start = scores(12, 1, seed=5)[:, 0].double()
    large = to_device(scores(1030, 1030))
    grouped = GroupedProducts([ScoreSum([Term(given, given, index_b=index)], 12)])

    def run():
        solve_assignment_deferred(given)
        solve_assignment_deferred(large)
        device.solve_ragged([given, large], prices=[start, None])
        inner_products([Inner(View(given), View(given, (index, None)))])
        magnitudes([given])
        GroupedProducts([ScoreSum([Term(given, given)], 12)])
        grouped.run()

    return run


def test_all_tables_are_brought_to_the_device_without_a_wait(monkeypatch):
    with kernels():
        run = everything_that_is_enqueued()
        uploaded, usual = [], _native.upload

        def upload(array, at):
            uploaded.append(array)
            return usual(array, at)

        for module in (_native, inner, terms_device):
            monkeypatch.setattr(module, "upload", upload)
        run()
    # start prices; the ragged batch; inner products; magnitudes; score matrices
    assert len(uploaded) == 5


@pytest.mark.skipif(not ON_GPU, reason="only torch.cuda can tell")
def test_nothing_waits_for_the_device_before_a_result_is_read():
    run = everything_that_is_enqueued()
    run()  # loads the kernels
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()


@emulated_only
def test_the_stub_and_the_limits_are_those_of_the_module():
    from lmcfast import _emulated

    stub = ast.parse((Path(lmcfast.__file__).parent / "_cuda.pyi").read_text())
    arguments = {n.name: [a.arg for a in n.args.args] for n in stub.body if isinstance(n, ast.FunctionDef)}
    numbers = {n.target.id for n in stub.body if isinstance(n, ast.AnnAssign)}
    there = {name for name in dir(_emulated) if not name.startswith("__")} - {"configure", "counters", "reset_counters"}
    assert arguments.keys() | numbers == there
    for name, expected in arguments.items():
        signature = getattr(_emulated, name).__doc__.splitlines()[0].rsplit(" -> ", 1)[0]
        assert re.findall(r"(?<!\*)\b(\w+): ", signature) == expected, name
    assert _emulated.most_batched == device.MOST_BATCHED
    assert (_emulated.most_shorter, _emulated.most_longer) == (MOST_SHORTER, MOST_LONGER)


@emulated_only
def test_without_the_hook_cpu_tensors_stay_on_the_cpu():
    _emulated = pytest.importorskip("lmcfast._emulated")
    _emulated.reset_counters()
    lmcfast.solve_assignment(scores(8, 8))
    assert _emulated.counters()["launches"] == 0
    solve(scores(8, 8))
    assert _emulated.counters()["launches"] > 0
