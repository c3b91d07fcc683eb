"""The only importer of the extension modules: numpy arrays in, plain tuples out, a missing build as one clear error.

`_core` is imported at once. The device modules are imported by the first call that needs one: `_cuda`, or inside
:func:`emulated_device` the same kernels compiled for the CPU.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from .errors import UnavailableError

try:
    from . import _core
except ImportError as error:  # a source tree without a build, or a build for another Python
    raise UnavailableError(
        f"lmcfast's compiled extension cannot be imported ({error}); install the package with `pip install -e .` in "
        "its source tree, or leave that folder if lmcfast is installed elsewhere"
    ) from error

_forced, _built = os.environ.get("LMCFAST_CPU"), _core.build_info()["levels_built"]
if _forced and _forced not in _built:
    raise UnavailableError(f"the environment variable LMCFAST_CPU is {_forced!r}; this build has {', '.join(_built)}")

# `lmcfast::Status` of csrc/include/lmcfast/assignment.h. Interrupts and lack of memory are raised by the extension.
OK = 0
INVALID_SCORE = 1
INFEASIBLE = 2
NOT_CERTIFIED = 4
REPEATED_PAIR = 6

# (scores, start_prices, maximize, certify: 0 none, 1 lists, 2 full, threads, ties: 0 any, 1 scipy) ->
# (OK, columns, prices, objective, gap, stats) or (status, problem, row, column, value): csrc/bindings/assignment.cpp
solve_assignment = _core.solve_assignment

# (indptr, indices, values, columns, maximize) -> as above: csrc/bindings/sparse_assignment.cpp
solve_sparse_assignment = _core.solve_sparse_assignment

# Whether scores are an array that `solve_assignment` takes as it is; never raises.
is_ready = _core.is_ready

# Tensors by the units of one axis: csrc/bindings/units.cpp; the twins are in lmcfast/matching/units.py.
unit_rises = _core.unit_rises
move_units = _core.move_units
unit_differences = _core.unit_differences
hold_pairs = _core.hold_pairs
inner_products = _core.inner_products
add_small_products = _core.add_small_products
prefer_large_pages = _core.prefer_large_pages


def build_info() -> dict[str, Any]:
    """Vector levels built and used, default threads, compiler, build type."""
    return dict(_core.build_info())


@cache
def default_threads() -> int:
    """LMCFAST_NUM_THREADS, else the number of processors that this process may use."""
    asked = os.environ.get("LMCFAST_NUM_THREADS")
    if asked and not (asked.isdecimal() and int(asked) > 0):
        raise ValueError(f"the environment variable LMCFAST_NUM_THREADS is {asked!r}; expected a positive integer")
    return int(_core.build_info()["default_threads"])


# `lmcfast::Dtype` of csrc/include/lmcfast/dtype.h
_DTYPE_CODES = {"float32": 0, "float64": 1, "bfloat16": 2, "float16": 3}

_emulating: ContextVar[bool] = ContextVar("_emulating", default=False)


@contextmanager
def emulated_device() -> Iterator[None]:
    """Inside the block CPU tensors of torch go to the emulated kernels, as CUDA tensors go to the compiled ones.

    For tests; needs a build with the CMake option LMCFAST_EMULATED.
    """
    _emulated_module()
    token = _emulating.set(True)
    try:
        yield
    finally:
        _emulating.reset(token)


def is_emulating() -> bool:
    return _emulating.get()


def on_device(tensor: Any) -> bool:
    """Whether the device modules take this tensor."""
    return bool(tensor.is_cuda or (_emulating.get() and tensor.device.type == "cpu"))


def dtype_code(dtype: Any) -> int | None:
    """The code of a torch dtype that the device modules read; None for others."""
    return _DTYPE_CODES.get(str(dtype).removeprefix("torch."))


@contextmanager
def device_module(device: Any) -> Iterator[tuple[Any, int]]:
    """The module whose kernels run on a torch device, made current, and the handle of the caller's stream there."""
    if device.type == "cpu":
        yield _emulated_module(), 0
        return
    torch = sys.modules["torch"]
    with torch.cuda.device(device):
        index = torch.cuda.current_device()
        module = _cuda_module(index)
        module.use_device(index)
        yield module, torch.cuda.current_stream().cuda_stream


def upload(array: Any, device: Any) -> tuple[Any, Any]:
    """A numpy array as a tensor on the device, without waiting for it, and the page-locked host copy that is read.

    A plain copy of a numpy array would wait for all work on the stream. A CUDA graph reads the host copy again on every
    replay, so it must live as long.
    """
    torch = sys.modules["torch"]
    host = torch.from_numpy(array)
    if device.type == "cpu":
        return host, host
    host = host.pin_memory()
    return host.to(device, non_blocking=True), host


def cuda_report() -> dict[str, Any] | None:
    """Runtime, driver, needed driver (1000 major + 10 minor), devices, architectures, compiler; None without `_cuda`.

    ``problem`` says in one line why the kernels cannot run here, or is None.
    """
    try:
        module = importlib.import_module("._cuda", __package__)
    except ModuleNotFoundError:
        return None
    report = dict(module.device_report())
    report["problem"] = missing(report)
    return report


@cache
def _cuda_module(index: int) -> Any:
    report = cuda_report()
    if report is None:
        raise UnavailableError(
            "this build of lmcfast has no CUDA part: nvcc 12.0 or later was not found when it was built; install the "
            "CUDA toolkit and then lmcfast again, or pass CPU tensors"
        )
    problem = missing(report, index)
    if problem is not None:
        raise UnavailableError(f"lmcfast cannot use CUDA device {index}: {problem}")
    return importlib.import_module("._cuda", __package__)


@cache
def _emulated_module() -> Any:
    try:
        return importlib.import_module("._emulated", __package__)
    except ModuleNotFoundError as error:
        raise UnavailableError(
            "this build has no emulated kernels; install with `-C cmake.define.LMCFAST_EMULATED=ON`"
        ) from error


def missing(report: Mapping[str, Any], index: int = 0) -> str | None:
    """What a machine with this device report lacks to run the kernels on a device, or None."""
    driver, needed, devices = report["driver"], report["needed_driver"], report["devices"]
    if not driver:
        return f"no NVIDIA driver is installed; this build needs one that supports CUDA {version_text(needed)}"
    if driver < needed:
        return (
            f"the NVIDIA driver supports CUDA {version_text(driver)} and this build needs {version_text(needed)}; "
            "install a newer driver, or lmcfast again with an older nvcc"
        )
    if index >= len(devices):
        reason = f" ({report['error']})" if report["error"] else ""
        return f"the driver shows {len(devices)} CUDA devices{reason}"
    major, minor = devices[index]["capability"]
    # CMake's names: "75-real", "90", "90a"; words ("all", "all-major", "native") do not say where they begin.
    numbers = [re.match(r"\d+", name) for name in report["architectures"].split(", ")]
    least = min((int(number[0]) for number in numbers if number), default=0)
    if 10 * major + minor < least:
        return (
            f"{devices[index]['name']} has compute capability {major}.{minor} and this build serves "
            f"{least // 10}.{least % 10} and later"
        )
    return None


def version_text(version: int) -> str:
    """13000 -> "13.0"."""
    return f"{version // 1000}.{version % 1000 // 10}"
