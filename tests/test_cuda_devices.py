"""What is said where the kernels cannot run: one error on the first call, that names what is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import lmcfast
from lmcfast import _native
from lmcfast.cli.info import _kernels

DEVICE = {"name": "Some GPU", "capability": (9, 0), "multiprocessors": 132, "memory": 80 * 2**30}
REPORT = {
    "runtime": 12040,
    "driver": 12020,
    "needed_driver": 12000,
    "devices": [DEVICE],
    "error": "",
    "architectures": "75-real, 80-real, 90",
    "compiler": "nvcc 12.4",
}


def test_nothing_is_missing_where_all_is_there():
    assert _native.missing(REPORT) is None


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"driver": 0, "devices": []}, "no NVIDIA driver is installed; this build needs one that supports CUDA 12.0"),
        ({"driver": 11080, "devices": []}, "the NVIDIA driver supports CUDA 11.8 and this build needs 12.0"),
        ({"devices": []}, "the driver shows 0 CUDA devices"),
        ({"devices": [], "error": "out of memory"}, "the driver shows 0 CUDA devices (out of memory)"),
        ({"devices": [{**DEVICE, "capability": (7, 0)}]}, "Some GPU has compute capability 7.0 and this build"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(changed, expected):
    assert _native.missing({**REPORT, **changed}).startswith(expected)


@pytest.mark.parametrize("architectures", ["native", "all", "all-major", "90-real", "90a", "75-real, 90a-virtual"])
def test_any_name_that_cmake_has_for_architectures_is_understood(architectures):
    assert _native.missing({**REPORT, "architectures": architectures}) is None


@pytest.mark.parametrize("architectures", ["100", "100a-real, 120"])
def test_a_device_below_all_architectures_is_named(architectures):
    told = _native.missing({**REPORT, "architectures": architectures})
    assert told == "Some GPU has compute capability 9.0 and this build serves 10.0 and later"


def test_a_device_that_is_not_there_is_named():
    assert _native.missing(REPORT, 1) == "the driver shows 1 CUDA devices"


def test_the_first_call_without_a_device_raises_one_clear_error():
    report = _native.cuda_report()
    if report is not None and report["problem"] is None:
        pytest.skip("this machine can run the CUDA kernels")
    with pytest.raises(lmcfast.UnavailableError) as caught:
        _native._cuda_module(0)
    expected = "this build of lmcfast has no CUDA part" if report is None else report["problem"]
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_build_without_kernels_says_so(monkeypatch):
    monkeypatch.setattr(_native, "cuda_report", lambda: None)
    _native._cuda_module.cache_clear()
    with pytest.raises(lmcfast.UnavailableError, match=r"has no CUDA part: nvcc 12\.0 or later was not found"):
        _native._cuda_module(0)


def test_info_tells_runtime_driver_need_devices_and_architectures():
    told = _kernels({**REPORT, "problem": None})
    assert told["runtime"] == "12.4"
    assert told["driver"] == "CUDA 12.2"
    assert told["driver needed"] == "CUDA 12.0 or later"
    assert told["devices"] == "Some GPU (compute capability 9.0, 80 GiB)"
    assert told["architectures"] == REPORT["architectures"]
    assert told["usable"] == "yes"
    assert _kernels(None)["built"].startswith("no: nvcc 12.0 or later")
    assert _kernels({**REPORT, "driver": 0, "devices": [], "problem": "no driver"})["usable"] == "no: no driver"


def test_the_device_modules_are_not_loaded_before_they_are_needed():
    code = "import sys, numpy, lmcfast; lmcfast.solve_assignment(numpy.eye(3)); print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "lmcfast._core" in loaded
    assert "lmcfast._cuda" not in loaded
    assert "lmcfast._emulated" not in loaded


def test_scores_on_another_device_are_refused():
    with pytest.raises(lmcfast.UnavailableError, match="expected a CPU tensor, or scores on a CUDA device, got meta"):
        lmcfast.solve_assignment(torch.empty(3, 3, device="meta"))
