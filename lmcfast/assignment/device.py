"""Assignments of CUDA tensors: work is enqueued on the caller's stream and device, and one read of a report ends it.

Scratch memory is torch's, so its caching allocator sees it. Nothing waits for the device before the report is read;
:func:`solve_assignment_deferred` leaves even that to the caller, so that a solve can be part of a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import _native
from ..errors import ScoresShapeError, UnavailableError
from .device_inputs import StartPrices, as_device_scores
from .failures import raise_failure
from .inputs import as_scores
from .result import Assignment, AssignmentStats

# `lmcfast::cuda::AssignmentStatus` of csrc/include/lmcfast/cuda_assignment.h; a result with none of REFUSED stands.
INVALID_SCORE, INFEASIBLE, UNFINISHED, NOT_CERTIFIED = 1, 2, 4, 8
REFUSED = INVALID_SCORE | INFEASIBLE | UNFINISHED | NOT_CERTIFIED
NOT_WRITTEN = UNFINISHED | NOT_CERTIFIED | 1 << 31  # until the kernels have written a report; none of them sets bit 31
MOST_BATCHED = 1024  # longer side of a problem that one block solves, all problems of a batch in one launch
_ALIGNMENT = 256  # bytes, of a workspace

Reports = NDArray[Any]


@dataclass(frozen=True)
class DeferredAssignment:
    """A solve that is enqueued and not yet known to have succeeded.

    ``columns`` and ``prices`` (as of :class:`Assignment`) are tensors on the scores' device that the enqueued work
    fills; they mean nothing until :meth:`result` has returned. After a replay of a CUDA graph that holds the solve,
    :meth:`result` reads that replay's report.
    """

    columns: torch.Tensor
    prices: torch.Tensor
    _scores: torch.Tensor = field(repr=False)
    _start: StartPrices | None = field(repr=False)
    reports: DeviceReports = field(repr=False)
    _first: int = 0
    _maximize: bool = True
    _workspaces: list[torch.Tensor] = field(
        default_factory=list, repr=False
    )  # in use as long as a graph holds the solve

    def result(self) -> Assignment:
        """Waits for all work on the device and returns the result. Raises as ``solve_assignment`` does.

        ``UnavailableError`` where the solve has not run: in a CUDA graph that has not been replayed.
        """
        device = self._scores.device
        if device.type == "cuda":  # the stream of the solve, or of a replay, need not be the current one
            torch.cuda.synchronize(device)
        return self.judge(self.reports.read())

    @property
    def count(self) -> int:
        """Number of problems."""
        return self._scores.shape[0] if self._scores.dim() == 3 else 1

    def judge(self, host: Reports, certify: str = "lists") -> Assignment:
        """The result, from all reports of the call; solves on the CPU what the device did not finish."""
        if self._start is not None and host["status"][-1]:
            self._start.raise_fault()
        reports = host[self._first : self._first + self.count]
        unfinished = []
        for k in np.flatnonzero(reports["status"] & REFUSED).tolist():
            self._raise_unless_unfinished(k, reports[k])
            unfinished.append(k)
        for k in unfinished:
            self._solve_on_cpu(k, reports[k : k + 1])
        if self._scores.dim() == 2:
            objective: Any = float(reports["objective"][0])
            gap: Any = float(reports["gap"][0])
        elif unfinished:
            objective, gap = (
                _native.upload(np.ascontiguousarray(reports[name]), self._scores.device)[0]
                for name in ("objective", "gap")
            )
        else:  # they are there already; copies, for a graph may fill the reports again
            own = slice(self._first, self._first + self.count)
            objective, gap = (self.reports.field(name, torch.float64)[own].clone() for name in ("objective", "gap"))
        if certify == "none":
            gap = gap * float("nan")
        return Assignment(self.columns, self.prices, objective, gap, self._stats(reports, len(unfinished)))

    def _raise_unless_unfinished(self, k: int, report: Any) -> None:
        status = int(report["status"])
        if status & NOT_WRITTEN == NOT_WRITTEN:
            raise UnavailableError(
                "the result of a deferred solve cannot be read before the solve has run; replay the CUDA graph that "
                "holds it, and wait for the stream of the replay"
            )
        if status & INVALID_SCORE:
            code, value = _native.INVALID_SCORE, float(report["value"])
        elif status & INFEASIBLE:
            code, value = _native.INFEASIBLE, 0.0
        elif status & UNFINISHED:
            return
        else:
            code, value = _native.NOT_CERTIFIED, float(report["gap"])
        place = [k, int(report["row"]), int(report["column"]), value]
        raise_failure(code, place, tuple(self._scores.shape), self._maximize)

    def _solve_on_cpu(self, k: int, report: Reports) -> None:
        """Fill in one problem that the device gave up, and its report."""
        single = self._scores.dim() == 2
        scores, columns, prices = (t if single else t[k] for t in (self._scores, self.columns, self.prices))
        array = as_scores(scores.cpu())
        status, *solved = _native.solve_assignment(array, None, self._maximize, 1, _native.default_threads())
        if status != _native.OK:
            raise_failure(status, [k, *solved[1:]], tuple(self._scores.shape), self._maximize)
        columns.copy_(torch.from_numpy(solved[0]))
        prices.copy_(torch.from_numpy(solved[1]))
        report["objective"], report["gap"], report["warm"] = solved[2], solved[3], 0

    def _stats(self, reports: Reports, fallbacks: int) -> AssignmentStats:
        rows = self._scores.shape[-2]
        read = 2 * rows + reports["scans"] + reports["exact_scans"] + reports["dense_steps"]  # first pass, certificate
        total = {name: int(reports[name].sum()) for name in ("bids", "paths", "path_steps", "scans", "phases")}
        return AssignmentStats(
            problems=self.count,
            reads=float(read.mean()) / rows if rows and self.count and self._scores.shape[-1] else 0.0,
            bids=total["bids"],
            paths=total["paths"],
            path_steps=total["path_steps"],
            rescans=total["scans"],
            phases=total["phases"],
            fallbacks=fallbacks,
            warm=self.count > 0 and bool(reports["warm"].all()),
        )


class DeviceReports:
    """The reports of a call in device memory, and one more row, whose status says that a start price is not finite.

    ``enqueued``: how many of them the kernels will write, the first ones; those of empty problems are zero.
    ``launches``: kernels of the call.
    """

    launches = 0

    def __init__(self, module: Any, count: int, enqueued: int, device: torch.device) -> None:
        self.dtype = np.dtype(module.assignment_report_fields())
        self.rows = torch.zeros((count + 1, self.dtype.itemsize), dtype=torch.uint8, device=device)
        self.field("status")[:enqueued].fill_(NOT_WRITTEN)

    def address(self, k: int) -> int:
        address: int = self.rows.data_ptr() + k * self.dtype.itemsize
        return address

    def note_faulty_prices(self, start: StartPrices) -> None:
        self.field("status")[-1].add_((start.prices != start.given).any())

    def field(self, name: str, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        """One field of all rows, a view."""
        return self.rows.view(dtype)[:, list(self.dtype.names or ()).index(name)]

    def read(self) -> Reports:
        """Waits for the device."""
        return self.decode(self.rows.cpu())

    def decode(self, host: torch.Tensor) -> Reports:
        """The reports in a host copy of ``rows``, of any shape."""
        reports: Reports = host.reshape(self.rows.shape).numpy().copy().view(self.dtype)[:, 0]
        return reports


def solve(scores: torch.Tensor, maximize: bool, prices: Any, certify: str) -> Assignment:
    """``solve_assignment`` for a tensor on a device; its arguments are checked."""
    deferred = solve_assignment_deferred(scores, maximize, prices)
    return deferred.judge(deferred.reports.read(), certify)


def solve_assignment_deferred(
    scores: torch.Tensor, maximize: bool = True, prices: Any = None, deterministic: bool = False
) -> DeferredAssignment:
    """``solve_assignment`` for a CUDA tensor, without waiting for the device.

    Args:
        scores, maximize, prices: as for ``solve_assignment``. The scores must not change before the result is read.
            Integers of more than 16 bits wait once, to see that they are exact in float64.
        deterministic: the same assignment on every run where several are optimal; slow.

    Returns:
        A :class:`DeferredAssignment`; its ``result()`` waits, and raises what ``solve_assignment`` would have raised.

    Raises:
        TypeError, ScoresShapeError, UnavailableError: as of ``solve_assignment``, and for scores that are not on a
            device.
    """
    made, _ = enqueue(scores, maximize, prices, deterministic)
    return made


def enqueue(
    scores: torch.Tensor, maximize: bool = True, prices: Any = None, deterministic: bool = False, **tuning: int
) -> tuple[DeferredAssignment, int]:
    """:func:`solve_assignment_deferred`, and the number of kernels that it launched.

    ``tuning``: fields of ``lmcfast::cuda::AssignmentOptions``, for tests and measurements.
    """
    stored = as_device_scores(scores)
    start = StartPrices.of(prices, stored)
    launches = 0
    with _native.device_module(stored.device) as (module, stream):
        count = stored.shape[0] if stored.dim() == 3 else 1
        made = DeferredAssignment(
            columns=torch.full(stored.shape[:-1], -1, dtype=torch.int64, device=stored.device),
            prices=torch.zeros((*stored.shape[:-2], stored.shape[-1]), dtype=torch.float64, device=stored.device),
            _scores=stored,
            _start=start,
            reports=DeviceReports(module, count, count if stored.numel() else 0, stored.device),
            _maximize=maximize,
        )
        if start is not None:
            made.reports.note_faulty_prices(start)
        run = _enqueue_batch if max(stored.shape[-2:]) <= MOST_BATCHED else _enqueue_each
        if stored.numel():
            launches = run(module, stream, made, deterministic, tuning)
    return made, launches


def solve_ragged(
    problems: Sequence[torch.Tensor],
    maximize: bool = True,
    prices: Sequence[torch.Tensor | None] | None = None,
    deterministic: bool = False,
) -> list[DeferredAssignment]:
    """Matrices of different shapes, of one dtype on one device; those of at most 1024 rows and columns in one launch.

    All reports lie together: one wait (``found[0].reports.read()``) gives what ``judge`` of each needs.
    """
    stored = [as_device_scores(scores) for scores in problems]
    if any(s.dim() != 2 or s.device != stored[0].device or s.dtype != stored[0].dtype for s in stored):
        raise ScoresShapeError("problems: expected matrices of one dtype on one device")
    if not stored:
        return []
    device = stored[0].device
    starts = [StartPrices.of(p, s) for p, s in zip(prices or [None] * len(stored), stored, strict=True)]
    # One block for each small problem, in one launch: these come first, so that their reports are adjacent. Empty
    # problems come last; nobody writes their reports.
    order = sorted(range(len(stored)), key=lambda k: (not stored[k].numel(), not _one_block(stored[k])))
    with _native.device_module(device) as (module, stream):
        reports = DeviceReports(module, len(stored), sum(s.numel() > 0 for s in stored), device)
        columns = torch.full((sum(s.shape[0] for s in stored),), -1, dtype=torch.int64, device=device)
        prices_out = torch.zeros((sum(s.shape[1] for s in stored),), dtype=torch.float64, device=device)
        made: dict[int, DeferredAssignment] = {}
        row = column = 0
        for place, k in enumerate(order):
            n, m = stored[k].shape
            made[k] = DeferredAssignment(
                columns=columns[row : row + n],
                prices=prices_out[column : column + m],
                _scores=stored[k],
                _start=starts[k],
                reports=reports,
                _first=place,
                _maximize=maximize,
            )
            row, column = row + n, column + m
        for start in starts:
            if start is not None:
                reports.note_faulty_prices(start)
        small = [made[k] for k in order if _one_block(stored[k])]
        if small:
            reports.launches += _enqueue_ragged(module, stream, small, columns, prices_out, deterministic)
        for k in order[len(small) :]:
            if stored[k].numel():
                reports.launches += _enqueue_each(module, stream, made[k], deterministic, {})
    return [made[k] for k in range(len(stored))]


def _one_block(scores: torch.Tensor) -> bool:
    return scores.numel() > 0 and max(scores.shape) <= MOST_BATCHED


def _enqueue_batch(
    module: Any, stream: int, solve: DeferredAssignment, deterministic: bool, tuning: Mapping[str, int]
) -> int:
    """Problems of one shape, one block for each. Returns the number of launches."""
    scores, start = solve._scores, solve._start
    (rows, columns), code = scores.shape[-2:], _native.dtype_code(scores.dtype)
    launches: int = module.solve_assignment_batch(
        scores=scores.data_ptr(),
        dtype=code,
        count=solve.count,
        rows=rows,
        columns=columns,
        batch_stride=scores.stride(0) if scores.dim() == 3 else 0,
        row_stride=scores.stride(-2),
        column_stride=scores.stride(-1),
        maximize=solve._maximize,
        start_prices=start.prices.data_ptr() if start else 0,
        columns_out=solve.columns.data_ptr(),
        prices_out=solve.prices.data_ptr(),
        profits_out=0,
        workspace=_workspace(solve, module.assignment_batch_workspace(solve.count, rows, columns, code)),
        reports=solve.reports.address(solve._first),
        stream=stream,
        deterministic=deterministic,
        **tuning,
    )
    return launches


def _enqueue_each(
    module: Any, stream: int, solve: DeferredAssignment, deterministic: bool, tuning: Mapping[str, int]
) -> int:
    """A large problem, or several, one after the other in the same workspace. Returns the number of launches."""
    (rows, columns), code = solve._scores.shape[-2:], _native.dtype_code(solve._scores.dtype)
    workspace = _workspace(solve, module.assignment_workspace(rows, columns, code))
    launches = 0
    for k in range(solve.count):
        scores = solve._scores if solve._scores.dim() == 2 else solve._scores[k]
        launches += module.solve_assignment(
            scores=scores.data_ptr(),
            dtype=code,
            rows=rows,
            columns=columns,
            row_stride=scores.stride(0),
            column_stride=scores.stride(1),
            maximize=solve._maximize,
            start_prices=solve._start.prices.view(-1, columns)[k].data_ptr() if solve._start else 0,
            columns_out=solve.columns.view(-1, rows)[k].data_ptr(),
            prices_out=solve.prices.view(-1, columns)[k].data_ptr(),
            profits_out=0,
            workspace=workspace,
            report=solve.reports.address(solve._first + k),
            stream=stream,
            deterministic=deterministic,
            **tuning,
        )
    return launches


def _enqueue_ragged(
    module: Any,
    stream: int,
    solves: Sequence[DeferredAssignment],
    columns: torch.Tensor,
    prices: torch.Tensor,
    deterministic: bool,
) -> int:
    """Matrices of different shapes, one block for each. Returns the number of launches.

    ``columns``, ``prices``: the outputs of all, in their order.
    """
    table = np.zeros((len(solves), 8), dtype=np.int64)
    row = column = 0
    for entry, solve in zip(table, solves, strict=True):
        scores = solve._scores
        entry[:7] = (scores.data_ptr(), *scores.shape, *scores.stride(), row, column)
        row, column = row + scores.shape[0], column + scores.shape[1]
    first, code = solves[0], _native.dtype_code(solves[0]._scores.dtype)
    workspace = _workspace(first, module.assignment_lay_out_batch(table.ctypes.data, len(solves), code))
    on_device, host = _native.upload(table, columns.device)
    starts = None
    if any(solve._start is not None for solve in solves):  # zero is where the others start
        parts = [solve._start.prices if solve._start else torch.zeros_like(solve.prices) for solve in solves]
        starts = torch.cat(parts)
    first._workspaces.extend([on_device, host, *([] if starts is None else [starts])])
    launches: int = module.solve_assignment_ragged(
        table=on_device.data_ptr(),
        dtype=code,
        count=len(solves),
        longest=max(max(solve._scores.shape) for solve in solves),
        maximize=first._maximize,
        start_prices=0 if starts is None else starts.data_ptr(),
        columns_out=columns.data_ptr(),
        prices_out=prices.data_ptr(),
        profits_out=0,
        workspace=workspace,
        reports=first.reports.address(first._first),
        stream=stream,
        deterministic=deterministic,
    )
    return launches


def _workspace(solve: DeferredAssignment, size: int) -> int:
    """Address of scratch memory, which lives as long as the solve."""
    memory = torch.empty(size + _ALIGNMENT, dtype=torch.uint8, device=solve._scores.device)
    solve._workspaces.append(memory)
    return -(-memory.data_ptr() // _ALIGNMENT) * _ALIGNMENT
