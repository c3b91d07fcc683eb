"""What the GPU benchmark does besides measuring: build, tests, compute-sanitizer, and what machine this is."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TOOLS = ("memcheck", "racecheck", "synccheck")
PASSED = "passed"
NOT_RUN = "not run"


def build() -> str:
    """Install the package from this tree with the kernels for this machine's GPU alone."""
    command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "-q",
               "-C", "cmake.define.LMCFAST_CUDA=ON", "-C", "cmake.define.CMAKE_CUDA_ARCHITECTURES=native",
               "-e", str(ROOT)]  # fmt: skip
    return _outcome(command, timeout=900)


def tests() -> str:
    """The tests of the kernels, on the GPU instead of the emulator; those that look into the emulator are skipped."""
    files = sorted(str(path) for path in (ROOT / "tests").glob("test_cuda_*.py"))
    command = [sys.executable, "-m", "pytest", "-q", "--maxfail=5", *files]
    return _outcome(command, timeout=300, environment={"LMCFAST_TEST_DEVICE": "cuda"})


def sanitizer(tool: str, emulated: bool) -> str:
    """Small problems through every kernel, under a tool of compute-sanitizer, or emulated without one."""
    driver = [sys.executable, str(ROOT / "benchmarks" / "gpu_driver.py")]
    if emulated:
        return _outcome([*driver, "--emulated"], timeout=300)
    found = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if found is None:
        return f"{NOT_RUN}: compute-sanitizer is not installed"
    command = [found, "--tool", tool, "--error-exitcode", "9", *driver]
    return _outcome(command, timeout=240, environment={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})


def _outcome(command: list[str], timeout: float, environment: dict[str, str] | None = None) -> str:
    """ "passed", or the end of what the command printed."""
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return f"no end within {timeout:g} s"
    if done.returncode == 0:
        return PASSED
    lines = (done.stdout + done.stderr).strip().splitlines()
    return f"exit status {done.returncode}: " + " / ".join(lines[-8:])


def machine(emulated: bool) -> dict[str, Any]:
    import torch

    from lmcfast import _native

    report = _native.cuda_report() or {}
    driver, runtime = report.get("driver", 0), report.get("runtime", 0)
    return {
        "card": "emulator" if emulated else torch.cuda.get_device_name(),
        "driver": "none" if not driver else f"CUDA {_native.version_text(driver)}{_driver_release()}",
        "runtime": _native.version_text(runtime) if runtime else "none",
        "torch": torch.__version__,
        "host": f"{platform.machine()}, {os.cpu_count()} processors",
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
    }


def _driver_release() -> str:
    if shutil.which("nvidia-smi") is None:
        return ""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    lines = subprocess.run(query, capture_output=True, text=True).stdout.split()
    return f" ({lines[0]})" if lines else ""


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip() or "unknown"
