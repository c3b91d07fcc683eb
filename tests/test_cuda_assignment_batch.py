"""Many small assignment problems in one launch: of one shape, and of different shapes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers.cuda_assignment import CODES, INFEASIBLE, INVALID, check_result, configure, report_dtype, scratch, stored
from helpers.device import emulated_only, needs_kernels, to_device
from helpers.problems import FAMILIES

from lmcfast import _native

pytestmark = needs_kernels


@pytest.fixture(autouse=True)
def usual_schedule():
    yield
    configure()


def solve_batch(scores, maximize=True, deterministic=False, **tuning):
    """(batch, rows, columns) -> columns, prices, reports."""
    count, n, m = scores.shape
    columns = to_device(torch.full((count, n), -7, dtype=torch.int64))
    prices = to_device(torch.full((count, m), math.nan, dtype=torch.float64))
    code = CODES[scores.dtype]
    with _native.device_module(columns.device) as (module, stream):
        workspace = scratch(module.assignment_batch_workspace(count, n, m, code))
        reports = to_device(torch.zeros((count, module.report_bytes), dtype=torch.uint8))
        launches = module.solve_assignment_batch(
            scores.data_ptr(), code, count, n, m, *scores.stride(), maximize, 0, columns.data_ptr(),
            prices.data_ptr(), 0, workspace.data_ptr(), reports.data_ptr(), stream, deterministic, 0, **tuning,
        )  # fmt: skip
        found = reports.cpu().numpy().view(report_dtype(module))[:, 0]
    assert launches == 1
    return columns.cpu().numpy(), prices.cpu().numpy(), found


def check_batch(scores, solved, maximize=True):
    columns, prices, reports = solved
    for k in range(len(scores)):
        check_result(scores[k].double().cpu().numpy(), columns[k], prices[k], reports[k], maximize)


def all_families(n, m, dtype="float32"):
    rng = np.random.default_rng([6, n])
    return torch.stack([stored(f(rng, n, m), dtype) for f in FAMILIES.values()])


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 2), (17, 17), (33, 40), (40, 33), (64, 64)])
def test_all_families_in_one_batch(n, m):
    scores = all_families(n, m)
    check_batch(scores, solve_batch(scores))


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_other_storage(dtype):
    scores = all_families(20, 20, dtype)
    check_batch(scores, solve_batch(scores, maximize=False), maximize=False)


def test_problems_larger_than_a_list():
    rng = np.random.default_rng(7)
    scores = torch.stack([stored(FAMILIES[name](rng, 150, 150)) for name in ("weights", "planted", "integers_10")])
    check_batch(scores, solve_batch(scores))


@emulated_only
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_schedules(seed):
    configure(seed=seed, residency=3)
    scores = all_families(30, 30)
    check_batch(scores, solve_batch(scores, full_list=0, threads=32 * seed))


@emulated_only
def test_deterministic_batches_repeat():
    scores = all_families(24, 24)
    results = []
    for seed in (0, 1):
        configure(seed=seed)
        solved = solve_batch(scores, deterministic=True, full_list=0)
        check_batch(scores, solved)
        results.append(solved[0].tolist())
    assert results[0] == results[1]


def test_one_bad_problem_does_not_harm_the_others():
    scores = stored(np.random.default_rng(8).standard_normal((5, 12, 12)))
    scores[1, 3, 4] = torch.nan
    scores[3, 5] = -torch.inf
    columns, prices, reports = solve_batch(scores)
    assert reports["status"][1] & INVALID
    assert reports["status"][3] & INFEASIBLE
    for k in (0, 2, 4):
        check_result(scores[k].double().cpu().numpy(), columns[k], prices[k], reports[k])


def test_layouts_of_a_batch():
    scores = stored(np.random.default_rng(9).standard_normal((20, 6, 20)))
    for view in (scores.permute(1, 0, 2), scores.permute(1, 2, 0), scores[::2].permute(1, 0, 2)):
        check_batch(view, solve_batch(view))


SHAPES = [(5, 5), (1, 1), (40, 40), (7, 19), (19, 7), (0, 4), (4, 0), (130, 130), (3, 3), (64, 50)]


def solve_ragged(problems, starts=None):
    rows, columns = sum(p.shape[0] for p in problems), sum(p.shape[1] for p in problems)
    table = np.zeros((len(problems), 8), np.int64)
    first_row = first_column = 0
    for k, p in enumerate(problems):
        table[k, :7] = (p.data_ptr(), *p.shape, *p.stride(), first_row, first_column)
        first_row += p.shape[0]
        first_column += p.shape[1]
    columns_out = to_device(torch.full((rows,), -7, dtype=torch.int64))
    prices = to_device(torch.full((columns,), math.nan, dtype=torch.float64))
    start = None if starts is None else to_device(torch.from_numpy(np.concatenate(starts)))
    code = CODES[problems[0].dtype]
    with _native.device_module(columns_out.device) as (module, stream):
        workspace = scratch(module.assignment_lay_out_batch(table.ctypes.data, len(problems), code))
        on_device = to_device(torch.from_numpy(table))
        reports = to_device(torch.zeros((len(problems), module.report_bytes), dtype=torch.uint8))
        launches = module.solve_assignment_ragged(
            on_device.data_ptr(), code, len(problems), max(max(p.shape) for p in problems), True,
            0 if start is None else start.data_ptr(), columns_out.data_ptr(), prices.data_ptr(), 0,
            workspace.data_ptr(), reports.data_ptr(), stream,
        )  # fmt: skip
        found = reports.cpu().numpy().view(report_dtype(module))[:, 0]
    assert launches == 1
    return columns_out.cpu().numpy(), prices.cpu().numpy(), found, table


def check_ragged(problems, solved):
    columns, prices, reports, table = solved
    for p, r, entry in zip(problems, reports, table, strict=True):
        n, m = p.shape
        mine, own = columns[entry[5] : entry[5] + n], prices[entry[6] : entry[6] + m]
        if n and m:
            check_result(p.double().cpu().numpy(), mine, own, r)
        else:
            assert r["status"] == r["objective"] == 0
            assert (mine == -1).all()
            assert (own == 0).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_problems_of_different_shapes(dtype):
    rng = np.random.default_rng(10)
    problems = [stored(rng.standard_normal(shape), dtype) for shape in SHAPES]
    problems.append(problems[2].t())
    check_ragged(problems, solve_ragged(problems))


def test_start_prices_of_a_ragged_batch():
    rng = np.random.default_rng(11)
    problems = [stored(rng.standard_normal(shape)) for shape in ((20, 20), (9, 12), (33, 33))]
    solved = solve_ragged(problems, [rng.standard_normal(p.shape[1]) for p in problems])
    check_ragged(problems, solved)
    assert solved[2]["warm"].tolist() == [1, 0, 1]


def test_an_empty_batch_launches_nothing():
    with _native.device_module(to_device(torch.zeros(1)).device) as (module, stream):
        assert module.solve_assignment_batch(0, 0, 0, 3, 4, 12, 4, 1, True, 0, 0, 0, 0, 0, 0, stream) == 0
