"""The assignment kernels called as the bindings offer them: every option, every storage, one problem or many."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from helpers.checks import check_prices, reference_objective
from helpers.device import ON_GPU, to_device
from lmcfast import _native

INVALID, INFEASIBLE, UNFINISHED, NOT_CERTIFIED, BUDGET_SPENT, PRICE_OVERFLOW = 1, 2, 4, 8, 16, 32
REFUSED = INVALID | INFEASIBLE | UNFINISHED | NOT_CERTIFIED
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}
CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}  # csrc/include/lmcfast/dtype.h


def configure(**options: int) -> None:
    """The emulator's schedule (csrc/emulation/control.h); nothing on a GPU."""
    if not ON_GPU:
        from lmcfast import _emulated

        _emulated.configure(**options)


def report_dtype(module: Any) -> np.dtype:
    return np.dtype([tuple(f) for f in module.assignment_report_fields()])


def scratch(size: int) -> torch.Tensor:
    """Workspace of `size` bytes, aligned to 256, full of garbage."""
    memory = to_device(torch.full((size + 256,), 0xCD, dtype=torch.uint8))
    start = -memory.data_ptr() % 256
    return memory[start : start + size]


@dataclass
class Solve:
    """One problem on the device and what came of it."""

    scores: torch.Tensor  # on the device, in their storage and layout
    maximize: bool = True
    start: np.ndarray | None = None
    deterministic: bool = False
    step_limit: int = 0
    backwards: bool = False  # the rows lie in memory last first: a negative stride
    tuning: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, m = self.scores.shape
        self._columns = to_device(torch.full((n,), -7, dtype=torch.int64))
        self._prices = to_device(torch.full((m,), math.nan, dtype=torch.float64))
        self._profits = to_device(torch.full((n,), math.nan, dtype=torch.float64))
        self._start = None if self.start is None else to_device(torch.from_numpy(np.array(self.start, np.float64)))
        self.launches = 0

    def run(self, resume: bool = False) -> Solve:
        n, m = self.scores.shape
        code = CODES[self.scores.dtype]
        with _native.device_module(self._columns.device) as (module, stream):
            if not resume:
                self.workspace = scratch(module.assignment_workspace(n, m, code))
                self._report = to_device(torch.zeros(module.report_bytes, dtype=torch.uint8))
            address, (row_stride, column_stride) = self.scores.data_ptr(), self.scores.stride()
            if self.backwards:
                self._flipped = self.scores.flip(0)
                row_stride, column_stride = self._flipped.stride()
                address = self._flipped.data_ptr() + (n - 1) * row_stride * self._flipped.element_size()
                row_stride = -row_stride
            self.launches = module.solve_assignment(
                address,
                code,
                n,
                m,
                row_stride,
                column_stride,
                self.maximize,
                0 if self._start is None else self._start.data_ptr(),
                self._columns.data_ptr(),
                self._prices.data_ptr(),
                self._profits.data_ptr(),
                self.workspace.data_ptr(),
                self._report.data_ptr(),
                stream,
                self.deterministic,
                self.step_limit,
                resume,
                **self.tuning,
            )
            self.report = self._report.cpu().numpy().view(report_dtype(module))[0]
        self.columns = self._columns.cpu().numpy()
        self.prices = self._prices.cpu().numpy()
        self.profits = self._profits.cpu().numpy()
        return self

    @property
    def exact(self) -> np.ndarray:
        """The scores as the kernels read them."""
        return self.scores.double().cpu().numpy()

    def arrays(self) -> dict[str, np.ndarray]:
        """What lies in the workspace, by name; single values too."""
        n, m = self.scores.shape
        with _native.device_module(self._columns.device) as (module, _):
            places = module.assignment_workspace_arrays(n, m, CODES[self.scores.dtype])
        memory = self.workspace.cpu().numpy()
        found = {}
        for name, offset, count, form in places:
            if name != "control":
                dtype = np.dtype(form)
                found[name] = memory[offset : offset + count * dtype.itemsize].view(dtype).copy()
        return found


def stored(values: np.ndarray, dtype: str = "float32") -> torch.Tensor:
    """Values as a tensor on the device, in this storage; scaled by a power of two where it could not hold them."""
    type = DTYPES[dtype]
    most, limit = float(np.abs(np.where(np.isfinite(values), values, 0)).max(initial=0)), torch.finfo(type).max
    if most > limit:
        values = values * 2.0 ** math.floor(math.log2(limit / most))
    return to_device(torch.from_numpy(np.ascontiguousarray(values, np.float64)).to(type))


def laid_out(t: torch.Tensor, layout: str) -> torch.Tensor:
    """The same values with other strides."""
    n, m = t.shape
    if layout == "columns":
        return t.t().contiguous().t()
    if layout == "slice":
        wide = t.new_zeros((n + 2, m + 5))
        view = wide[1 : n + 1, 3 : m + 3]
    elif layout == "strided":
        view = t.new_zeros((n, 3 * m))[:, ::3]
    else:
        raise ValueError(layout)
    view.copy_(t)
    return view


def check_result(
    exact: np.ndarray, columns: np.ndarray, prices: np.ndarray, report: Any, maximize: bool = True
) -> None:
    """A full assignment of the optimal value, proved by the prices; the report tells the truth about it."""
    n, m = exact.shape
    assert int(report["status"]) & REFUSED == 0, report
    rows = np.flatnonzero(columns >= 0)
    assert len(rows) == min(n, m) == len(set(columns[rows].tolist()))
    value = math.fsum(exact[rows, columns[rows]])
    allowed = 16 * min(n, m) * 2.0**-53 * float(report["scale"])
    assert abs(report["gap"]) <= allowed
    assert abs(report["objective"] - value) <= allowed
    assert abs(value - reference_objective(exact, maximize)) <= 2 * allowed
    check_prices(exact, columns, prices, float(report["gap"]), maximize)


def check_solve(s: Solve) -> None:
    check_result(s.exact, s.columns, s.prices, s.report, s.maximize)
