"""The GPU benchmark: its logic runs on the emulator, the tables in the pages are those of the latest results."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.device import emulated_only, needs_kernels

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
try:
    import gpu
    import gpu_bars
    import gpu_cases
finally:
    sys.path.remove(str(BENCHMARKS))

MACHINE = {"card": "H100", "driver": "CUDA 12.4", "date": "2027-01-31", "commit": "abc1234"}


def document(**measured: float) -> dict:
    rows = {key.replace("_", " "): {"measured": value} for key, value in measured.items()}
    return {"machine": MACHINE, "rows": rows, "assumptions": {"path step": 0.61}, "checks": {"tests": "passed"}}


@needs_kernels
@emulated_only
def test_the_script_runs_on_the_emulator(tmp_path):
    out = tmp_path / "gpu"
    script = [sys.executable, str(BENCHMARKS / "gpu.py"), "--emulated", "--out", str(out)]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.with_suffix(".json").read_text())
    assert found["checks"] == {"memcheck": "passed"}
    assert found["machine"]["card"] == "emulator"
    assert list(found["rows"]) == [bar.key for bar in gpu_bars.BARS]
    assert all(row["measured"] is None and "failed" not in row for row in found["rows"].values())
    assert found["assumptions"].keys() == gpu_bars.ASSUMPTIONS.keys()
    page = out.with_suffix(".md").read_text()
    assert page.count(gpu_bars.NOT_MEASURED) == len(gpu_bars.BARS) + len(gpu_bars.ASSUMPTIONS)


@pytest.mark.parametrize(
    ("outcome", "good"),
    [
        ("passed", True),
        ("not run: compute-sanitizer is not installed", True),
        ("no end within 300 s", False),
        ("exit status 9: leak", False),
    ],
)
def test_only_what_passed_or_was_not_run_is_success(outcome, good):
    assert gpu.succeeded({**document(vgg16=0.1), "checks": {"build": "passed", "tests": outcome}}) == good


def test_a_measurement_that_failed_is_no_success():
    failed = {"measured": None, "failed": "RuntimeError: out of memory"}
    assert gpu.succeeded(document(vgg16=12.5))
    assert not gpu.succeeded({**document(), "rows": {"vgg16": failed}})
    assert not gpu.succeeded({**document(), "assumptions": failed})


class Clock:
    """A site where a copy takes 2 ms and each kernel that reads the scores 1 ms; others take next to nothing."""

    quick = emulated = True
    device = torch.device("cpu")

    def __init__(self, *reading):
        self.reading = reading

    def size(self, n, emulated):
        return emulated

    def milliseconds(self, run):
        run()
        return 2.0

    def kernel_microseconds(self, run, names):
        matched = [name for name in self.reading if re.search(names, f"void lmcfast::cuda::{name}<float>(...)")]
        return 1000.0 * len(matched) if matched else 1e-3


def test_a_bandwidth_counts_the_kernels_that_read_the_scores():
    assert gpu_cases.bandwidth(gpu_cases.CERTIFICATE, Clock("read_profits_kernel"))["measured"] == pytest.approx(100)
    with pytest.raises(AssertionError, match="cannot have read the scores"):
        gpu_cases.bandwidth(gpu_cases.CERTIFICATE, Clock("scan_kernel"))


def test_every_bar_has_a_case():
    assert list(gpu_cases.CASES) == [bar.key for bar in gpu_bars.BARS]


@pytest.mark.parametrize("page", gpu_bars.pages(), ids=lambda page: page.name)
def test_pages_show_the_latest_results(page):
    text = page.read_text()
    assert gpu_bars.PLACE.search(text)
    assert text == gpu_bars.pages()[page], "run python benchmarks/gpu.py --tables"


def test_rows_without_a_measurement_say_so():
    lines = gpu_bars.table(document(vgg16=12.5)).splitlines()
    assert "| matching VGG16, against lmcfast on the CPU | at least 10 times | 12.5 times |" in lines
    assert sum(gpu_bars.NOT_MEASURED in line for line in lines) == len(gpu_bars.BARS) - 1
    assert lines[-1].startswith("H100, driver CUDA 12.4, 2027-01-31, commit abc1234.")


def test_what_fell_short_is_told():
    found = document(vgg16=9.9, planted_28672=5.1, independent_4096=3.9)
    assert "| **9.9 times** |" in gpu_bars.table(found)
    report = gpu_bars.report({**found, "checks": {"memcheck": "exit status 9: leak"}})
    fell_short = report.split("## Fell short")[1].split("##")[0]
    assert "matching VGG16" in fell_short
    assert "planted" in fell_short
    assert "n = 4096" not in fell_short
    assert "- memcheck: exit status 9: leak" in report
    assert "| path step | 0.5 | 0.61 |" in report
